"""From uint8 images to a network's input, the same on host and device.

Works on any array with numpy's methods and imports none, so that the agent
needs numpy only where a runtime brings it.
"""

from typing import Any, Dict, List


def apply(images: Any, spec: Dict[str, Any]) -> Any:
    """Resize, fit the channels, normalise and lay out.

    images: uint8 [n, h, w, c]; returns float32 [n, c, H, W] or [n, H, W, c].
    `spec` is `schema.Preprocessing` as a dictionary.
    """
    pixels = resized(images, spec)
    pixels = ((pixels / 255.0 - list(spec["mean"])) / list(spec["std"])).astype("float32")
    return pixels.transpose(0, 3, 1, 2).copy() if spec["layout"] == "nchw" else pixels


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
    """Resize and fit the channels: uint8 [n, h, w, c] → pixels 0…255 with fractions [n, H, W, c]."""
    count, height, width, channels = images.shape
    pixels = images.astype("float32")
    if channels != spec["channels"]:
        grey = pixels.mean(axis=3, keepdims=True)
        pixels = grey if spec["channels"] == 1 else grey.repeat(spec["channels"], axis=3)
    channels = spec["channels"]
    if height != spec["height"]:
        rows = weights(height, spec["height"]) @ pixels.reshape(count, height, width * channels)
        pixels = rows.reshape(count, spec["height"], width, channels)
    if width != spec["width"]:
        columns = weights(width, spec["width"]) @ pixels.reshape(count * spec["height"], width, channels)
        pixels = columns.reshape(count, spec["height"], spec["width"], channels)
    return pixels


def weights(before: int, after: int) -> List[List[float]]:
    """Return the matrix [after, before] of linear interpolation with antialiasing.

    A triangle filter with half-pixel centres, widened by the scale when it
    shrinks, as Pillow's BILINEAR does.
    """
    scale = before / float(after)
    support = max(scale, 1.0)
    matrix = []
    for index in range(after):
        centre = (index + 0.5) * scale
        row = [max(0.0, 1.0 - abs(position + 0.5 - centre) / support) for position in range(before)]
        total = sum(row)
        matrix.append([value / total for value in row])
    return matrix
