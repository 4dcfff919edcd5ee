"""Whether a network takes any batch size, and if not, which of its layers does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgebench.exporters._shared.tracing import Cached, Place, place_of, reason, refusal, silent, traced, traced_calls
from edgebench.schema import ExportRequest, Limits, Network, named_tensors

BATCH = 3
"""A batch size that no layer has by chance."""
SHAPED = {"aten::view", "aten::reshape", "aten::expand", "aten::zeros", "aten::ones", "aten::full", "aten::unflatten"}


def check_batch(request: ExportRequest[Limits]) -> None:
    """Refuse a network that fixes the batch size, where a file for any batch size is wanted."""
    import torch

    network = request.network
    remedy = "take the batch size from the input's shape, or leave --dynamic-batch and the offline scenario out"
    with silent(), torch.no_grad():
        several = _several(network)
        try:
            wanted = network.run(*several)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise refusal(request, place_of(error, network), f"takes one image alone: {reason(error)}", remedy) from error
        each = [network.run(*(given[index : index + 1] if given.dim() else given for given in several)) for index in range(BATCH)]
        if any(not _alike(value, [one[name] for one in each]) for name, value in wanted.items()):
            raise refusal(request, _mixing(request), "the images of a batch change each other's results", remedy)
        try:
            again = dict(named_tensors(traced(Cached(network))(*several)))
            same = [value.shape for value in again.values()] == [value.shape for value in wanted.values()]
        except RuntimeError:
            same = False
    if not same:
        raise refusal(request, _fixing(request), "has a batch size of its own, from when it was traced", remedy)


def _several(network: Network) -> tuple[Any, ...]:
    """Make samples that differ: of images noise, of other tensors what their values say."""
    import torch

    random = torch.Generator().manual_seed(0)
    made = zip(network.model.inputs, network.example(BATCH), strict=True)
    return tuple(torch.rand(tensor.shape, generator=random) if each.is_image else tensor for each, tensor in made)


def _alike(together: Any, alone: Sequence[Any]) -> bool:
    """Return whether a batch gave what its samples gave one by one."""
    import torch

    if not together.dim() or any(one.shape[:1] != (1,) for one in alone):
        return False
    joined = torch.cat(list(alone))
    if together.shape != joined.shape or not joined.is_floating_point():
        return together.shape == joined.shape and torch.equal(together, joined)
    return torch.allclose(together, joined, rtol=1e-2, atol=1e-3 * float(joined.abs().max()))


def _mixing(request: ExportRequest[Limits]) -> Place:
    """Find the first layer that turns a batch into something of another length."""
    import torch

    network, found = request.network, list[Place]()
    names = {layer: name for name, layer in network.module.named_modules()}

    def look(layer: Any, inputs: tuple[Any, ...], output: Any) -> None:
        tensors = [value for value in (*inputs, output) if isinstance(value, torch.Tensor) and value.dim()]
        if len(tensors) > 1 and tensors[0].shape[0] == BATCH and tensors[-1].shape[0] != BATCH:
            found.append(Place(names[layer], type(layer).__name__))

    hooks = [layer.register_forward_hook(look) for layer in names]
    try:
        network.module(*network.example(BATCH))
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else Place("", type(network.module).__name__)


def _fixing(request: ExportRequest[Limits]) -> Place:
    """Find the first operator whose shape begins with the batch size that it was traced with."""
    for call, node in traced_calls(request.network, BATCH):
        for value in node.inputs() if call.operator in SHAPED else ():
            if value.node().kind() == "prim::ListConstruct":
                first = next(iter(value.node().inputs()), None)
                if first is not None and first.toIValue() == BATCH:
                    return call.place
    return Place("", type(request.network.module).__name__)
