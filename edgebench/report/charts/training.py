"""How models were trained: losses and the validation metric over the epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgebench.report.charts.vega import Spec, chart, hover, names, number
from edgebench.schema import Model

WIDTH, HEIGHT = 250, 190
FLAT = [{"flatten": ["epoch", "value"]}]
PERCENT = "100 * datum.value"


def values(model: Model | None) -> list[dict[str, Any]]:
    """Return a line for each curve: panel (`loss` or `metric`), what it is, epoch [k], value [k]; none where none is known.

    The panel `kept` has one point: the metric of the epoch whose weights the model has.
    """
    if model is None or model.curves is None:
        return []
    found = model.curves
    epochs, kept = list(found.epoch), model.metrics.get("best_epoch")
    lines = [("loss", "training loss", found.loss), ("loss", "validation loss", found.val_loss)]
    lines += [("metric", f"validation {found.metric}", found.val_metric)]
    drawn = [{"panel": panel, "what": what, "epoch": epochs, "value": list(curve)} for panel, what, curve in lines]
    if kept in epochs:
        value = found.val_metric[epochs.index(int(kept))]
        drawn.append({"panel": "kept", "what": "the epoch that was kept", "epoch": [int(kept)], "value": [value]})
    return drawn


def curves() -> Spec:
    """Draw one model's losses, and under them its validation metric with the epoch that was kept. Data set: training."""
    shared: Spec = {"width": "container", "height": 150}
    losses = {**shared, "transform": [*_panel("loss"), *FLAT], **_lines(number("value", "loss"), names("what", None))}
    metric = number("value", "validation metric", scale={"zero": False})
    kept: Spec = {
        "transform": [*_panel("kept"), *FLAT],
        "mark": {"type": "point", "filled": True, "size": 80},
        "encoding": {"x": _epochs(), "y": metric, "tooltip": _told("what")},
    }
    line = {"transform": [*_panel("metric"), *FLAT], **_lines(metric, names("what", None))}
    return chart(
        "Training and validation loss, and the validation metric, after each epoch; a point marks the epoch that was kept.",
        data={"name": "training"},
        resolve={"scale": {"color": "independent", "strokeDash": "independent"}},
        vconcat=[losses, {**shared, "layer": [line, kept]}],
    )


def panels() -> Spec:
    """Draw several models, whose lines name their `model`: training loss, validation loss and metric. Data set: training."""
    shown = {
        "training loss": ("loss", "datum.what === 'training loss'", number("value", "training loss")),
        "validation loss": ("loss", "datum.what === 'validation loss'", number("value", "validation loss")),
        "metric": ("metric", "true", number("percent", "validation metric, %", scale={"zero": False})),
    }
    return chart(
        "Training loss, validation loss and validation metric of models after each epoch.",
        columns=3,
        concat=[
            {
                "data": {"name": "training"},
                "width": WIDTH,
                "height": HEIGHT,
                "transform": [*_panel(panel), {"filter": test}, *FLAT, {"calculate": PERCENT, "as": "percent"}],
                **_lines(y, names("model", None), "model"),
            }
            for panel, test, y in shown.values()
        ],
    )


def labelled(models: Sequence[tuple[str, Sequence[dict[str, Any]]]]) -> list[dict[str, Any]]:
    """Put the lines of models together, each with its model's name."""
    return [{**line, "model": name} for name, lines in models for line in lines if line["panel"] != "kept"]


def _panel(name: str) -> list[Spec]:
    return [{"filter": f"datum.panel === '{name}'"}]


def _epochs() -> Spec:
    return number("epoch", "epoch", axis={"tickMinStep": 1, "format": "d"})


def _told(what: str) -> list[Spec]:
    return [*hover({what: what}), number("epoch", "epoch", format="d"), number("value", "value", format=".5r")]


def _lines(y: Spec, colour: Spec, what: str = "what") -> Spec:
    return {
        "mark": {"type": "line", "point": {"filled": True, "size": 20}},
        "encoding": {"x": _epochs(), "y": y, "color": colour, "strokeDash": colour, "tooltip": _told(what)},
    }
