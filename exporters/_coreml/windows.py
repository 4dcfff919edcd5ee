"""Operations of Core ML's MIL that slide over an image's axes, or stretch them, written in torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Tensor = Any


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
    import torch

    flat = [amount for pair in reversed(added) for amount in pair]
    return torch.nn.functional.pad(x, flat, value=value) if any(flat) else x


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
    import torch

    window = weight.shape[2:]
    strides, dilations = strides or [1] * len(window), dilations or [1] * len(window)
    added = padding(x, window, strides, pad_type, pad, dilations)
    run = getattr(torch.nn.functional, f"conv{len(window)}d")
    return run(padded(x, added, 0.0), weight, bias, stride=strides, dilation=dilations, groups=groups)


def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    pad: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pad_type: str = "valid",
    strides: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    groups: int = 1,
) -> Tensor:
    """Convolve backwards: weights are [in, out / groups, …]; the padding is what is cut off."""
    import torch

    window = weight.shape[2:]
    strides, dilations = strides or [1] * len(window), dilations or [1] * len(window)
    if pad_type not in ("valid", "custom"):
        raise NotImplementedError(f"conv_transpose with pad_type {pad_type}")
    run = getattr(torch.nn.functional, f"conv_transpose{len(window)}d")
    made = run(x, weight, bias, stride=strides, dilation=dilations, groups=groups)
    cut = padding(x, window, strides, pad_type, pad, dilations)
    for axis, (before, after) in enumerate(cut, start=2):
        made = made.narrow(axis, before, made.shape[axis] - before - after)
    if output_shape is not None and list(made.shape[2:]) != list(output_shape[2:]):
        raise NotImplementedError(f"conv_transpose to {list(output_shape)}")
    return made


def _last_window(
    x: Tensor, window: Sequence[int], strides: Sequence[int], added: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Add what rounding up wants for the last window, if that begins inside the input or before it, as PyTorch has it."""
    found = []
    for size, (before, after), width, stride in zip(x.shape[2:], added, window, strides, strict=True):
        count = -(-(size + before + after - width) // stride) + 1
        count -= (count - 1) * stride >= size + before
        found.append((before, after + max(0, (count - 1) * stride + width - size - before - after)))
    return found


def max_pool(
    x: Tensor,
    kernel_sizes: Sequence[int],
    strides: Sequence[int] | None = None,
    pad_type: str = "valid",
    pad: Sequence[int] | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """Take the maximum of windows."""
    import torch

    strides = strides or [1] * len(kernel_sizes)
    added = padding(x, kernel_sizes, strides, pad_type, pad, [1] * len(kernel_sizes))
    added = _last_window(x, kernel_sizes, strides, added) if ceil_mode else added
    run = getattr(torch.nn.functional, f"max_pool{len(kernel_sizes)}d")
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
    import torch

    strides = strides or [1] * len(kernel_sizes)
    added = padding(x, kernel_sizes, strides, pad_type, pad, [1] * len(kernel_sizes))
    if ceil_mode and _last_window(x, kernel_sizes, strides, added) != added:
        raise NotImplementedError("avg_pool with ceil_mode over an incomplete last window: its divisor is not documented")
    run = getattr(torch.nn.functional, f"avg_pool{len(kernel_sizes)}d")
    means = run(padded(x, added, 0.0), kernel_sizes, strides)
    if not exclude_padding_from_average or not any(map(sum, added)):
        return means
    return means / run(padded(torch.ones_like(x), added, 0.0), kernel_sizes, strides)


def upsample_nearest_neighbor(x: Tensor, scale_factor_height: Any = 1, scale_factor_width: Any = 1) -> Tensor:
    """Repeat rows and columns."""
    factors = float(scale_factor_height), float(scale_factor_width)
    if not all(factor.is_integer() for factor in factors):
        raise NotImplementedError("upsample_nearest_neighbor by a fraction")
    return x.repeat_interleave(int(factors[0]), -2).repeat_interleave(int(factors[1]), -1)


def upsample_bilinear(
    x: Tensor,
    scale_factor_height: Any = 1,
    scale_factor_width: Any = 1,
    align_corners: bool = True,
    half_pixel_centers: bool | None = None,
) -> Tensor:
    """Interpolate the last two axes [n, c, h, w]."""
    import torch

    if half_pixel_centers is not None and half_pixel_centers == align_corners:
        raise NotImplementedError("upsample_bilinear that aligns neither corners nor centres")
    factors = float(scale_factor_height), float(scale_factor_width)
    size = [int(before * factor) for before, factor in zip(x.shape[-2:], factors, strict=True)]
    return torch.nn.functional.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)


WINDOWS: dict[str, Callable[..., Any]] = {
    "conv": conv,
    "conv_transpose": conv_transpose,
    "max_pool": max_pool,
    "avg_pool": avg_pool,
    "upsample_nearest_neighbor": upsample_nearest_neighbor,
    "upsample_bilinear": upsample_bilinear,
}
