"""How values with intervals, and p values, are written."""

from __future__ import annotations

from collections.abc import Mapping

Between = Mapping[str, float | None]
"""An interval as plain JSON values: value, low, high."""
ABSENT = "–"


def percent(found: Between | None, sign: bool = False) -> str:
    """Write a share with its interval in percent; a dash where there is none."""
    return _written(found, 100, "+.1f" if sign else ".1f")


def decimal(found: Between | None, sign: bool = False, places: int = 4) -> str:
    """Write a value with its interval; a dash where there is none."""
    return _written(found, 1, f"{'+' if sign else ''}.{places}f")


def _written(found: Between | None, times: float, form: str) -> str:
    value = None if found is None else found["value"]
    if found is None or value is None:
        return ABSENT
    low, high = found["low"], found["high"]
    bounds = "" if low is None or high is None else f" [{times * low:{form}}, {times * high:{form}}]"
    return f"{times * value:{form}}{bounds}"


def p_value(p: float | None) -> str:
    """Write a p value."""
    if p is None:
        return "p not known"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
