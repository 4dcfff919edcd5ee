"""`results/`: write records whole, read them back, and find what was changed by hand."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from edgebench.errors import InputError, RecordError, StorageError
from edgebench.files import below, inside, is_sealed, parse_json, seal, storage, write_atomic, write_json
from edgebench.schema import RECORD_SCHEMA, Bundle, Cell, Measurement, Record, Sidecar
from edgebench.store import key as key_
from edgebench.store import samples
from edgebench.store.layout import RECORDS, SAMPLES, is_record, place, samples_name

MOST_BYTES = 1 << 24
"""What is longer is no record."""
REFERENCES = ("tflite", "onnx", "torch")
"""Formats that can stand for a model in FP32; the last that was measured does."""


def save(
    results: Path,
    record: Record,
    measurement: Measurement | None,
    labels: NDArray[Any] | None = None,
    bundle: Bundle | None = None,
    asked: Sequence[Mapping[str, str]] = (),
) -> Record:
    """Write samples, then the record that carries their hash; replaces this cell's earlier record.

    `labels` of the evaluation split stand beside the predictions, so that every metric can be computed again, and what
    `bundle.json` says, so that size and parameters can be; and what was `asked` of a language model.

    Samples are named by their hash, so that the earlier record stays whole
    until the new one takes its place. A failure never replaces a result: it
    stands beside it until the cell is done.
    """
    path = results / place(record)
    base = path.with_name(path.name.removesuffix(".json"))
    content = samples.pack(measurement, labels, bundle, asked) if measurement is not None and measurement.trials else None
    beside: Path | None = None
    if content is not None:
        digest = hashlib.sha256(content).hexdigest()
        beside = path.with_name(samples_name(path.name, digest))
        write_atomic(beside, content)
        record = record.model_copy(update={"samples": Sidecar(file=beside.name, sha256=digest, bytes=len(content))})
    sealed = seal(record.model_dump(mode="json", by_alias=True))
    try:
        write_json(path, sealed)
    except StorageError:
        if beside is not None:
            beside.unlink(missing_ok=True)
        raise
    _tidy(base, record)
    return Record.model_validate(sealed)


def _tidy(base: Path, record: Record) -> None:
    """Remove samples that no record names any more, and what earlier failed tries left behind."""
    cell = record.cell
    old = list(base.parent.glob(f"{base.name}.????????{SAMPLES}"))
    if record.status == "done":
        old += base.parent.glob(f"{cell.model}.{cell.format}.{cell.precision}.{cell.mode}.*.failed*")
    with storage(base):
        for path in old:
            if record.samples is None or path.name != record.samples.file:
                path.unlink(missing_ok=True)


def unreadable(error: Exception) -> str:
    """Say that a record's samples are not what they must be, and what to do."""
    return f"its samples cannot be read ({type(error).__name__}: {error}); measure this cell again"


def read_samples(path: Path, record: Record) -> dict[str, NDArray[Any]]:
    """Read a record's raw readings after checking them against the hash that it carries."""
    content = read_sidecar(path, record)
    try:
        return samples.unpack(content)
    except Exception as error:  # whoever wrote the samples decides what goes wrong in them
        raise RecordError(f"{path}: {unreadable(error)}") from error


def read_measurement(path: Path, record: Record) -> tuple[Measurement, NDArray[np.int64] | None]:
    """Read a record's raw readings as they were measured, and the labels of the evaluation split where they are kept."""
    arrays = read_samples(path, record)
    return samples.measured(arrays, record), arrays.get("labels")


def read_sidecar(path: Path, record: Record) -> bytes:
    """Read the file of a record's samples and check it against the hash that the record carries."""
    assert record.samples is not None
    try:
        content = bytes_of(inside(path.parent, record.samples.file), record.samples.bytes)
    except (OSError, InputError) as error:
        raise RecordError(
            f"{path}: its samples {record.samples.file} cannot be read ({error}); measure this cell again"
        ) from error
    if hashlib.sha256(content).hexdigest() != record.samples.sha256:
        raise RecordError(
            f"{path.parent / record.samples.file}: changed since it was measured (its hash differs from the record's); "
            "restore it, or delete the record and measure this cell again"
        )
    return content


def bytes_of(path: Path, most: int) -> bytes:
    """Read a plain file, and of a longer one so much that its hash cannot fit; whoever made it may have made a pipe."""
    if not path.is_file():
        raise FileNotFoundError(errno.ENOENT, "no such file", path.name)
    with path.open("rb") as stream:
        return stream.read(most + 1)


def _from_1(content: dict[str, Any]) -> dict[str, Any]:
    """Let schema 2's new fields keep their defaults; no record of schema 1 had an energy."""
    return {**content, "schema": 2}


def _from_2(content: dict[str, Any]) -> dict[str, Any]:
    """Let schema 3's new fields keep their defaults; no record of schema 2 was of a device that builds or has stages."""
    return {**content, "schema": 3}


def _from_3(content: dict[str, Any]) -> dict[str, Any]:
    """Let `Model` read its one image as an input; every cell of schema 3 had a data set."""
    return {**content, "schema": 4}


MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1, 2: _from_2, 3: _from_3}
"""Each turns a record of its schema into one of the next."""


def read_record(path: Path, *, whole: bool = True) -> Record:
    """Read one record and check it against its hash, and where it is wanted whole, its samples against theirs."""
    record = migrated(path, read_content(path))
    if whole and record.samples is not None:
        read_sidecar(path, record)
    return record


def migrated(path: Path, content: dict[str, Any]) -> Record:
    """Turn what `read_content` read into a record of today's schema."""
    while content["schema"] in MIGRATIONS:
        content = MIGRATIONS[content["schema"]](content)
    try:
        return Record.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise RecordError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}; restore it or run again") from error


def read_content(path: Path) -> dict[str, Any]:
    """Read a record as it is written, in whatever schema, and check it against its hash."""
    try:
        text = bytes_of(path, MOST_BYTES)
        if len(text) > MOST_BYTES:
            raise ValueError("it is longer than any record")
        content = parse_json(text.decode())
        sealed = isinstance(content, dict) and is_sealed(content)
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: not a readable record ({error}); restore it or delete it and run again") from error
    if not sealed:
        raise RecordError(
            f"{path}: changed since it was measured (its hash differs); restore it, or delete it and measure this cell again"
        )
    if content.get("schema") not in [RECORD_SCHEMA, *MIGRATIONS]:
        raise RecordError(
            f"{path}: record schema {content.get('schema')}, this edgebench reads {RECORD_SCHEMA}; update edgebench"
        )
    return dict(content)


def read_all(results: Path) -> list[tuple[Path, Record]]:
    """Read every record below a folder, in the order of their paths."""
    if not results.is_dir():
        raise InputError(f"{results}: no such folder; run `edgebench run` first, or give the folder that holds records/")
    return [(path, read_record(path)) for path in record_paths(results)]


def record_paths(place: Path) -> list[Path]:
    """List the records of a results folder, or the one file that is named."""
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise InputError(f"{place}: no such file or folder; run `edgebench run` first")
    return [path for path in below(place / RECORDS) if is_record(path.name)]


def owned(path: Path, content: Mapping[str, Any]) -> Record:
    """Turn what `read_content` read into a record whose key is that of its cell; `RecordError` where it is another's."""
    record = migrated(path, dict(content))
    if not key_.belongs(record, content["cell"]):
        raise RecordError(f"{path}: its key is not that of its cell; delete it and measure this cell again")
    return record


def find_done(results: Path, cell: Cell, key: str) -> Record | None:
    """Find a cell's finished record, if there is an intact one that was measured of this very cell."""
    for path in sorted((results / RECORDS / cell.target).glob(f"*.{key[:10]}.json")):
        record = read_record(path)
        if record.key == key and record.status == "done" and key_.cell_key(record.cell) == key:
            return record
    return None


def find_references(results: Path, cell: Cell) -> Iterator[tuple[Path, Record]]:
    """Yield the finished FP32 records of a cell's target, mode and evaluation split, those in torch last.

    Unreadable ones are passed over.
    """
    paths = (results / RECORDS / cell.target).glob(f"*.fp32.{cell.mode}.*.json")
    order = {format: number for number, format in enumerate(REFERENCES)}
    known = [(order[parts[-5]], path) for path in paths if len(parts := path.name.split(".")) > 4 and parts[-5] in order]
    for _, path in sorted(known):
        try:
            record = read_record(path)
        except RecordError:
            continue  # `edgebench verify` and the leaderboard name it
        if record.status == "done" and record.samples and record.cell.evaluation_sha256 == cell.evaluation_sha256:
            yield path, record


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a record."""
    schema: Mapping[str, Any] = Record.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
