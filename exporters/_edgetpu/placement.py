"""Where a compiled network runs: the share of operators and of MACs on the Edge TPU, and what stays on the processor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from edgebench.exporters._edgetpu.graph import CUSTOM_OP, Graph, Operator, macs
from edgebench.exporters._edgetpu.log import MAPPED, Log
from edgebench.schema import Placement

MOST_ROWS = 24
"""Records hold the placement, and are small."""


def placement(source: Graph, compiled: Graph, log: Log) -> Placement:
    """Describe a compilation.

    Operator counts are the compiler's own. The log tells statuses by kind of
    operator, so which of several stay on the processor is seen in the compiled
    file; where both disagree, `macs_share` is null and `macs_reason` says so.
    """
    left = _left(source, compiled)
    total, mapped = log.total or len(source.operators), log.mapped
    found: dict[str, Any] = {
        "operators": total,
        "mapped": mapped,
        "operators_share": mapped / total if total else 0.0,
        **_macs(source, left, log),
        "subgraphs": log.subgraphs,
        "cached_bytes": log.cached_bytes,
        "remaining_bytes": log.remaining_bytes,
        "streamed_bytes": log.streamed_bytes,
        "milliseconds": log.milliseconds,
        "statuses": [{"operator": row.operator, "count": row.count, "status": row.status} for row in log.statuses][:MOST_ROWS],
        "cpu": cpu_rows(left, log)[:MOST_ROWS],
    }
    return Placement.model_validate(found)


def _left(source: Graph, compiled: Graph) -> list[Operator]:
    """Find the operators of the source that the compiled file still has, and so leaves to the processor."""
    there = Counter(operator.key for operator in compiled.operators if operator.name != CUSTOM_OP)
    found = []
    for operator in source.operators:
        if there[operator.key]:
            there[operator.key] -= 1
            found.append(operator)
    return found


def _macs(source: Graph, left: list[Operator], log: Log) -> dict[str, Any]:
    total = sum(map(macs, source.operators))
    kinds = Counter(operator.name for operator in left)
    reported = Counter({row.operator: 0 for row in log.statuses})
    for row in log.statuses:
        reported[row.operator] += row.count if row.status != MAPPED else 0
    if len(left) != (log.total or len(source.operators)) - log.mapped or (log.statuses and kinds != +reported):
        reason = f"the compiled file leaves {len(left)} operators to the processor, the compiler says otherwise"
        return {"macs": total, "macs_mapped": None, "macs_share": None, "macs_reason": reason}
    mapped = total - sum(map(macs, left))
    return {"macs": total, "macs_mapped": mapped, "macs_share": mapped / total if total else None}


def cpu_rows(left: Iterable[Operator], log: Log) -> list[dict[str, Any]]:
    """Count what stays on the processor by kind, with the first layer of each, and the statuses that the log gives for it.

    What is not supported comes before what merely follows it.
    """
    layers: dict[str, list[str]] = {}
    for operator in left:
        layers.setdefault(operator.name, []).append(operator.layer)
    rows = []
    for name, places in layers.items():
        statuses = [row.status for row in log.statuses if row.operator == name and row.status != MAPPED]
        rows.append({"operator": name, "count": len(places), "layer": places[0], "status": "; ".join(dict.fromkeys(statuses))})
    return sorted(rows, key=lambda row: str(row["status"]).startswith("More than one subgraph"))
