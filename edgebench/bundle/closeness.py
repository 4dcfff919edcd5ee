"""How far an exported file's values are from the torch network's, and how far rounding may take them.

The bounds were measured and derived as `docs/method.md` says, under *Accuracy and parity*.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgebench.bundle.parity import FLOATS, outputs_of
from edgebench.bundle.samples import Array
from edgebench.schema import Network

LEAST = 1e-5
"""Of an output's span: what float32 may be off in any network, about 80 units in the last place."""
OWN = 16
"""Times what float32 itself is off in this network, against float64: other sums in another order."""
UNKNOWN = 1e-3
"""Where float64 cannot be computed."""
LEFT = 1 / 16
"""Of what rounding the weights changes, so much may be left once torch rounds them too."""
BETWEEN = 4
"""Times what rounding weights and results of layers changes, where runtimes may round between layers that torch does not know."""
WIDE = 0.75
"""The largest difference that quantized files may show, in spans; that and their correlation is all that is judged of them."""
FEW = 32
"""Samples on which float64 is compared."""


@dataclass(frozen=True)
class Closeness:
    """How far a file is from torch, the worst output counting."""

    relative_error: float
    """Largest difference of a value, as a share of its output's span over all samples."""
    unexplained_error: float
    """The same against what torch computes with its weights rounded as the precision rounds them."""
    allowed_error: float
    """Most that `unexplained_error` may be."""
    correlation: float
    """Least correlation of an output's values."""


def judge(
    network: Network,
    precision: str,
    samples: Sequence[Array],
    reference: Sequence[Array],
    outputs: Sequence[Array],
    rounds_between: bool = False,
) -> Closeness:
    """Compare outputs [n, …] with the torch network's, which runs again where the precision rounds.

    rounds_between: whether what runs the file rounds results between layers too, as the format's exporter says.
    """
    error, correlation = errors(reference, outputs), correlations(reference, outputs)
    if precision not in FLOATS:
        return Closeness(error, error, WIDE, correlation)
    if error <= LEAST:
        return Closeness(error, error, LEAST, correlation)
    exact = _exact(network, samples, reference)
    if precision == "fp32" or error <= exact:
        return Closeness(error, error, exact, correlation)
    if rounds_between or not _plain(network):
        rounded = _run(network, _between(_halved(network)), samples)
        return Closeness(error, error, BETWEEN * errors(reference, rounded) + exact, correlation)
    found = []
    for twin in (_halved(network), _halved(network, biases=False)):
        rounded = _run(network, twin, samples)
        found.append((errors(rounded, outputs), LEFT * errors(reference, rounded) + exact))
        if found[-1][0] <= found[-1][1]:
            break
    unexplained, allowed = min(found, key=lambda each: each[0] / each[1])
    return Closeness(error, unexplained, allowed, correlation)


def errors(reference: Sequence[Array], outputs: Sequence[Array]) -> float:
    """Return the largest difference of any value, in spans of its output over all samples."""
    return max(_error(before, after) for before, after in zip(reference, outputs, strict=True))


def _error(reference: Array, outputs: Array) -> float:
    if not reference.size:
        return 0.0
    before, after = reference.astype(np.float64), outputs.astype(np.float64)
    span = before.max() - before.min() or np.abs(before).max() or 1.0
    return float(np.abs(before - after).max() / span)


def correlations(reference: Sequence[Array], outputs: Sequence[Array]) -> float:
    """Return the least correlation of an output's values over all samples; 1 for one that is constant in torch."""
    return min(_correlation(before, after) for before, after in zip(reference, outputs, strict=True))


def _correlation(reference: Array, outputs: Array) -> float:
    before, after = (each.astype(np.float64).ravel() - each.mean(dtype=np.float64) for each in (reference, outputs))
    norm = np.linalg.norm(before) * np.linalg.norm(after)
    if np.linalg.norm(before) <= 1e-6 * np.linalg.norm(reference.ravel()):
        return 1.0
    return float(before @ after / norm) if norm else 0.0


# ---------------------------------------------------------------- torch, with other numbers


def _exact(network: Network, samples: Sequence[Array], reference: Sequence[Array]) -> float:
    """Return what float32 may be off: by how much torch's own is, against float64."""
    import torch

    first = [each[:FEW] for each in samples]
    try:
        found = _run(network, copy.deepcopy(network.module).double(), first, torch.float64)
        own = errors(found, [each[: len(found[0])] for each in reference])
    except (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError):
        return UNKNOWN
    return max(LEAST, OWN * own) if np.isfinite(own) else UNKNOWN


def _run(network: Network, module: Any, samples: Sequence[Array], dtype: Any = None) -> list[Array]:
    return list(outputs_of(replace(network, module=module), samples, dtype).values())


def _plain(network: Network) -> bool:
    """Return whether all weights belong to torch's own convolutions, linear layers, and batch norms right after a convolution."""
    from torch import nn

    norms = {nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d}
    kinds = {nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear, *norms}
    holding = [layer for layer in network.module.modules() if layer._parameters]
    followed = {id(norm) for _, norm in _pairs(network)}
    return all(type(layer) in kinds and (type(layer) not in norms or id(layer) in followed) for layer in holding)


def _halved(network: Network, biases: bool = True) -> Any:
    """Round weights to float16: of convolutions those that they have with the batch norm after them, as exporters write them."""
    import torch

    twin = copy.deepcopy(network.module)
    for convolution, norm in _pairs(replace(network, module=twin)):
        _fuse(convolution, norm)
    with torch.no_grad():
        for parameter in twin.parameters():
            if parameter.is_floating_point() and (biases or parameter.dim() > 1):
                parameter.copy_(parameter.half().to(parameter.dtype))
    return twin


def _pairs(network: Network) -> list[tuple[Any, Any]]:
    """Find convolutions whose result goes into a batch norm and nowhere else, by seeing in one run what goes where."""
    import torch

    convolutions, norms = torch.nn.modules.conv._ConvNd, torch.nn.modules.batchnorm._BatchNorm
    takers: dict[int, list[Any]] = {}
    made: list[tuple[Any, Any]] = []
    kept: list[Any] = []  # or another tensor would get its id

    def before(layer: Any, given: tuple[Any, ...]) -> None:
        kept.append(given)
        for value in given:
            takers.setdefault(id(value), []).append(layer)

    def after(layer: Any, given: Any, output: Any) -> None:
        kept.append(output)
        if isinstance(layer, convolutions):
            made.append((layer, output))

    leaves = [layer for layer in network.module.modules() if not next(layer.children(), None)]
    hooks = [layer.register_forward_pre_hook(before) for layer in leaves]
    hooks += [layer.register_forward_hook(after) for layer in leaves]
    network.run(*network.example())
    for hook in hooks:
        hook.remove()
    found = [(layer, takers.get(id(output), [])) for layer, output in made]
    return [(layer, takes[0]) for layer, takes in found if len(takes) == 1 and isinstance(takes[0], norms)]


def _fuse(convolution: Any, norm: Any) -> None:
    """Move a batch norm's scale and shift into the convolution before it."""
    import torch

    weight, bias = torch.nn.utils.fuse_conv_bn_weights(
        *(convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias),
        transpose=convolution.transposed,
    )
    convolution.weight, convolution.bias = (torch.nn.Parameter(each.detach()) for each in (weight, bias))
    with torch.no_grad():
        norm.running_mean.zero_()
        norm.running_var.fill_(1 - norm.eps)
        if norm.affine:
            norm.weight.fill_(1)
            norm.bias.zero_()


def _between(module: Any) -> Any:
    """Round what each layer returns to float16 as well."""
    import torch

    def rounded(layer: Any, given: Any, output: Any) -> Any:
        real = isinstance(output, torch.Tensor) and output.is_floating_point()
        return output.half().to(output.dtype) if real else output

    for layer in module.modules():
        if not next(layer.children(), None):
            layer.register_forward_hook(rounded)
    return module
