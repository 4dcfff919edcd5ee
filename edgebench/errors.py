"""One tree of errors; every message says where, what, and what to do next.

EdgebenchError
├── InputError            what the user gave cannot be used: exit code 2
│   ├── UnknownName       no plugin, model, target or profile of that name
│   ├── ProfileError      a profile or target file does not say what it must
│   ├── DataError         a data set is missing, truncated or not what it claims
│   ├── CheckpointError   a checkpoint does not fit the network it is loaded into
│   ├── UntrustedFile     a file can run code, and nobody vouches for it
│   ├── BundleError       a bundle folder is incomplete or was changed
│   └── RecordError       a record or its samples were changed
├── MissingExtra          an optional dependency is not installed: exit code 2
├── MissingTool           a program that no Python package brings is not installed: exit code 2
├── StorageError          a folder cannot be written or the disk is full: exit code 2
├── ExportError           a model cannot become this format: the cell fails
│   └── GoalMissed        a file was made and measured, and is less accurate than it must be
├── TransportError        a device cannot be reached or a transfer broke: the cell fails
└── MeasureError          the agent failed or its stream ended early: the cell fails

What does not stop the work is a warning: StorageWarning, where a note could not be kept; DataWarning and ModelWarning,
where a data set or a checkpoint was read as its user may not expect.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class EdgebenchError(Exception):
    """Root of everything that edgebench raises on purpose."""


class InputError(EdgebenchError):
    """What the user gave cannot be used as it is."""


class UnknownName(InputError):
    """A name that nothing answers to; the message offers the nearest one."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.known = sorted(known)
        near = difflib.get_close_matches(name, self.known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        super().__init__(f"unknown {kind} {name!r}: {hint}known: {', '.join(self.known) or 'none'}")


class ProfileError(InputError):
    """A profile or target file does not say what it must."""


class DataError(InputError):
    """A data set is missing, truncated or not what it claims to be.

    `written` is what records say of it, where the text names what must not be kept: a medical file's name may be a person's.
    """

    def __init__(self, text: str, written: str | None = None) -> None:
        super().__init__(text)
        self.written = text if written is None else written


class CheckpointError(InputError):
    """A checkpoint does not fit the network it is loaded into."""


class UntrustedFile(InputError):
    """A file can run code when it is loaded; edgebench did not write it, and the user did not vouch for it."""


class BundleError(InputError):
    """A bundle folder is incomplete or was changed after it was written."""


class RecordError(InputError):
    """A record or its samples were changed after they were written."""


class MissingExtra(EdgebenchError):
    """An optional dependency is not installed."""

    def __init__(self, what: str, extra: str, module: str) -> None:
        super().__init__(f"{what} needs {module!r}, which is not installed; run: pip install 'edgebench[{extra}]'")


class MissingTool(EdgebenchError):
    """A program that no Python package brings is not installed, or does not run here."""

    def __init__(self, what: str, tool: str, reason: str, remedy: str) -> None:
        super().__init__(f"{what} needs {tool}: {reason}; {remedy}")


class StorageError(EdgebenchError):
    """A folder cannot be written, or the disk is full."""


class StorageWarning(UserWarning):
    """A note that edgebench can do without could not be kept."""


class DataWarning(UserWarning):
    """A data set was read in a way that its user may not expect: what was left out, split off, or recognised."""


class ModelWarning(UserWarning):
    """A model was read in a way that its user may not expect: a prefix stripped, a stem found by its shapes."""


class ExportError(EdgebenchError):
    """A model cannot be turned into this format and precision."""


class GoalMissed(ExportError):
    """A file was made and measured, and loses more than it may; `result` is what the call would have returned."""

    def __init__(self, text: str, result: Any) -> None:
        super().__init__(text)
        self.result = result


class TransportError(EdgebenchError):
    """A device cannot be reached, or a transfer broke off."""


class MeasureError(EdgebenchError):
    """The agent failed, or its stream ended before it was done."""

    def __init__(self, stage: str, reason: str, remedy: str = "") -> None:
        super().__init__(f"{stage}: {reason}" + (f"; {remedy}" if remedy else ""))
        self.stage = stage
        self.reason = reason
        self.remedy = remedy


def written(error: Exception) -> str:
    """Say what an error says, as it may be written down."""
    return str(getattr(error, "written", error))
