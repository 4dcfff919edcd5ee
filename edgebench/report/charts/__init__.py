"""Vega-Lite specifications, for the page and for static figures."""
