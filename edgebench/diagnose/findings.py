"""What a diagnosis finds, and what it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgebench.diagnose.graph import Graph
from edgebench.schema import Bundle

SEARCH = "`edgebench quantize --search` leaves in floating point what does not pay"
INSTEAD = {
    "int8-dynamic": "calibrate instead: `edgebench export --precision int8 --dataset …`",
    "fp16": "fp16 halves the file, not the time: measure fp32 or int8 here, and keep fp16 for GPUs",
}
SLOW_PLACES = ("plain kernels", "CPUExecutionProvider", "CPU")


@dataclass(frozen=True)
class Finding:
    """One reason why time is spent."""

    what: str
    share: float | None
    """Of the kernels' time, 0…1; None where the runtime times nothing, or where it is no matter of single kernels."""
    why: str
    remedy: str
    nodes: int
    places: tuple[str, ...] = ()
    """Modules of the torch network that are concerned."""

    def values(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {**vars(self), "places": list(self.places)}


@dataclass(frozen=True)
class Arithmetic:
    """How the runtime's own kernels compute a quantized file, against the file operator by operator, on samples."""

    samples: int
    agreement: float
    """Share of the samples that are decided alike."""
    error: float
    """Mean distance of the scores, over the span of the file's own scores."""
    saturates: bool | None
    """Whether the processor's kernels may saturate; None where that is not known."""


@dataclass(frozen=True)
class Case:
    """What is diagnosed, and what it is held against."""

    bundle: Bundle
    graph: Graph
    runtime: str
    """Name and version."""
    machine: str
    reference: Graph | None = None
    """The same model in FP32."""
    finish: Mapping[str, Any] | None = None
    """What the device built of the bundle."""
    arithmetic: Arithmetic | None = None


def percent(share: float | None) -> str:
    """Print a share; blank where there is none."""
    return "" if share is None else f"{100 * share:.1f} %"


def times(count: int) -> str:
    """Say how often."""
    return "once" if count == 1 else f"{count} times"
