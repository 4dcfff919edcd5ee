"""How images come to one size: as a data set's options say, or as a library's own description of its weights does."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench.agent.runtimes import preprocess
from edgebench.data import Geometry, int_option, text_option
from edgebench.data._files import described
from edgebench.errors import DataError, MissingExtra
from edgebench.schema.model import RESIZE

OPTIONS = ("size", "resize", "interpolation", "antialias", "preset")
INTERPOLATIONS = ("bilinear", "bicubic", "nearest")
MAX_SIDE = 65_535
HF_RESAMPLE = {0: "nearest", 2: "bilinear", 3: "bicubic"}


def read_geometry(options: Mapping[str, str | int | bool]) -> tuple[Geometry, bool]:
    """Read the options; returns the geometry, and whether the user chose more of it than the size."""
    chosen = any(name in options for name in OPTIONS if name != "size")
    preset = text_option(options, "preset")
    if preset is not None:
        wrong = next((name for name in OPTIONS if name != "preset" and name in options), None)
        if wrong is not None:
            raise DataError(f"--dataset: preset={preset} says what {wrong} is; leave one of them out")
        return _preset(preset), True
    height, width = _sides(options)
    resize = text_option(options, "resize") or "fit"
    if not re.fullmatch(RESIZE, resize):
        raise DataError(f"--dataset: resize={resize} is none of stretch, fit, pad, pad:114, shortest:256+crop:224; give one")
    if "crop" in resize:
        sides = [int(side) for side in resize.rpartition(":")[2].split("x")]
        if "size" in options and (sides[0], sides[-1]) != (height, width):
            raise DataError(f"--dataset: resize={resize} does not end at size={options['size']}; leave size out")
        height, width = sides[0], sides[-1]
    interpolation = text_option(options, "interpolation") or "bilinear"
    if interpolation not in INTERPOLATIONS:
        raise DataError(f"--dataset: interpolation={interpolation} is none of {', '.join(INTERPOLATIONS)}; give one")
    antialias = str(options.get("antialias", "true")).lower()
    if antialias not in ("true", "false", "1", "0"):
        raise DataError(f"--dataset: antialias={antialias} is neither true nor false; give one of them")
    return Geometry(height, width, resize, interpolation, antialias in ("true", "1")), chosen


def _sides(options: Mapping[str, str | int | bool]) -> tuple[int, int]:
    """Read size=224, or size=192x256 (height and width)."""
    sides = re.fullmatch(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", str(options.get("size", "")), re.ASCII)
    if sides is None:
        size = int_option(options, "size", 224, 1, MAX_SIDE)
        return size, size
    return min(int(sides[1]), MAX_SIDE), min(int(sides[2]), MAX_SIDE)


def place(image: Any, geometry: Geometry) -> NDArray[np.uint8]:
    """Bring an image of Pillow's to its size; uint8 [h, w, c]. By Pillow itself, where the filter is Pillow's."""
    from PIL import Image

    pixels = np.asarray(image, dtype=np.uint8)
    spec = {
        "height": geometry.height,
        "width": geometry.width,
        "resize": geometry.resize,
        "interpolation": geometry.interpolation,
        "antialias": geometry.antialias,
    }
    if not geometry.antialias and geometry.interpolation != "nearest":
        pixels = pixels if pixels.ndim == 3 else pixels[:, :, None]
        return np.asarray(preprocess.placed(pixels[None], spec)[0])
    (top, left, bottom, right), (height, width), corner, fill = preprocess.placement((image.height, image.width), spec)
    filter_ = Image.Resampling[geometry.interpolation.upper()]
    scaled = np.asarray(image.resize((width, height), filter_, box=(left, top, right, bottom)), dtype=np.uint8)
    scaled = scaled if scaled.ndim == 3 else scaled[:, :, None]
    return np.asarray(preprocess.cut(scaled[None], corner, (geometry.height, geometry.width), fill)[0])


def place_arrays(images: NDArray[np.uint8], geometry: Geometry) -> NDArray[np.uint8]:
    """Bring images [n, h, w, 1 or 3] to their size, as `place` does; `DataError` for volumes."""
    from PIL import Image

    if images.ndim != 4:
        raise DataError(f"volumes {list(images.shape[1:])} are not resized; leave size and resize out")
    made = np.empty((len(images), geometry.height, geometry.width, images.shape[3]), dtype=np.uint8)
    for index, pixels in enumerate(images):
        made[index] = place(Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0]), geometry)
    return made


# ---------------------------------------------------------------- presets


def _preset(text: str) -> Geometry:
    """Read torchvision:resnet18, timm:NAME or a JSON file, hf:FOLDER, ultralytics or ultralytics:224."""
    library, _, rest = text.partition(":")
    readers = {"torchvision": _torchvision, "timm": _timm, "hf": _hugging_face, "ultralytics": _ultralytics}
    if library not in readers:
        raise DataError(f"--dataset: preset={text}: known are torchvision:NAME, timm:NAME, hf:FOLDER and ultralytics:SIZE")
    return readers[library](rest)


def _torchvision(name: str) -> Geometry:
    """Take the transforms of a torchvision network's default weights, or of named ones (resnet50.IMAGENET1K_V1)."""
    from edgebench.data._torchvision import load_torchvision

    tv = load_torchvision()
    architecture, _, weights = name.partition(".")
    try:
        every = tv.models.get_model_weights(architecture)
        made = (every[weights] if weights else every.DEFAULT).transforms()
        mode, resize, crop = made.interpolation.value, made.resize_size[0], made.crop_size[0]
        found = Geometry(crop, crop, f"shortest:{resize}+crop:{crop}", mode, True, tuple(made.mean), tuple(made.std))
    except (ValueError, KeyError, AttributeError) as error:
        known = "give a classifier's name, and its weights if not the default ones: torchvision:resnet50.IMAGENET1K_V1"
        raise DataError(f"--dataset: preset=torchvision:{name}: {described(error)}; {known}") from error
    return found


def _timm(name: str) -> Geometry:
    """Take a `pretrained_cfg`: of timm itself, or of a JSON file (`config.json` of a downloaded model)."""
    if name.endswith(".json"):
        content = _json(Path(name))
        config = content.get("pretrained_cfg", content)
    else:
        try:
            import timm
        except ImportError as error:
            raise MissingExtra(f"preset=timm:{name}", "timm", "timm") from error
        found: Any = timm.get_pretrained_cfg(name)
        if found is None:
            raise DataError(f"--dataset: preset=timm:{name}: timm knows no such model; give its name, or a JSON file")
        config = found.to_dict()
    _, height, width = config.get("input_size", (3, 224, 224))
    share, mode = float(config.get("crop_pct") or 0.875), config.get("crop_mode") or "center"
    if mode not in ("center", "squash") or height != width:
        raise DataError(f"--dataset: preset=timm:{name}: crop_mode {mode} of {height} × {width} is not known; give resize=…")
    scaled = math.floor(height / share)
    if mode == "squash" and scaled != height:
        raise DataError(f"--dataset: preset=timm:{name}: squashed to {scaled} and cut to {height}; give resize=stretch")
    resize = "stretch" if mode == "squash" else f"shortest:{scaled}+crop:{height}"
    return _checked(name, Geometry(height, width, resize, str(config.get("interpolation") or "bicubic"), True, *_norm(config)))


def _hugging_face(folder: str) -> Geometry:
    """Take a folder's `preprocessor_config.json`."""
    path = Path(folder).expanduser()
    config = _json(path if path.suffix == ".json" else path / "preprocessor_config.json")
    size, crop = config.get("size", 224), config.get("crop_size", 224)
    mode = HF_RESAMPLE.get(config.get("resample", 2), "")
    size = {"shortest_edge": size} if isinstance(size, int) and config.get("do_center_crop") else size
    size = {"height": size, "width": size} if isinstance(size, int) else size
    crop = {"height": crop, "width": crop} if isinstance(crop, int) else crop
    if config.get("do_normalize") is False:
        config = {**config, "image_mean": [0.0] * 3, "image_std": [1.0] * 3}
    norm = _norm({"mean": config.get("image_mean"), "std": config.get("image_std")})
    if "shortest_edge" in size and "ConvNext" in str(config.get("image_processor_type", config.get("feature_extractor_type"))):
        edge = int(size["shortest_edge"])
        if edge >= 384:
            return _checked(folder, Geometry(edge, edge, "stretch", mode, True, *norm))
        config, crop = {**config, "do_center_crop": True}, {"height": edge, "width": edge}
        size = {"shortest_edge": int(edge / config.get("crop_pct", 224 / 256))}
    if "shortest_edge" in size and config.get("do_center_crop"):
        height, width = int(crop["height"]), int(crop["width"])
        resize = f"shortest:{int(size['shortest_edge'])}+crop-floor:{height}x{width}"
        return _checked(folder, Geometry(height, width, resize, mode, True, *norm))
    if "height" not in size or config.get("do_center_crop") or config.get("do_resize") is False:
        raise DataError(f"--dataset: preset=hf:{folder}: its size {size} ends at no one size; give resize=… instead")
    return _checked(folder, Geometry(int(size["height"]), int(size["width"]), "stretch", mode, True, *norm))


def _ultralytics(size: str) -> Geometry:
    """Take what Ultralytics' classifiers see: the shorter side scaled to the size, the middle, no normalisation."""
    if size and not (size.isdecimal() and 0 < int(size) <= MAX_SIDE):
        raise DataError(f"--dataset: preset=ultralytics:{size}: no size in pixels; give ultralytics:224")
    side = int(size or 224)
    return Geometry(side, side, f"shortest:{side}+crop:{side}", "bilinear", True, (0.0,) * 3, (1.0,) * 3)


def _norm(config: Mapping[str, Any]) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    mean, std = config.get("mean"), config.get("std")
    return (tuple(map(float, mean)), tuple(map(float, std))) if mean and std else (None, None)


def _checked(name: str, geometry: Geometry) -> Geometry:
    if geometry.interpolation not in INTERPOLATIONS or not re.fullmatch(RESIZE, geometry.resize):
        known = ", ".join(INTERPOLATIONS)
        raise DataError(f"--dataset: preset of {name}: its interpolation is none of {known}; give resize=… instead")
    return geometry


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read ({described(error)}); give the file that came with the weights") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: no JSON object; give the file that came with the weights")
    return content
