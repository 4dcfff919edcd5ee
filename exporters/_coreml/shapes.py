"""Operations of Core ML's MIL that move values about, written in torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Tensor = Any


def reshape(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Give another shape; 0 keeps an axis."""
    return x.reshape([x.shape[index] if size == 0 else size for index, size in enumerate(shape)])


def transpose(x: Tensor, perm: Sequence[int]) -> Tensor:
    """Order the axes anew."""
    return x.permute(list(perm))


def expand_dims(x: Tensor, axes: Sequence[int]) -> Tensor:
    """Insert axes of length 1."""
    for axis in sorted(axis if axis >= 0 else axis + x.dim() + len(axes) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def squeeze(x: Tensor, axes: Sequence[int] | None = None) -> Tensor:
    """Remove axes of length 1."""
    return x.squeeze(tuple(axes)) if axes is not None else x.squeeze()


def concat(values: Sequence[Tensor], axis: int, interleave: bool = False) -> Tensor:
    """Join along an axis."""
    import torch

    if interleave:
        raise NotImplementedError("concat that interleaves")
    return torch.cat([value.float() for value in values], dim=axis)


def stack(values: Sequence[Tensor], axis: int) -> Tensor:
    """Join along a new axis."""
    import torch

    return torch.stack(list(values), dim=axis)


def split(x: Tensor, axis: int, num_splits: int | None = None, split_sizes: Sequence[int] | None = None) -> tuple[Tensor, ...]:
    """Cut along an axis."""
    return tuple(x.split(list(split_sizes) if split_sizes is not None else x.shape[axis] // (num_splits or 1), dim=axis))


def slice_by_index(
    x: Tensor,
    begin: Sequence[int],
    end: Sequence[int],
    stride: Sequence[int] | None = None,
    begin_mask: Sequence[bool] | None = None,
    end_mask: Sequence[bool] | None = None,
    squeeze_mask: Sequence[bool] | None = None,
) -> Tensor:
    """Cut a block out; a mask leaves an end of an axis as it is, or takes one index of it."""
    none = [False] * x.dim()
    index: list[Any] = []
    for axis in range(x.dim()):
        step = (stride or [1] * x.dim())[axis]
        first = None if (begin_mask or none)[axis] else begin[axis]
        last = None if (end_mask or none)[axis] else end[axis]
        index.append(begin[axis] if (squeeze_mask or none)[axis] else slice(first, last, step))
    return x[tuple(index)]


def gather(x: Tensor, indices: Any, axis: int = 0, batch_dims: int = 0, validate_indices: bool = False) -> Tensor:
    """Pick constant indices along an axis."""
    import torch

    if batch_dims:
        raise NotImplementedError("gather over batches")
    axis, wanted = axis % x.dim(), torch.as_tensor(indices)
    picked = x.index_select(axis, wanted.reshape(-1) % x.shape[axis])
    return picked.reshape([*x.shape[:axis], *wanted.shape, *x.shape[axis + 1 :]])


def pad(x: Tensor, pad: Sequence[int], mode: str = "constant", constant_val: Any = 0.0) -> Tensor:
    """Pad the last axes."""
    import torch

    pairs = list(zip(pad[::2], pad[1::2], strict=True))
    flat = [amount for pair in reversed(pairs) for amount in pair]
    if mode == "constant":
        return torch.nn.functional.pad(x, flat, value=float(constant_val))
    while flat[-2:] == [0, 0]:
        flat = flat[:-2]
    return torch.nn.functional.pad(x, flat, mode={"reflect": "reflect", "replicate": "replicate"}[mode])


def crop(x: Tensor, crop_height: Sequence[int], crop_width: Sequence[int]) -> Tensor:
    """Cut off the ends of the last two axes."""
    (top, bottom), (left, right) = crop_height, crop_width
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


def pixel_shuffle(x: Tensor, upscale_factor: int) -> Tensor:
    """Turn channels into finer rows and columns."""
    import torch

    return torch.pixel_shuffle(x, int(upscale_factor))


def reverse(x: Tensor, axes: Sequence[int] | None = None) -> Tensor:
    """Turn the order along some axes, or all, around."""
    return x.flip(tuple(axes) if axes is not None else tuple(range(x.dim())))


def tile(x: Tensor, reps: Sequence[int]) -> Tensor:
    """Repeat along each axis."""
    return x.repeat(list(reps))


SHAPES: dict[str, Callable[..., Any]] = {
    "reshape": reshape,
    "transpose": transpose,
    "expand_dims": expand_dims,
    "squeeze": squeeze,
    "concat": concat,
    "stack": stack,
    "split": split,
    "slice_by_index": slice_by_index,
    "gather": gather,
    "pad": pad,
    "crop": crop,
    "pixel_shuffle": pixel_shuffle,
    "reverse": reverse,
    "tile": tile,
}
