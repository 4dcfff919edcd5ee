"""A network as a graph whose nodes are the tensors of an INT8 file, also those inside activations, attention and norms.

Converters write HardSwish, SiLU and GELU as products with a gate, attention as two products around a softmax. So does this
graph, and computes what the network does; nodes keep the names that `torch.fx` gives them, and what is inside one is called
after it. What only some converters write out (the statistics of a layer norm) hangs beside it and goes nowhere.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

BESIDE = "edgebench_beside"
"""Marks, in a node's `meta`, what hangs beside the computation."""


def traced(module: nn.Module) -> fx.GraphModule:
    """Trace a network, and write out what is inside its nodes; it shares its parameters with the network.

    Raises whatever `torch.fx` or the network's own code raises.
    """
    graph = fx.symbolic_trace(module)
    modules = dict(graph.named_modules())
    for node in list(graph.graph.nodes):
        rule = RULES.get(kind_of(node, modules))
        if rule is not None:
            rule(Site(graph, node, modules))
    graph.graph.lint()
    graph.recompile()
    return graph


def kind_of(node: fx.Node, modules: dict[str, nn.Module]) -> Any:
    """Return what a node calls: a layer's type, a function, or a method's name."""
    return type(modules[str(node.target)]) if node.op == "call_module" else node.target


@dataclass(frozen=True)
class Site:
    """A node that is written out."""

    graph: fx.GraphModule
    node: fx.Node
    modules: dict[str, nn.Module]

    def given(self, *names: str) -> dict[str, Any]:
        """Return its arguments by name, those that have no default first; of the network's own, their defaults."""
        given = {**dict(zip(names, self.node.args, strict=False)), **self.node.kwargs}
        return {name: _default(value) for name, value in given.items()}

    def before(self, what: str, function: Callable[..., Any], *args: Any) -> fx.Node:
        """Put a call of a function before it."""
        with self.graph.graph.inserting_before(self.node):
            return self.graph.graph.create_node("call_function", function, args, {}, f"{self.node.name}_{what}")

    def beside(self, what: str, function: Callable[..., Any], *args: Any) -> fx.Node:
        """Put a call before it that nothing depends on."""
        made = self.before(what, function, *args)
        made.meta[BESIDE] = True
        return made

    def module(self, what: str, path: str, *args: Any) -> fx.Node:
        """Put a call of a layer before it."""
        with self.graph.graph.inserting_before(self.node):
            return self.graph.graph.create_node("call_module", path, args, {}, f"{self.node.name}_{what}")

    def parameter(self, path: str) -> fx.Node:
        """Put a reading of a parameter before it."""
        with self.graph.graph.inserting_before(self.node):
            return self.graph.graph.create_node("get_attr", path)

    def become(self, function: Callable[..., Any], *args: Any) -> None:
        """Let the node itself call a function; its name stays."""
        self.node.op, self.node.target = "call_function", function
        self.node.args, self.node.kwargs = args, {}


def _default(value: Any) -> Any:
    """Return what an argument of the network is where none is given, as none is: only its inputs are."""
    return value.args[0] if isinstance(value, fx.Node) and value.op == "placeholder" and value.args else value


# ---------------------------------------------------------------- activations


def error_of(values: Tensor) -> Tensor:
    """Return erf(x / √2), the gate of GELU less one (D. Hendrycks, K. Gimpel 2016)."""
    return torch.erf(values / math.sqrt(2))


def _hardswish(site: Site) -> None:
    values = site.given("input")["input"]
    site.become(operator.mul, values, site.before("gate", functional.hardsigmoid, values))


def _hardsigmoid(site: Site) -> None:
    shifted = site.before("shifted", operator.add, site.given("input")["input"], 3.0)
    site.become(operator.mul, site.before("clipped", functional.relu6, shifted), 1 / 6)


def _silu(site: Site) -> None:
    values = site.given("input")["input"]
    site.become(operator.mul, values, site.before("gate", torch.sigmoid, values))


def _gelu(site: Site) -> None:
    values = site.given("input")["input"]
    layer = site.modules.get(str(site.node.target))
    if (site.node.kwargs.get("approximate") or getattr(layer, "approximate", "none")) != "none":
        return
    error = site.before("error", error_of, values)
    doubled = site.before("doubled", operator.mul, values, site.before("gate", operator.add, error, 1.0))
    site.become(operator.mul, doubled, 0.5)


# ---------------------------------------------------------------- attention


def scaled(values: Tensor, scale: float | None = None) -> Tensor:
    """Multiply queries, or keys, with the root of the scale of their product: 1 / √width unless given."""
    return values * math.sqrt(values.shape[-1] ** -0.5 if scale is None else scale)


def products(queries: Tensor, keys: Tensor) -> Tensor:
    """Multiply each query with each key: [..., queries, keys]."""
    return queries @ keys.transpose(-2, -1)


def split_heads(packed: Tensor, heads: int) -> Tensor:
    """Part queries, keys and values [n, tokens, 3 · width] by heads: [3, n, heads, tokens, width of a head]."""
    count, tokens, width = packed.shape
    return packed.reshape(count, tokens, 3, heads, width // 3 // heads).permute(2, 0, 3, 1, 4)


def join_heads(values: Tensor) -> Tensor:
    """Put the heads [n, heads, tokens, width of a head] together again: [n, tokens, width]."""
    return values.transpose(1, 2).flatten(2)


def _weighed(site: Site, queries: Any, keys: Any, scale: float | None = None) -> fx.Node:
    """Put the weights before a node that attention gives to each key."""
    both = site.before("queries", scaled, queries, scale), site.before("keys", scaled, keys, scale)
    return site.before("weights", torch.softmax, site.before("products", products, *both), -1)


def _attention(site: Site) -> None:
    given = site.given("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    if given.get("attn_mask") is not None or any(given.get(name) for name in ("dropout_p", "is_causal", "enable_gqa")):
        return
    site.become(torch.matmul, _weighed(site, given["query"], given["key"], given.get("scale")), given["value"])


def _self_attention(site: Site) -> None:
    """Write out a layer of attention whose queries, keys and values are projections of one tensor."""
    node, layer = site.node, site.modules[str(site.node.target)]
    assert isinstance(layer, nn.MultiheadAttention)
    given = site.given("query", "key", "value")
    used = [user for user in node.users if user.users]
    alike = given["query"] is given["key"] is given["value"] and layer.in_proj_weight is not None and layer.batch_first
    more = layer.bias_k is not None or layer.add_zero_attn or layer.dropout or given.get("is_causal")
    masked = given.get("key_padding_mask") is not None or given.get("attn_mask") is not None
    if not alike or more or masked or any((user.target, user.args[1:]) != (operator.getitem, (0,)) for user in used):
        return
    site.graph.add_submodule(f"packed.{node.name}", _packed(layer))
    packed = site.module("packed", f"packed.{node.name}", given["query"])
    parted = site.before("heads", split_heads, packed, layer.num_heads)
    queries, keys, values = (site.before(f"part{index}", operator.getitem, parted, index) for index in range(3))
    mixed = site.before("mixed", torch.matmul, _weighed(site, queries, keys), values)
    joined = site.before("joined", join_heads, mixed)
    for user in used:
        user.op, user.target, user.args = "call_module", f"{node.target}.out_proj", (joined,)
    for user in list(node.users):
        site.graph.graph.erase_node(user)
    site.graph.graph.erase_node(node)


def _packed(layer: nn.MultiheadAttention) -> nn.Linear:
    """Return the projection to queries, keys and values as a layer, with the parameters of the layer of attention."""
    assert layer.in_proj_weight is not None
    rows, columns = layer.in_proj_weight.shape
    made = nn.Linear(columns, rows, bias=layer.in_proj_bias is not None, device="meta")
    made.weight, made.bias = layer.in_proj_weight, layer.in_proj_bias
    return made


# ---------------------------------------------------------------- norms


def _layer_norm(site: Site) -> None:
    """Hang the steps of a layer norm beside it, as converters write it that have no operator for it."""
    given = site.given("input", "normalized_shape", "weight", "bias", "eps")
    layer = site.modules.get(str(site.node.target))
    weight: Any
    if isinstance(layer, nn.LayerNorm):
        weight = site.parameter(f"{site.node.target}.weight") if layer.weight is not None else None
        shape, eps = layer.normalized_shape, layer.eps
    else:
        shape, weight, eps = given["normalized_shape"], given.get("weight"), given.get("eps", 1e-5)
    if not isinstance(shape, tuple | list):
        return
    axes = tuple(range(-len(shape), 0))
    mean = site.beside("mean", torch.mean, given["input"], axes, True)
    centred = site.beside("centred", operator.sub, given["input"], mean)
    variance = site.beside("variance", torch.mean, site.beside("squares", torch.square, centred), axes, True)
    root = site.beside("root", torch.rsqrt, site.beside("steadied", operator.add, variance, eps))
    site.beside("negated", operator.neg, site.beside("shift", operator.mul, mean, root))
    site.beside("spread", operator.mul, given["input"], root)
    normal = site.beside("normal", operator.mul, centred, root)
    if weight is not None:
        site.beside("weighted", operator.mul, normal, weight)


RULES: dict[Any, Callable[[Site], None]] = {
    **dict.fromkeys((nn.Hardswish, functional.hardswish), _hardswish),
    **dict.fromkeys((nn.Hardsigmoid, functional.hardsigmoid), _hardsigmoid),
    **dict.fromkeys((nn.SiLU, functional.silu), _silu),
    **dict.fromkeys((nn.GELU, functional.gelu), _gelu),
    **dict.fromkeys((nn.LayerNorm, functional.layer_norm), _layer_norm),
    functional.scaled_dot_product_attention: _attention,
    nn.MultiheadAttention: _self_attention,
}
"""How what a node calls is written out."""
