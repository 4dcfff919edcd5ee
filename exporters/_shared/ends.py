"""A network's inputs and outputs as a file has them: from the model, and from one run on its example."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from edgebench.exporters._shared.tracing import Cached, silent
from edgebench.schema import ExportRequest, Input, Limits, Network, TensorSpec


def outputs(network: Network) -> tuple[TensorSpec, ...]:
    """Describe what a network returns, in its order."""
    return _outputs(Cached(network))


@lru_cache(maxsize=4)
def _outputs(cached: Cached) -> tuple[TensorSpec, ...]:
    network = cached.network
    with silent():
        found = network.run(*network.example())
    return tuple(
        TensorSpec(name=name, shape=tuple(value.shape), dtype=str(value.dtype).partition(".")[2], scale=None, zero_point=None)
        for name, value in found.items()
    )


def names(network: Network) -> tuple[list[str], list[str]]:
    """Name a network's inputs and outputs."""
    return [each.name for each in network.model.inputs], [each.name for each in outputs(network)]


def first_axes(ends: Sequence[TensorSpec], size: Any) -> dict[str, dict[int, Any]]:
    """Give the first dimension of each tensor that has one a size that is open, as exporters to ONNX want it."""
    return {each.name: {0: size} for each in ends if each.shape}


def as_written(inputs: Sequence[Input], specs: Sequence[TensorSpec]) -> tuple[Input, ...]:
    """Describe a file's inputs: names, shapes and types as there, and made as the model's are, images in the file's layout."""
    return tuple(_as_written(given, spec) for given, spec in zip(inputs, specs, strict=True))


def _as_written(given: Input, spec: TensorSpec) -> Input:
    preprocessing = given.preprocessing
    if preprocessing is not None:
        last = preprocessing.model_copy(update={"layout": "nhwc"})
        layout = "nhwc" if spec.shape[1:] == last.shape[1:] and spec.shape[1:] != given.shape[1:] else preprocessing.layout
        preprocessing = preprocessing.model_copy(update={"layout": layout})
    return Input(**{**given.model_dump(), **spec.model_dump(), "preprocessing": preprocessing})


def image_alone(request: ExportRequest[Limits]) -> Input | None:
    """Return the input of a network that takes one image and nothing else; None where it takes something else."""
    inputs = request.network.model.inputs
    return inputs[0] if len(inputs) == 1 and inputs[0].is_image else None
