"""Operations of Core ML's MIL, as coremltools documents them, written in torch.

Each takes an operation's arguments by their names: tensors are float32 (or
int64, bool) torch tensors, shapes and flags plain numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edgebench.exporters._mil_shapes import SHAPES

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


# ---------------------------------------------------------------- windows


def padding(
    x: Tensor, window: Sequence[int], strides: Sequence[int], pad_type: str, pad: Sequence[int] | None, dilations: Sequence[int]
) -> list[tuple[int, int]]:
    """Return what is added before and after each spatial axis."""
    if pad_type == "valid":
        return [(0, 0)] * len(window)
    if pad_type == "custom":
        given = list(pad or [0] * 2 * len(window))
        return list(zip(given[::2], given[1::2], strict=True))
    added = []
    for size, width, stride, dilation in zip(x.shape[2:], window, strides, dilations, strict=True):
        total = max(0, (-(-size // stride) - 1) * stride + (width - 1) * dilation + 1 - size)
        less, more = total // 2, total - total // 2
        added.append((more, less) if pad_type == "same_lower" else (less, more))
    return added


def padded(x: Tensor, added: Sequence[tuple[int, int]], value: float) -> Tensor:
    """Pad the spatial axes."""
    flat = [amount for pair in reversed(added) for amount in pair]
    return _torch().nn.functional.pad(x, flat, value=value) if any(flat) else x


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    strides: Sequence[int] | None = None,
    pad_type: str = "valid",
    pad: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    groups: int = 1,
) -> Tensor:
    """Convolve [n, c, …] over one, two or three spatial axes."""
    window = weight.shape[2:]
    strides, dilations = strides or [1] * len(window), dilations or [1] * len(window)
    added = padding(x, window, strides, pad_type, pad, dilations)
    run = getattr(_torch().nn.functional, f"conv{len(window)}d")
    return run(padded(x, added, 0.0), weight, bias, stride=strides, dilation=dilations, groups=groups)


def _check_ceil(
    ceil_mode: bool, x: Tensor, window: Sequence[int], strides: Sequence[int], added: Sequence[tuple[int, int]]
) -> None:
    """Refuse rounding up where it would change the shape: what the windows beyond the edge hold is not documented."""
    sizes = [size + sum(pair) - width for size, pair, width in zip(x.shape[2:], added, window, strict=True)]
    if ceil_mode and any(size % stride for size, stride in zip(sizes, strides, strict=True)):
        raise NotImplementedError("pooling with ceil_mode over an incomplete last window")


def max_pool(
    x: Tensor,
    kernel_sizes: Sequence[int],
    strides: Sequence[int] | None = None,
    pad_type: str = "valid",
    pad: Sequence[int] | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """Take the maximum of windows."""
    strides = strides or [1] * len(kernel_sizes)
    added = padding(x, kernel_sizes, strides, pad_type, pad, [1] * len(kernel_sizes))
    _check_ceil(ceil_mode, x, kernel_sizes, strides, added)
    run = getattr(_torch().nn.functional, f"max_pool{len(kernel_sizes)}d")
    return run(padded(x, added, float("-inf")), kernel_sizes, strides)


def avg_pool(
    x: Tensor,
    kernel_sizes: Sequence[int],
    strides: Sequence[int] | None = None,
    pad_type: str = "valid",
    pad: Sequence[int] | None = None,
    exclude_padding_from_average: bool = False,
    ceil_mode: bool = False,
) -> Tensor:
    """Average windows, with the padding's zeros or without."""
    torch = _torch()
    strides = strides or [1] * len(kernel_sizes)
    added = padding(x, kernel_sizes, strides, pad_type, pad, [1] * len(kernel_sizes))
    _check_ceil(ceil_mode, x, kernel_sizes, strides, added)
    run = getattr(torch.nn.functional, f"avg_pool{len(kernel_sizes)}d")
    means = run(padded(x, added, 0.0), kernel_sizes, strides)
    if not exclude_padding_from_average or not any(map(sum, added)):
        return means
    return means / run(padded(torch.ones_like(x), added, 0.0), kernel_sizes, strides)


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


OPERATIONS: dict[str, Operation] = {
    **SHAPES,
    **{name: _unary(name) for name in ("abs", "erf", "exp", "relu", "sigmoid", "sqrt", "square", "tanh")},
    "softplus": lambda x: _torch().nn.functional.softplus(x),
    **{name: _binary(torch) for name, torch in (("add", "add"), ("sub", "sub"), ("mul", "mul"), ("real_div", "div"))},
    **{name: _binary(name) for name in ("maximum", "minimum", "pow")},
    "reduce_mean": _reduced("mean"),
    "reduce_sum": _reduced("sum"),
    "reduce_max": _reduced("amax"),
    "reduce_min": _reduced("amin"),
    "identity": lambda x: x,
    "cast": cast,
    "conv": conv,
    "max_pool": max_pool,
    "avg_pool": avg_pool,
    "linear": linear,
    "matmul": matmul,
    "scaled_dot_product_attention": attention,
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
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
}
