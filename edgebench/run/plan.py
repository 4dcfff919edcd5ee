"""Profile × targets → cells; which of them are done, and how long the rest will take."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from edgebench.errors import InputError, UnknownName
from edgebench.files import sha256_json
from edgebench.schema import Cell, Mode, ModelPlan, Profile, Scenario, Target


@dataclass(frozen=True)
class ModeSpec:
    """How long a mode measures; see docs/method.md."""

    trials: int
    min_samples: int
    min_seconds: float
    cap_seconds: float
    window_seconds: float
    idle_seconds: float = 0.0
    """How long the device is left alone before and after, where it has a power meter."""
    adaptive: bool = True
    """Whether a trial goes on, up to the cap, until its median is known to the scenario's precision."""

    def seconds(self, scenario: Scenario) -> float:
        """Estimate a cell: sampling, warm-up, process starts, memory and accuracy passes."""
        each = self.min_seconds + WARMUP_SECONDS + 4 * self.window_seconds + 1.0
        if scenario.kind == "server":
            each += 3 * self.min_seconds
        sizes = len(scenario.batches) if scenario.kind == "offline" else 1
        return self.trials * sizes * each + 4.0


WARMUP_SECONDS = 0.5
MODES: dict[Mode, ModeSpec] = {
    "quick": ModeSpec(trials=3, min_samples=64, min_seconds=0.5, cap_seconds=2, window_seconds=0.1),
    "standard": ModeSpec(trials=5, min_samples=1024, min_seconds=10, cap_seconds=60, window_seconds=1, idle_seconds=5),
    "strict": ModeSpec(trials=5, min_samples=1024, min_seconds=60, cap_seconds=600, window_seconds=1, idle_seconds=30),
    "sustained": ModeSpec(
        trials=1, min_samples=64, min_seconds=600, cap_seconds=1200, window_seconds=1, idle_seconds=30, adaptive=False
    ),
}


@dataclass(frozen=True)
class Slot:
    """One combination that a profile asks for, before there is a bundle for it."""

    model: ModelPlan
    format: str
    precision: str
    target: Target


def cell_key(cell: Cell) -> str:
    """Hash everything that would make a new measurement necessary."""
    return sha256_json(cell.model_dump(mode="json"))


def slots(profile: Profile, targets: Collection[Target], only: str | None) -> list[Slot]:
    """List every model × variant × target of a profile that `only` lets through."""
    wanted = parse_only(only)
    every = [
        Slot(model, variant.format, precision, target)
        for target in targets
        for model in profile.models
        for variant in profile.variants
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
        if not found or key not in {"model", "format", "precision", "target"}:
            raise InputError(f"--only {text}: {part!r} is not model=, format=, precision= or target= with a value")
        wanted.setdefault(key, set()).add(value)
    return wanted


def matches(wanted: dict[str, set[str]], model: str, format: str, precision: str, target: str) -> bool:
    """Say whether `--only` lets a cell through."""
    have = {"model": model, "format": format, "precision": precision, "target": target}
    return all(have[key] in values for key, values in wanted.items())
