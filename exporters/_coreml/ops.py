"""Operations of Core ML's MIL, as coremltools documents them, written in torch.

Each takes an operation's arguments by their names: tensors are float32 (or
int64, bool) torch tensors, shapes and flags plain numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edgebench.exporters._coreml.shapes import SHAPES
from edgebench.exporters._coreml.windows import WINDOWS

Tensor = Any
Operation = Callable[..., Any]
DTYPES = {"fp16": "float32", "fp32": "float32", "int32": "int64", "int16": "int64", "bool": "bool"}
"""What a dtype is computed in; the interpreter itself rounds to float16."""


def _torch() -> Any:
    import torch

    return torch


def _unary(name: str) -> Operation:
    def run(x: Tensor) -> Tensor:
        return getattr(_torch(), name)(x)

    return run


def _binary(name: str) -> Operation:
    def run(x: Tensor, y: Tensor) -> Tensor:
        torch = _torch()
        return getattr(torch, name)(*(torch.as_tensor(side) for side in (x, y)))

    return run


def _reduced(name: str) -> Operation:
    def run(x: Tensor, axes: Sequence[int] | None = None, keep_dims: bool = False) -> Tensor:
        dims = tuple(axes) if axes is not None else tuple(range(x.dim()))
        return getattr(_torch(), name)(x, dim=dims, keepdim=keep_dims)

    return run


def cast(x: Tensor, dtype: str) -> Tensor:
    """Convert a tensor."""
    return x.to(getattr(_torch(), DTYPES[dtype]))


def reduce_argmax(x: Tensor, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32") -> Tensor:
    """Find the index of the largest value."""
    return x.argmax(axis, keepdim=keep_dims)


def cumsum(x: Tensor, axis: int = 0, exclusive: bool = False, reverse: bool = False) -> Tensor:
    """Sum up along an axis."""
    if exclusive or reverse:
        raise NotImplementedError("cumsum that is exclusive or reverse")
    return x.cumsum(axis)


def select(cond: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Choose where a condition holds, and where not."""
    torch = _torch()
    return torch.where(*(torch.as_tensor(value) for value in (cond, a, b)))


# ---------------------------------------------------------------- matrices and normalisation


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply by a transposed weight [out, in]."""
    return _torch().nn.functional.linear(x, weight, bias)


def matmul(x: Tensor, y: Tensor, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    """Multiply matrices."""
    return (x.mT if transpose_x else x) @ (y.mT if transpose_y else y)


def attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    """Attend, scaled by the root of the query's width."""
    return _torch().nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask)


def batch_norm(
    x: Tensor, mean: Tensor, variance: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None, epsilon: Any = 1e-5
) -> Tensor:
    """Normalise by stored statistics, one for each channel."""
    shape = [-1, *[1] * (x.dim() - 2)]
    made = (x - mean.reshape(shape)) / (variance.reshape(shape) + epsilon).sqrt()
    made = made if gamma is None else made * gamma.reshape(shape)
    return made if beta is None else made + beta.reshape(shape)


def layer_norm(
    x: Tensor, axes: Sequence[int] | None = None, gamma: Tensor | None = None, beta: Tensor | None = None, epsilon: Any = 1e-5
) -> Tensor:
    """Normalise over some axes."""
    dims = list(axes) if axes is not None else list(range(x.dim()))
    centred = x - x.mean(dims, keepdim=True)
    made = centred / ((centred * centred).mean(dims, keepdim=True) + epsilon).sqrt()
    made = made if gamma is None else made * gamma
    return made if beta is None else made + beta


def instance_norm(x: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None, epsilon: Any = 1e-5) -> Tensor:
    """Normalise each channel of [n, c, …] by itself."""
    shape = [-1, *[1] * (x.dim() - 2)]
    scale, bias = (None if value is None else value.reshape(shape) for value in (gamma, beta))
    return layer_norm(x, range(2, x.dim()), scale, bias, epsilon)


def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """Turn scores into shares of 1."""
    return x.softmax(axis)


# ---------------------------------------------------------------- activations


def relu6(x: Tensor) -> Tensor:
    """Clip to 0…6."""
    return x.clamp(0, 6)


def clip(x: Tensor, alpha: Any, beta: Any) -> Tensor:
    """Clip to alpha…beta."""
    return x.clamp(float(alpha), float(beta))


def sigmoid_hard(x: Tensor, alpha: Any = 0.2, beta: Any = 0.5) -> Tensor:
    """Clip a line to 0…1."""
    return (alpha * x + beta).clamp(0, 1)


def thresholded_relu(x: Tensor, alpha: Any = 1.0) -> Tensor:
    """Keep what is alpha at least."""
    return _torch().where(x >= alpha, x, 0.0)


def leaky_relu(x: Tensor, alpha: Any = 0.01) -> Tensor:
    """Scale what is negative."""
    return _torch().where(x >= 0, x, alpha * x)


def elu(x: Tensor, alpha: Any = 1.0) -> Tensor:
    """Bend what is negative exponentially."""
    return _torch().where(x >= 0, x, alpha * x.clamp(max=0).expm1())


def prelu(x: Tensor, alpha: Tensor) -> Tensor:
    """Scale what is negative, by channel."""
    return _torch().where(x >= 0, x, alpha.reshape([-1, *[1] * (x.dim() - 2)]) * x)


def silu(x: Tensor) -> Tensor:
    """Multiply by its sigmoid."""
    return x * x.sigmoid()


def gelu(x: Tensor, mode: str = "EXACT") -> Tensor:
    """Weigh by the normal distribution, exactly or by one of its two approximations."""
    if mode == "SIGMOID_APPROXIMATION":
        return x * (1.702 * x).sigmoid()
    return _torch().nn.functional.gelu(x, approximate="none" if mode == "EXACT" else "tanh")


def rsqrt(x: Tensor, epsilon: Any = 1e-12) -> Tensor:
    """Return 1 / √(x + ε)."""
    return (x + epsilon).rsqrt()


def log(x: Tensor, epsilon: Any = 1e-45) -> Tensor:
    """Return the natural logarithm of x + ε."""
    return (x + epsilon).log()


OPERATIONS: dict[str, Operation] = {
    **SHAPES,
    **WINDOWS,
    **{name: _unary(name) for name in ("abs", "erf", "exp", "relu", "sigmoid", "sqrt", "square", "tanh")},
    **{name: _unary(name) for name in ("ceil", "cos", "floor", "round", "sign", "sin", "logical_not")},
    "softplus": lambda x: _torch().nn.functional.softplus(x),
    **{name: _binary(torch) for name, torch in (("add", "add"), ("sub", "sub"), ("mul", "mul"), ("real_div", "div"))},
    **{name: _binary(name) for name in ("maximum", "minimum", "pow", "greater", "greater_equal", "less", "less_equal")},
    **{name: _binary(torch) for name, torch in (("equal", "eq"), ("not_equal", "ne"))},
    **{name: _binary(name) for name in ("logical_and", "logical_or")},
    "reduce_mean": _reduced("mean"),
    "reduce_sum": _reduced("sum"),
    "reduce_max": _reduced("amax"),
    "reduce_min": _reduced("amin"),
    "reduce_l2_norm": lambda x, **given: _reduced("sum")(x * x, **given).sqrt(),
    "reduce_argmax": reduce_argmax,
    "cumsum": cumsum,
    "select": select,
    "identity": lambda x: x,
    "cast": cast,
    "linear": linear,
    "matmul": matmul,
    "scaled_dot_product_attention": attention,
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "instance_norm": instance_norm,
    "softmax": softmax,
    "relu6": relu6,
    "clip": clip,
    "sigmoid_hard": sigmoid_hard,
    "thresholded_relu": thresholded_relu,
    "leaky_relu": leaky_relu,
    "elu": elu,
    "prelu": prelu,
    "silu": silu,
    "gelu": gelu,
    "rsqrt": rsqrt,
    "log": log,
}
