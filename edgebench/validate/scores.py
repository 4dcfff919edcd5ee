"""Where the scores come from: a record's own, as its device computed them, or a bundle that is run on this computer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench import tasks
from edgebench.analysis.evaluation import distinct
from edgebench.analysis.heads import head_of, logits
from edgebench.analysis.resampling import Floats
from edgebench.bundle.manifest import MANIFEST, read_bundle
from edgebench.bundle.predict import Predictor
from edgebench.bundle.samples import given
from edgebench.config import read_dataset
from edgebench.data import Dataset, open_images
from edgebench.errors import EdgebenchError, InputError
from edgebench.files import parse_json
from edgebench.schema import Bundle, DatasetRef, Model, Progress, Record, Subset
from edgebench.store import records
from edgebench.store.find import find
from edgebench.store.layout import RECORDS, is_record
from edgebench.trust import check_bundle
from edgebench.validate.options import ValidateOptions

Raw = NDArray[Any]
"""Scores as a runtime gives them, float32 [n, columns]."""
PART = 64
"""So many images are run between two words on how far it is."""
BUNDLES = Path("bundles")
"""Where `edgebench export` puts them unless told otherwise."""


@dataclass(frozen=True)
class Source:
    """A bundle's folder or a record, before anything of it is computed."""

    path: Path
    model: Model
    folder: Path | None
    bundle: Bundle | None
    record: Record | None
    name: str
    nobundle: str = ""
    """Why a record's bundle is not at hand."""

    @property
    def dataset(self) -> DatasetRef | None:
        """The data set that it was judged on, or made with."""
        return self.model.lineage.dataset if self.record is None else self.record.cell.dataset

    @property
    def subset(self) -> Subset | None:
        """Which samples of the test split its scores are of; None: all of them."""
        return None if self.record is None else self.record.cell.subset


@dataclass(frozen=True)
class Scored:
    """One file's scores as logits, float64 [n, classes]."""

    name: str
    model: Model
    test: Floats
    val: Floats | None
    where: str
    """What computed the test scores."""
    val_where: str
    """What computed those of the validation data, or why there are none."""
    bundle: Bundle | None
    folder: Path | None


@dataclass(frozen=True)
class Judged:
    """The data that all files are judged on."""

    whole: Dataset
    indices: NDArray[np.intp]
    """The judged samples of the test split."""
    labels: NDArray[np.int64]
    sha256: str
    """Of the judged samples."""

    @property
    def val_labels(self) -> NDArray[np.int64]:
        """Labels of the validation split."""
        return self.whole.read("val").labels


# ---------------------------------------------------------------- what was named


def sources(paths: Sequence[str | Path], options: ValidateOptions) -> list[Source]:
    """Read what was named: bundles' folders, records by path or by the beginning of their key, folders of records."""
    found = [each for path in paths for each in _named(Path(path), str(path), options)]
    if not found:
        raise InputError(f"{paths[0]}: holds no record with scores; run `edgebench run` with a data set, or give a bundle")
    names = [each.name for each in found]
    found = [_told_apart(each, names) for each in found]
    return [replace(each, name=name) for each, name in zip(found, distinct([each.name for each in found]), strict=True)]


def _told_apart(source: Source, names: Sequence[str]) -> Source:
    if names.count(source.name) == 1:
        return source
    end = source.path.name if source.record is None else f"{source.record.cell.target} {source.record.key[:6]}"
    return replace(source, name=f"{source.name} ({end})")


def _named(path: Path, text: str, options: ValidateOptions) -> Iterator[Source]:
    if (path / MANIFEST).exists():
        bundle = read_bundle(path)
        yield Source(path, bundle.model, path, bundle, None, bundle.name)
    elif (path / RECORDS).is_dir():
        for each in records.record_paths(path):
            record = records.read_record(each)
            if record.status == "done" and record.accuracy is not None and record.samples is not None:
                yield _of_record(each, record, options)
    elif path.is_dir():
        raise InputError(f"{path}: holds neither {MANIFEST} nor {RECORDS}/; give a bundle's folder, a record or a results folder")
    elif path.is_file() and not is_record(path.name):
        raise InputError(f"{path}: is no bundle and no record; make a bundle of a model file by `edgebench import`")
    else:
        place, record = find(options.results, text)
        yield _of_record(place, record, options)


def _of_record(path: Path, record: Record, options: ValidateOptions) -> Source:
    cell = record.cell
    if record.model is None or record.samples is None or record.accuracy is None:
        raise InputError(f"{path}: has no scores of a test split; measure it with a data set, or give its bundle")
    folder = _bundle_of(record, (options.work / "bundles", BUNDLES))
    name = f"{cell.model}.{cell.format}.{cell.precision}"
    reason = "" if folder else f"its bundle is neither in {BUNDLES} nor among the work folder's"
    return Source(path, record.model, folder, None if folder is None else read_bundle(folder), record, name, reason)


def _bundle_of(record: Record, places: Sequence[Path]) -> Path | None:
    """Find the bundle that a record was measured of, by its hash."""
    for path in sorted(path for place in places for path in place.glob(f"*/{MANIFEST}")):
        try:
            content = parse_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and content.get("sha256") == record.cell.bundle_sha256:
            return path.parent
    return None


# ---------------------------------------------------------------- what they are judged on


def judged(named: Sequence[Source], dataset: str | None) -> Judged:
    """Open the data that all sources are judged on; `InputError` where they are of different data, classes or samples."""
    ref = read_dataset(dataset) if dataset else named[0].dataset
    if ref is None:
        raise InputError(f"{named[0].path}: does not say what it is judged on; give --dataset")
    measured = [each for each in named if each.record is not None]
    data, subset = open_images(ref), measured[0].subset if measured else None
    for each in named:
        _check(each, data, ref)
        if each.record is not None and each.subset != subset:
            raise InputError(f"{each.path}: is of other samples than {measured[0].path}; measure both on the same (--samples)")
    kinds = {each.model.task for each in named}
    if len(kinds) > 1:
        raise InputError(f"{named[0].path}: is of the task {named[0].model.task}, others are not; give files of one task")
    some = data if subset is None else data.sampled(subset.samples, subset.seed)
    test = some.read("test")
    for each in measured:
        if each.record is not None and each.record.cell.evaluation_sha256 != test.sha256:
            raise InputError(f"{each.path}: was measured on other samples than the test split of {ref} here; their hashes differ")
    indices = np.arange(len(test), dtype=np.intp) if some.indices is None else some.indices
    return Judged(data, indices, test.labels, test.sha256)


def _check(source: Source, data: Dataset, ref: DatasetRef) -> None:
    model = source.model
    if not tasks.load(model.task).HEADLINE or tasks.part(model.task, "separated") is None:
        raise InputError(f"{source.path}: the task {model.task} has no classes that could be told apart; nothing to validate")
    if data.task != model.task or data.classes != model.classes:
        was = f"{model.task} of {len(model.classes)} classes"
        raise InputError(f"{source.path}: is {was}, {ref} is {data.task} of {len(data.classes)}; choose its own data set")


# ---------------------------------------------------------------- scores


def scored(source: Source, data: Judged, options: ValidateOptions, progress: Progress) -> Scored:
    """Return scores: a record's of the test split from its sidecar, checked by its hash; else by running the bundle."""
    if source.record is None:
        assert source.folder is not None and source.bundle is not None
        test = run(source.folder, source.bundle, data.whole, "test", data.indices, options.trust, progress)
        where = _by_this_computer(source.bundle)
    else:
        test, where = _measured(source.path, source.record, len(data.labels)), _ran_by(source.record)
    val, val_where = _validation(source, data, options, progress)
    model = source.model
    head = model.head or head_of(model.task, test)  # of both alike, however few one of them has
    found = [None if each is None else _logits(model, each, head, str(source.path)) for each in (test, val)]
    assert found[0] is not None
    return Scored(source.name, model, found[0], found[1], where, val_where, source.bundle, source.folder)


def _by_this_computer(bundle: Bundle) -> str:
    return f"scores by this computer's runtime ({bundle.runtime})"


def _measured(path: Path, record: Record, count: int) -> Raw:
    measurement, _ = records.read_measurement(path, record)
    found = measurement.predictions
    if found is None or found.rows != count:
        raise InputError(f"{path}: keeps no scores of all {count} samples; measure it again, or give its bundle")
    return np.frombuffer(found.values, "<f4").reshape(found.rows, -1)


def _ran_by(record: Record) -> str:
    return f"scores of the record {record.key[:10]}, computed on {record.cell.target} ({record.ran_by})"


def _validation(source: Source, data: Judged, options: ValidateOptions, progress: Progress) -> tuple[Raw | None, str]:
    """Run the bundle on the validation split; without one, or where it does not run here, say why."""
    if source.folder is None or source.bundle is None:
        return None, source.nobundle
    try:
        val = data.whole.read("val")
        if not len(val):
            return None, "the validation split is empty"
        every = np.arange(len(val), dtype=np.intp)
        found = run(source.folder, source.bundle, data.whole, "val", every, options.trust, progress)
    except EdgebenchError as error:
        if source.record is None:
            raise
        return None, str(error)
    return found, _by_this_computer(source.bundle)


def run(
    folder: Path, bundle: Bundle, data: Dataset, split: str, indices: NDArray[np.intp], trust: bool, progress: Progress
) -> Raw:
    """Run a bundle on samples of a split on this computer; returns scores [n, columns]. `ExportError` where it does not run."""
    if bundle.scored is None:
        raise InputError(f"{folder}: nothing of it is judged; bring the file with --dataset")
    whole = data.read(split)
    if any(each.is_image and each.shape[:1] and each.shape[0] > 1 for each in bundle.inputs):
        raise InputError(f"{folder}: takes {bundle.inputs[0].shape[0]} images at once; export it for one")
    check_bundle(folder, bundle, bundle.runtime, trust)
    place = [each.name for each in bundle.outputs].index(bundle.scored)
    step = PART if len(bundle.inputs) == 1 else max(len(indices), 1)
    found: list[NDArray[Any]] = []
    with Predictor(folder, bundle) as predictor:
        for first in range(0, len(indices), step):
            progress(f"scores of {bundle.name} on {split}", first, len(indices))
            chosen = whole.some(indices[first : first + step])
            found.append(predictor.run(given(bundle.inputs, folder, chosen, str(data.ref)))[place].reshape(len(chosen), -1))
    return np.concatenate(found)


def _logits(model: Model, scores: Raw, head: str, where: str) -> Floats:
    if not np.isfinite(scores).all():
        raise InputError(f"{where}: some scores are not finite; nothing can be said of them")
    wide = logits(model.task, scores, head)
    if wide.shape[1] != len(model.classes):
        raise InputError(f"{where}: gives {wide.shape[1]} scores for {len(model.classes)} classes; nothing can be said of them")
    return wide
