"""What commands say of records that were told to trackers."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgebench.cli import console

if TYPE_CHECKING:
    from edgebench.track._work import Tracking


def say(found: Sequence[Tracking]) -> None:
    """Say how many records each tracker got, and how many it had."""
    for each in found:
        had = f", {each.there} were there already" if each.there else ""
        console.say(f"{each.to}: {each.tracked} record{'' if each.tracked == 1 else 's'} tracked{had}")


def complain(found: Sequence[Tracking], results: Path) -> None:
    """Say on a line for each tracker what it did not get, why, and which command makes up for it."""
    for each in found:
        if each.missing:
            name, reason = next(iter(each.missing.items()))
            what = name if len(each.missing) == 1 else f"{name} and {len(each.missing) - 1} more"
            again = f"edgebench results track {shlex.quote(str(results))} --to {shlex.quote(each.to)}"
            console.complain(
                f"{each.to}: not tracked: {what} ({reason}); the records are whole, `{again}` tracks what is missing"
            )
