"""The page of a search for the best way to compress a model: what was found, and why each other trial is not it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgebench.errors import MissingExtra
from edgebench.report import columns
from edgebench.report.columns import mebibytes, milliseconds, percent
from edgebench.report.limits import KINDS

WEB = Path(__file__).with_name("web")
WIDTH, HEIGHT, MARGIN = 680, 320, 52
"""Pixels of the chart, and of what its axes take."""
TICKS = 5
COUNTED = {"done": "measured", "skipped": "not tried, since they would break a limit", "failed": "failed"}


def render(summary: Mapping[str, Any], version: str = "") -> str:
    """Write the page of what `compress.json` holds; it loads nothing. `MissingExtra` where jinja2 is not installed."""
    try:
        import jinja2
    except ImportError as error:
        raise MissingExtra("the page of a search", "report", "jinja2") from error
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(WEB),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: columns.plain(value) if type(value) is str else value,
    )
    trials = [row(trial, summary) for trial in summary["trials"]]
    by_number = {trial["number"]: trial for trial in trials}
    return templates.get_template("compress.html.j2").render(
        summary=summary,
        version=version,
        style=(WEB / "style.css").read_text(encoding="utf-8"),
        limits=[said(name, value) for name, value in summary["limits"].items()],
        pareto=[by_number[number] for number in summary["pareto"]],
        others=[trial for trial in trials if not trial["best"]],
        best=by_number.get(summary["best"]),
        counts=[(what, sum(trial["state"] == state for trial in summary["trials"])) for state, what in COUNTED.items()],
        chart=chart(summary),
    )


def said(name: str, value: float) -> str:
    """Say a limit: `p99 ≤ 20.0 ms`."""
    kind = KINDS[name]
    return f"{kind.what} {'≤' if kind.highest else '≥'} {kind.show(value)}"


def row(trial: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a table shows of a trial, as text; empty where nothing was measured."""
    measured = trial["median_ns"] is not None
    return {
        "number": trial["number"],
        "best": trial["number"] == summary["best"],
        "pareto": trial["number"] in summary["pareto"],
        "recipe": recipe(trial),
        "file": f"{trial['format']} {trial['precision']}",
        "single": trial["single"],
        "keeps": trial["keeps"],
        "metric": percent(trial["metric"]) if measured else "",
        "p50": milliseconds(trial["median_ns"]) if measured else "",
        "p99": milliseconds(trial["p99_ns"]) if measured else "",
        "size": mebibytes(trial["size_bytes"]) if measured else "",
        "verdict": trial["verdict"] or "",
        "model": trial["model"] or "",
        "why_not": trial["why_not"],
    }


def recipe(trial: Mapping[str, Any]) -> str:
    """Say what was done to the network."""
    student = trial["student"] != "same"
    steps = [f"student {trial['student']}"] if student else []
    steps += [f"{100 * trial['ratio']:g} % of the channels pruned"] if trial["ratio"] else []
    steps += ["trained for INT8"] if trial["qat"] else []
    taught = f", taught by the original ({trial['alpha']:g})" if trial["alpha"] and (student or trial["ratio"]) else ""
    return (", ".join(steps) or "as it is") + taught


# ---------------------------------------------------------------- the chart


def chart(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """Place the measured trials, metric over median latency (logarithmic); None where fewer than two were measured."""
    measured = [trial for trial in summary["trials"] if trial["median_ns"] is not None and trial["metric"] is not None]
    if len(measured) < 2:
        return None
    x = _axis([math.log10(trial["median_ns"] / 1e6) for trial in measured], MARGIN, WIDTH - 16)
    y = _axis([100 * trial["metric"] for trial in measured], HEIGHT - MARGIN, 16)
    points = [_point(trial, summary, x, y) for trial in measured]
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "bottom": HEIGHT - MARGIN,
        "left": MARGIN,
        "points": sorted(points, key=lambda point: point["kind"] != "other"),
        "x_ticks": [(x.place(value), f"{10**value:.3g}") for value in x.ticks()],
        "y_ticks": [(y.place(value), f"{value:.4g}") for value in y.ticks()],
    }


class _Axis:
    """A linear scale."""

    def __init__(self, low: float, high: float, begin: float, end: float) -> None:
        self._low, self._high, self._begin, self._end = low, high, begin, end

    def place(self, value: float) -> float:
        """Return where a value lies, in pixels."""
        share = (value - self._low) / (self._high - self._low)
        return round(self._begin + share * (self._end - self._begin), 1)

    def ticks(self) -> Sequence[float]:
        """Return some values, evenly spaced."""
        return [self._low + (self._high - self._low) * number / (TICKS - 1) for number in range(TICKS)]


def _axis(values: Sequence[float], begin: float, end: float) -> _Axis:
    low, high = min(values), max(values)
    room = 0.05 * (high - low) or max(0.05 * abs(high), 1e-3)
    return _Axis(low - room, high + room, begin, end)


def _point(trial: Mapping[str, Any], summary: Mapping[str, Any], x: _Axis, y: _Axis) -> dict[str, Any]:
    best, unbeaten = trial["number"] == summary["best"], trial["number"] in summary["pareto"]
    label = f"{recipe(trial)}, {trial['format']} {trial['precision']}: {percent(trial['metric'])} %"
    return {
        "x": x.place(math.log10(trial["median_ns"] / 1e6)),
        "y": y.place(100 * trial["metric"]),
        "kind": "best" if best else "pareto" if unbeaten else "other",
        "label": f"{label}, {milliseconds(trial['median_ns'])} ms, {mebibytes(trial['size_bytes'])} MiB",
    }
