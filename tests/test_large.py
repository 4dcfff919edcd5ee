"""Splits that need not fit into memory: what is mapped is what it was, is made once, and is never held whole."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from edgebench import files
from edgebench.config import read_dataset
from edgebench.data import Dataset, _mapped, open_images
from edgebench.device import deploy
from edgebench.errors import DataError
from edgebench.models.normalization import preprocessing
from edgebench.schema import InputPlan
from edgebench.targets.transports.local import LocalTransport

Arrays = dict[str, Any]
BOUND_BYTES = 64 << 20
"""Less than half of the split."""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Map whatever has more than 1000 bytes, 700 at once."""
    monkeypatch.setattr(_mapped, "LARGE", 1000)
    monkeypatch.setattr(_mapped, "PART", 700)
    monkeypatch.setattr("edgebench.data._arrays.PART", 700)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "edgebench" / "images"


def opened(text: str) -> Dataset:
    return open_images(read_dataset(text))


def drawn(counts: tuple[int, ...] = (20, 5, 30), channels: int = 3) -> Arrays:
    """Draw images of 9 × 7 for each split, and labels of three classes."""
    rng = np.random.default_rng(0)
    made: Arrays = {}
    for name, count in zip(("train", "val", "test"), counts, strict=True):
        made[f"{name}_images"] = rng.integers(0, 256, (count, 9, 7, channels), dtype=np.uint8)
        made[f"{name}_labels"] = np.arange(count) % 3
    return made


def right_hash(images: NDArray[Any], labels: NDArray[Any]) -> str:
    """Hash as records have it."""
    wanted = hashlib.sha256()
    for array in (images, labels.astype(np.int64)):
        wanted.update(f"{array.dtype.str}{array.shape}".encode() + array.tobytes())
    return wanted.hexdigest()


def changed(arrays: Arrays, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Arrays:
    return {key: change(array) if "images" in key else array for key, array in arrays.items()}


LAYOUTS: dict[str, Callable[[Arrays], Arrays]] = {
    "as it is": lambda arrays: arrays,
    "by columns": lambda arrays: changed(arrays, np.asfortranarray),
    "channels first": lambda arrays: changed(arrays, lambda images: np.ascontiguousarray(images.transpose(0, 3, 1, 2))),
    "fractions": lambda arrays: changed(arrays, lambda images: (images / 255).astype(np.float32)),
}


@pytest.mark.filterwarnings("ignore::edgebench.errors.DataWarning")
@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_mapped_split_of_an_archive_has_its_pixels_and_its_hash(tmp_path: Path, cache: Path, layout: str, write: Any) -> None:
    arrays = drawn()
    write(tmp_path / "own.npz", **LAYOUTS[layout](arrays))
    for _ in range(2):
        data = opened(f"medmnist:{tmp_path / 'own.npz'}")
        for name in ("train", "test"):
            split = data.read(name)
            assert isinstance(split.images, np.memmap)
            assert np.array_equal(split.images, arrays[f"{name}_images"])
            assert split.sha256 == right_hash(arrays[f"{name}_images"], arrays[f"{name}_labels"])
    assert len(list(cache.glob("*.u8"))) == 2


def test_images_are_unpacked_once_and_again_where_the_file_has_changed(tmp_path: Path, cache: Path) -> None:
    path, told = tmp_path / "own.npz", list[str]()
    token = files.PROGRESS.set(lambda what, *_: told.append(what))
    np.savez(path, **drawn())
    opened(f"medmnist:{path}").read("test")
    assert set(told) == {f"read {path}: test_images"} and len(told) > 2
    told.clear()
    opened(f"medmnist:{path}").read("test")
    assert not told
    np.savez(path, **changed(drawn(), lambda images: 255 - images))
    assert np.array_equal(opened(f"medmnist:{path}").read("test").images, 255 - drawn()["test_images"])
    files.PROGRESS.reset(token)


def test_damaged_images_are_refused_and_nothing_of_them_is_kept(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "own.npz"
    np.savez(path, **drawn())
    with zipfile.ZipFile(path) as archive:
        place = archive.getinfo("test_images.npy").header_offset + 3000
    with path.open("r+b") as stream:
        stream.seek(place)
        stream.write(b"broken")
    with pytest.raises(DataError, match="test_images: BadZipFile"):
        opened(f"medmnist:{path}").read("test")
    assert not list(cache.iterdir())


def test_a_folder_is_decoded_once_and_again_where_an_image_has_changed(tmp_path: Path, cache: Path) -> None:
    arrays, root, told = drawn((6, 3, 30)), tmp_path / "own", list[str]()
    for name in ("train", "val", "test"):
        for index, (image, label) in enumerate(zip(arrays[f"{name}_images"], arrays[f"{name}_labels"], strict=True)):
            (root / name / str(label)).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(root / name / str(label) / f"{index:02}.png")
    order = np.argsort(arrays["test_labels"], kind="stable")
    token = files.PROGRESS.set(lambda what, *_: told.append(what))
    for count in (30, 0):
        split = opened(f"image-folder:{root},size=9x7").read("test")
        assert np.array_equal(split.images, arrays["test_images"][order])
        assert split.sha256 == right_hash(arrays["test_images"][order], arrays["test_labels"][order])
        assert len(told) == count
        told.clear()
    Image.fromarray(255 - arrays["test_images"][0]).save(root / "test" / "0" / "00.png")
    assert np.array_equal(opened(f"image-folder:{root},size=9x7").read("test").images[0], 255 - arrays["test_images"][0])
    files.PROGRESS.reset(token)


def test_a_large_subset_is_made_once_and_what_nobody_used_for_a_month_goes(tmp_path: Path, cache: Path) -> None:
    arrays, path, made = drawn(), tmp_path / "own.npz", list[set[tuple[str, int]]]()
    np.savez(path, **arrays)
    for _ in range(2):
        some = opened(f"medmnist:{path}").sampled(9, 0)
        assert isinstance(some.read("test").images, np.memmap) and some.indices is not None
        assert np.array_equal(some.read("test").images, arrays["test_images"][some.indices])
        made.append({(file.name, file.stat().st_ino) for file in cache.iterdir()})
    assert made[0] == made[1] and len(made[0]) == 2
    for file in cache.iterdir():
        os.utime(file, (time.time() - 31 * 86400, time.time()))
    sizes = {arrays[f"{name}_images"].nbytes for name in ("train", "test")}
    opened(f"medmnist:{path}").read("train")  # and test, which is looked at first
    assert {file.stat().st_size for file in cache.iterdir()} == sizes


@pytest.mark.parametrize("channels", [1, 3])
def test_the_normalisation_of_a_mapped_split_is_numpys(tmp_path: Path, cache: Path, channels: int) -> None:
    arrays = drawn(channels=channels)
    np.savez(tmp_path / "own.npz", **arrays)
    spec = preprocessing(opened(f"medmnist:{tmp_path / 'own.npz'}"), InputPlan(size=9, channels=channels), False)
    pixels = arrays["train_images"].astype(np.float64) / 255
    assert spec.mean == tuple(np.round(pixels.mean(axis=(0, 1, 2)), 4))
    assert spec.std == tuple(np.round(pixels.std(axis=(0, 1, 2)), 4))


def test_a_mapped_split_is_pushed_as_the_file_that_it_is(tmp_path: Path, cache: Path) -> None:
    arrays = drawn()
    np.savez(tmp_path / "own.npz", **arrays)
    images = opened(f"medmnist:{tmp_path / 'own.npz'}").read("test").images
    device = LocalTransport(sys.executable, tmp_path / "device")
    for given, right in ((images, arrays["test_images"]), (images[3:], arrays["test_images"][3:])):
        path, digest = deploy._push_samples(device, given, deploy.no_upload_progress)
        assert Path(path).read_bytes() == right.tobytes()
        assert digest == hashlib.sha256(right.tobytes()).hexdigest()
    assert len(list(cache.iterdir())) == 1


def resident_kib(file: Path) -> int:
    """Return how much of a mapped file is in this process."""
    found, own = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match("[0-9a-f]+-[0-9a-f]+ ", line):
            own = line.endswith(str(file))
        elif own and line.startswith("Rss:"):
            found += int(line.split()[1])
    return found


def test_training_lets_go_of_what_it_has_read(tmp_path: Path, cache: Path) -> None:
    from edgebench.recipes._classifier import Samples

    np.savez(tmp_path / "own.npz", **drawn((2000, 5, 5)))
    data = opened(f"medmnist:{tmp_path / 'own.npz'}")
    split, spec = data.read("train"), preprocessing(data, InputPlan(size=9, channels=3), False)
    [file] = [path for path in cache.iterdir() if path.stat().st_size == split.images.nbytes]
    samples, order = Samples(split, spec), np.random.default_rng(0).permutation(2000)
    for first in range(0, 2000, 100):
        images, labels = samples.__getitems__(order[first : first + 100].tolist())
        assert images.shape == (100, 3, 9, 9) and labels.tolist() == (order[first : first + 100] % 3).tolist()
        assert resident_kib(file) == 0
    assert split.images.sum() and resident_kib(file) > 300


MEASURED = """
import re, sys
from pathlib import Path
from edgebench.bundle.export import Order, calibration_of, exporter
from edgebench.bundle.parity import parity_samples
from edgebench.config import read_dataset
from edgebench.data import open_images
from edgebench.device import deploy
from edgebench.models.normalization import preprocessing
from edgebench.schema import Accepts, CalibrationPlan, InputPlan, Lineage, Model, image_input
from edgebench.targets.transports.local import LocalTransport

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) << 10

exporter("onnx", "int8")
before = peak()
data = open_images(read_dataset("medmnist:own.npz"))
data.hashes()
spec = preprocessing(data, InputPlan(size=8, channels=3, mean=(0.5,) * 3, std=(0.3,) * 3), False)
preprocessing(data, InputPlan(size=8, channels=3), False)
lineage = Lineage(recipe="r", options={}, dataset=data.ref, splits={}, tools={})
model = Model(name="m", architecture="a", role="baseline", task="multi-class", classes=data.classes, sha256="0" * 64,
              inputs=(image_input(spec),), parameters=1, lineage=lineage)
accepts = Accepts(format="onnx", precisions=("int8",), runtime="onnxruntime")
calibration_of(Order(model, lambda: None, "onnx", "int8", accepts, data, CalibrationPlan(samples=64)))
parity_samples(model, data, 64)
data.sampled(600, 0).read("test").sha256
deploy._push_samples(LocalTransport(sys.executable, Path("device")), data.read("test").images, deploy.no_upload_progress)
print(peak() - before)
"""


def test_no_step_holds_a_split_whole(tmp_path: Path) -> None:
    count = 900
    assert count * 224 * 224 * 3 > 2 * BOUND_BYTES
    with zipfile.ZipFile(tmp_path / "own.npz", "w", zipfile.ZIP_STORED) as archive:
        for name, many in (("train", count), ("val", 3), ("test", count)):
            with archive.open(f"{name}_images.npy", "w", force_zip64=True) as stream:
                header = {"descr": "|u1", "fortran_order": False, "shape": (many, 224, 224, 3)}
                np.lib.format.write_array_header_1_0(stream, header)
                for index in range(many):
                    stream.write(bytes([index % 251, len(name)]) * (224 * 224 * 3 // 2))
            with archive.open(f"{name}_labels.npy", "w") as stream:
                np.lib.format.write_array(stream, np.arange(many) % 3)
    variables = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", MEASURED], capture_output=True, text=True, cwd=tmp_path, env=variables, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < BOUND_BYTES, f"{int(done.stdout) >> 20} MiB"
