"""Ranges that a network learned in training for INT8, found again in a file by the values that its tensors have.

By value, not by name: converters rename, fuse and transpose. Two tensors are
the same where their sorted values on one image are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench.errors import ExportError
from edgebench.schema import ExportRequest, Limits

SAME = 1e-3
"""By how much values may differ, as a share of the largest: other kernels add in another order."""


@dataclass(frozen=True)
class Point:
    """A place in a network whose range was learned."""

    values: NDArray[Any]
    """On the first calibration sample, sorted."""
    limits: tuple[float, float]


def points(request: ExportRequest[Limits]) -> list[Point]:
    """Compute the values at a network's learned points on the first calibration sample; none where nothing was learned.

    `ExportError` where the ranges are another network's.
    """
    network, ranges = request.network, request.network.ranges
    if not ranges or request.calibration is None:
        return []
    import torch

    kept: dict[str, NDArray[Any]] = {}

    class Keeper(torch.fx.Interpreter):
        def run_node(self, n: Any) -> Any:
            found = super().run_node(n)
            if n.name in ranges:
                kept[n.name] = np.sort(found.detach().numpy(), axis=None)
            return found

    shapes = [each.shape for each in network.model.inputs]
    graph = torch.fx.symbolic_trace(network.module) if network.graph is None else network.graph
    first = [
        torch.from_numpy(np.asarray(array[0]).reshape(shape)) for array, shape in zip(request.calibration, shapes, strict=True)
    ]
    with torch.no_grad():
        Keeper(graph).run(*first)
    missing = sorted(set(ranges) - set(kept))
    if missing:
        raise ExportError(f"{network.model.name}: has no {missing[0]}, whose range was learned; train it again with --recipe qat")
    return [Point(kept[node], limits) for node, limits in ranges.items()]


def replaced(tensors: Mapping[str, NDArray[Any]], learned: Sequence[Point]) -> dict[str, tuple[float, float]]:
    """Return the learned range of each tensor that is one of the points; tensors of zeros alone are none."""
    sizes: dict[int, list[Point]] = {}
    for point in learned:
        sizes.setdefault(point.values.size, []).append(point)
    found = {}
    for name, values in tensors.items():
        near = sizes.get(values.size, []) if values.size else []
        ordered = np.sort(values, axis=None) if near else values
        distance, limits = min(((_distance(ordered, point.values), point.limits) for point in near), default=(np.inf, (0.0, 0.0)))
        if distance < SAME:
            found[name] = limits
    return found


def _distance(values: NDArray[Any], wanted: NDArray[Any]) -> float:
    """Return the largest difference as a share of the largest value; infinite where all are zero."""
    largest = max(abs(float(wanted[0])), abs(float(wanted[-1])))
    return float(np.abs(values - wanted).max()) / largest if largest else np.inf
