"""What pruning costs and wins: accuracy, size, compression and latency over what was taken out, by strategy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgebench.report.charts.vega import Spec, chart, names, number
from edgebench.report.tables import Row

PANELS = {
    "metric": ("metric, %", "100 * datum.metric"),
    "size": ("size, MiB", "datum.size_bytes / 1048576"),
    "compression": ("times smaller than the parent", "datum.compression"),
    "p50": ("p50 latency, ms", "datum.median_ns / 1e6"),
}
WIDTH, HEIGHT = 250, 170


def values(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return a point for each row that was pruned from another one in the same format and precision, and that one's at 0.

    Sparsity: the share of the parent's parameters, or of its weights, that are gone.
    """
    parents: dict[tuple[str | None, ...], Row] = {(row.entry.model_sha256, *_file(row)): row for row in reversed(rows)}
    found: list[dict[str, Any]] = []
    begun: set[tuple[Any, ...]] = set()
    for row in rows:
        pruned = row.entry.more.get("pruned")
        kin = [parents[key] for key in ((sha, *_file(row)) for sha in row.entry.more["parents"]) if key in parents]
        if not pruned or not kin:
            continue
        series = f"{pruned['strategy']}, {row.entry.format} {row.entry.precision}"
        if (series, kin[0].entry.model_sha256) not in begun:
            begun.add((series, kin[0].entry.model_sha256))
            found.append(_point(kin[0], kin[0], series, 0.0))
        gone = pruned["zeros"]
        if gone is None and row.entry.parameters and kin[0].entry.parameters:
            gone = 1 - row.entry.parameters / kin[0].entry.parameters
        found += [] if gone is None else [_point(row, kin[0], series, gone)]
    return found


def _file(row: Row) -> tuple[str, ...]:
    return row.entry.format, row.entry.precision, row.entry.runtime, row.entry.options


def _point(row: Row, parent: Row, series: str, gone: float) -> dict[str, Any]:
    entry, before = row.entry, parent.entry.size_bytes
    smaller = before / entry.size_bytes if before and entry.size_bytes else None
    known = {"metric": entry.metric, "size_bytes": entry.size_bytes, "median_ns": entry.median_ns}
    return {"series": series, "gone": gone, "compression": smaller, **known}


def panels(headline: str) -> Spec:
    """Draw four panels of the data set `pruned`, as `values` returns it; rows without a figure are left out of its panel."""
    return chart(
        "Accuracy, size, compression and latency over the share of the parent that was pruned.",
        columns=2,
        concat=[_panel(name, heading.replace("metric", headline or "metric"), of) for name, (heading, of) in PANELS.items()],
    )


def _panel(name: str, heading: str, of: str) -> Spec:
    key = of.split("datum.")[1].split(" ")[0]
    return {
        "data": {"name": "pruned"},
        "width": WIDTH,
        "height": HEIGHT,
        "transform": [{"filter": f"isValid(datum.{key})"}, {"calculate": of, "as": f"{name}_drawn"}],
        "mark": {"type": "line", "point": {"filled": True, "size": 50}},
        "encoding": {
            "x": number("gone", "pruned, share of the parent", axis={"format": ".0%"}, scale={"domain": [0, 1]}),
            "y": number(f"{name}_drawn", heading, scale={"zero": name in ("size", "p50")}),
            "color": names("series", None),
            "strokeDash": names("series", None),
        },
    }
