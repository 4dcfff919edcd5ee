"""What a device is asked to measure: cells, and the passes over them."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from numpy.typing import NDArray

from edgebench.device.deploy import Deployed, Samples
from edgebench.errors import InputError, MeasureError
from edgebench.schema import WARMUP_SECONDS, Bundle, MeterSpec, ModeSpec, Scenario, TensorSpec, TurnSpec

PROTOCOL = 3
BUFFERS = 32
TIMEOUT = "finish_timeout"
"""The option that gives the step which a device takes once other seconds than the bundle says."""


@dataclass(frozen=True)
class Pass:
    """One process of a job: what it does, for which of the job's cells, and with how many samples a query."""

    name: str
    trial: int = 0
    batch: int = 1
    cell: int = 0
    cells: tuple[int, ...] = ()
    """turns: those that take turns, a process each, in place of `cell`."""
    turns: TurnSpec | None = None
    """turns: how many, and how long."""


def cell_job(
    bundle: Bundle,
    runtime: str,
    deployed: Deployed,
    samples: Samples,
    scenario: Scenario,
    options: Mapping[str, Any] = MappingProxyType({}),
    known: bool = False,
    scored: Sequence[TensorSpec] | None = None,
) -> dict[str, Any]:
    """Write one cell's part of a job; `options` of the runtime.

    samples: for each input an array [n, …], as they were deployed. `scored`: outputs that the accuracy pass sends,
    where those are others than the bundle's.
    `known`: edgebench wrote the bundle's programs, or the user vouches for them; else the device takes them apart.
    """
    count = counted(samples)
    return {
        "runtime": runtime,
        "path": deployed.model,
        "known": known,
        "bundle": bundle.sha256,
        "precision": bundle.precision,
        "finish": finish_of(bundle, options),
        "options": options_of(bundle, options),
        "files": list(deployed.files),
        "inputs": [
            {**each.model_dump(mode="json"), "data": _data(path, array)}
            for each, path, array in zip(bundle.inputs, deployed.data, samples, strict=True)
        ],
        "outputs": [each.model_dump(mode="json") for each in bundle.outputs],
        "scored": [each.name for each in (bundle.judged if scored is None else scored)],
        "samples": count,
        "golden": _golden(bundle, deployed),
        "dynamic_batch": bundle.dynamic_batch,
        "prompts": None if bundle.prompts is None else bundle.prompts.model_dump(mode="json"),
        "buffers": list(range(count)) if bundle.prompts else random.Random(0).sample(range(count), min(BUFFERS, count)),
        "threads": scenario.threads,
        "affinity": scenario.affinity,
        "scenario": scenario.model_dump(mode="json"),
    }


def inferred(cell: Mapping[str, Any]) -> int:
    """Count the samples that the accuracy pass of a cell's part of a job infers: those that were chosen, or all."""
    return len(cell.get("chosen") or range(cell["samples"]))


def _golden(bundle: Bundle, deployed: Deployed) -> dict[str, Any] | None:
    """Say which outputs are right, and where they lie."""
    if bundle.golden is None:
        return None
    sha256 = bundle.files[bundle.golden.file].sha256
    place = next(path for path, digest in deployed.files if digest == sha256)
    return {**bundle.golden.model_dump(mode="json"), "file": place}


def _data(path: str, samples: NDArray[Any]) -> dict[str, Any]:
    """Say where the samples of one input lie; one alone is the same in each inference."""
    return {"path": path, "count": len(samples), "shape": list(samples.shape[1:]), "dtype": str(samples.dtype)}


def counted(samples: Samples) -> int:
    """Return how many samples there are; `InputError` where inputs hold other numbers of them."""
    counts = {len(each) for each in samples} - {1}
    if len(counts) > 1 or 0 in counts:
        raise InputError(f"the inputs hold {' and '.join(map(str, sorted(counts)))} samples; give as many for each, or one")
    return max(counts, default=1)


def options_of(bundle: Bundle, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those that are the runtime's own."""
    return {name: value for name, value in options.items() if name != TIMEOUT or bundle.finish is None}


def finish_of(bundle: Bundle, options: Mapping[str, Any]) -> dict[str, Any] | None:
    """Write the step that the device takes once."""
    if bundle.finish is None:
        return None
    seconds = options.get(TIMEOUT, bundle.finish.timeout_seconds)
    if not isinstance(seconds, int | float) or not seconds > 0:
        raise MeasureError("finish", f"option {TIMEOUT}: {seconds!r} is no number of seconds", "give one, for instance 7200")
    return {**bundle.finish.model_dump(mode="json"), "timeout_seconds": seconds}


def job(
    cells: Sequence[Mapping[str, Any]],
    passes: Sequence[Pass],
    mode: ModeSpec,
    scenario: Scenario,
    meters: Sequence[MeterSpec] = (),
) -> dict[str, Any]:
    """Write a job: its cells, and the passes in the order in which they run."""
    warmup = WARMUP_SECONDS if scenario.warmup_seconds is None else scenario.warmup_seconds
    return {
        "protocol": PROTOCOL,
        "cells": list(cells),
        "passes": [dataclasses.asdict(each) for each in passes],
        "mode": {**dataclasses.asdict(mode), "warmup_seconds": warmup},
        "meters": [spec.model_dump(mode="json") for spec in meters],
    }


def all_passes(mode: ModeSpec, scenario: Scenario, dynamic_batch: bool, judged: bool = True, golden: bool = False) -> list[Pass]:
    """List a cell's processes: accuracy where it is judged, memory, then the trials; offline with each batch size in turn."""
    sizes = batches(scenario, dynamic_batch)
    trials = [Pass("trial", index, batch) for index in range(mode.trials) for batch in sizes]
    last = [Pass("loadgen", 0, max(sizes))] if scenario.loadgen else []
    first = [*([Pass("outputs")] if golden else []), *([Pass("accuracy")] if judged else [])]
    return [*first, Pass("memory", 0, max(sizes)), *trials, *last]


def first_passes(bundle: Bundle, cell: int = 0) -> list[Pass]:
    """List what must go before a bundle's first inference on a device."""
    return [Pass("finish", cell=cell)] if bundle.finish is not None else []


def batches(scenario: Scenario, dynamic_batch: bool) -> list[int]:
    """Return how many samples a query holds; offline tries several where the bundle takes any batch."""
    if scenario.kind == "multi-stream":
        return [scenario.streams]
    if scenario.kind == "offline":
        return sorted(set(scenario.batches)) if dynamic_batch else [1]
    return [1]
