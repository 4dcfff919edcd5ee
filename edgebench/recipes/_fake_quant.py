"""A network that rounds as its INT8 file will, and can be trained through the rounding.

Weights have a scale for each output channel, from their largest: it commutes
with folding a batch norm into its convolution, so that none of that need be
imitated, as long as the norm's statistics stand still. Activations are rounded
where a tensor is left after fusion: at the input, behind an activation (not the
norm or the sum before it), a pooling, a sum, a dense layer, and inside activations
and attention (`models.graphs` writes those out). What hangs beside the
computation has a range that follows it, and is not rounded.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from edgebench.errors import InputError
from edgebench.models import graphs

Ranges = dict[str, tuple[float, float]]
Mode = Literal["float", "observe", "round"]
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
WEIGHTED = (*CONVOLUTIONS, nn.Linear)
RECTIFIERS = {nn.ReLU, nn.ReLU6, nn.Hardtanh, functional.relu, functional.relu6, functional.hardtanh, torch.relu, "relu", "relu_"}
"""Activations that are fused with what they follow."""
SUMS = {operator.add, operator.iadd, torch.add, "add", "add_"}
GATES = {nn.Sigmoid, torch.sigmoid, "sigmoid", "sigmoid_"}
SOFTMAXES = {nn.Softmax, functional.softmax, torch.softmax, "softmax"}
FIXED = {**dict.fromkeys(GATES, (0.0, 255 / 256)), **dict.fromkeys(SOFTMAXES, (0.0, 1.0))}
"""Ranges that are not learned: those that TFLite's LOGISTIC has, and ONNX Runtime's quantizer gives to Softmax."""
POOLS = {nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, functional.max_pool2d, torch.max_pool2d}
MOVES = {
    *POOLS,
    *(nn.Identity, nn.Flatten, nn.Dropout, nn.Dropout1d, nn.Dropout2d, functional.dropout),
    *(torch.flatten, torch.reshape, torch.permute, torch.transpose, torch.squeeze, torch.unsqueeze, operator.getitem),
    *("flatten", "view", "reshape", "permute", "transpose", "squeeze", "unsqueeze", "contiguous", "expand"),
    *(torch.chunk, torch.split, torch.unbind, "chunk", "split", "unbind", graphs.split_heads, graphs.join_heads),
}
"""What makes no values of its own, and keeps the scale of what it is given."""
MOVES_BY_NAME = {"stochastic_depth"}
"""Likewise, of libraries that are not imported for it."""
MOMENTUM = 0.05
"""Of the ranges, a step."""
LEAST = 1e-9
"""Scale."""


class RoundedWeight(nn.Module):
    """Rounds weights to 8 bits, symmetric, with a scale for each output channel."""

    mode: Mode = "float"

    def forward(self, weight: Tensor) -> Tensor:
        """Return weights that int8 can hold."""
        if self.mode != "round":
            return weight
        scale = (weight.detach().abs().flatten(1).amax(1) / 127).clamp(min=LEAST)
        zero = torch.zeros(len(scale), dtype=torch.int32, device=weight.device)
        return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -127, 127)


class Rounded(nn.Module):
    """Rounds an activation to 8 bits, within a range that follows it for so many training steps, and then stays.

    limits: a range that is known, and stays. rounds: else the range is all that is wanted.
    """

    mode: Mode = "float"
    low: Tensor
    high: Tensor
    steps: Tensor

    def __init__(self, symmetric: bool, limits: tuple[float, float] | None = None, rounds: bool = True) -> None:
        super().__init__()
        self.symmetric, self.known, self.rounds = symmetric, limits is not None, rounds
        low, high = limits or (0.0, 0.0)
        self.register_buffer("low", torch.tensor(low))
        self.register_buffer("high", torch.tensor(high))
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, values: Tensor) -> Tensor:
        """Return values that int8 can hold."""
        if self.mode == "float":
            return values
        if not self.known:
            self._follow(values.detach())
        if self.mode == "observe" or not self.rounds:
            return values
        if self.symmetric:
            scale = (torch.maximum(-self.low, self.high) / 127).clamp(min=LEAST)
            return torch.fake_quantize_per_tensor_affine(values, scale, torch.zeros_like(scale, dtype=torch.int32), -127, 127)
        scale = ((self.high - self.low) / 255).clamp(min=LEAST)
        zero = (-128 - self.low / scale).round().clamp(-128, 127).to(torch.int32)
        return torch.fake_quantize_per_tensor_affine(values, scale, zero, -128, 127)

    def _follow(self, values: Tensor) -> None:
        """Take the range of what is seen, or go some of the way to it."""
        if self.mode == "observe":
            self.low, self.high = torch.minimum(self.low, values.min()), torch.maximum(self.high, values.max())
        elif self.training and self.steps > 0:
            self.steps = self.steps - 1
            self.low = self.low + MOMENTUM * (values.min().clamp(max=0) - self.low)
            self.high = self.high + MOMENTUM * (values.max().clamp(min=0) - self.high)

    @property
    def limits(self) -> tuple[float, float]:
        """Return the range, 0 inside it."""
        low, high = float(self.low), float(self.high)
        return (-max(-low, high), max(-low, high)) if self.symmetric else (low, high)


class FakeQuantized(nn.Module):
    """A network in float, or rounding; it shares its weights with the network that it is made of."""

    def __init__(self, module: nn.Module, example: Tensor, symmetric: bool) -> None:
        super().__init__()
        try:
            graph = graphs.traced(module)
        except Exception as error:  # it is a user's own code
            first = next(iter(str(error).splitlines()), "")
            what = f"torch.fx cannot follow it ({type(error).__name__}: {first}), and no ranges can be learned"
            raise InputError(f"{type(module).__name__}: {what}; choose another architecture") from error
        self._places = places(graph, example)
        modules = dict(graph.named_modules())
        for node in [node for node in graph.graph.nodes if self._places.get(node.name) == node.name]:
            limits = FIXED.get(graphs.kind_of(node, modules))
            graph.add_submodule(f"rounded.{node.name}", Rounded(symmetric, limits, graphs.BESIDE not in node.meta))
            with graph.graph.inserting_after(node):
                made = graph.graph.call_module(f"rounded.{node.name}", (node,))
            node.replace_all_uses_with(made, delete_user_cb=lambda user, made=made: user is not made)
        graph.recompile()
        self.graph = graph
        self._layers = [layer for layer in graph.modules() if isinstance(layer, WEIGHTED)]
        for layer in self._layers:
            parametrize.register_parametrization(layer, "weight", RoundedWeight())

    def forward(self, images: Tensor) -> Any:
        """Return what the network does."""
        return self.graph(images)

    def train(self, mode: bool = True) -> FakeQuantized:
        """Train all but the statistics of norms: they are folded into weights whose scales must not move under them."""
        super().train(mode)
        for layer in self.modules():
            if isinstance(layer, _BatchNorm):
                layer.eval()
        return self

    def set_mode(self, mode: Mode) -> None:
        """Compute in float, note ranges on the way, or round."""
        for layer in self.modules():
            if isinstance(layer, Rounded | RoundedWeight):
                layer.mode = mode

    def calibrate(self, batches: Iterable[Tensor]) -> None:
        """Take the ranges of some batches, and round from now on."""
        self.eval()
        self.set_mode("observe")
        with torch.no_grad():
            for images in batches:
                self(images)
        self.set_mode("round")

    def follow(self, steps: int) -> None:
        """Let the ranges follow what is trained for so many steps."""
        for layer in self._rounded().values():
            layer.steps = torch.tensor(steps)

    def calibrate_scores(self, batches: Iterable[Tensor]) -> None:
        """Take the range of the scores again: they grow on once ranges stay, and two that are cut off decide nothing.

        Nothing is computed from them, so that no weight has learned anything of their range.
        """
        [scores] = next(node for node in self.graph.graph.nodes if node.op == "output").all_input_nodes
        layer = self.graph.get_submodule(scores.target) if scores.op == "call_module" else None
        if not isinstance(layer, Rounded) or layer.known:
            return
        self.eval()
        layer.low, layer.high, layer.mode = torch.zeros_like(layer.low), torch.zeros_like(layer.high), "observe"
        with torch.no_grad():
            for images in batches:
                self(images)
        layer.mode = "round"

    def ranges(self) -> Ranges:
        """Return the range of each place, also of those that take over another's, by node."""
        rounded = self._rounded()
        return {node: rounded[place].limits for node, place in self._places.items()}

    def take(self, ranges: Mapping[str, tuple[float, float]]) -> None:
        """Round within given ranges."""
        for place, layer in self._rounded().items():
            layer.low, layer.high = (torch.tensor(limit) for limit in ranges[place])
        self.set_mode("round")

    def release(self) -> None:
        """Give the network its plain weights back."""
        for layer in self._layers:
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)

    def _rounded(self) -> dict[str, Rounded]:
        found = dict(self.graph.get_submodule("rounded").named_children())
        return {name: layer for name, layer in found.items() if isinstance(layer, Rounded)}


def places(graph: fx.GraphModule, example: Tensor) -> dict[str, str]:
    """Find which nodes' values are tensors of an INT8 file, and after which node each one's are rounded: itself, mostly."""
    real: set[str] = set()
    several: set[str] = set()

    class Keeper(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            found = super().run_node(n)
            if isinstance(found, Tensor) and found.is_floating_point():
                real.add(n.name)
            elif isinstance(found, tuple | list):
                several.add(n.name)
            return found

    with torch.no_grad():
        Keeper(graph).run(example)
    modules = dict(graph.named_modules())
    found: dict[str, str] = {}
    for node in graph.graph.nodes:
        if node.name not in real | several or node.op in ("output", "get_attr"):
            continue
        if _moves(graphs.kind_of(node, modules)):
            before = node.args[0] if node.args and isinstance(node.args[0], fx.Node) else None
            if before is not None and before.name in found:
                found[node.name] = found[before.name]
        elif node.name in real and not _fused(node, modules):
            found[node.name] = node.name
    return {name: place for name, place in found.items() if name in real}


def _moves(kind: Any) -> bool:
    return kind in MOVES or getattr(kind, "__name__", "") in MOVES_BY_NAME


def _fused(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Return whether a node's values are gone once the one that follows is fused with it."""
    if len(node.users) != 1:
        return False
    own, after = graphs.kind_of(node, modules), graphs.kind_of(next(iter(node.users)), modules)
    layer = own if isinstance(own, type) else object
    if isinstance(after, type) and issubclass(after, _BatchNorm):
        return issubclass(layer, CONVOLUTIONS)
    return after in RECTIFIERS and (own in SUMS or issubclass(layer, (*WEIGHTED, _BatchNorm)))
