"""What a network does when it runs that no file can hold, each with the layer and the line of the user's that does it."""

from __future__ import annotations

import linecache
import sys
from dataclasses import dataclass, field
from functools import lru_cache
from types import FrameType
from typing import Any

from edgebench.exporters._shared.tracing import Cached, Place, is_own, refusal, silent
from edgebench.schema import ExportRequest, Limits, Network
from edgebench.schema.protocols import named_tensors

DECIDES = {"__bool__", "__contains__", "equal", "allclose", "is_nonzero"}
"""Functions of tensors by which Python chooses a way."""
LEAVES = {"item", "tolist", "numpy", "__int__", "__float__", "__index__", "__complex__", "__array__"}
"""Those that give Python a number, which a tracer takes for a constant."""
SAME = 1e-4
"""Two runs on one input differ by less, as a share of the largest value: sums in another order."""


@dataclass(frozen=True)
class Seen:
    """Where a network did something: its place, and the line of source there."""

    place: Place
    code: str


@dataclass
class Watched:
    """What was seen in one run; None: it was not."""

    decides: Seen | None = None
    leaves: Seen | None = None
    draws: Seen | None = None
    changes: dict[str, Seen] = field(default_factory=dict)
    """By buffer."""


def check_forward(request: ExportRequest[Limits]) -> None:
    """Refuse layers in training mode, chance, buffers that change, and ways that depend on the data."""
    found = _found(Cached(request.network))
    if found is not None:
        raise refusal(request, *found)


def check_numbers(request: ExportRequest[Limits]) -> None:
    """Refuse numbers that Python takes out of tensors: torch's older tracer makes constants of them."""
    seen = _watched(Cached(request.network)).leaves
    if seen is not None:
        what = f"takes a number out of a tensor{_quoted(seen)}, which would be a constant in the file"
        raise refusal(request, seen.place, what, "compute with tensors alone, or choose another format")


@lru_cache(maxsize=1)
def _found(cached: Cached) -> tuple[Place, str, str] | None:
    network = cached.network
    in_training = _in_training(network)
    if in_training is not None:
        return (
            in_training,
            "is in training mode, though the network was put into evaluation mode",
            "let its eval() reach all layers",
        )
    before = _buffers(network)
    one, other = _run(network), _run(network)
    changed = [name for name, (buffer, version) in _buffers(network).items() if (buffer, version) != before.get(name)]
    watched = _watched(cached)
    if watched.decides is not None:
        what = f"what it does next depends on the data{_quoted(watched.decides)}, and a file follows one way alone"
        return watched.decides.place, what, "compute both ways and choose with torch.where"
    if changed:
        name = changed[0]
        seen = watched.changes.get(name) or Seen(_owner(network, name), "")
        what = f"changes its buffer {name} as it runs{_quoted(seen)}, which no file does"
        return seen.place, what, "change it in training mode alone"
    if not _alike(one, other):
        seen = watched.draws or Seen(_first_that_differs(network), "")
        what = f"gives something else each time that it is run{_quoted(seen)}"
        return seen.place, what, "draw numbers in training mode alone, for instance F.dropout(x, training=self.training)"
    return None


def _quoted(seen: Seen) -> str:
    return f" (`{seen.code}`)" if seen.code else ""


def _in_training(network: Network) -> Place | None:
    import torch

    kinds = (torch.nn.modules.dropout._DropoutNd, torch.nn.modules.batchnorm._BatchNorm)
    names = (name for name, layer in network.module.named_modules() if layer.training and isinstance(layer, kinds))
    return next((Place(name, type(network.module.get_submodule(name)).__name__) for name in names), None)


def _owner(network: Network, buffer: str) -> Place:
    layer = buffer.rpartition(".")[0]
    return Place(layer, type(network.module.get_submodule(layer)).__name__)


def _buffers(network: Network) -> dict[str, tuple[int, int]]:
    """Note each buffer, and how often it was changed."""
    return {name: (id(buffer), buffer._version) for name, buffer in network.module.named_buffers()}


# ---------------------------------------------------------------- runs


def inputs(network: Network) -> tuple[Any, ...]:
    """Make an input as `example` does, of random numbers where that has zeros: those hide what is multiplied."""
    import torch

    drawn = torch.Generator().manual_seed(0)
    made = network.example()
    return tuple(torch.rand(each.shape, generator=drawn) if _is_blank(each) else each for each in made)


def _is_blank(tensor: Any) -> bool:
    return bool(tensor.is_floating_point() and not tensor.any())


def _run(network: Network) -> list[Any]:
    import torch

    with silent(), torch.no_grad(), torch.random.fork_rng(devices=()):
        torch.manual_seed(torch.seed())  # another draw each time
        return [value.clone() for value in network.run(*inputs(network)).values()]


def _alike(one: list[Any], other: list[Any]) -> bool:
    if [value.shape for value in one] != [value.shape for value in other]:
        return False
    pairs = [(a.double(), b.double()) for a, b in zip(one, other, strict=True) if a.numel()]
    return all(bool((a - b).abs().max() <= SAME * a.abs().max()) or not bool(a.isfinite().all()) for a, b in pairs)


def _first_that_differs(network: Network) -> Place:
    """Find the first layer to finish with another result in a second run."""
    names = {layer: name for name, layer in network.module.named_modules()}
    runs: list[list[tuple[Any, list[Any]]]] = [[], []]
    for calls in runs:
        hooks = [
            layer.register_forward_hook(
                lambda layer, _, output, calls=calls: calls.append((layer, [value for _, value in named_tensors(output)]))
            )
            for layer in names
        ]
        _run(network)
        for hook in hooks:
            hook.remove()
    for (layer, one), (_, other) in zip(*runs, strict=False):
        if not _alike(one, other):
            return Place(names[layer], type(layer).__name__)
    return Place("", type(network.module).__name__)


# ---------------------------------------------------------------- one run, function by function


@lru_cache(maxsize=1)
def _watched(cached: Cached) -> Watched:
    """Run a network and see each function of torch that it calls; what follows from the input is known by its class."""
    import torch
    from torch.overrides import TorchFunctionMode

    network, found = cached.network, Watched()
    names = {id(layer): name for name, layer in network.module.named_modules()}
    places = [
        (f"{path}.{name}".removeprefix("."), layer._buffers, name)
        for path, layer in network.module.named_modules()
        for name in layer._buffers
    ]

    made: dict[int, Seen] = {}
    """Where each tensor was computed, by its id."""

    def states() -> list[tuple[int, int]]:
        held = [buffers.get(name) for _, buffers, name in places]
        return [(id(buffer), 0 if buffer is None else buffer._version) for buffer in held]

    def note(before: list[tuple[int, int]], where: Seen | None) -> list[tuple[int, int]]:
        """Note buffers that were written into (here), or are others now (which were computed before)."""
        after = states()
        for (each, _, _), one, other in zip(places, before, after, strict=True):
            seen = where if one[0] == other[0] else made.get(other[0])
            if one != other and seen is not None:
                found.changes.setdefault(each, seen)
        return after

    class FromInput(torch.Tensor):
        """Whatever is computed of one is one."""

    class Watch(TorchFunctionMode):
        state = states()

        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name, here = getattr(function, "__name__", ""), _here(network, names)
            if (name in DECIDES or name in LEAVES) and any(isinstance(value, FromInput) for value in args):
                if name in DECIDES:
                    found.decides = found.decides or here
                else:
                    found.leaves = found.leaves or here
            drawn = torch.get_rng_state()
            self.state = note(self.state, None)
            result = function(*args, **(kwargs or {}))
            if found.draws is None and not torch.equal(drawn, torch.get_rng_state()):
                found.draws = here
            self.state = note(self.state, here)
            made[id(result)] = here
            return result

    given, watch = tuple(value.as_subclass(FromInput) for value in inputs(network)), Watch()
    try:
        with silent(), torch.no_grad(), torch.random.fork_rng(devices=()), watch:
            network.module(*given)
        note(watch.state, None)
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError, NotImplementedError, AttributeError):
        pass  # what runs without being watched is judged by what was seen until then
    return found


def _here(network: Network, names: dict[int, str]) -> Seen:
    """Find the layer that is running, and the innermost line of the user's."""
    line = code = ""
    frame: FrameType | None = sys._getframe(2)
    layer: Place | None = None
    while frame is not None and frame.f_code.co_filename != __file__:
        file, owner = frame.f_code.co_filename, frame.f_locals.get("self")
        if not line and is_own(file):
            line, code = f"{file.rpartition('/')[2]}:{frame.f_lineno}", linecache.getline(file, frame.f_lineno).strip()
        if layer is None and id(owner) in names:
            layer = Place(names[id(owner)], type(owner).__name__)
        frame = frame.f_back
    layer = layer or Place("", type(network.module).__name__)
    return Seen(Place(layer.layer, layer.kind, line), code)
