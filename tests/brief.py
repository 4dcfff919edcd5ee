"""The command line with a mode quick that takes tenths of a second: `python tests/brief.py run …`; in tests, `shorten`."""

from __future__ import annotations

from edgebench.device import measure
from edgebench.schema import cell

QUICK = cell.ModeSpec(trials=2, min_samples=8, min_seconds=0.05, cap_seconds=0.2, window_seconds=0.01)
WARMUP_SECONDS = 0.02


def shorten() -> None:
    """Let the mode quick measure as briefly as it can; what it does, and in which order, stays."""
    cell.MODES["quick"] = QUICK
    vars(measure)["WARMUP_SECONDS"] = WARMUP_SECONDS  # a name that the module has imported


if __name__ == "__main__":
    from edgebench.cli import main

    shorten()
    main()
