"""What every chart is put together from: specifications, encodings, and colours that the colour-blind can tell apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Spec = dict[str, Any]

SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left"]
DASHES = [[1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [12, 3]]
COLOURS = {
    False: ["#0072B2", "#D55E00", "#009E73", "#332288", "#CC79A7", "#000000", "#882255"],
    True: ["#56B4E9", "#E69F00", "#009988", "#DDDDDD", "#EE3377", "#EEDD88", "#997700"],
}
"""On white and on dark, chosen from the palettes of Okabe and Ito (2008) and of Tol (2021).

Seven colours beside eight shapes or five dashes: no pair repeats before 35 names.
"""
RAMPS = {False: ["#F7FBFF", "#9ECAE1", "#08519C"], True: ["#1F232B", "#2A6F97", "#BFE3F7"]}
FAINT = {False: "#E3E5E8", True: "#33373F"}
QUIET = {False: "#6B7280", True: "#9CA3AF"}
INK = {False: "#1F2328", True: "#E6E8EB"}
PAPER = {False: "#FFFFFF", True: "#16181D"}


def theme(dark: bool) -> Spec:
    """Return the `config` of every chart; its background is transparent."""
    ink, quiet, faint, colours = INK[dark], QUIET[dark], FAINT[dark], COLOURS[dark]
    lines = {"domainColor": quiet, "tickColor": quiet, "gridColor": faint}
    text = {"labelColor": ink, "titleColor": ink, "labelFontSize": 11, "titleFontSize": 12, "titleFontWeight": "normal"}
    return {
        "background": "transparent",
        "font": "system-ui, 'Liberation Sans', 'DejaVu Sans', sans-serif",
        "view": {"stroke": None, "continuousWidth": 460},
        "axis": {**lines, **text, "labelLimit": 140, "labelOverlap": "greedy", "labelSeparation": 5},
        "legend": {**text, "orient": "bottom", "columns": 2, "labelLimit": 130, "symbolLimit": 40, "symbolStrokeWidth": 2},
        "header": {**text},
        "title": {"color": ink, "subtitleColor": ink, "fontSize": 14, "subtitleFontSize": 11, "anchor": "start", "offset": 12},
        "mark": {"color": colours[0]},
        "range": {"category": colours, "symbol": SHAPES, "heatmap": RAMPS[dark], "ramp": RAMPS[dark]},
        "style": {
            "front": {"color": quiet, "strokeWidth": 1.5},
            "note": {"color": ink, "fontSize": 11},
            "diagonal": {"color": quiet, "strokeDash": [3, 3]},
            "quiet": {"color": quiet},
            "median": {"color": ink, "strokeWidth": 2},
            "onset": {"color": colours[1], "strokeDash": [5, 3], "strokeWidth": 1.5},
            "first": {"color": colours[0]},
            "low": {"color": ink},
            "high": {"color": PAPER[dark]},
        },
    }


def chart(description: str, **parts: Any) -> Spec:
    """Begin a specification."""
    return {"$schema": "https://vega.github.io/schema/vega-lite/v6.json", "description": description, **parts}


def view(description: str, height: int | Spec, **parts: Any) -> Spec:
    """Begin one view that is as wide as its container."""
    return chart(description, width="container", height=height, **parts)


def widened(spec: Spec, width: int) -> Spec:
    """Give a chart, or each of its views, a width in pixels."""
    if "vconcat" in spec:
        return {**spec, "vconcat": [widened(view, width) for view in spec["vconcat"]]}
    return {**spec, "spec": {**spec["spec"], "width": width}} if "spec" in spec else {**spec, "width": width}


def number(field: str, title: str | None, **more: Any) -> Spec:
    """Encode numbers."""
    return {"field": field, "type": "quantitative", "title": title, **more}


def names(field: str, title: str | None, **more: Any) -> Spec:
    """Encode names, in the order of the data unless sorted."""
    return {"field": field, "type": "nominal", "title": title, "sort": None, **more}


def calculated(**columns: str) -> list[Spec]:
    """Derive columns; an expression never holds text that comes from a record."""
    return [{"calculate": expression, "as": name} for name, expression in columns.items()]


def hover(titles: Mapping[str, str]) -> list[Spec]:
    """Show these fields where the pointer is."""
    return [{"field": name, "type": "nominal", "title": title} for name, title in titles.items()]
