"""What a phone's conditions say of its numbers: the screen, heat, the charger, and the cores that it grants. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgebench.schema import Reason

Conditions = Sequence[Mapping[str, Any]]
THERMAL = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
"""Android's words for its thermal status, 0 to 6."""
ON = ("Awake", "Dreaming")
"""A screen saver leaves the screen on; an always-on display (Dozing) does not."""
KEEP_ON = "unlock the phone before the run, and keep its screen on"


def invalid(during: Conditions, sustained: bool) -> list[Reason]:
    """Find heat that Android acted on, unless that is what is measured, and cores that it took away or gave back."""
    found = []
    hottest = max((int(condition.get("thermal_status") or 0) for condition in during), default=0)
    if hottest and not sustained:
        cooling = "let it cool, take it out of its case, or use --mode sustained to measure just that"
        reached = f"Android's thermal status reached {hottest} ({THERMAL[min(hottest, 6)]}) while samples were taken"
        found.append(Reason(reason=reached, recommendation=cooling))
    for field, name in (("cpuset", "the cpuset of the model's process"), ("cpus", "which cores the model may use")):
        values = {condition[field] for condition in during if condition.get(field) is not None}
        if len(values) > 1:
            changed = f"{name} changed while samples were taken ({', '.join(sorted(values))})"
            found.append(Reason(reason=changed, recommendation=f"{KEEP_ON}: Android moves programs to fewer cores without it"))
    return found


def unstable(during: Conditions) -> list[Reason]:
    """Find a screen that was off, a charger that came or went, and programs held back as those in the background are."""
    found = []
    words = [condition["wakefulness"] for condition in during if condition.get("wakefulness") is not None]
    dark = sorted(set(words) - set(ON))
    if dark:
        off = f"the screen was off while samples were taken ({', '.join(dark)}): Android then grants fewer cores and lower clocks"
        found.append(Reason(reason=off, recommendation=KEEP_ON))
    if len({bool(condition["plugged"]) for condition in during if condition.get("plugged") is not None}) > 1:
        charger = "a charger was plugged in or pulled out while samples were taken"
        advice = "leave it as it is; unplugged, over Wi-Fi, if energy is wanted"
        found.append(Reason(reason=charger, recommendation=advice))
    behind = sorted({name for condition in during if "background" in (name := str(condition.get("cpuset") or ""))})
    if behind:
        group = f"the model ran in the cpuset {behind[0]}, which Android keeps to little cores"
        found.append(Reason(reason=group, recommendation=KEEP_ON))
    return found
