"""CIFAR-10 (A. Krizhevsky 2009): 60 000 colour images of 32 × 32 in ten classes.

`cifar10:FOLDER` is what the archive unpacks to, `cifar-10-batches-py` or `cifar-10-batches-bin`, or the folder that holds it;
`cifar10:FILE.npz` has arrays `x_train`, `y_train`, `x_test`, `y_test`, or of other such names. The batches of Python are
pickles: they are read without unpickling, and nothing in them is run. Their published MD5 are checked, of the other forms the
numbers of images. There is no val: `val` percent of each class of train are it (10 unless given), always the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path

import numpy as np

from edgebench.data import Opened, Requirements, Split, int_option, text_option
from edgebench.data._arrays import Limit, open_npz
from edgebench.data._cifar_files import SIDE, Batch, binary_batch, pickled, python_batch, read_binary, read_names, read_python
from edgebench.data._dealing import deal
from edgebench.data._files import open_regular
from edgebench.data._layouts import aliases
from edgebench.data._textures import generator, pictures, shuffled
from edgebench.errors import DataError
from edgebench.files import write_atomic
from edgebench.schema import SYNTHETIC

OPTIONS = ("source", "val", SYNTHETIC)
SYNTHESIS = ("form",)
Options = Mapping[str, str | int | bool]
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PYTHON, BINARY = "cifar-10-batches-py", "cifar-10-batches-bin"
MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
}
TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
EACH, TINY_EACH, VAL = 10_000, 40, 10
"""Images of a batch, published and tiny; percent of train."""
URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
ARCHIVE_BYTES, ARCHIVE_MD5 = 170_498_071, "c58f30108f718f92721af3b95e74349a"
FETCH = f"curl -O {URL} && tar xzf cifar-10-python.tar.gz"


def requirements(options: Options) -> Requirements:
    """Say what is published."""
    val = int_option(options, "val", VAL, 1, 99)
    held = -(-5000 * val // 100)
    each = {"train": 5000 - held, "val": held, "test": 1000}
    return Requirements(
        "CIFAR-10 (A. Krizhevsky 2009): colour images of 32 × 32 in ten classes, as many of each. It has no val: "
        f"{val} % of each class of its 50 000 of train are it",
        FETCH,
        ARCHIVE_BYTES,
        {split: 10 * count for split, count in each.items()},
        {split: dict.fromkeys(CLASSES, count) for split, count in each.items()},
        6 * EACH * (SIDE * SIDE * 3 + 1),
        f"the MD5 of each batch (the archive's is {ARCHIVE_MD5}); of binary batches and .npz the numbers of images",
    )


def load(options: Options) -> Opened:
    """Find which form it has; batches are read when they are first asked for."""
    source, val = text_option(options, "source"), int_option(options, "val", VAL, 1, 99)
    if source is None:
        raise DataError(f"cifar10: which folder? give --dataset cifar10:FOLDER, the one in which this was run: {FETCH}")
    path, published = Path(source).expanduser(), options.get(SYNTHETIC, "full") == "full"
    if path.suffix == ".npz":
        whole = partial(_npz, path)
    else:
        folder = _folder(path)
        whole = partial(_batches, folder, published and SYNTHETIC not in options)
    read = cache(partial(_checked, path, whole, published))
    return Opened("multi-class", CLASSES, partial(_read, read, val), (f"{val} % of each class of its train are val",))


def _folder(path: Path) -> Path:
    for place in (path, path / PYTHON, path / BINARY):
        if (place / TRAIN[0]).is_file() or (place / f"{TRAIN[0]}.bin").is_file():
            return place
    raise DataError(f"cifar10: {path} holds neither {PYTHON} nor {BINARY} with {TRAIN[0]}; fetch it there: {FETCH}")


def _read(whole: Callable[[bool], Batch], val: int, name: str) -> Split:
    batch = whole(name == "test")
    if name == "test":
        return Split(*batch)
    chosen = np.sort(deal(batch.labels, val=val)[name])
    return Split(batch.images[chosen], batch.labels[chosen])


def _checked(path: Path, read: Callable[[bool], Batch], published: bool, test: bool) -> Batch:
    batch, wanted = read(test), EACH if test else EACH * len(TRAIN)
    split = "test" if test else "train"
    if published and len(batch.labels) != wanted:
        raise DataError(
            f"cifar10: {path}: its {split} has {len(batch.labels)} images, and {wanted} are published; fetch it again"
        )
    outside = batch.labels[(batch.labels < 0) | (batch.labels >= len(CLASSES))]
    if outside.size:
        raise DataError(f"cifar10: {path}: its {split} has the label {outside[0]}; they go from 0 to {len(CLASSES) - 1}")
    return batch


def _batches(folder: Path, by_sum: bool, test: bool) -> Batch:
    python = (folder / TRAIN[0]).is_file()
    _check_names(folder, python, by_sum)
    read = []
    for name in ("test_batch",) if test else TRAIN:
        path = folder / (name if python else f"{name}.bin")
        if python and by_sum:
            _check_sum(path, MD5[name])
        read.append(read_python(path) if python else read_binary(path))
    return Batch(np.concatenate([each.images for each in read]), np.concatenate([each.labels for each in read]))


def _check_names(folder: Path, python: bool, by_sum: bool) -> None:
    """Hold the names of the classes against the published ones, where the file with them is there."""
    path = folder / ("batches.meta" if python else "batches.meta.txt")
    if not path.is_file():
        return
    if python and by_sum:
        _check_sum(path, MD5["batches.meta"])
    names = read_names(path) if python else tuple(path.read_text(encoding="ascii", errors="replace").split())
    if names != CLASSES:
        raise DataError(f"{path}: names other classes than {', '.join(CLASSES[:3])}, …; this is no CIFAR-10")


def _check_sum(path: Path, expected: str) -> None:
    digest = hashlib.md5(usedforsecurity=False)
    with open_regular(path) as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    found = digest.hexdigest()
    if found != expected:
        raise DataError(
            f"{path}: its MD5 is {found}, the published one {expected}: truncated, or another version; fetch it again"
        )


def _npz(path: Path, test: bool) -> Batch:
    if not path.is_file():
        raise DataError(f"cifar10: no file {path}; give the .npz, or the folder of batches")
    split = "test" if test else "train"
    with open_npz(path, Limit.of(None)) as archive:
        archive.names = aliases(archive.keys())
        images, labels = archive.header(f"{split}_images", "u"), archive.header(f"{split}_labels", "iu", widest=8)
        if images.dtype != np.uint8 or images.shape[1:] != (SIDE, SIDE, 3) or labels.shape[:1] != images.shape[:1]:
            raise DataError(f"{path}: {split} is {images} with labels {labels}; uint8 [n, 32, 32, 3] and [n] are wanted")
        return Batch(archive.read(f"{split}_images"), archive.read(f"{split}_labels").reshape(-1).astype(np.int64))


# ---------------------------------------------------------------- synthetic


def synthesize(folder: Path, *, tiny: bool, seed: int, options: Options) -> Mapping[str, Path | str]:
    """Write batches as they are published; `form` is `python` (unless given), `binary` or `npz`. Every class has its tenth."""
    form, each = str(options.get("form", "python")), TINY_EACH if tiny else EACH
    if form not in ("python", "binary", "npz"):
        raise DataError(f"cifar10: form={form} is none of python, binary, npz; give one of them, or leave it out")
    made = {name: _drawn(name, each, seed) for name in (*TRAIN, "test_batch")}
    if form == "npz":
        train = [made[name] for name in TRAIN]
        joined = np.concatenate([batch.images for batch in train])
        labels = np.concatenate([batch.labels for batch in train])
        test = made["test_batch"]
        np.savez_compressed(folder / "cifar10.npz", x_train=joined, y_train=labels, x_test=test.images, y_test=test.labels)
        return {"source": Path("cifar10.npz")}
    place = folder / (PYTHON if form == "python" else BINARY)
    place.mkdir(exist_ok=True)
    for number, (name, batch) in enumerate(made.items(), 1):
        label = "testing batch 1 of 1" if name == "test_batch" else f"training batch {number} of {len(TRAIN)}"
        files = [f"{CLASSES[truth]}_s_{index:06d}.png" for index, truth in enumerate(batch.labels)]
        content = python_batch(label, batch, files) if form == "python" else binary_batch(batch)
        write_atomic(place / (name if form == "python" else f"{name}.bin"), content)
    if form == "python":
        meta = {"num_cases_per_batch": each, "label_names": list(CLASSES), "num_vis": SIDE * SIDE * 3}
        write_atomic(place / "batches.meta", pickled(meta))
    else:
        write_atomic(place / "batches.meta.txt", "\n".join((*CLASSES, "")).encode())
    return {"source": Path()}


def _drawn(name: str, count: int, seed: int) -> Batch:
    labels = shuffled(np.full(len(CLASSES), count // len(CLASSES)), generator(seed, "cifar10", name))
    return Batch(np.concatenate(list(pictures(labels, len(CLASSES), (SIDE, SIDE, 3), seed, f"cifar10 {name}"))), labels)
