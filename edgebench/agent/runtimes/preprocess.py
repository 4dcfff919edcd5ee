"""From uint8 images or volumes to a network's input, the same on host and device.

Works on any array with numpy's methods and imports none, so that the agent
needs numpy only where a runtime brings it.
"""

import struct
from math import floor
from typing import Any, Dict, List, Optional, Sequence, Tuple

LUMA = (19595, 38470, 7471)
"""Of ITU-R BT.601, in parts of 65536, as Pillow has them."""
Pair = Tuple[int, int]


def apply(images: Any, spec: Dict[str, Any]) -> Any:
    """Resize, fit the channels, normalise and lay out.

    images: uint8 [n, h, w, c]; returns float32 [n, c, H, W] or [n, H, W, c].
    Volumes: uint8 [n, d, h, w, c]; float32 [n, c, d, h, w] or [n, d, h, w, c].
    `spec` is `schema.Preprocessing` as a dictionary. Images that have the input's
    size are where they belong: they are neither scaled nor cut again.
    """
    pixels = resized(images, spec)
    pixels = ((pixels / 255.0 - list(spec["mean"])) / list(spec["std"])).astype("float32")
    return laid_out(pixels, spec)


def laid_out(pixels: Any, spec: Dict[str, Any]) -> Any:
    """Put the channels, which come last, where the layout wants them."""
    if spec["layout"] != "nchw":
        return pixels
    last = len(pixels.shape) - 1
    return pixels.transpose(0, last, *range(1, last)).copy()


def rank(spec: Dict[str, Any]) -> int:
    """Count the axes of one sample: 3 of an image [h, w, c], 4 of a volume [d, h, w, c]."""
    return 3 if spec.get("depth") is None else 4


def quantized(real: Any, spec: Dict[str, Any]) -> Any:
    """Turn an input into a file's integers; `spec` is `schema.TensorSpec` as a dictionary, of int8, uint8 or int16."""
    low, high = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767)}[spec["dtype"]]
    return ((real / spec["scale"]).round() + spec["zero_point"]).clip(low, high).astype(spec["dtype"])


def dequantized(output: Any, spec: Dict[str, Any]) -> Any:
    """Turn a file's integers into float32; `spec` as for `quantized`."""
    return (output.astype("float32") - spec["zero_point"]) * spec["scale"]


def whole(images: Any, spec: Dict[str, Any]) -> Any:
    """Resize and fit the channels as an image can hold it: uint8 [n, h, w, c] → uint8 [n, H, W, c].

    Halves are rounded up, with room for what float32 makes of them.
    """
    return (resized(images, spec) + 0.501).clip(0, 255).astype("uint8")


def resized(images: Any, spec: Dict[str, Any]) -> Any:
    """Resize and fit the channels: uint8 [n, h, w, c] → pixels 0…255 with fractions [n, H, W, c].

    Volumes [n, d, h, w, c] keep their size; `ValueError` where that is not the input's.
    """
    if spec.get("depth") is not None:
        return of_volumes(images, spec)
    count, height, width, _ = images.shape
    pixels, channels = with_channels(images, spec), spec["channels"]
    if (height, width) == (spec["height"], spec["width"]):
        return pixels
    if spec.get("resize") or spec.get("interpolation") or not spec.get("antialias", True):
        return placed(pixels, spec).astype("float32")
    if height != spec["height"]:
        rows = weights(height, spec["height"]) @ pixels.reshape(count, height, width * channels)
        pixels = rows.reshape(count, spec["height"], width, channels)
    if width != spec["width"]:
        columns = weights(width, spec["width"]) @ pixels.reshape(count * spec["height"], width, channels)
        pixels = columns.reshape(count, spec["height"], spec["width"], channels)
    return pixels


def of_volumes(volumes: Any, spec: Dict[str, Any]) -> Any:
    """Fit the channels of volumes: uint8 [n, d, h, w, c] → pixels 0…255 [n, d, h, w, spec's channels]."""
    wanted = [spec["depth"], spec["height"], spec["width"]]
    if list(volumes.shape[1:-1]) != wanted:
        raise ValueError("volumes are %s, and the network takes %s; they are not resized" % (list(volumes.shape[1:-1]), wanted))
    return with_channels(volumes, spec)


def with_channels(images: Any, spec: Dict[str, Any]) -> Any:
    """Repeat grey or make grey of colour: uint8 [n, …, c] → float32 [n, …, spec's channels].

    Grey is luma in whole levels where the spec says so, and the mean where it says nothing, as models of before have it.
    """
    wanted, channels = spec["channels"], images.shape[-1]
    if channels == wanted:
        return images.astype("float32")
    if spec.get("grey") == "luma" and channels == 3:
        parts = [images[..., index : index + 1].astype("int64") * LUMA[index] for index in range(3)]
        grey = ((parts[0] + parts[1] + parts[2] + 32768) // 65536).astype("float32")
    else:
        grey = images.astype("float32").mean(axis=-1, keepdims=True)
    return grey if wanted == 1 else grey.repeat(wanted, axis=-1)


def placed(images: Any, spec: Dict[str, Any]) -> Any:
    """Scale, cut and pad as `spec["resize"]` says, whatever size the images have: [n, h, w, c] → uint8 [n, H, W, c].

    As Pillow does it: along the width first, and whole levels after each pass. (Pillow 13 takes some
    images along the height first, which bicubic shows at hard edges: there it may be some levels off.)
    """
    part, (height, width), (top, left), fill = placement(images.shape[1:3], spec)
    how = (spec.get("interpolation") or "bilinear", spec.get("antialias", True))
    count, before, across, channels = images.shape
    if how[0] == "nearest":
        pixels = images[:, :, nearest(across, width, part[1], part[3])][:, nearest(before, height, part[0], part[2])]
    else:
        columns = weights(across, width, part[1], part[3], *how) @ images.reshape(count * before, across, channels)
        pixels = (levels(columns) if how[1] else columns).reshape(count, before, width * channels)
        rows = weights(before, height, part[0], part[2], *how) @ pixels
        pixels = levels(rows).reshape(count, height, width, channels)
    return cut(pixels, (top, left), (spec["height"], spec["width"]), fill).astype("uint8")


def levels(pixels: Any) -> Any:
    """Round to whole levels, halves up, within 0…255."""
    return (pixels + 0.5).clip(0, 255).astype("uint8")


def cut(pixels: Any, corner: Pair, size: Pair, fill: int) -> Any:
    """Take the window of a size from a corner on, which may lie outside of the pixels [n, h, w, c]; there is the fill."""
    (top, left), (height, width) = corner, size
    inside = pixels[:, max(0, top) : top + height, max(0, left) : left + width]
    if inside.shape[1:3] == (height, width):
        return inside
    above, before = max(0, -top), max(0, -left)
    whole = pixels[:, :1, :1].repeat(height, axis=1).repeat(width, axis=2)
    whole[:] = fill
    whole[:, above : above + inside.shape[1], before : before + inside.shape[2]] = inside
    return whole


def placement(before: Sequence[int], spec: Dict[str, Any]) -> Tuple[Tuple[float, float, float, float], Pair, Pair, int]:
    """Return which part of an image [h, w] is scaled (top, left, bottom, right), to what size, where the input begins, the fill.

    stretch; fit (fill the input, the middle is kept: Pillow's `ImageOps.fit`); pad or pad:114 (all is
    kept, the rest is filled: Ultralytics' letterbox); shortest:256+crop:224 or crop:192x256
    (torchvision's Resize and CenterCrop), crop-floor (the middle rounded as Hugging Face does).
    """
    height, width = before
    after = (spec["height"], spec["width"])
    kind, _, rest = (spec.get("resize") or "stretch").partition(":")
    top = left = 0.0
    if kind == "fit":
        wanted = after[1] / float(after[0])
        if width / float(height) >= wanted:
            left = (width - wanted * height) * 0.5
        else:
            top = (height - width / wanted) * 0.5
    part = _single(top, left, height - top, width - left)
    if kind == "pad":
        scale = min(after[0] / float(height), after[1] / float(width))
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        return part, size, ((size[0] - after[0] + 1) // 2, (size[1] - after[1] + 1) // 2), int(rest or 0)
    if kind == "shortest":
        shortest = int(rest.split("+")[0])
        longest = int(shortest * max(height, width) / min(height, width))
        size = (shortest, longest) if height <= width else (longest, shortest)
        down = "crop-floor" in rest
        return part, size, (_middle(size[0], after[0], down), _middle(size[1], after[1], down)), 0
    return part, after, (0, 0), 0


def _single(*values: float) -> Any:
    """Round to float32, in which Pillow has the corners of what it scales."""
    return struct.unpack("%df" % len(values), struct.pack("%df" % len(values), *values))


def _middle(before: int, after: int, down: bool) -> int:
    """Return where the middle begins; halves go to the even number as torchvision's do, or down; padding has more at the end."""
    if before < after:
        return -((after - before) // 2)
    return (before - after) // 2 if down else round((before - after) / 2.0)


def weights(
    before: int,
    after: int,
    start: float = 0.0,
    end: Optional[float] = None,
    interpolation: str = "bilinear",
    antialias: bool = True,
) -> List[List[float]]:
    """Return the matrix [after, before] that scales the part from `start` to `end` (all of it unless given).

    Half-pixel centres. With antialiasing a filter that is widened by the scale when it
    shrinks, as Pillow's BILINEAR and BICUBIC do; without, torch's `interpolate`.
    """
    scale = ((before if end is None else end) - start) / float(after)
    support = max(scale, 1.0) if antialias else 1.0
    reach = support if interpolation == "bilinear" else 2 * support
    matrix = []
    for index in range(after):
        centre = start + (index + 0.5) * scale
        row = [0.0] * before
        for position in range(floor(centre - reach - 0.5), floor(centre + reach + 0.5) + 1):
            if antialias and not 0 <= position < before:
                continue
            distance = abs(position + 0.5 - centre) / support
            value = max(0.0, 1.0 - distance) if interpolation == "bilinear" else _cubic(distance, -0.5 if antialias else -0.75)
            row[min(max(position, 0), before - 1)] += value
        total = sum(row)
        matrix.append([value / total for value in row])
    return matrix


def _cubic(x: float, a: float) -> float:
    """Weigh a distance by the cubic kernel of R. Keys (1981)."""
    if x < 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2 else 0.0


def nearest(before: int, after: int, start: float, end: float) -> List[int]:
    """Return which position each one takes; summed up step by step, as Pillow does, since halves go by the last bit."""
    scale = (end - start) / float(after)
    at, found = start + scale * 0.5, []
    for _ in range(after):
        found.append(min(max(int(at), 0), before - 1))
        at += scale
    return found
