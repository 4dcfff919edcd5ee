"""Files that are whole or absent, and records that show when they were changed."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import resource
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from conftest import SmallDisk
from factory import make_measurement, make_record

import edgebench
from edgebench import files
from edgebench.errors import InputError, RecordError, StorageError
from edgebench.schema import Predictions, Record
from edgebench.store import records, samples


def save(folder: Path, **changes: Any) -> Record:
    return records.save(folder, make_record(**changes), make_measurement())


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    saved = save(tmp_path)
    [(path, record)] = records.read_all(tmp_path)
    assert record == saved
    assert path.name.startswith("net.onnx.fp32.quick.")
    arrays = records.read_samples(path, record)
    assert arrays["trial0.samples_ns"].tolist() == list(make_measurement().trials[0].samples_ns)
    assert arrays["predictions"].shape == (2, 2)
    assert np.isnan(arrays["conditions.celsius"]).all()


def test_records_stay_small_whatever_the_samples(tmp_path: Path) -> None:
    measurement = make_measurement(samples=200_000)
    records.save(tmp_path, make_record(), measurement)
    [path] = list(tmp_path.rglob("*.json"))
    assert path.stat().st_size < 20_000


def test_the_same_readings_pack_to_the_same_bytes() -> None:
    labels = np.array([1])
    assert samples.pack(make_measurement(), labels) == samples.pack(make_measurement(), labels)
    assert samples.pack(make_measurement()) == samples.pack(make_measurement())


@pytest.mark.parametrize("field", ["seconds", "started_at"])
def test_an_edited_record_is_found(tmp_path: Path, field: str) -> None:
    save(tmp_path)
    [path] = list(tmp_path.rglob("*.json"))
    content = json.loads(path.read_text())
    content[field] = 1.5 if field == "seconds" else "2020-01-01T00:00:00Z"
    path.write_text(json.dumps(content))
    with pytest.raises(RecordError, match="changed since it was measured"):
        records.read_all(tmp_path)


def test_an_edited_summary_is_found(tmp_path: Path) -> None:
    save(tmp_path)
    [path] = list(tmp_path.rglob("*.json"))
    path.write_text(path.read_text().replace('"value": 1000', '"value": 500'))
    with pytest.raises(RecordError, match=path.name):
        records.read_all(tmp_path)


def test_an_edited_sample_is_found(tmp_path: Path) -> None:
    save(tmp_path)
    [path] = list(tmp_path.rglob("*.npz"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(RecordError, match=r"samples\.npz: changed since it was measured"):
        records.read_all(tmp_path)


def test_missing_samples_and_broken_json_are_found(tmp_path: Path) -> None:
    save(tmp_path)
    next(tmp_path.rglob("*.npz")).unlink()
    with pytest.raises(RecordError, match="cannot be read"):
        records.read_all(tmp_path)
    next(tmp_path.rglob("*.json")).write_text("{")
    with pytest.raises(RecordError, match="not a readable record"):
        records.read_all(tmp_path)


def test_a_sidecar_outside_the_folder_is_refused(tmp_path: Path) -> None:
    save(tmp_path)
    [path] = list(tmp_path.rglob("*.json"))
    content = json.loads(path.read_text())
    content["samples"]["file"] = "../../../etc/passwd"
    path.write_text(json.dumps(files.seal(content)))
    with pytest.raises(RecordError, match="leads out of the folder"):
        records.read_all(tmp_path)


def test_a_record_of_a_newer_version_says_so(tmp_path: Path) -> None:
    save(tmp_path)
    [path] = list(tmp_path.rglob("*.json"))
    path.write_text(json.dumps(files.seal({**json.loads(path.read_text()), "schema": 99})))
    with pytest.raises(RecordError, match="record schema 99"):
        records.read_all(tmp_path)


def test_a_failure_stands_beside_a_result_until_the_cell_is_done_again(tmp_path: Path) -> None:
    done = save(tmp_path)
    save(tmp_path, status="failed")
    assert [record.status for _, record in records.read_all(tmp_path)] == ["failed", "done"]
    assert records.find_done(tmp_path, done.cell, done.key) == done
    save(tmp_path)
    assert [record.status for _, record in records.read_all(tmp_path)] == ["done"]
    assert len(list(tmp_path.rglob("*.npz"))) == 1


def test_a_disk_that_fills_between_samples_and_record_leaves_the_old_record_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = save(tmp_path)

    def full(path: Path, content: object) -> None:
        raise StorageError(f"{path}: the disk is full")

    monkeypatch.setattr(records, "write_json", full)
    with pytest.raises(StorageError):
        records.save(tmp_path, make_record(), make_measurement(samples=50))
    assert [record for _, record in records.read_all(tmp_path)] == [old]
    assert len(list(tmp_path.rglob("*.npz"))) == 1


def test_measuring_again_leaves_one_record_with_its_samples(tmp_path: Path) -> None:
    save(tmp_path)
    records.save(tmp_path, make_record(seconds=1.0), make_measurement(samples=50))
    [(_, record)] = records.read_all(tmp_path)
    assert record.seconds == 1.0
    assert [path.name for path in tmp_path.rglob("*.npz")] == [record.samples.file if record.samples else ""]


def test_the_published_schema_accepts_every_record(tmp_path: Path) -> None:
    for status in ("done", "failed"):
        save(tmp_path, status=status)
    published = json.loads((Path(__file__).parent.parent / "docs" / "record.schema.json").read_text())
    assert published == records.json_schema()
    for path in tmp_path.rglob("*.json"):
        jsonschema.validate(json.loads(path.read_text()), published)


def test_the_committed_leaderboard_is_made_from_the_committed_records() -> None:
    results = Path(__file__).parent.parent / "results"
    assert edgebench.leaderboard(results) == (results / "LEADERBOARD.md").read_text()
    assert len(records.read_all(results)) >= 15


# ---------------------------------------------------------------- files


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kept.json").write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="the disk is full"):
        files.write_atomic(tmp_path / "kept.json", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["kept.json"]
    assert (tmp_path / "kept.json").read_text() == "old"


def test_a_file_beyond_the_limit_of_its_size_is_one_clear_line(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(StorageError, match=r"L\.md: larger than its file system or `ulimit -f` allows"):
            files.write_atomic(tmp_path / "L.md", bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux's /proc, in which nothing can be made")
@pytest.mark.parametrize("place", ["/proc/L.md", "/proc/new/L.md", "/proc/new/and/deeper/L.md"])
def test_where_nothing_can_be_made_is_one_clear_line(place: str) -> None:
    with pytest.raises(StorageError, match=f"{place}: nothing can be made there; choose another folder"):
        files.write_atomic(Path(place), b"")
    with pytest.raises(StorageError, match="nothing can be made there"), files.new_folder(Path(place), "bundle.json"):
        pass


def test_what_other_code_misses_is_not_called_the_folder_s_fault(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), files.new_folder(tmp_path / "bundle", "bundle.json"):
        (tmp_path / "missing").read_bytes()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists() or os.geteuid() != 0, reason="mounting a small disk needs root on Linux")
def test_a_really_full_disk_is_one_clear_line(small_disk: SmallDisk) -> None:
    disk = small_disk("64k")
    with pytest.raises(StorageError, match="the disk is full"), files.new_folder(disk / "bundle", "bundle.json") as staging:
        (staging / "model").write_bytes(bytes(1_000_000))
    assert list(disk.iterdir()) == []
    readings = np.random.default_rng(0).integers(1, 2**31, 50_000).tolist()
    trial = dataclasses.replace(make_measurement().trials[0], samples_ns=readings)
    with pytest.raises(StorageError, match="the disk is full"):
        records.save(disk, make_record(), dataclasses.replace(make_measurement(), trials=[trial]))
    assert [path for path in disk.rglob("*") if path.is_file()] == []


def test_an_interrupted_folder_disappears(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), files.new_folder(tmp_path / "bundle", "bundle.json") as staging:
        (staging / "model").write_bytes(b"half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_something_else_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1").write_text("years of work")
    with pytest.raises(StorageError, match=r"holds no bundle\.json"), files.new_folder(tmp_path / "thesis", "bundle.json"):
        pass
    assert (tmp_path / "thesis" / "chapter1").read_text() == "years of work"


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "", "a\\b", "a\0b"])
def test_names_from_outside_stay_inside(name: str) -> None:
    with pytest.raises(InputError):
        files.inside(Path("folder"), name)
    assert files.inside(Path("folder"), "a/b.bin") == Path("folder/a/b.bin")


def test_predictions_may_be_missing() -> None:
    assert Predictions(0, 0, b"").rows == 0
    assert samples.pack(make_measurement(predictions=False))
