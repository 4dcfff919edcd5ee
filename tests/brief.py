"""The command line with a mode quick that takes tenths of a second: `python tests/brief.py run …`; in tests, `quick`."""

from __future__ import annotations

from edgebench.device import job
from edgebench.schema import cell

WHOLE = (cell.MODES["quick"], cell.WARMUP_SECONDS)
"""The mode quick as users have it: how long it measures, and how long it warms up."""
BRIEF = (cell.ModeSpec(trials=1, min_samples=8, min_seconds=0.05, cap_seconds=0.2, window_seconds=0.01), 0.02)
"""What it does, and in which order, stays; it takes as little time as it can: one trial, where nothing compares trials."""


def quick(spec: cell.ModeSpec, warmup_seconds: float) -> None:
    """Let the mode quick be that from now on."""
    cell.MODES["quick"] = spec
    vars(job)["WARMUP_SECONDS"] = warmup_seconds  # a name that the module has imported


if __name__ == "__main__":
    from edgebench import trust
    from edgebench.cli import main

    vars(trust)["refuse_foreign"] = trust.accept  # as conftest has it
    quick(*BRIEF)
    main()
