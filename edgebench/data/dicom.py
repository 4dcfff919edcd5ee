"""DICOM files: their own windows, splits by patient, and nothing of who the patients are.

`dicom:FOLDER` holds `train/val/test` with a folder per class, class folders alone, or files in any folders with
`labels=FILE`, a CSV: a column `file` (or `id`, `image_id`, …: path or name) or `patient_id`, a column `label` (`Target`,
`class`, …), and if wanted `split`, and `patient_id` beside files. RSNA's `stage_2_train_labels.csv` is one: of several lines
for one the greatest `Target` counts.

Whose a file is says `patient=header` (its PatientID), `file` (each is a patient's alone), `folder` (the one it lies in), or the
table's column `patient_id`, which counts unless the option is given. All of a patient goes to one split: by `val` and `test`
percent (15 each) and `seed` (0) where nothing else says so; splits that are given and share patients are refused, unless
`shared=allow`. `empty=allow` lets a split lack a class; `sort` and `classes` are those of an image folder.

`window` says what of the values becomes 0…255: `file` (the file's own first window or table; `file:2` its second), a name in
Hounsfield units (`lung`, `bone`, `brain`, …), `CENTER:WIDTH`, `full` (whatever the bits may hold) or `ends` (from each image's
least value to its greatest). MONOCHROME1 is inverted. Files of several frames want `frame`: `first`, `middle`, `last`, a number
from 1 on, or `all`, each frame a sample. `channels` is 1 unless given as 3; sizes, `max_pixels` and `max_gib` are those of an
image folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgebench.data import MAX_CLASSES, Geometry, Opened, Split, int_option, text_option
from edgebench.data._dicom_files import DicomFile, opened, refusal
from edgebench.data._dicom_frames import Unreadable
from edgebench.data._dicom_headers import GREYS, Header, patient_hash
from edgebench.data._dicom_listing import Entry, by_folders, by_table
from edgebench.data._dicom_splits import Options, Sample, check_classes, check_size, dealt, groups, one_of
from edgebench.data._files import inside
from edgebench.data._geometry import OPTIONS as GEOMETRY
from edgebench.data._geometry import place, read_geometry
from edgebench.data._images import MAX_PIXELS
from edgebench.data._labels import class_names, ordered
from edgebench.data._mapped import is_large, kept
from edgebench.data._patients import numbered
from edgebench.data._windows import Window, greys, read_window
from edgebench.errors import DataError
from edgebench.files import PROGRESS

OPTIONS = (
    *("source", "labels", "classes", "sort", "empty", "patient", "shared", "val", "test", "seed"),
    *("window", "frame", "channels", "max_pixels", "max_gib", *GEOMETRY),
)
HIDDEN = "the DICOM data set cannot be used; `edgebench data` says why"
"""What records say in place of a message that names files or folders."""
EVERY = 64
"""Headers between two words of progress."""
Headers = Callable[[Sequence[Path]], Mapping[Path, Header | None]]


@dataclass(frozen=True)
class Reading:
    """How a frame becomes an image."""

    geometry: Geometry
    channels: int
    window: Window
    max_pixels: int


def load(options: Options) -> Opened:
    """Read every header and deal patients out; `DataError` names a file that is no image, or what is not said of it."""
    with _unnamed():
        source = text_option(options, "source")
        if source is None:
            raise DataError("dicom: which folder? give --dataset dicom:/path/to/folder")
        root = Path(source).expanduser()
        if not root.is_dir():
            raise DataError(f"dicom: {root} is not a folder; give the one that holds the files")
        return _opened(root, options)


def _opened(root: Path, options: Options) -> Opened:
    geometry, chosen = read_geometry(options)
    channels = int_option(options, "channels", 1, 1, 3)
    if channels == 2:
        raise DataError("--dataset: channels=2 is neither 1 nor 3; give one of them")
    window = read_window(str(options.get("window", "file")))
    how = Reading(geometry, channels, window, int_option(options, "max_pixels", MAX_PIXELS, 1, 1 << 31))
    home, headers, notes = root.resolve(), dict[Path, Header | None](), list[str]()
    read = partial(_read_headers, headers, root, home, how)
    entries = _entries(root, home, options, read, notes)
    read([entry.file for entry in entries])
    pairs = [(entry, header) for entry in entries if (header := headers[entry.file]) is not None]
    _tell(root, pairs, len(entries) - len(pairs), how, notes)
    classes = _classes(root, [entry.label for entry, _ in pairs if entry.split in ("", "train")], options)
    samples = _samples(root, pairs, classes, options)
    splits = dealt(root, samples, options, notes)
    check_classes(root, splits, classes, options, notes)
    check_size(root, splits, geometry.height * geometry.width * channels, options)
    task = "binary" if len(classes) == 2 else "multi-class"
    return Opened(task, classes, partial(_read, splits, home, how), tuple(notes), geometry=geometry if chosen else None)


@contextmanager
def _unnamed() -> Iterator[None]:
    """Let messages that name files or folders reach the terminal, and no record."""
    try:
        yield
    except DataError as error:
        error.written = HIDDEN if error.written == str(error) else error.written
        raise


# ---------------------------------------------------------------- files


def _entries(
    root: Path, home: Path, options: Options, read: partial[Mapping[Path, Header | None]], notes: list[str]
) -> list[Entry]:
    labels = text_option(options, "labels")
    if labels is None:
        return by_folders(root, home, notes)

    def patients(files: Sequence[Path]) -> dict[Path, bytes | None]:
        return {file: None if header is None else header.patient for file, header in read(files).items()}

    path = Path(labels).expanduser() if Path(labels).expanduser().is_file() else root / labels
    return by_table(root, home, path, patients, notes)


def _read_headers(
    known: dict[Path, Header | None], root: Path, home: Path, how: Reading, files: Sequence[Path]
) -> Mapping[Path, Header | None]:
    """Read the headers of files that are not known yet; None for those without an image."""
    for number, file in enumerate(files):
        if number % EVERY == 0:
            PROGRESS.get()(f"read the headers of {root}", number, len(files))
        if file not in known:
            with opened(file, inside(file, home), how.max_pixels) as content:
                known[file] = content.header
    return known


def _tell(root: Path, pairs: Sequence[tuple[Entry, Header]], without: int, how: Reading, notes: list[str]) -> None:
    """Say in numbers what a user may not expect of the files."""
    if without:
        notes.append(f"{root}: left out {without} DICOM files that hold no image, as reports and plans do")
    burned = sum(header.burned_in for _, header in pairs)
    if burned:
        notes.append(f"{root}: {burned} files say that text is burned into their pixels; look whether it names anybody")
    coloured = sum(header.photometric not in GREYS for _, header in pairs)
    if coloured and how.channels == 1:
        notes.append(f"{root}: {coloured} files are of colour and are made grey; channels=3 keeps it")


def _classes(root: Path, labels: Sequence[str], options: Options) -> tuple[str, ...]:
    """Put the classes into their order: the user's, or by their letters."""
    names = sorted(set(labels))
    if not 2 <= len(names) <= MAX_CLASSES:
        raise DataError(
            f"dicom: {root} has images of {len(names)} classes, and 2 to {MAX_CLASSES} are wanted; look at its labels"
        )
    given = text_option(options, "classes")
    if given is None:
        return ordered(names, str(options.get("sort", "name")))
    path = Path(given) if Path(given).is_file() else root / given
    wanted = class_names(path)
    if set(wanted) != set(names):
        raise DataError(f"{path}: its {len(wanted)} classes are not the {len(names)} that have images; write each of them once")
    return wanted


def _samples(
    root: Path, pairs: Sequence[tuple[Entry, Header]], classes: Sequence[str], options: Options
) -> dict[str, list[Sample]]:
    """List every frame that is asked for with its class and its patient, by split (empty: not said)."""
    numbers = {name: index for index, name in enumerate(classes)}
    stranger = next((entry for entry, _ in pairs if entry.label not in numbers), None)
    if stranger is not None:
        raise refusal(stranger.file, f"its class has no image in train ({stranger.split} has it alone); rename or move it")
    patients = numbered(
        [_patient(root, entry, header, options) for entry, header in pairs], int_option(options, "seed", 0, 0, 1 << 31)
    )
    found: dict[str, list[Sample]] = {}
    for (entry, header), patient in zip(pairs, patients, strict=True):
        frames = _frames(entry.file, header.frames, text_option(options, "frame"))
        found.setdefault(entry.split, []).extend(Sample(entry.file, each, numbers[entry.label], int(patient)) for each in frames)
    if "labels" not in options:
        _check_folders(root, [sample for samples in found.values() for sample in samples], len(classes))
    return found


def _check_folders(root: Path, samples: Sequence[Sample], classes: int) -> None:
    """Refuse folders of patients in place of classes: their names would become those of classes."""
    people = {(sample.label, sample.patient) for sample in samples}
    if len(people) == classes and len({patient for _, patient in people}) == classes:
        raise DataError(
            f"dicom: {root}: each of its {classes} class folders holds files of one patient, as if they were patients and "
            "no classes; give labels=FILE with a CSV"
        )


def _patient(root: Path, entry: Entry, header: Header, options: Options) -> bytes:
    whose = one_of(options, "patient", ("header", "file", "folder"))
    if whose != "header":
        inner = entry.file.relative_to(root)
        return patient_hash(str(inner if whose == "file" else inner.parent))
    if entry.patient and "patient" not in options:
        return patient_hash(entry.patient)
    if header.patient is None:
        remedy = "give the data set option patient=file or patient=folder, or a column patient_id in labels"
        raise refusal(entry.file, f"no PatientID stands in it, and all of a patient goes to one split; {remedy}")
    return header.patient


def _frames(file: Path, count: int, wanted: str | None) -> Sequence[int]:
    """Choose frames of a file, from 0 on."""
    if wanted is None and count > 1:
        raise refusal(
            file, f"it has {count} frames; give the data set option frame=first, middle, last, all, or a number from 1 on"
        )
    words = {None: [0], "first": [0], "middle": [count // 2], "last": [count - 1], "all": range(count)}
    if wanted in words:
        return words[wanted]
    if not (wanted or "").isdecimal() or not 1 <= int(wanted or 0) < 1 << 16:
        raise DataError(f"--dataset: frame={wanted} is none of first, middle, last, all, and no number from 1; give one")
    if int(wanted or 0) > count:
        raise refusal(file, f"it has {count} frames, and frame={wanted} is asked for; give another")
    return [int(wanted or 0) - 1]


# ---------------------------------------------------------------- pixels


def _read(splits: Mapping[str, Sequence[Sample]], home: Path, how: Reading, name: str) -> Split:
    with _unnamed():
        samples = splits[name]
        shape = (len(samples), how.geometry.height, how.geometry.width, how.channels)
        key = ["dicom", repr(how), *_changes(samples, home)] if is_large(shape) else []
        pixels = kept(f"{home} {name}", key, shape, partial(_made, samples, home, how))
        return Split(pixels, np.array([sample.label for sample in samples], dtype=np.int64), groups(samples))


def _made(samples: Sequence[Sample], home: Path, how: Reading) -> Iterator[NDArray[np.uint8]]:
    for file, several in groupby(samples, lambda sample: sample.file):
        with opened(file, inside(file, home), how.max_pixels) as content:
            for sample in several:
                yield _image(content, sample.frame, how)[None]


def _image(content: DicomFile, frame: int, how: Reading) -> NDArray[np.uint8]:
    """Bring a frame to 0…255 and to its size: uint8 [h, w, c]."""
    from PIL import Image

    header = content.header
    if header is None or frame >= header.frames:
        raise Unreadable("it was changed since its header was read; run again")
    pixels = content.frame(frame)
    if header.photometric in GREYS:
        pixels = greys(pixels, header, content.elements, frame, how.window)
    image = Image.fromarray(np.ascontiguousarray(pixels, dtype=np.uint8))
    mode = "L" if how.channels == 1 else "RGB"
    return place(image if image.mode == mode else image.convert(mode), how.geometry)


def _changes(samples: Sequence[Sample], home: Path) -> list[list[str | int]]:
    """Tell files as they are now: where each lies, which frame is taken, how large it is, and when it was changed."""
    found = ((sample, inside(sample.file, home)) for sample in samples)
    return [[str(real), sample.frame, (told := real.stat()).st_size, told.st_mtime_ns] for sample, real in found]
