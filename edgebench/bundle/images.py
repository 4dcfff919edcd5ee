"""How images of a data set become what a brought file takes, and which of its outputs holds the scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from edgebench.bundle import shapes
from edgebench.errors import InputError, UnknownName
from edgebench.models.normalization import check_kind
from edgebench.schema import Input, Preprocessing, TensorSpec

if TYPE_CHECKING:
    from edgebench.bundle.import_file import FileOptions
    from edgebench.data import Dataset


@dataclass(frozen=True)
class ImageOptions:
    """What a file does not say of the images that it takes, and of what it returns."""

    task: str | None = None
    """As the data set says unless given."""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    """Per channel, in the units of `scale`."""
    scale: tuple[float, float] = (0.0, 1.0)
    """What the pixels 0 and 255 become."""
    layout: Literal["nchw", "nhwc"] | None = None
    """Where the channels are; by the shape unless given."""
    output: str | None = None
    """Which output holds the scores, where there are several."""
    head: str | None = None
    """What the scores are: logits, softmax or sigmoid; looked at unless given."""

    def keyed(self) -> dict[str, Any]:
        """Return what a bundle's key holds of it."""
        return {name: value for name, value in vars(self).items() if name != "head" or value is not None}


def with_image(options: FileOptions, inputs: Sequence[Input], data: Dataset) -> tuple[Input, ...]:
    """Let a data set's images, or volumes, go into the one input that takes such; `InputError` where none or several do.

    Also where images were brought to another size than the input's, as they would be resized twice, and where volumes are
    of another size, as they are not resized.
    """
    path, image, volumes = options.path, options.image, data.volume is not None
    rank = 5 if volumes else 4
    taken = [each for each in inputs if _place(each.shape, image.layout, rank) is not None]
    if len(taken) != 1:
        what = ", ".join(f"{each.name} {list(each.shape)}" for each in inputs)
        said = "none of its inputs is" if not taken else "several of its inputs may be"
        kind, sides = ("a volume", "depth, height, width") if volumes else ("an image", "height, width")
        raise InputError(f"{path}: {said} {kind} [1, 1 or 3, {sides}] or [1, {sides}, 1 or 3] ({what}); leave --dataset out")
    [chosen] = taken
    if chosen.shape[0] != 1:
        raise InputError(f"{path}: takes {chosen.shape[0]} images at once; accuracy is judged one by one, export it with batch 1")
    spec = _spec(options, chosen, rank)
    check_kind(str(path), spec, data)
    update = {"preprocessing": _placed(options, spec, data), "values": None}
    return tuple(each.model_copy(update=update) if each is chosen else each for each in inputs)


def _place(shape: Sequence[int], layout: str | None, rank: int) -> int | None:
    if layout is not None and len(shape) == rank:
        at = 1 if layout == "nchw" else rank - 1
        return at if shape[at] in (1, 3) else None
    return shapes.channels_at(shape, rank)


def _spec(options: FileOptions, given: Input, rank: int) -> Preprocessing:
    """Describe the preprocessing: (pixel / 255 − mean) / std with the scale, the mean and the deviation as one."""
    image, place = options.image, _place(given.shape, options.image.layout, rank)
    channels = given.shape[place or 1]
    *deep, height, width = given.shape[2:] if place == 1 else given.shape[1:-1]
    low, high = image.scale
    mean, std = (_each(options, name, getattr(image, name), channels, usual) for name, usual in (("mean", 0.0), ("std", 1.0)))
    if not low < high or min(std) <= 0:
        raise InputError(f"{options.path}: --scale goes from the lower to the higher, and --std is above 0")
    return Preprocessing(
        depth=deep[0] if deep else None,
        height=height,
        width=width,
        channels=1 if channels == 1 else 3,
        mean=tuple((each - low) / (high - low) for each in mean),
        std=tuple(each / (high - low) for each in std),
        layout="nchw" if place == 1 else "nhwc",
    )


def _placed(options: FileOptions, spec: Preprocessing, data: Dataset) -> Preprocessing:
    """Say how the data set has brought its images to the input's size, where it was told."""
    shown = data.geometry
    if shown is None:
        return spec
    if (shown.height, shown.width) != (spec.height, spec.width):
        raise InputError(
            f"{options.path}: takes {spec.height} × {spec.width}, and {data.ref} ends at {shown.height} × {shown.width}: its "
            f"images would be resized twice; give the data set size={spec.height}x{spec.width}, or a crop that ends there"
        )
    told = {"resize": shown.resize, "interpolation": shown.interpolation, "antialias": shown.antialias}
    return spec.model_copy(update=told)


def _each(options: FileOptions, name: str, given: tuple[float, ...] | None, channels: int, usual: float) -> tuple[float, ...]:
    if given is not None and len(given) not in (1, channels):
        raise InputError(f"{options.path}: --{name} has {len(given)} numbers for {channels} channels; give one, or one for each")
    return given * (channels // len(given)) if given is not None else (usual,) * channels


def scored_output(options: FileOptions, outputs: Sequence[TensorSpec], data: Dataset) -> str:
    """Choose the output that holds the scores, and see that it is as wide as there are classes."""
    wanted, names = options.image.output, [each.name for each in outputs]
    if wanted is not None and wanted not in names:
        raise UnknownName(f"output of {options.path}", wanted, names)
    if wanted is None and len(names) > 1:
        raise InputError(f"{options.path}: has the outputs {', '.join(names)}; say which holds the scores: --output {names[0]}")
    chosen = next(each for each in outputs if wanted in (None, each.name))
    width = 1
    for size in chosen.shape[1:]:
        width *= size
    if width != len(data.classes) and (width, len(data.classes)) != (1, 2):
        raise InputError(
            f"{options.path}: output {chosen.name} {list(chosen.shape)} has {width} scores, "
            f"{data.ref} has {len(data.classes)} classes; give the data set that it was trained on, in the order of its classes"
        )
    return chosen.name
