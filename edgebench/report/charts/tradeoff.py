"""Charts as Vega-Lite specifications (version 6, which vl_convert brings) whose data go by names.

Each function names the data sets that its chart draws. They are lists of dictionaries, put in under
`datasets` or by Vega's view: `rows` is what `values` returns, row by row; all others
are the lists of the same name in `Evidence.values()`, and in its `evaluation` (give an
empty list where there is none). Lists inside a dictionary are taken apart by the chart.
A chart is one view as wide as its container, or a `vconcat` of views; see `widened`.
"""

from __future__ import annotations

from typing import Any

from edgebench.report.charts import evaluation, latency, training
from edgebench.report.charts.vega import Spec, calculated, hover, names, number, view
from edgebench.report.charts.vega import theme as theme
from edgebench.report.charts.vega import widened as widened
from edgebench.report.tables import Row

AXES: dict[str, tuple[str, str, str]] = {
    "p50": ("p50 latency, ms", "median_ns", "/ 1e6"),
    "p99": ("p99 latency, ms", "p99_ns", "/ 1e6"),
    "size": ("size, MiB", "size_bytes", "/ 1048576"),
    "memory": ("peak memory, MiB", "peak_bytes", "/ 1048576"),
    "energy": ("energy of one inference, mJ", "energy_joules", "* 1e3"),
}
"""What the metric can be drawn against: its heading, its key in a row, and what makes that the heading's unit."""
GROUPS = ("variant", "model", "format", "precision", "role")
"""What colours and shapes can tell apart; variant: format and precision."""


def values(row: Row) -> dict[str, Any]:
    """Return what charts draw of a row."""
    rail = row.entry.energy_source.partition(" ")[2]
    return {**row.values(), "energy_rail": rail, "energy_short": row.entry.energy_short}


def every() -> dict[str, Spec]:
    """Return each chart of one record by name; what is drawn of many records is made by `tradeoff` and `sizes`."""
    return {
        "ecdf": latency.ecdf(),
        "violin": latency.violin(),
        "series": latency.series(),
        "series_alone": latency.series(explained=False),
        "power": latency.power(),
        "roc": evaluation.roc(),
        "precision_recall": evaluation.precision_recall(),
        "confusion": evaluation.confusion(),
        "confusion_normalised": evaluation.confusion(normalised=True),
        "calibration": evaluation.calibration(),
        "training": training.curves(),
    }


def beside(axis: str) -> tuple[str, str, str]:
    """Return what is drawn against an axis where there is no metric, as `AXES` has it: of time and size, the other."""
    return AXES["size" if axis in ("p50", "p99") else "p50"]


def _rows(axis: str, judged: bool = True) -> list[Spec]:
    """Keep the rows that have a figure; derive what is drawn, and what hovering shows."""
    _, key, scale = AXES[axis]
    _, other, by = beside(axis)
    y = "100 * datum.metric_value" if judged else f"datum.{other} {by}"
    kept = f"isValid(datum.{key}) && isValid(datum.{'metric_value' if judged else other})"
    source = "datum.energy_provenance + (datum.energy_rail ? ' ' + datum.energy_rail : '')"
    shown = {
        "p50": _shown("median_ns", "/ 1e6", "ms"),
        "p99": _shown("p99_ns", "/ 1e6", "ms"),
        "size": _shown("size_bytes", "/ 1048576", "MiB"),
        "memory": _shown("peak_bytes", "/ 1048576", "MiB"),
        "energy": f"isValid(datum.energy_joules) ? format(datum.energy_joules * 1e3, '.3r') + ' mJ, ' + {source} : 'not known'",
        "score": "format(100 * datum.metric_value, '.2f') + ' %'" if judged else "'no data set given'",
    }
    found = [
        {"filter": kept},
        *calculated(x=f"datum.{key} {scale}", y=y, variant="datum.format + ' ' + datum.precision"),
        *calculated(**shown, said="datum.model + ', ' + datum.variant + ': ' + datum.score + ', ' + datum.p50"),
    ]
    if axis != "energy":
        return found
    return [
        *found,
        *calculated(source=source),
        {"joinaggregate": [{"op": "min", "field": "source", "as": "first_source"}]},
        {"filter": "datum.source === (source || datum.first_source)"},
    ]


def _shown(key: str, scale: str, unit: str) -> str:
    return f"isValid(datum.{key}) ? format(datum.{key} {scale}, '.3r') + ' {unit}' : 'not known'"


HOVER = {
    "model": "model",
    "variant": "variant",
    "runtime": "runtime",
    "role": "role",
    "score": "metric",
    "p50": "p50",
    "p99": "p99",
    "size": "size",
    "memory": "peak memory",
    "energy": "energy",
    "verdict": "verdict",
}


def tradeoff(axis: str = "p50", headline: str = "accuracy", by: str = "variant") -> Spec:
    """Draw the metric against latency, size, memory or energy, with the Pareto front of the rows. Data set: rows.

    Rows without that figure are left out, and INVALID ones are faint and never on the front. Of
    energy, rows of one source alone are drawn: the one that the parameter `source`
    names (provenance and rail), else the first by name. The axis is logarithmic, which
    a narrow range does not show. Without a headline, `beside` says what takes the metric's place, of which less is better.
    """
    title = AXES[axis][0]
    front = on_front(1 if headline else -1)
    x = number("x", title, scale={"type": "log", "nice": False, "padding": 18})
    heading = f"{headline}, %" if headline else beside(axis)[0]
    y = number("y", heading, scale={"zero": False, "padding": 18})
    groups = {name: names(by, by, sort="ascending") for name in ("color", "shape")}
    points: Spec = {
        "mark": {"type": "point", "filled": True, "size": 90, "tooltip": True, "cursor": "pointer"},
        "encoding": {
            "x": x,
            "y": y,
            **groups,
            "opacity": {"condition": {"test": "datum.verdict === 'INVALID'", "value": 0.3}, "value": 0.95},
            "description": {"field": "said"},
            "tooltip": hover(HOVER),
        },
    }
    whiskers: Spec = {
        "transform": [
            {"filter": "isValid(datum.median_low_ns) && isValid(datum.median_high_ns)"},
            *calculated(low="datum.median_low_ns / 1e6", high="datum.median_high_ns / 1e6"),
        ],
        "mark": {"type": "rule", "style": "quiet", "aria": False},
        "encoding": {"x": {**x, "field": "low"}, "x2": {"field": "high"}, "y": y},
    }
    described = (
        f"{headline or heading} against {title}; rows on the line (the Pareto front) have no other that is better in both."
    )
    layers = [_front(x, y, front), *([whiskers] if axis == "p50" else []), points, _front_names(x, y, front)]
    parameters = {"params": [{"name": "source", "value": None}]} if axis == "energy" else {}
    return view(described, 340, data={"name": "rows"}, transform=_rows(axis, bool(headline)), layer=layers, **parameters)


def on_front(sign: int) -> list[Spec]:
    """Keep the rows that no other one equals in y at a lower x; sign: 1 where more of y is better, -1 where less is."""
    least, order, further = ("max", "descending", ">") if sign > 0 else ("min", "ascending", "<")
    along = [{"field": "x", "order": "ascending"}, {"field": "y", "order": order}]
    return [
        {"filter": "datum.verdict !== 'INVALID' && !datum.energy_short"},
        {"window": [{"op": least, "field": "y", "as": "best"}], "sort": along, "frame": [None, 0]},
        {"window": [{"op": "lag", "field": "best", "as": "before"}], "sort": along},
        {"filter": f"!isValid(datum.before) || datum.y {further} datum.before"},
    ]


def _front(x: Spec, y: Spec, front: list[Spec]) -> Spec:
    return {
        "transform": front,
        "mark": {"type": "line", "interpolate": "step-after", "style": "front", "aria": False},
        "encoding": {"x": x, "y": y},
    }


def _front_names(x: Spec, y: Spec, front: list[Spec]) -> Spec:
    """Name the models on the front, where they are few."""
    return {
        "transform": [
            *front,
            {"joinaggregate": [{"op": "count", "as": "on_front"}]},
            {"filter": "datum.on_front <= 6"},
        ],
        "mark": {"type": "text", "align": "left", "dx": 8, "dy": 12, "limit": 150, "style": "note", "aria": False},
        "encoding": {"x": x, "y": y, "text": {"field": "model"}},
    }


def sizes(by: str = "variant", judged: bool = True) -> Spec:
    """Draw each row's size as a bar. Data set: rows."""
    y = names("label", None, sort={"field": "x", "op": "min"}, axis={"labelLimit": 260})
    x = number("x", "size, MiB")
    bars: Spec = {
        "mark": {"type": "bar", "tooltip": True, "cursor": "pointer"},
        "encoding": {
            "x": {**x, "stack": None},
            "y": y,
            "color": names(by, by, sort="ascending"),
            "description": {"field": "said"},
            "tooltip": hover(HOVER),
        },
    }
    numbers = {
        "mark": {"type": "text", "align": "left", "dx": 4, "style": "note", "aria": False},
        "encoding": {"x": x, "y": y, "text": {"field": "size"}},
    }
    label = calculated(label="datum.model + ', ' + datum.variant")
    spec = view("Size of each model in each format and precision.", 0, data={"name": "rows"}, layer=[bars, numbers])
    return {
        **spec,
        "height": {"step": 22},
        "autosize": {"type": "fit-x", "contains": "padding"},
        "transform": [*_rows("size", judged), *label],
    }
