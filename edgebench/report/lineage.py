"""Which model was made from which: teacher → student → pruned → quantized, by the hashes of their checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgebench.report.tables import Row, Table

SHORT = 10
"""Digits of a hash that a reader needs."""


@dataclass(frozen=True)
class Member:
    """One model of a family, and what it became in formats and precisions."""

    depth: int
    """0 for a model that none of the others was made into."""
    name: str
    role: str
    parameters: int | None
    reduction: float | None
    """Share of the teacher's parameters that it does without."""
    macs: int | None
    """Multiply-accumulates of one inference."""
    controls: Mapping[str, float]
    """Metrics on the validation split, its own (`validation`) first; empty where its recipe has no controls."""
    made: str
    """How, and from what: `distill from resnet18`."""
    rows: tuple[Row, ...]


def members(table: Table) -> tuple[Member, ...]:
    """List a table's models, each before those that were made from it; teachers first, then by name.

    A model made from several stands below the first of them. One that was made
    from itself, by way of others or not, cannot be: such a ring is opened.
    """
    models = _models(table.rows)
    names = {sha256: rows[0].entry.model for sha256, rows in models.items()}
    below: dict[str | None, list[str]] = {}
    for sha256, rows in models.items():
        below.setdefault(_parent(rows, models), []).append(sha256)
    found: dict[str, Member] = {}
    for root in [*_ordered(below.get(None, []), models), *_ordered(models, models)]:
        for sha256, depth in _under(root, below, models, found):
            found[sha256] = _member(models[sha256], depth, names)
    return tuple(found.values())


def _models(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Collect rows by checkpoint; those without one by name."""
    models: dict[str, list[Row]] = {}
    for row in rows:
        models.setdefault(row.entry.model_sha256 or row.entry.model, []).append(row)
    return models


def _parent(rows: Sequence[Row], models: Mapping[str, Sequence[Row]]) -> str | None:
    own = rows[0].entry.model_sha256
    return next((parent for parent in rows[0].entry.more["parents"] if parent in models and parent != own), None)


def _ordered(models: Sequence[str] | Mapping[str, Sequence[Row]], rows: Mapping[str, Sequence[Row]]) -> list[str]:
    return sorted(models, key=lambda each: (rows[each][0].entry.role != "teacher", rows[each][0].entry.model, each))


def _under(
    root: str, below: Mapping[str | None, Sequence[str]], models: Mapping[str, Sequence[Row]], found: Mapping[str, Member]
) -> Iterator[tuple[str, int]]:
    """Yield a model and all that came of it, with their depths, those already found left out."""
    waiting = [(root, 0)]
    while waiting:
        sha256, depth = waiting.pop()
        if sha256 not in found:
            yield sha256, depth
            waiting += [(child, depth + 1) for child in reversed(_ordered(below.get(sha256, ()), models))]


def _member(rows: Sequence[Row], depth: int, names: Mapping[str, str]) -> Member:
    entry = rows[0].entry
    parents = [names.get(parent, f"a model that is not here ({parent[:SHORT]})") for parent in entry.more["parents"]]
    recipe = entry.more["recipe"] or ""
    return Member(
        depth=depth,
        name=entry.model,
        role=entry.role,
        parameters=entry.parameters,
        reduction=rows[0].reduction_parameters,
        macs=entry.more["macs"],
        controls={"validation": entry.more["validation"], **entry.more["controls"]} if entry.more["controls"] else {},
        made=(f"{recipe or 'made'} from {', '.join(parents)}" if parents else recipe) + _cost(entry.more.get("trained")),
        rows=tuple(sorted(rows, key=lambda row: (row.entry.format != "torch", row.entry.format, row.entry.precision))),
    )


def _cost(trained: Mapping[str, Any] | None) -> str:
    """Say what a transfer let learn, and what that cost."""
    told = {
        "freeze": "freeze {}",
        "trainable_parameters": "{:.0f} parameters trained",
        "epochs_to_best": "best after {:.0f} epochs",
        "seconds": "{:.0f} s",
    }
    known = {name: value for name, value in (trained or {}).items() if value is not None}
    return f" ({', '.join(told[name].format(value) for name, value in known.items())})" if known else ""
