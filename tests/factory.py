"""Records and measurements for tests that need some."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgebench.files import seal, write_json
from edgebench.report import tables
from edgebench.schema import (
    Accuracy,
    Bundle,
    Cell,
    DatasetRef,
    Energy,
    Input,
    Interval,
    LatencySummary,
    Lineage,
    Measurement,
    Memory,
    Model,
    Predictions,
    Reason,
    Record,
    Scenario,
    Trial,
    Verdict,
    Window,
)
from edgebench.store import index
from edgebench.store.key import cell_key
from edgebench.store.row import flatten


def make_cell(model: str = "net", format: str = "onnx", precision: str = "fp32", **changes: Any) -> Cell:
    values: dict[str, Any] = {
        "model": model,
        "format": format,
        "precision": precision,
        "bundle_sha256": "b" * 64,
        "dataset": DatasetRef(name="digits"),
        "evaluation_sha256": "e" * 64,
        "target": "cpu",
        "device": "d" * 64,
        "runtime": "onnxruntime",
        "runtime_version": "onnxruntime 1.2",
        "scenario": Scenario(),
        "mode": "quick",
    }
    return Cell(**{**values, **changes})


def parity_of(bundle: Bundle) -> Any:
    """Return the parity of a bundle that was exported from a network, which always has one."""
    assert bundle.parity is not None
    return bundle.parity


def make_latency(median_ns: float = 1e6, **changes: Any) -> LatencySummary:
    values: dict[str, Any] = {
        "trials": 3,
        "samples": 3000,
        "median_ns": Interval(value=median_ns, low=median_ns * 0.99, high=median_ns * 1.01),
        "mean_ns": median_ns,
        "stdev_ns": median_ns / 100,
        "mad_ns": median_ns / 200,
        "min_ns": median_ns * 0.9,
        "max_ns": median_ns * 2,
        "p90_ns": median_ns * 1.1,
        "p95_ns": median_ns * 1.2,
        "p99_ns": median_ns * 1.5,
        "outliers": 3,
        "trial_medians_ns": (median_ns,) * 3,
        "load_ns": 5e6,
        "first_ns": 2e6,
        "prepare_ns": 1e4,
        "scores_ns": 1e3,
    }
    return LatencySummary(**{**values, **changes})


def make_record(
    status: str = "done",
    cell: Cell | None = None,
    median_ns: float = 1000.0,
    accuracy: float | None = 0.9,
    size: int = 4_000_000,
    parameters: int = 1_000_000,
    role: str = "baseline",
    **changes: Any,
) -> Record:
    cell = cell or make_cell()
    values: dict[str, Any] = {
        "key": cell_key(cell),
        "status": status,
        "cell": cell,
        "model": None,
        "role": role,
        "size_bytes": size,
        "parameters": parameters,
        "started_at": "2026-01-02T03:04:05Z",
        "seconds": 12.5,
        "environment": {"cpu": "Test | CPU", "cores": 2, "threads": 1, "os": "Testix", "virtual": True},
        "energy": Energy(reason="no power meter"),
    }
    if status == "done":
        values |= {
            "latency": make_latency(median_ns),
            "memory": Memory(baseline_bytes=10_000_000, loaded_bytes=20_000_000, peak_bytes=30_000_000),
            "accuracy": None
            if accuracy is None
            else Accuracy(samples=360, headline="accuracy", metrics={"accuracy": accuracy, "auroc": 0.99}, host_agreement=1.0),
            "verdict": Verdict(word="VALID"),
        }
    else:
        values |= {"failure": Reason(reason="killed by SIGKILL", recommendation="run again"), "failed_stage": "trial 1"}
    return Record(**{**values, **changes})


def make_measurement(samples: int = 100, predictions: bool = True) -> Measurement:
    trial = Trial(
        index=0,
        load_ns=10,
        first_ns=20,
        warmup_ns=[3, 2, 1],
        settled=True,
        calls_per_sample=1,
        samples_ns=[1000 + index % 7 for index in range(samples)],
        prepare_ns=[4],
        scores_ns=[5],
        complete=True,
        windows=[Window(0, 0, 1000 * samples, samples)],
    )
    return Measurement(
        environment={},
        clock={},
        trials=[trial],
        memory={},
        predictions=Predictions(2, 2, struct.pack("<4f", 1, 2, 3, 4)) if predictions else None,
        conditions=[{"trial": 0, "t_ns": 1, "celsius": None}, {"trial": 0, "t_ns": 2, "celsius": None}],
        failure=None,
    )


def make_tables(
    placed: Iterable[tuple[Path, Record]],
    sort: str = "latency",
    by: tuple[str, ...] = ("dataset", "target"),
    floor: tables.Floor = lambda _: None,
    where: index.Where | None = None,
    top: int | None = None,
) -> list[tables.Table]:
    """Make tables of records as commands do, through an index in memory."""
    held = index.hold(flatten(path.as_posix(), record) for path, record in placed)
    return tables.make(held.select(by, where, sort, top), sort, by, floor, top)


def make_unjudged(model: str = "brought", median_ns: float = 1000.0, **changes: Any) -> Record:
    """Make a record of a file that has no data set: full, but for its accuracy; of: what its cell has besides."""
    cell = make_cell(model=model, dataset=None, evaluation_sha256=None, **changes.pop("of", {}))
    network = Model(
        name=model,
        architecture="file",
        task="none",
        classes=(),
        inputs=(Input(name="audio", shape=(1, 512), dtype="float32", scale=None, zero_point=None),),
        sha256=hashlib.sha256(model.encode()).hexdigest(),
        parameters=1_000_000,
        lineage=Lineage(recipe="imported"),
    )
    return make_record(cell=cell, median_ns=median_ns, **{"accuracy": None, "model": network, **changes})


def replace_samples(path: Path, content: bytes) -> None:
    """Put other raw readings beside a record, hashes and all."""
    record = json.loads(path.read_text())
    path.with_name(record["samples"]["file"]).write_bytes(content)
    record["samples"] |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    write_json(path, seal(record))
