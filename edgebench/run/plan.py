"""Profile × targets → what is to be measured: slots, then cells with their bundles and data."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgebench.bundle.samples import Array, samples
from edgebench.errors import InputError, UnknownName
from edgebench.models.tokens import shuffled
from edgebench.schema import Bundle, Cell, MeterSpec, PlannedCell, Profile, Target

if TYPE_CHECKING:
    from edgebench.data import Dataset


@dataclass(frozen=True)
class CellJob:
    """What is measured: a cell, its bundle, and the data that it is judged on, if any."""

    cell: Cell
    key: str
    folder: Path
    bundle: Bundle
    data: Dataset | None
    """None: nothing is judged."""
    target: Target
    private: Mapping[str, Any] = field(default_factory=dict)
    """Options of the runtime that no record may hold."""
    chosen: tuple[int, ...] = ()
    """Samples of the split that it infers where its runtime cannot infer the whole; empty: all."""
    because: str = ""
    """Why it infers few."""
    shuffled: int | None = None
    """The seed by which each sample gets another's text; None: each has its own."""

    @property
    def judged(self) -> bool:
        """Return whether its outputs are judged: there is data, an output holds scores, and the whole split is inferred."""
        return self.data is not None and self.bundle.scored is not None and not self.chosen

    @property
    def predicts(self) -> bool:
        """Return whether outputs are sent home: all of the split, or those that were chosen of it."""
        return self.judged or bool(self.chosen)

    def samples(self) -> tuple[Array, ...]:
        """Return the samples of each input [n, …]."""
        found = samples(self.bundle.inputs, self.folder, self.data)
        if self.shuffled is None:
            return found
        others = shuffled(max(map(len, found)), self.shuffled)
        given = zip(self.bundle.inputs, found, strict=True)
        return tuple(array if each.tokens is None else array[others] for each, array in given)

    @property
    def control(self) -> CellJob | None:
        """Return the same where each sample gets another's text; None where it reads none, or is not judged."""
        reads = any(each.tokens is not None for each in self.bundle.inputs)
        return replace(self, shuffled=0) if reads and self.judged else None

    @property
    def meters(self) -> tuple[MeterSpec, ...]:
        """Name the power meters that its device has for what it runs on."""
        accepts = self.target.accepted(self.bundle.format, self.bundle.precision)
        return (accepts.meters if accepts is not None else ()) or self.target.meters


def slots(profile: Profile, targets: Collection[Target], only: str | None) -> list[PlannedCell]:
    """List every model × variant × target of a profile that `only` lets through."""
    wanted = parse_only(only)
    if "stage" in wanted:
        raise InputError(
            f"--only {only}: stage= belongs to a profile with stages, of which `edgebench run` does one after the other"
        )
    every = [
        PlannedCell(model, variant.format, precision, target)
        for target in targets
        for model in profile.models
        for variant in model.variants or profile.variants
        for precision in variant.precisions
    ]
    known = {
        "model": {slot.model.name for slot in every},
        "format": {slot.format for slot in every},
        "precision": {slot.precision for slot in every},
        "target": {slot.target.name for slot in every},
    }
    for key, values in wanted.items():
        for value in values - known[key]:
            raise UnknownName(key, value, known[key])
    return [slot for slot in every if matches(wanted, slot.model.name, slot.format, slot.precision, slot.target.name)]


def parse_only(text: str | None) -> dict[str, set[str]]:
    """Read `model=a,model=b,format=onnx`: alternatives of one key, all keys together."""
    wanted: dict[str, set[str]] = {}
    for part in (text or "").split(",") if text else []:
        key, found, value = part.partition("=")
        if not found or key not in {"stage", "model", "format", "precision", "target"}:
            raise InputError(f"--only {text}: {part!r} is not stage=, model=, format=, precision= or target= with a value")
        wanted.setdefault(key, set()).add(value)
    return wanted


def matches(wanted: dict[str, set[str]], model: str, format: str, precision: str, target: str) -> bool:
    """Return whether `--only` lets a cell through."""
    have = {"model": model, "format": format, "precision": precision, "target": target}
    return all(have[key] in values for key, values in wanted.items())
