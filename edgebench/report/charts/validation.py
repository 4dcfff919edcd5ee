"""Charts of a validation, drawn once with their values: ROC and decision curves, reliability, groups, and readers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgebench.report.charts.vega import DASHES, Spec, calculated, chart, names, number

Lines = Sequence[Mapping[str, Any]]
WIDTH = 260
"""Pixels: with its axis it fits a phone."""
STEP = 16
"""Pixels of a group's line in a chart."""


def _drawn(description: str, height: int, values: Lines, layer: list[Spec], **more: Any) -> Spec:
    room = {"left": 16, "right": 12, "top": 5, "bottom": 5}  # a browser's letters may be wider than those that were measured
    return chart(description, width=WIDTH, height=height, padding=room, data={"values": list(values)}, layer=layer, **more)


def _diagonal(x: Spec, y: Spec) -> Spec:
    ends = {"values": [{"x": 0, "y": 0}, {"x": 1, "y": 1}]}
    drawn = {"x": {**x, "field": "x"}, "y": {**y, "field": "y"}}
    return {"data": ends, "mark": {"type": "line", "style": "diagonal"}, "encoding": drawn}


def _coloured(field: str) -> Spec:
    legend = {"columns": 1, "labelLimit": 260}
    return {"color": names(field, None, legend=legend), "strokeDash": names(field, None, scale={"range": DASHES})}


def roc(lines: Lines) -> Spec:
    """Draw ROC curves; a line: file, x [k], y [k]."""
    whole = {"domain": [0, 1]}
    x, y = number("x", "1 − specificity", scale=whole), number("y", "sensitivity", scale=whole)
    curve: Spec = {
        "transform": [{"flatten": ["x", "y"]}],
        "mark": {"type": "line", "strokeWidth": 1.5},
        "encoding": {"x": x, "y": y, "order": {"value": 0}, **_coloured("file")},
    }
    return _drawn("ROC curves; the dashed diagonal is chance.", 240, lines, [_diagonal(x, y), curve])


def reliability(lines: Lines) -> Spec:
    """Draw how often decisions are right over how likely that was held; a line: how, confidence [b], accuracy [b], count [b]."""
    whole = {"domain": [0, 1]}
    x, y = number("confidence", "mean confidence", scale=whole), number("accuracy", "share right", scale=whole)
    flat = [{"flatten": ["confidence", "accuracy", "count"]}]
    line: Spec = {"transform": flat, "mark": {"type": "line", "strokeWidth": 1}, "encoding": {"x": x, "y": y, **_coloured("how")}}
    size = number("count", "samples", scale={"range": [15, 160]}, legend=None)
    points: Spec = {"transform": flat, "mark": {"type": "point", "filled": True}}
    points["encoding"] = {"x": x, "y": y, "color": _coloured("how")["color"], "size": size}
    return _drawn(
        "Share right over confidence, bin by bin; the diagonal is perfect.", 240, lines, [_diagonal(x, y), line, points]
    )


def decision(lines: Lines) -> Spec:
    """Draw net benefit over the probability from which on is acted; a line: file, thresholds [k], benefit [k], all [k]."""
    prevalence = max(float(line["prevalence"]) for line in lines)
    y_scale = {"domain": [-0.15 * prevalence, 1.05 * prevalence], "nice": False}
    x = number("thresholds", "probability from which on is acted", scale={"domain": [0, 1]})
    others = [
        {"file": "acting on all", "thresholds": lines[0]["thresholds"], "benefit": lines[0]["all"]},
        {"file": "acting on none", "thresholds": [0, 1], "benefit": [0, 0]},
    ]
    curve: Spec = {
        "transform": [{"flatten": ["thresholds", "benefit"]}],
        "mark": {"type": "line", "clip": True, "strokeWidth": 1.5},
        "encoding": {"x": x, "y": number("benefit", "net benefit", scale=y_scale), **_coloured("file")},
    }
    return _drawn("Net benefit of acting from a probability on.", 220, [*lines, *others], [curve])


def forest(rows: Lines, title: str, centre: float | None = None) -> Spec:
    """Draw values with their intervals by group; a row: group, measure, value, low, high, few. centre: where nothing changes."""
    groups = list(dict.fromkeys(row["group"] for row in rows))
    measures = list(dict.fromkeys(row["measure"] for row in rows))
    own = {"legend": {"columns": 1, "labelLimit": 260} if len(measures) > 1 else None}
    y: Spec = {
        "y": names("group", None, axis={"labelLimit": 110}),
        "yOffset": {"field": "measure", "type": "nominal", "sort": measures},
        "color": names("measure", None, legend=None),
    }
    x = number("value", title, scale={"zero": False})
    ends = {"x": {**x, "field": "low"}, "x2": {"field": "high"}}
    interval: Spec = {"mark": {"type": "rule", "strokeWidth": 1.5}, "encoding": {**y, **ends}}
    point: Spec = {
        "mark": {"type": "point", "size": 40, "opacity": 1},
        "encoding": {
            **y,
            "x": x,
            "shape": names("measure", None, **own),
            "fill": names("measure", None, **own),
            "fillOpacity": {"condition": {"test": "datum.few", "value": 0}, "value": 1},
        },
    }
    middle: list[Spec] = []
    if centre is not None:
        at: Spec = {"data": {"values": [{"at": centre}]}, "mark": {"type": "rule", "style": "diagonal"}}
        middle = [{**at, "encoding": {"x": {**x, "field": "at"}}}]
    height = max(60, STEP * len(groups) * len(measures))
    return _drawn(f"{title} by group, with 95 % intervals; hollow: few samples.", height, rows, [*middle, interval, point])


def readers(rows: Lines, figure: str) -> Spec:
    """Draw each reader without and with aid; a row: reader, without, with, mean (whether it is of all)."""
    long = [
        {"reader": row["reader"], "way": f"{way} aid", "value": row[way], "mean": row["mean"]}
        for row in rows
        for way in ("without", "with")
    ]
    encoding: Spec = {
        "x": names("way", None, axis={"labelAngle": 0}),
        "y": number("value", figure, scale={"zero": False}),
        "detail": {"field": "reader", "type": "nominal"},
        "color": names("kind", None),
        "strokeWidth": {"condition": {"test": "datum.mean", "value": 3}, "value": 1},
    }
    line: Spec = {"mark": {"type": "line", "point": True}, "encoding": encoding}
    kinds = calculated(kind="datum.mean ? 'mean of readers' : 'each reader'")
    return _drawn(
        f"{figure} of each reader without and with aid; the thick line is their mean.", 220, long, [line], transform=kinds
    )
