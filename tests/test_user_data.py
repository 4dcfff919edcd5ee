"""Data as users have it: each kind's right value comes from Pillow, torchvision or numpy called directly."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Cli
from PIL import Image, ImageOps

from edgebench import api
from edgebench.agent.runtimes import preprocess
from edgebench.config import read_dataset
from edgebench.data import SPLITS, Dataset, open_images
from edgebench.data._geometry import place, read_geometry
from edgebench.errors import DataError, DataWarning, InputError
from edgebench.models.normalization import check_normalization, check_placed, preprocessing
from edgebench.schema import InputPlan, Preprocessing

ODD = [(31, 47), (300, 200), (17, 224), (224, 224), (225, 401), (97, 223)]
QUIET = pytest.mark.filterwarnings("ignore::edgebench.errors.DataWarning")


def opened(text: str) -> Dataset:
    return open_images(read_dataset(text))


def colours(height: int, width: int, seed: int = 0) -> Any:
    """Make an image as smooth as photos are."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    fine = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int) + rng.integers(
        -6, 7, (height, width, 3)
    )
    return Image.fromarray(fine.clip(0, 255).astype(np.uint8))


def folder(root: Path, splits: tuple[str, ...] = SPLITS, classes: tuple[str, ...] = ("cat", "dog"), count: int = 3) -> Path:
    """Write small PNGs, each of its own."""
    seed = 0
    for split in splits:
        for name in classes:
            (root / split / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                seed += 1
                colours(20, 26, seed).save(root / split / name / f"{number}.png")
    return root


def test_image(root: Path, size: str = "26") -> Any:
    """Return the first test image as the loader reads it; `size` as the option has it."""
    return opened(f"image-folder:{root},{size}").read("test").images[0]


test_image.__test__ = False  # type: ignore[attr-defined]

# ---------------------------------------------------------------- geometry


def right_transforms() -> list[tuple[str, dict[str, Any], Callable[[Any, str], Any]]]:
    from edgebench.data._torchvision import load_torchvision

    load_torchvision()
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as tv

    def torchvision(image: Any, mode: str) -> Any:
        return tv.center_crop(tv.resize(image, 73, InterpolationMode(mode)), [64, 64])

    return [
        ("shortest:73+crop:64", {"height": 64, "width": 64}, torchvision),
        ("stretch", {"height": 56, "width": 80}, lambda image, mode: image.resize((80, 56), Image.Resampling[mode.upper()])),
        ("fit", {"height": 56, "width": 80}, lambda image, mode: ImageOps.fit(image, (80, 56), Image.Resampling[mode.upper()])),
        ("pad:114", {"height": 64, "width": 64}, letterboxed),
    ]


def letterboxed(image: Any, mode: str) -> Any:
    """Pad as Ultralytics' letterbox does: the larger half of an odd rest comes after the image."""
    scale = 64 / max(image.size)
    inner = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling[mode.upper()])
    made = Image.new("RGB", (64, 64), (114, 114, 114))
    made.paste(inner, (round((64 - inner.width) / 2 - 0.1), round((64 - inner.height) / 2 - 0.1)))
    return made


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("number", range(4))
def test_host_and_device_place_images_as_the_library_does(number: int, mode: str) -> None:
    resize, sides, library = right_transforms()[number]
    options = {"resize": resize, "interpolation": mode, **({"size": "56x80"} if "crop" not in resize else {})}
    options |= {"size": "64"} if "pad" in resize else {}
    for size in ODD:
        image = colours(*size)
        right = np.asarray(library(image, mode)).astype(int)
        host = place(image, read_geometry(options)[0]).astype(int)
        device = preprocess.placed(np.asarray(image)[None], {"resize": resize, "interpolation": mode, **sides})[0].astype(int)
        assert np.abs(host - right).max() <= 1, size
        assert np.abs(device - right).max() <= 1, size


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_without_antialiasing_it_is_torchs_interpolation(mode: str) -> None:
    import torch

    image = colours(100, 150)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    right = torch.nn.functional.interpolate(pixels, (40, 70), mode=mode, align_corners=False)[0].permute(1, 2, 0).numpy()
    made = place(image, read_geometry({"size": "40x70", "resize": "stretch", "interpolation": mode, "antialias": "false"})[0])
    assert np.abs(made - right.clip(0, 255)).max() <= 1.01


def test_torchvisions_preset_is_the_weights_own_transform() -> None:
    from edgebench.data._torchvision import load_torchvision

    tv = load_torchvision()
    transform = tv.models.ResNet50_Weights.IMAGENET1K_V2.transforms()
    geometry, chosen = read_geometry({"preset": "torchvision:resnet50"})
    for size in ODD:
        image = colours(*size)
        spec = {"height": 224, "width": 224, "channels": 3, "mean": geometry.mean, "std": geometry.std, "layout": "nchw"}
        made = preprocess.apply(place(image, geometry)[None], spec)[0]
        assert chosen and np.abs(made - transform(image).numpy()).max() <= 1.01 / 255 / min(geometry.std or ())


def test_ultralytics_preset_scales_the_shorter_side_and_cuts_the_middle_out() -> None:
    geometry, _ = read_geometry({"preset": "ultralytics:64"})
    for size in ODD:
        image = colours(*size)
        share = 64 / min(image.size)
        wide, high = (64 if side == min(image.size) else int(side * share) for side in image.size)
        left, top = round((wide - 64) / 2), round((high - 64) / 2)
        right = image.resize((wide, high), Image.Resampling.BILINEAR).crop((left, top, left + 64, top + 64))
        assert np.abs(place(image, geometry).astype(int) - np.asarray(right)).max() <= 1, size
    spec = {**vars(geometry), "channels": 3, "layout": "nchw"}
    assert np.allclose(preprocess.apply(np.full((1, 64, 64, 3), 51, np.uint8), spec), 0.2)  # 0…1, and no more


def test_hugging_faces_preset_is_the_processors_own_transform(tmp_path: Path) -> None:
    from edgebench.data._torchvision import load_torchvision

    load_torchvision()
    transformers = pytest.importorskip("transformers")
    kinds = {
        "ViTImageProcessor": {"size": {"height": 50, "width": 60}, "resample": 2},
        "CLIPImageProcessor": {"size": {"shortest_edge": 73}, "crop_size": {"height": 64, "width": 64}, "resample": 3},
    }
    for kind, given in kinds.items():
        processor = getattr(transformers, kind)(**given, image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.3, 0.25])
        processor.save_pretrained(tmp_path)
        geometry, _ = read_geometry({"preset": f"hf:{tmp_path}"})
        for size in ODD:
            image = colours(*size)
            right = np.asarray(processor(image, return_tensors="np")["pixel_values"][0])
            spec = {**vars(geometry), "channels": 3, "layout": "nchw"}
            made = preprocess.apply(place(image, geometry)[None], spec)[0]
            assert made.shape == right.shape and np.abs(made - right).max() <= 1.01 / 255 / 0.2, (kind, size)


def test_timms_preset_reads_a_pretrained_cfg(tmp_path: Path) -> None:
    config = {"input_size": [3, 224, 224], "crop_pct": 0.9, "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3}
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "any", "pretrained_cfg": config}))
    geometry, _ = read_geometry({"preset": f"timm:{tmp_path / 'config.json'}"})
    assert (geometry.resize, geometry.interpolation) == ("shortest:248+crop:224", "bicubic")
    assert (geometry.mean, geometry.std) == ((0.5,) * 3, (0.5,) * 3)


def test_a_model_says_how_its_images_were_placed_and_never_places_them_twice(tmp_path: Path) -> None:
    folder(tmp_path)
    data = opened(f"image-folder:{tmp_path},resize=shortest:20+crop:16x18,interpolation=bicubic")
    spec = preprocessing(data, InputPlan(size=16), False)
    assert spec.model_dump(include={"resize", "interpolation"}) == {
        "resize": "shortest:20+crop:16x18",
        "interpolation": "bicubic",
    }
    pixels = data.read("test").images
    plain = spec.of_pixels().model_copy(update={"layout": "nhwc"})
    assert np.abs(preprocess.apply(pixels, plain.model_dump()) - pixels).max() < 1e-3
    with pytest.raises(InputError, match="resized twice"):
        preprocessing(data, InputPlan(size=32), False)


def test_the_usual_preprocessing_writes_what_it_wrote_before() -> None:
    usual = Preprocessing(height=8, width=8, channels=1, mean=(0.5,), std=(0.5,))
    assert set(usual.model_dump()) == {"height", "width", "channels", "mean", "std", "layout"}
    assert Preprocessing.model_validate(usual.model_dump()).grey == "mean"


def test_grey_of_colour_is_pillows_in_every_path(tmp_path: Path) -> None:
    folder(tmp_path)
    right = np.asarray(Image.open(tmp_path / "test" / "cat" / "0.png").convert("L").crop((3, 0, 23, 20)))
    loaded = test_image(tmp_path, "size=20,channels=1")[:, :, 0]
    colour = test_image(tmp_path, "size=20")
    spec = preprocessing(opened(f"image-folder:{tmp_path},size=20"), InputPlan(size=20, channels=1), False)
    device = preprocess.with_channels(colour[None], spec.model_dump())[0, :, :, 0]
    assert (loaded == right).all() and (device == right).all()
    old = {name: value for name, value in spec.model_dump().items() if name != "grey"}
    assert np.abs(preprocess.with_channels(colour[None], old)[0, :, :, 0] - colour.mean(axis=2)).max() < 1e-3


# ---------------------------------------------------------------- pixels


def sixteen_bits() -> tuple[Any, Any]:
    values = np.linspace(0, 65535, 400).reshape(20, 20).astype(np.uint16)
    return Image.fromarray(values), np.round(values / 257).astype(int)


def transparent() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (20, 20, 4), dtype=np.uint8)
    share = pixels[:, :, 3:] / 255
    return Image.fromarray(pixels), np.round(pixels[:, :, :3] * share + 255 * (1 - share)).astype(int)


def palette() -> tuple[Any, Any]:
    image = colours(20, 20).quantize(16)
    return image, np.asarray(image.convert("RGB")).astype(int)


def cmyk() -> tuple[Any, Any]:
    image = colours(20, 20).convert("CMYK")
    return image, np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize(
    ("ending", "make"),
    [("png", sixteen_bits), ("tiff", sixteen_bits), ("png", transparent), ("webp", transparent), ("gif", palette), ("tif", cmyk)],
)
def test_pixels_of_every_kind_become_what_pillow_and_numpy_say(tmp_path: Path, ending: str, make: Callable[[], Any]) -> None:
    image, right = make()
    folder(tmp_path)
    (tmp_path / "test" / "cat" / "0.png").unlink()
    image.save(tmp_path / "test" / "cat" / f"0.{ending}", **({"lossless": True, "exact": True} if ending == "webp" else {}))
    made = test_image(tmp_path, "size=20").astype(int)
    assert np.abs(made - (right if right.ndim == 3 else right[:, :, None])).max() <= 1


def test_images_are_turned_by_exif_unless_that_is_ignored(tmp_path: Path) -> None:
    folder(tmp_path)
    image, place_ = colours(20, 20), tmp_path / "test" / "cat" / "0.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(place_, exif=exif)
    assert (test_image(tmp_path, "size=20") == np.asarray(ImageOps.exif_transpose(Image.open(place_)))).all()
    assert (test_image(tmp_path, "size=20,exif=ignore") == np.asarray(image)).all()


def test_real_numbers_want_their_range(tmp_path: Path) -> None:
    folder(tmp_path)
    values = np.linspace(0, 1, 400).reshape(20, 20).astype(np.float32)
    Image.fromarray(values).save(tmp_path / "test" / "cat" / "0.tif")
    (tmp_path / "test" / "cat" / "0.png").unlink()
    with pytest.raises(DataError, match="range=LOW:HIGH"):
        test_image(tmp_path, "size=20")
    assert np.abs(test_image(tmp_path, "size=20,range=0:1")[:, :, 0] - values * 255).max() <= 0.51


# ---------------------------------------------------------------- folders


def test_all_that_pillow_reads_is_found_in_nested_folders_and_the_rest_is_named(tmp_path: Path) -> None:
    folder(tmp_path, ("Train", "VALID", "testing"))
    place_ = tmp_path / "testing" / "cat"
    (place_ / "deeper").mkdir()
    for ending in ("BMP", "webp", "TIFF", "gif", "JPG", "ppm"):
        colours(20, 20).save(place_ / "deeper" / f"more.{ending}")
    (place_ / "nameless").write_bytes((place_ / "0.png").read_bytes())
    (place_ / "notes.txt").write_text("not an image")
    for hidden in ("._0.png", "Thumbs.db"):
        (place_ / hidden).write_bytes(b"hidden")
    (place_ / ".ipynb_checkpoints").mkdir()
    with pytest.warns(DataWarning, match=r"left out 1 files or folders .*notes\.txt"):
        data = opened(f"image-folder:{tmp_path},size=20")
    assert (np.bincount(data.read("test").labels).tolist(), data.passed) == ([10, 3], 3)


def test_without_val_a_part_of_train_is_it_and_that_is_said(tmp_path: Path) -> None:
    folder(tmp_path, ("train", "test"), count=10)
    with pytest.warns(DataWarning, match="has no val/: 4 of train's 20 images are it"):
        data = opened(f"image-folder:{tmp_path},size=20")
    assert [np.bincount(data.read(name).labels).tolist() for name in SPLITS] == [[8, 8], [2, 2], [10, 10]]


@pytest.mark.parametrize(
    ("splits", "said"),
    [(("train", "val"), "and no test/"), (("val", "test"), "and no train/"), (("train", "val", "valid", "test"), "keep one")],
)
def test_splits_that_are_not_there_are_no_classes(tmp_path: Path, splits: tuple[str, ...], said: str) -> None:
    folder(tmp_path, splits, count=1)
    with pytest.raises(DataError, match=said):
        opened(f"image-folder:{tmp_path},size=20")


def test_a_class_that_is_empty_in_a_split_is_named(tmp_path: Path) -> None:
    folder(tmp_path)
    for path in (tmp_path / "val" / "dog").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="the class 'dog' has no image in the val split"):
        opened(f"image-folder:{tmp_path},size=20")
    with pytest.warns(DataWarning, match="the val split lacks dog"):
        opened(f"image-folder:{tmp_path},size=20,empty=allow")


def test_classes_that_are_numbers_keep_torchvisions_order_and_that_is_said(tmp_path: Path) -> None:
    names = tuple(map(str, range(1, 12)))
    folder(tmp_path, classes=names, count=1)
    with pytest.warns(DataWarning, match=r"in the order 1, 10, 11, … .* in the order 1, 2, 3, … give .* sort=natural"):
        data = opened(f"image-folder:{tmp_path},size=20")
    from torchvision.datasets import ImageFolder

    assert list(data.classes) == ImageFolder(tmp_path / "train").classes
    assert opened(f"image-folder:{tmp_path},size=20,sort=natural").classes == names
    (tmp_path / "order.txt").write_text("\n".join(reversed(names)))
    given = opened(f"image-folder:{tmp_path},size=20,classes=order.txt")
    assert given.classes == names[::-1]
    assert [given.classes[label] for label in given.read("test").labels] == [
        Path(p).parent.name for p in (given.files or list)("test")
    ]
    (tmp_path / "order.txt").write_text("one\ntwo")
    with pytest.raises(DataError, match="the class '1' has images and does not stand in it"):
        opened(f"image-folder:{tmp_path},size=20,classes=order.txt")


def test_names_of_a_data_yaml_are_the_order(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "data.yaml").write_text("names: {0: dog, 1: cat}\ntrain: train\nval: val\ntest: test\n")
    with pytest.warns(DataWarning, match="in the order of"):
        assert opened(f"image-folder:{tmp_path},size=20").classes == ("dog", "cat")


def test_labels_may_stand_in_a_table(tmp_path: Path) -> None:
    folder(tmp_path, ("all",), count=4)
    rows = [(f"all/{name}/{n}.png", name, ("train", "train", "val", "test")[n]) for name in ("cat", "dog") for n in range(4)]
    (tmp_path / "labels.csv").write_text("filename,label,split\n" + "\n".join(map(",".join, rows)))
    data = opened(f"image-folder:{tmp_path},size=20,labels=labels.csv")
    assert [data.read(name).labels.tolist() for name in SPLITS] == [[0, 0, 1, 1], [0, 1], [0, 1]]
    (tmp_path / "labels.csv").write_text("filename,label,split\n../secret.png,cat,train\n")
    with pytest.raises(DataError, match=r"labels\.csv:2: \.\./secret\.png leads out of"):
        opened(f"image-folder:{tmp_path},size=20,labels=labels.csv")


# ---------------------------------------------------------------- arrays


def arrays(**changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    made: dict[str, Any] = {}
    for name in SPLITS:
        made[f"{name}_images"] = rng.integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
        made[f"{name}_labels"] = np.arange(20) % 3
    return {**made, **changes}


def each(change: Callable[[str, Any, Any], Mapping[str, Any]]) -> dict[str, Any]:
    """Change every split's images and labels."""
    made = arrays()
    found: dict[str, Any] = {}
    for name in SPLITS:
        found.update(change(name, made[f"{name}_images"], made[f"{name}_labels"]))
    return found


def renamed(name: str, images: Any, labels: Any) -> Mapping[str, Any]:
    return {} if name == "val" else {f"x_{name}": images, f"y_{name}": labels}


LAYOUTS: Mapping[str, tuple[Callable[[str, Any, Any], Mapping[str, Any]], str]] = {
    "one-hot": (lambda name, x, y: {f"{name}_images": x, f"{name}_labels": np.eye(3)[y]}, "one class of 3"),
    "text": (lambda name, x, y: {f"{name}_images": x, f"{name}_labels": np.array(["ant", "bee", "cow"])[y]}, "ant, bee, cow"),
    "from-1": (lambda name, x, y: {f"{name}_images": x, f"{name}_labels": y + 1}, "goes from 1 to 3"),
    "channels-first": (lambda name, x, y: {f"{name}_images": x.transpose(0, 3, 1, 2), f"{name}_labels": y}, "n, c, h, w"),
    "floats": (lambda name, x, y: {f"{name}_images": (x / 255).astype(np.float32), f"{name}_labels": y}, "of 0…1"),
    "wide": (lambda name, x, y: {f"{name}_images": x.astype(np.int64), f"{name}_labels": y}, "of 0…255"),
    "16-bits": (lambda name, x, y: {f"{name}_images": x.astype(np.uint16) * 257, f"{name}_labels": y}, "of 0…65535"),
    "names": (lambda name, x, y: {f"{name}_x": x, f"{name}_y": y}, "read test_x as test_images"),
    "keras": (renamed, "has no val_images: 15 %"),
}


@QUIET
@pytest.mark.parametrize("kind", LAYOUTS)
def test_arrays_in_layouts_that_people_write_are_recognised_and_said(tmp_path: Path, kind: str) -> None:
    change, said = LAYOUTS[kind]
    np.savez(tmp_path / "own.npz", **each(change))
    with pytest.warns(DataWarning, match=said):
        data = opened(f"medmnist:{tmp_path / 'own.npz'}")
    right, test = arrays(), data.read("test")
    assert (data.task, len(data.classes)) == ("multi-class", 3)
    assert (test.images == right["test_images"]).all() and (test.labels == right["test_labels"]).all()
    if kind == "keras":
        assert [len(data.read(name)) for name in SPLITS] == [15, 5, 20]


@QUIET
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"test_labels": np.arange(20) % 4}, "classes beyond the 3"),
        ({"train_images": np.zeros((20, 8, 8, 4), np.uint8)}, "images of 4 channels"),
        ({"train_images": np.full((20, 8, 8, 3), -1.0)}, "values from -1 to -1"),
        ({"train_images": np.full((20, 8, 8, 3), 4000, np.int32)}, "values from 4000 to 4000"),
        ({"test_images": np.zeros((20, 8, 8, 3))}, "uint8 .* is wanted"),
        ({"train_labels": np.arange(20) % 3 + 1}, "has the label 0, and train's go from 1"),
        (
            {f"{name}_labels": np.array(["a", "b"] * 10 if name != "test" else ["a", "c"] * 10) for name in SPLITS},
            "the class 'c'",
        ),
    ],
)
def test_arrays_that_cannot_be_told_are_refused_in_one_line(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    np.savez(tmp_path / "own.npz", **arrays(**changes))
    with pytest.raises(DataError, match=said) as caught:
        data = opened(f"medmnist:{tmp_path / 'own.npz'}")
        for name in SPLITS:
            data.read(name)
    assert str(caught.value).isprintable()


@QUIET
@pytest.mark.parametrize("sides", [(31, 47), (97, 60)])
def test_arrays_come_to_their_size_by_torchvisions_own_transform(tmp_path: Path, sides: tuple[int, int]) -> None:
    from edgebench.data._torchvision import load_torchvision

    load_torchvision()
    from torchvision import transforms

    images = np.stack([np.asarray(colours(*sides, seed)) for seed in range(20)])
    np.savez(tmp_path / "own.npz", **each(lambda name, _, y: {f"{name}_images": images, f"{name}_labels": y}))
    right = transforms.Compose([transforms.Resize(40), transforms.CenterCrop(32)])
    data = opened(f"medmnist:{tmp_path / 'own.npz'},resize=shortest:40+crop:32")
    for made, image in zip(data.read("test").images, images, strict=True):
        assert np.abs(made.astype(int) - np.asarray(right(Image.fromarray(image)))).max() <= 1
    spec = preprocessing(data, InputPlan(size=32), False)
    assert (spec.resize, spec.height) == ("shortest:40+crop:32", 32)
    assert (preprocess.apply(data.read("test").images, {**spec.model_dump(), "mean": (0,) * 3, "std": (1,) * 3}) * 255).transpose(
        0, 2, 3, 1
    ) == pytest.approx(data.read("test").images, abs=1e-3)  # they are not resized a second time
    with pytest.raises(InputError, match="came to their size otherwise"):
        check_placed(spec, opened(f"medmnist:{tmp_path / 'own.npz'},resize=stretch,size=32"))
    with pytest.raises(InputError, match="resized twice"):
        preprocessing(data, InputPlan(size=64), False)
    with pytest.raises(DataError, match="comes in sizes of its own; leave resize out"):
        opened("medmnist:pathmnist,resize=fit")


# ---------------------------------------------------------------- normalisation


@pytest.mark.parametrize(
    ("mean", "std", "said"),
    [
        ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), r"--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225"),
        ((0.5,), (0.001,), "inputs would go from -500 to 500"),
        ((0.5,), (0.0,), "standard deviation of 0"),
        ((0.0,), (255.0,), "pixels 0…255"),
    ],
)
def test_a_normalisation_that_no_network_has_is_refused_with_its_remedy(mean: Any, std: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_normalization(mean, std)


def test_usual_normalisations_are_taken() -> None:
    for mean, std in (((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), ((0.0,), (1.0,)), ((0.5,), (0.5,)), ((0.1307,), (0.3081,))):
        check_normalization(mean, std)


# ---------------------------------------------------------------- edgebench data


@QUIET
def test_data_shows_counts_and_test_images_that_stand_in_train(tmp_path: Path, cli: Cli) -> None:
    folder(tmp_path)
    copy = colours(64, 64, 99)
    copy.save(tmp_path / "train" / "cat" / "1.png")
    (tmp_path / "test" / "cat" / "0.png").write_bytes((tmp_path / "train" / "cat" / "0.png").read_bytes())
    copy.save(tmp_path / "test" / "cat" / "1.jpg", quality=90)
    (tmp_path / "test" / "cat" / "1.png").unlink()
    code, out, errors = cli("data", f"image-folder:{tmp_path},size=64", "--sheet", tmp_path / "sheet.png")
    assert code == 0, errors
    assert "duplicates of test in train: 1 exact, 1 near" in out and "17 of RGB PNG, 1 of RGB JPEG" in out
    assert "1 test images stand in train too, and 1 nearly" in errors and "only 6 test samples" in errors
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.format == "PNG" and min(sheet.size) > 100
    code, out, _ = cli("data", f"image-folder:{tmp_path},size=20", "--json")
    found = json.loads(out)
    assert found["counts"]["test"] == {"cat": 3, "dog": 3} and found["duplicates"][0]["exact"] == 1


def test_digits_have_no_doubles_and_enough_samples() -> None:
    found = api.inspect_data("digits")
    assert (sum(each.exact for each in found.duplicates), found.warnings) == (0, ())
    assert found.shapes["test"] == [8, 8, 1]


def test_a_model_is_not_shown_images_that_were_placed_otherwise(tmp_path: Path) -> None:
    folder(tmp_path)
    spec = preprocessing(opened(f"image-folder:{tmp_path},resize=shortest:20+crop:16"), InputPlan(size=16), False)
    check_placed(spec, opened(f"image-folder:{tmp_path},resize=shortest:20+crop:16"))
    with pytest.raises(InputError, match=r"give the data set options .*resize=shortest:20.crop:16"):
        check_placed(spec, opened(f"image-folder:{tmp_path},size=16"))
