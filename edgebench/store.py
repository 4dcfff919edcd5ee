"""`results/`: write records whole, read them back, and find what was changed by hand."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from edgebench.errors import InputError, RecordError, StorageError
from edgebench.files import inside, is_sealed, seal, storage, write_atomic, write_json
from edgebench.schema import RECORD_SCHEMA, Measurement, Record, Sidecar

SAMPLES = ".samples.npz"
FOLDER = "records"


def stem(record: Record) -> str:
    """Name a record's file; its cell's key tells apart what the readable part does not."""
    cell = record.cell
    parts = (cell.model, cell.format, cell.precision, cell.mode, record.key[:10])
    return f"{cell.target}/" + ".".join(parts)


def save(results: Path, record: Record, measurement: Measurement | None) -> Record:
    """Write samples, then the record that carries their hash; replaces this cell's earlier record.

    Samples are named by their hash, so that the earlier record stays whole
    until the new one takes its place. A failure never replaces a result: it
    stands beside it until the cell is done.
    """
    base = results / FOLDER / stem(record)
    base = base.with_name(base.name + (".failed" if record.status == "failed" else ""))
    content = sidecar(measurement) if measurement is not None and measurement.trials else None
    samples: Path | None = None
    if content is not None:
        digest = hashlib.sha256(content).hexdigest()
        samples = base.with_name(f"{base.name}.{digest[:8]}{SAMPLES}")
        write_atomic(samples, content)
        record = record.model_copy(update={"samples": Sidecar(file=samples.name, sha256=digest, bytes=len(content))})
    sealed = seal(record.model_dump(mode="json", by_alias=True))
    try:
        write_json(base.with_name(base.name + ".json"), sealed)
    except StorageError:
        if samples is not None:
            samples.unlink(missing_ok=True)
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


def sidecar(measurement: Measurement) -> bytes:
    """Pack the raw readings: times in nanoseconds, predictions, and conditions with their timestamps."""
    arrays: dict[str, NDArray[Any]] = {}
    for trial in measurement.trials:
        for name in ("samples_ns", "warmup_ns", "prepare_ns", "scores_ns"):
            arrays[f"trial{trial.index}.{name}"] = _compact(getattr(trial, name))
        facts = {name: getattr(trial, name) for name in ("load_ns", "first_ns", "settled", "calls_per_sample", "complete")}
        arrays[f"trial{trial.index}.facts"] = np.array(json.dumps(facts, sort_keys=True))
    if measurement.predictions is not None:
        flat = np.frombuffer(measurement.predictions.values, "<f4")
        arrays["predictions"] = flat.reshape(measurement.predictions.rows, -1)
    for name in sorted({key for condition in measurement.conditions for key in condition}):
        values = [condition.get(name) for condition in measurement.conditions]
        arrays[f"conditions.{name}"] = np.array([np.nan if value is None else value for value in values], np.float64)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            entry = io.BytesIO()
            np.lib.format.write_array(entry, array, allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, entry.getvalue())
    return buffer.getvalue()


def _compact(values: Sequence[int]) -> NDArray[Any]:
    array = np.asarray(values, dtype=np.uint64)
    return array.astype(np.uint32) if not len(array) or array.max() < 2**32 else array


def read_samples(path: Path, record: Record) -> dict[str, NDArray[Any]]:
    """Read a record's raw readings after checking them against the hash that it carries."""
    assert record.samples is not None
    return dict(np.load(io.BytesIO(_verified(path, record)), allow_pickle=False))


def _verified(path: Path, record: Record) -> bytes:
    assert record.samples is not None
    try:
        content = inside(path.parent, record.samples.file).read_bytes()
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


def read_record(path: Path) -> Record:
    """Read one record and check it, and its samples, against their hashes."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: not a readable record ({error}); restore it or delete it and run again") from error
    if not isinstance(content, dict) or not is_sealed(content):
        raise RecordError(
            f"{path}: changed since it was measured (its hash differs); restore it, or delete it and measure this cell again"
        )
    if content.get("schema") != RECORD_SCHEMA:
        raise RecordError(
            f"{path}: record schema {content.get('schema')}, this edgebench reads {RECORD_SCHEMA}; update edgebench"
        )
    try:
        record = Record.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise RecordError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}; restore it or run again") from error
    if record.samples is not None:
        _verified(path, record)
    return record


def read_all(results: Path) -> list[tuple[Path, Record]]:
    """Read every record below a folder, in the order of their paths."""
    if not results.is_dir():
        raise InputError(f"{results}: no such folder; run `edgebench run` first, or give the folder that holds records/")
    paths = sorted((results / FOLDER).rglob("*.json"), key=lambda path: path.as_posix())
    return [(path, read_record(path)) for path in paths]


def find_done(results: Path, target: str, key: str) -> Record | None:
    """Find this cell's finished record, if there is an intact one."""
    for path in sorted((results / FOLDER / target).glob(f"*.{key[:10]}.json")):
        record = read_record(path)
        if record.key == key and record.status == "done":
            return record
    return None


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a record."""
    schema: Mapping[str, Any] = Record.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
