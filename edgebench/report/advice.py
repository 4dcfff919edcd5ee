"""One line for a table whose numbers cannot be relied on: what that means here, and what would help."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

NUMBER = re.compile(r"(\d+(?:\.\d+)?)")
KINDS = 2
"""So many of the commonest reasons have their recommendations told."""
Reasons = Sequence[Mapping[str, str]]
"""A verdict's: each with `reason` and `recommendation`."""


def unstable(verdicts: Sequence[tuple[str | None, Reasons]], mode: str, more: bool = False) -> str:
    """Say what UNSTABLE means for a table where more than half of the rows are; empty where fewer are.

    verdicts: each row's word and reasons. more: whether there are rows beside these.
    """
    found = [reasons for word, reasons in verdicts if word == "UNSTABLE"]
    if 2 * len(found) <= len(verdicts):
        return ""
    common = _commonest(found)
    parts = [f"{_head(len(found), len(verdicts), more)}."]
    if common:
        parts.append(f"Most often: {_ranged(common[0])} ({len(common[0])} of {len(verdicts)}).")
    remedies = dict.fromkeys(each["recommendation"] for kind in common[:KINDS] for each in kind[:1])
    longer = ["--mode standard, which measures longer"] if mode in ("tiny", "quick") else []
    helps = [*remedies, *longer, "`edgebench compare A B`, which decides between two under noise"]
    return " ".join([*parts, f"What helps: {'; '.join(helps)}."])


def _head(count: int, total: int, more: bool) -> str:
    if total == 1:
        return "The only row is UNSTABLE: a repeat may give another number"
    which = f"{count} of {total} rows are" if count < total else "Every row shown is" if more else "Every row is"
    return f"{which} UNSTABLE: a repeat may order them otherwise"


def _commonest(found: Sequence[Reasons]) -> list[list[Mapping[str, str]]]:
    """Gather reasons that differ in their figures alone, one of each row; the kind of the most rows first."""
    kinds: dict[tuple[str, ...], list[Mapping[str, str]]] = {}
    for reasons in found:
        for kind, each in {tuple(NUMBER.split(each["reason"])[::2]): each for each in reasons}.items():
            kinds.setdefault(kind, []).append(each)
    return sorted(kinds.values(), key=len, reverse=True)


def _ranged(rows: Sequence[Mapping[str, str]]) -> str:
    """Write reasons that differ in their figures alone as one, with the least and the greatest."""
    parts = [NUMBER.split(row["reason"]) for row in rows]
    return "".join(_span(values) if place % 2 else values[0] for place, values in enumerate(zip(*parts, strict=True)))


def _span(values: Sequence[str]) -> str:
    least, greatest = min(values, key=float), max(values, key=float)
    return least if least == greatest else f"{least} to {greatest}"
