"""What is written of networks that slide over volumes: float32 alone; the rest is refused with the layer's name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgebench.exporters._shared.preflight import check_runs
from edgebench.exporters._shared.tracing import Cached, Call, Place, exported, exported_calls, refusal
from edgebench.schema import ExportRequest, Limits

LAYERS = frozenset(("Conv3d", "ConvTranspose3d", "MaxPool3d", "AvgPool3d", "AdaptiveAvgPool3d", "AdaptiveMaxPool3d"))
OPERATORS = frozenset(
    f"aten::{name}"
    for name in (
        *("conv3d", "conv_transpose3d", "max_pool3d", "max_pool3d_with_indices", "avg_pool3d"),
        *("adaptive_avg_pool3d", "adaptive_max_pool3d"),
    )
)
"""The same as operators of torch, which a network may call without a layer."""


def check(request: ExportRequest[Limits], remedy: str, unproven: str = "", precisions: tuple[str, ...] = ("fp32",)) -> None:
    """Refuse volumes in other precisions, with the first layer that slides over three axes; a network without any may pass.

    unproven: what nobody has tried, where it is not the precision.
    """
    if request.precision in precisions or not any(each.is_volume for each in request.network.model.inputs):
        return
    check_runs(request)
    place = _first(request)
    if place is not None:
        written = "volumes are written in fp32 alone" if precisions else "no volumes are written"
        what = f"{written}: what {unproven or request.precision} makes of them is not proven"
        raise refusal(request, place, what, remedy)


def calls(request: ExportRequest[Limits]) -> Iterator[tuple[Call, Any]]:
    """List what a network computes over three axes, by its exported program, each with its node."""
    return (each for each in exported_calls(exported(Cached(request.network))) if each[0].operator in OPERATORS)


def _first(request: ExportRequest[Limits]) -> Place | None:
    """Find the first such layer, or the place that calls such an operator; None where there is none."""
    for name, layer in request.network.module.named_modules():
        if LAYERS & {kind.__name__ for kind in type(layer).__mro__}:
            return Place(name, type(layer).__name__)
    return next((call.place for call, _ in calls(request)), None)
