"""What `edgebench validate` can be asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgebench.errors import InputError


@dataclass(frozen=True)
class ValidateOptions:
    """Who the patients are, who read their images, and which numbers are wanted."""

    groups: Path | None = None
    """A CSV with a row for each test sample: its patient, and whatever groups it belongs to."""
    by: tuple[str, ...] = ()
    """Columns of it that make groups; the values of these alone are shown."""
    bands: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Where the values of a column of numbers are parted: each edge begins a band."""
    readers: Path | None = None
    """A CSV with a row for each reader and case: a rating or a decision, without or with aid."""
    prevalence: tuple[float, ...] = ()
    """Shares of patients with the condition that predictive values are wanted for."""
    sensitivity: float = 0.95
    """What one of the operating points reaches on validation data at least."""
    specificity: float = 0.95
    """Likewise."""
    positive: tuple[str, ...] = ()
    """Classes that are looked at one by one; all unless given."""
    keep_temperature: bool = False
    """Write what was fitted into the bundles."""
    results: Path = Path("results")
    """Where records are looked for by name."""
    work: Path = Path(".edgebench")
    """Where the bundles of records are looked for."""
    trust: bool = False

    def check(self) -> None:
        """Raise `InputError` where something of it makes no sense."""
        for name, value in (("sensitivity", self.sensitivity), ("specificity", self.specificity)):
            if not 0 < value <= 1:
                raise InputError(f"--{name} {value}: is no share; give one above 0 and up to 1, for instance 0.95")
        for value in self.prevalence:
            if not 0 < value < 1:
                raise InputError(f"--prevalence {value}: is no share; give one between 0 and 1, for instance 0.05")
        if self.by and self.groups is None:
            raise InputError(f"--by {self.by[0]}: is a column of which file? give --groups FILE")
        for column, edges in self.bands.items():
            if column not in self.by:
                raise InputError(f"--bands {column}: is no column of --by; add --by {column}")
            if not edges or list(edges) != sorted(set(edges)):
                raise InputError(f"--bands {column}: its edges do not rise; give them as {column}=18,40,65")
