"""Charts of what one record's scores show: confusion, ROC and precision-recall curves, calibration; see `charts`."""

from __future__ import annotations

from edgebench.report.charts.vega import DASHES, Spec, calculated, chart, hover, names, number, view

WRITTEN = 20
"""So many lines of a confusion matrix have numbers in their cells."""
CLEAR = 0.99
"""Where every curve has a larger area, the corner alone is drawn, enlarged."""


def _curves(name: str, axes: tuple[Spec, Spec], area: str, described: str, diagonal: bool) -> Spec:
    """Draw curves with their areas in the legend, averages thicker."""
    x, y = axes
    label = "format(datum.area, '.4f') + '  ' + datum.curve"
    lines: Spec = {
        "data": {"name": name},
        "transform": [*calculated(label=label), {"flatten": ["x", "y"], "as": ["x", "y"]}],
        "mark": {"type": "line", "clip": True},
        "encoding": {
            "x": x,
            "y": y,
            "color": names("label", area),
            "strokeDash": names("label", area, scale={"range": DASHES}),
            "strokeWidth": {"condition": {"test": "datum.average", "value": 2.5}, "value": 1.2},
            "order": {"value": 0},
            "tooltip": [*hover({"label": "curve"}), number("x", x["title"]), number("y", y["title"])],
        },
    }
    chance: Spec = {
        "data": {"values": [{"x": 0, "y": 0}, {"x": 1, "y": 1}]},
        "mark": {"type": "line", "style": "diagonal", "clip": True, "aria": False},
        "encoding": {"x": x, "y": y},
    }
    enlarged: Spec = {
        "data": {"values": [{"text": "the corner, enlarged"}]},
        "transform": [{"filter": _clear(name)}],
        "mark": {"type": "text", "align": "right", "baseline": "bottom", "dy": -4, "style": "note"},
        "encoding": {"x": {"value": {"expr": "width"}}, "y": {"value": 0}, "text": {"field": "text"}},
    }
    return view(
        f"{described} Where all are nearly perfect, the corner is enlarged.",
        320,
        layer=[*([chance] if diagonal else []), lines, enlarged],
    )


def _clear(name: str) -> str:
    return f"extent(pluck(data('{name}'), 'area'))[0] > {CLEAR}"


def _share(name: str, field: str, title: str, corner: tuple[float, float]) -> Spec:
    """Encode 0…1, or a corner of it where every curve is clear."""
    ends = {
        f"domain{end}": {"expr": f"{_clear(name)} ? {value} : {whole}"}
        for end, value, whole in zip(("Min", "Max"), corner, (0, 1), strict=True)
    }
    return number(field, title, scale={**ends, "zero": False, "nice": False})


def roc() -> Spec:
    """Draw ROC curves, each with its area. Data set: roc."""
    x, y = _share("roc", "x", "false positive rate", (0, 0.1)), _share("roc", "y", "true positive rate", (0.9, 1))
    described = "ROC curves: the true over the false positive rate; the dashed diagonal is chance."
    return _curves("roc", (x, y), "area", described, diagonal=True)


def precision_recall() -> Spec:
    """Draw precision-recall curves, each with its average precision. Data set: precision_recall."""
    name = "precision_recall"
    x, y = _share(name, "x", "recall", (0.9, 1)), _share(name, "y", "precision", (0.9, 1))
    described = "Precision over recall, as steps; the area under them is the average precision."
    return _curves(name, (x, y), "average precision", described, diagonal=False)


def confusion(normalised: bool = False) -> Spec:
    """Draw a confusion matrix: counts, or shares of each true class. Data set: confusion."""
    value, form, heading = ("share", ".2f", "share of the true class") if normalised else ("count", "d", "samples")
    x = names("predicted", "predicted", axis={"labelAngle": {"expr": "length(join(domain('x'), '')) > 24 ? -40 : 0"}})
    y = names("true", "true")
    cells: Spec = {
        "mark": {"type": "rect", "tooltip": True},
        "encoding": {
            "x": x,
            "y": y,
            "color": number(value, heading, scale={"domainMin": 0}, legend={"gradientLength": 160}),
            "tooltip": [
                *hover({"true": "true", "predicted": "predicted"}),
                number("count", "samples"),
                number("share", "share of the true class", format=".4f"),
            ],
        },
    }
    numbers = [
        {
            "transform": [{"filter": f"datum.lines <= {WRITTEN} && datum.count > 0 && {test}"}],
            "mark": {"type": "text", "style": style, "fontSize": 11, "aria": False},
            "encoding": {"x": x, "y": y, "text": {"field": value, "type": "quantitative", "format": form}},
        }
        for style, test in (("low", f"datum.{value} <= datum.most / 2"), ("high", f"datum.{value} > datum.most / 2"))
    ]
    described = f"Confusion matrix, {heading}: rows are true classes, columns what was decided; empty cells are 0."
    return view(
        described,
        320,
        data={"name": "confusion"},
        transform=[
            {"flatten": ["predicted", "count"]},
            *calculated(share="datum.total ? datum.count / datum.total : null"),
            {"joinaggregate": [{"op": "distinct", "field": "true", "as": "lines"}, {"op": "max", "field": value, "as": "most"}]},
        ],
        layer=[cells, *numbers],
    )


def calibration() -> Spec:
    """Draw reliability bins over how full they are, with the diagonal (`vconcat`). Data set: calibration."""
    parts = ["confidence", "accuracy", "count", "begin", "end"]
    flat = [{"flatten": parts}]
    x = number("confidence", "confidence", scale={"domain": [0, 1]})
    y = number("accuracy", "accuracy", scale={"domain": [0, 1]}, axis={"minExtent": 36})
    shown = [
        number("begin", "from", format=".3f"),
        number("end", "to", format=".3f"),
        number("confidence", "mean confidence", format=".4f"),
        number("accuracy", "accuracy", format=".4f"),
        number("count", "samples"),
    ]
    perfect: Spec = {
        "data": {"values": [{"confidence": 0, "accuracy": 0}, {"confidence": 1, "accuracy": 1}]},
        "mark": {"type": "line", "style": "diagonal", "aria": False},
        "encoding": {"x": x, "y": y},
    }
    gaps: Spec = {"transform": flat, "mark": {"type": "rule", "strokeWidth": 3, "style": "quiet"}}
    gaps["encoding"] = {"x": x, "y": y, "y2": {"field": "confidence"}}
    points: Spec = {"transform": flat, "mark": {"type": "point", "filled": True, "size": 60, "opacity": 1}}
    points["encoding"] = {"x": x, "y": y, "tooltip": shown}
    error: Spec = {
        "transform": calculated(text="'ECE ' + format(datum.ece, '.4f') + ': ' + datum.what"),
        "mark": {"type": "text", "align": "left", "baseline": "bottom", "dy": -5, "fontSize": 12, "style": "note"},
        "encoding": {"x": {"value": 0}, "y": {"value": 0}, "text": {"field": "text"}},
    }
    filled: Spec = {
        "width": "container",
        "height": 70,
        "transform": flat,
        "mark": {"type": "bar", "tooltip": True, "opacity": 0.8},
        "encoding": {
            "x": number("begin", "confidence", scale={"domain": [0, 1]}, bin="binned"),
            "x2": {"field": "end"},
            "y": number("count", "samples", scale={"type": "sqrt"}, axis={"minExtent": 36, "tickCount": 3}),
            "tooltip": shown,
        },
    }
    top = {"width": "container", "height": 240, "layer": [perfect, gaps, points, error]}
    described = "Accuracy over confidence, bin by bin; the diagonal is perfect calibration. Under it: samples in each bin."
    return chart(described, data={"name": "calibration"}, vconcat=[top, filled])
