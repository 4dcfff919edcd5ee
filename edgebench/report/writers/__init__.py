"""Tables as markdown, CSV, JSON and LaTeX."""
