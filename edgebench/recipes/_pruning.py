"""Take channels or weights out of a network: torch-pruning finds which layers hang together, the schedule is ours."""

from __future__ import annotations

import copy
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch_pruning
from torch import Tensor, nn
from torch.nn.utils import parametrize

from edgebench.errors import InputError
from edgebench.models.outputs import FAILURES
from edgebench.recipes import FileKind, Timer, Timing
from edgebench.schema import Network

if TYPE_CHECKING:
    from edgebench.recipes.prune import Options

Backward = Callable[[nn.Module], None]
"""Fills a network's gradients from some batches of the training split."""
Count = Callable[[nn.Module], int]
"""Counts the multiply-accumulates of one inference."""
WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
GLOBAL_MOST = 0.9
"""Of one layer's channels, where layers are compared with each other: none may vanish."""
MOST = 0.95
"""Of the channels, where so much is enough for a share of the multiply-accumulates."""
TRIALS = 7
"""Of ratios, each halving what is left open, until a network has its multiply-accumulates."""
TIMED_TRIALS = 5
"""Likewise, until it is fast enough: each is exported and measured, and channels are rounded anyway."""


def schedule(ratio: float, steps: int) -> list[float]:
    """Return the ratio after each of so many steps, the first 0 (M. Zhu, S. Gupta, "To prune, or not to prune", 2017)."""
    return [ratio * (1 - (1 - step / steps) ** 3) for step in range(steps + 1)]


class Pruner(Protocol):
    """Prunes one network in steps."""

    def step(self) -> None:
        """Prune as much as is due."""

    def finish(self) -> None:
        """Leave the network with plain weights."""

    def hold(self, module: nn.Module) -> None:
        """Keep another network of the same layers at zero where the first one is."""


def pruner(module: nn.Module, example: Tensor, options: Options, backward: Backward, count: Count) -> Pruner:
    """Make what prunes a network in as many steps as the options say."""
    if options.structure == "channels":
        return Channels(module, example, options, backward, count)
    return Zeros(module, example, options, backward)


def head(module: nn.Module, example: Tensor) -> nn.Module:
    """Find the layer with weights that runs last: its outputs are the scores."""
    ran: list[nn.Module] = []
    layers = [layer for layer in module.modules() if isinstance(layer, WEIGHTED)]
    hooks = [layer.register_forward_hook(lambda layer, *_: ran.append(layer)) for layer in layers]
    with torch.no_grad():
        module(example)
    for hook in hooks:
        hook.remove()
    return ran[-1]


class _Tool(torch_pruning.pruner.BasePruner):
    """Rounds a layer of few channels to the least that it may have, not to none: that would leave it whole."""

    def _round_to(self, n_pruned: int, current_channels: int, round_to: int) -> int:
        kept = (current_channels - n_pruned) // round_to * round_to
        return max(current_channels - max(kept, round_to), 0)


@contextmanager
def _following() -> Iterator[None]:
    """Say what it means where torch-pruning fails on a network."""
    try:
        yield
    except (*FAILURES, ArithmeticError) as error:
        what = f"torch-pruning cannot follow its layers ({type(error).__name__}: {error}), and no channels can be taken out"
        raise InputError(f"the network: {what}; choose structure: unstructured, or another architecture") from error


class Channels:
    """Takes whole channels out; the layers get smaller, and so does all that is computed.

    To a ratio, or to a share of the multiply-accumulates, which each step has a part of.
    """

    def __init__(self, module: nn.Module, example: Tensor, options: Options, backward: Backward, count: Count) -> None:
        self._module, self._example, self._options = module, example, options
        self._backward, self._count = backward, count
        whole = count(module)
        share = None if options.macs is None else 1 - options.macs
        self._bounds = None if share is None else iter([whole * (1 - each) for each in schedule(share, options.times)[1:]])
        self._tool = None if options.macs is not None else self._made(module, options.ratio, options.times)

    def _made(self, module: nn.Module, ratio: float, times: int) -> Any:
        options, found = self._options, torch_pruning.importance
        importances: dict[str, Callable[[], Any]] = {
            "l1": lambda: found.GroupMagnitudeImportance(p=1),
            "l2": lambda: found.GroupMagnitudeImportance(p=2),
            "taylor": found.GroupTaylorImportance,
            "random": found.RandomImportance,
        }
        with _following(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Unwrapped parameters")
            return _Tool(
                module,
                self._example,
                importance=importances[options.criterion](),
                pruning_ratio=ratio,
                max_pruning_ratio=GLOBAL_MOST if options.scope == "global" else 1.0,
                global_pruning=options.scope == "global",
                iterative_steps=times,
                iterative_pruning_ratio_scheduler=schedule,
                ignored_layers=[head(module, self._example)],
                num_heads={layer: layer.num_heads for layer in module.modules() if isinstance(layer, nn.MultiheadAttention)},
                round_to=options.round_to,
            )

    def step(self) -> None:
        """Take out the channels of least importance."""
        if self._options.criterion == "taylor":
            self._backward(self._module)
        self._take_out(self._tool or self._made(self._module, self._ratio(), 1))
        self._module.zero_grad(set_to_none=True)

    def _take_out(self, tool: Any) -> None:
        """Let the tool prune, with the same chance each time."""
        with _following(), torch.random.fork_rng():
            torch.manual_seed(self._options.seed)
            tool.step()

    def _ratio(self) -> float:
        """Find the least ratio, to a hundredth, that is enough for this step's multiply-accumulates, by trying it on copies."""
        assert self._bounds is not None
        bound, low, high = next(self._bounds), 0.0, MOST

        def fits(ratio: float) -> bool:
            return self._count(self.tried(ratio)) <= bound

        if not fits(high):
            what = f"cannot be pruned to {self._options.macs:g} of its MACs with round_to {self._options.round_to}"
            raise InputError(f"the network {what}; give a larger share, or a smaller round_to")
        for _ in range(TRIALS):
            middle = (low + high) / 2
            low, high = (low, middle) if fits(middle) else (middle, high)
        return high

    def tried(self, ratio: float) -> nn.Module:
        """Return a copy with so many channels less."""
        tried = copy.deepcopy(self._module)
        for own, other in zip(tried.parameters(), self._module.parameters(), strict=True):
            own.grad = other.grad
        self._take_out(self._made(tried, ratio, 1))
        return tried

    def finish(self) -> None:
        """Leave the weights as they are: they are plain."""

    def hold(self, module: nn.Module) -> None:
        """Leave another network as it is: it has the same shapes."""


def fast_enough(parent: Network, options: Options, backward: Backward, timer: Timer) -> tuple[float, Timing]:
    """Find the least ratio, to a few hundredths, whose network is as fast as the options want, timing untrained copies.

    What a network takes is in its shape, and so is found before it is trained. `InputError` where none is fast enough.
    """
    if options.criterion == "taylor":
        backward(parent.module)
    [example], kind = parent.example(), FileKind(options.format, options.precision, options.target)
    pruner = Channels(parent.module, example, options, backward, lambda _: 0)

    def timed(ratio: float) -> Timing:
        module = pruner.tried(ratio).eval()
        model = parent.model.model_copy(update={"sha256": f"untrained {uuid.uuid4().hex}"})  # what is traced is kept by this hash
        return timer(replace(parent, model=model, module=module, macs=None), parent, kind)

    low, high = 0.0, MOST
    found = timed(high)
    if not options.allows(found):
        took = f"{found.median_ns / 1e6:.3g} ms, {found.ratio:.2f} of its p50"
        raise InputError(f"the network cannot be pruned to be so fast: with {MOST:.0%} of its channels gone it takes {took}")
    for _ in range(TIMED_TRIALS):
        middle = (low + high) / 2
        timing = timed(middle)
        if options.allows(timing):
            high, found = middle, timing
        else:
            low = middle
    parent.module.zero_grad(set_to_none=True)
    return high, found


class Kept(nn.Module):
    """Multiplies weights by 0 or 1."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        """Return weights with zeros where the mask has them."""
        return weight * self.mask


class Zeros:
    """Sets single weights to zero: anywhere, or two of each four; nothing gets smaller."""

    def __init__(self, module: nn.Module, example: Tensor, options: Options, backward: Backward) -> None:
        self._module, self._options, self._backward = module, options, backward
        self._ratios = iter(schedule(options.ratio, options.times)[1:])
        last = head(module, example)
        self._layers = {
            path: layer for path, layer in module.named_modules() if isinstance(layer, WEIGHTED) and layer is not last
        }
        self._masks: dict[str, Tensor] = {}

    def step(self) -> None:
        """Set the weights of least importance to zero, those that are so already among them."""
        ratio = next(self._ratios)
        if self._options.criterion == "taylor":
            self._backward(self._module)
        importance = {path: self._importance(layer) for path, layer in self._layers.items()}
        self.finish()
        self._masks = {path: self._mask(path, importance, ratio) for path in importance}
        self._module.zero_grad(set_to_none=True)
        self.hold(self._module)

    def _importance(self, layer: Any) -> Tensor:
        weight: Tensor = layer.weight.detach()
        if self._options.criterion == "taylor":
            original = layer.parametrizations.weight.original if parametrize.is_parametrized(layer) else layer.weight
            gradient: Tensor = original.grad
            return (weight * gradient).abs()
        if self._options.criterion == "random":
            return torch.rand_like(weight) * (weight != 0)
        return weight.abs()

    def _mask(self, path: str, importance: Mapping[str, Tensor], ratio: float) -> Tensor:
        own = importance[path]
        if self._options.structure == "2:4":
            return two_of_four(own)
        among = importance.values() if self._options.scope == "global" else [own]
        compared = torch.cat([each.flatten() for each in among])
        count = int(ratio * compared.numel())
        return (own > compared.kthvalue(count).values).float() if count else torch.ones_like(own)

    def finish(self) -> None:
        """Write the zeros into the weights."""
        for layer in self._layers.values():
            if parametrize.is_parametrized(layer):
                parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)

    def hold(self, module: nn.Module) -> None:
        """Keep a network of the same layers at zero where this one is."""
        for path, mask in self._masks.items():
            parametrize.register_parametrization(module.get_submodule(path), "weight", Kept(mask))


def two_of_four(importance: Tensor) -> Tensor:
    """Mark the two largest of each four neighbours along the input channels; all, where these are no multiple of four.

    That is the pattern of NVIDIA's sparse tensor cores.
    """
    if importance.shape[1] % 4:
        return torch.ones_like(importance)
    last = importance.movedim(1, -1)
    fours = last.reshape(-1, 4)
    mask = torch.zeros_like(fours).scatter_(1, fours.topk(2, dim=1).indices, 1.0)
    return mask.reshape(last.shape).movedim(-1, 1)


def width(module: nn.Module) -> int:
    """Count the output channels of all layers with weights."""
    return sum(layer.weight.shape[0] for layer in module.modules() if isinstance(layer, WEIGHTED))


def zeros(module: nn.Module) -> float:
    """Return the share of the weights of convolutions and dense layers that are zero."""
    weights = [layer.weight for layer in module.modules() if isinstance(layer, WEIGHTED)]
    return round(sum(int((each == 0).sum()) for each in weights) / sum(each.numel() for each in weights), 4)


def from_scratch(module: nn.Module) -> nn.Module:
    """Make a network of the same shapes with weights that have learnt nothing."""
    made = copy.deepcopy(module)
    for layer in made.modules():
        reset = getattr(layer, "reset_parameters", None) or getattr(layer, "_reset_parameters", None)
        if reset is not None:
            reset()
        else:
            for parameter in layer.parameters(recurse=False):
                nn.init.normal_(parameter, std=0.02)
    return made
