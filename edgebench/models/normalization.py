"""What a network's input is normalised with, and the versions of the tools that made it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench.data import Dataset
from edgebench.data._mapped import ends, parts
from edgebench.errors import InputError
from edgebench.schema import InputPlan, Preprocessing

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation that torchvision's weights were trained with."""
KINETICS = ((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989))
"""The same of its networks for video, which take volumes."""
LARGEST = 20.0
"""Of a network's inputs."""
TOOLS = ("torch", "torchvision", "lightning", "torchmetrics")


def tool_versions(names: tuple[str, ...]) -> dict[str, str]:
    """Find the versions of installed distributions."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def preprocessing(dataset: Dataset, plan: InputPlan, pretrained: bool) -> Preprocessing:
    """Choose the input: as stated, else ImageNet's statistics for pretrained weights, else the training split's own."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    shown = dataset.geometry
    if plan.scale is not None:
        mean, std = plan.of_shares()
    elif plan.mean is not None and plan.std is not None:
        mean, std = plan.mean, plan.std
        check_normalization(mean, std, *_extremes(dataset, plan.channels))
    elif shown is not None and shown.mean is not None and shown.std is not None and plan.channels == len(shown.mean):
        mean, std = shown.mean, shown.std
    elif pretrained and plan.channels == 3:
        mean, std = IMAGENET if dataset.volume is None else KINETICS
    else:
        images = dataset.read("train").images
        axes = _each_channel(images, plan.channels)
        means, deviations = _moments(images[:: max(1, len(images) // 4096)], axes)
        mean = tuple(round(float(value), 4) for value in np.resize(means, plan.channels))
        std = tuple(round(max(float(value), 0.01), 4) for value in np.resize(deviations, plan.channels))
    colours = dataset.read("train").images.shape[-1]
    told: dict[str, Any] = {"grey": "luma"} if (plan.channels, colours) == (1, 3) else {}
    if shown is not None:
        told |= {"resize": shown.resize, "interpolation": shown.interpolation, "antialias": shown.antialias}
    depth, height, width = sides(dataset, plan)
    return Preprocessing(depth=depth, height=height, width=width, channels=plan.channels, mean=mean, std=std, **told)


def sides(dataset: Dataset, plan: InputPlan) -> tuple[int | None, int, int]:
    """Return depth (None: images), height and width of what a network sees of a data set.

    `InputError` where volumes are of another size, or images were brought to another one.
    """
    shown = dataset.geometry
    if dataset.volume is not None:
        depth, height, width = dataset.volume
        if plan.size not in (height, width):
            what = f"its volumes are {depth} × {height} × {width}, and the network would see {plan.size}: they are not resized"
            raise InputError(f"{dataset.ref}: {what}; give size {max(height, width)}, or leave --size out")
        return depth, height, width
    if shown is None:
        return None, plan.size, plan.size
    if plan.size not in (shown.height, shown.width):
        raise InputError(
            f"{dataset.ref}: its images end at {shown.height} × {shown.width}, and the network would see {plan.size}: they "
            f"would be resized twice; give --size {shown.height}, or another size to the data set"
        )
    return None, shown.height, shown.width


def check_kind(whose: str, spec: Preprocessing, dataset: Dataset) -> None:
    """Refuse images for what takes volumes, volumes for what takes images, and volumes of another size than it takes."""
    if spec.volume == dataset.volume:
        return
    seen, shown = (f"volumes of {_times(each)}" if each is not None else "images" for each in (spec.volume, dataset.volume))
    raise InputError(f"{whose}: takes {seen}, and {dataset.ref} holds {shown}; volumes are not resized: give such as it takes")


def _times(numbers: tuple[int, ...]) -> str:
    return " × ".join(map(str, numbers))


def _each_channel(images: NDArray[np.uint8], channels: int) -> tuple[int, ...] | None:
    """Return the axes along which values are of one channel; None, all of them, where a network sees other channels."""
    return tuple(range(images.ndim - 1)) if images.shape[-1] == channels else None


def _moments(images: NDArray[np.uint8], axes: tuple[int, ...] | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation of pixels 0…1 along axes that hold the first, by exact sums of whole numbers."""
    count = images.size // (1 if axes is None else images.shape[-1])
    first: Any = 0
    second: Any = 0
    for part in parts(images):
        whole = part.astype(np.uint32)
        first = first + whole.sum(axis=axes, dtype=np.uint64)
        second = second + (whole * whole).sum(axis=axes, dtype=np.uint64)
    sums, squares = (np.atleast_1d(each).astype(object) for each in (first, second))  # whole numbers without end
    variance = (count * squares - sums**2) / count**2
    return (sums / count / 255).astype(np.float64), np.sqrt(variance.astype(np.float64)) / 255


def check_placed(spec: Preprocessing, dataset: Dataset) -> None:
    """Refuse a folder's images that came to their size otherwise than those that the network was made for."""
    if spec.resize is None or (dataset.files is None and dataset.geometry is None):
        return  # arrays as they are: they are placed where the network runs
    shown = dataset.geometry
    seen = None if shown is None else (shown.resize, shown.interpolation, shown.antialias, shown.height, shown.width)
    if seen != (spec.resize, spec.interpolation or "bilinear", spec.antialias, spec.height, spec.width):
        size = "" if "crop" in spec.resize else f"size={spec.height}x{spec.width},"
        wanted = (
            f"{size}resize={spec.resize},interpolation={spec.interpolation or 'bilinear'},antialias={str(spec.antialias).lower()}"
        )
        raise InputError(f"{dataset.ref}: the network's images came to their size otherwise; give the data set options {wanted}")


def check_normalization(
    mean: tuple[float, ...], std: tuple[float, ...], low: tuple[float, ...] = (0.0,), high: tuple[float, ...] = (1.0,)
) -> None:
    """Refuse what no network was trained with; `InputError` says the likely remedy.

    low, high: the least and greatest pixels that there are, after scaling to 0…1.
    """
    if min(std) <= 0:
        raise InputError(f"std {list(std)}: a standard deviation of 0 divides by nothing; give what the network was trained with")
    shown = f"--mean {_comma(mean)} --std {_comma(std)}"
    divided = f"give them divided by 255: --mean {_comma(mean, 255)} --std {_comma(std, 255)}"
    if max(mean) > 1 or max(std) > 1:
        raise InputError(f"{shown}: these are of pixels 0…255, and pixels are scaled to 0…1 before; {divided}")
    count = len(mean)
    ends = [(v - m) / s for edge in (low, high) for v, m, s in zip(np.resize(edge, count), mean, std, strict=True)]
    if min(ends) < -LARGEST or max(ends) > LARGEST:
        raise InputError(
            f"{shown}: inputs would go from {min(ends):.0f} to {max(ends):.0f}, which hardly any network sees "
            f"(−{LARGEST:.0f}…{LARGEST:.0f}); the standard deviation is of pixels scaled to 0…1: "
            "if it was given of 0…255, divide mean and std by 255; if the network takes such values, say --scale 0..255"
        )


def _comma(values: tuple[float, ...], divisor: float = 1) -> str:
    return ",".join(f"{value / divisor:.4g}" for value in values)


def _extremes(dataset: Dataset, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    images = dataset.read("train").images
    edges = [np.atleast_1d(each) for each in ends(images, _each_channel(images, channels))]
    low, high = (tuple(float(value) / 255 for value in np.resize(edge, channels)) for edge in edges)
    return low, high
