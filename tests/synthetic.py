"""Any number of records in the shape of real ones: families of models on several boards, with samples where they are wanted."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
from factory import make_cell, make_latency, make_record
from numpy.random import Generator
from numpy.typing import NDArray

from edgebench.data import open_dataset
from edgebench.schema import (
    DatasetRef,
    Energy,
    Interval,
    Lineage,
    Measurement,
    Model,
    Power,
    PowerTrace,
    Predictions,
    Preprocessing,
    Provenance,
    Reason,
    Record,
    Role,
    Trial,
    Verdict,
    Window,
    image_input,
)
from edgebench.store import records as records_

SPLIT = "7a59f971440ebfa86830a6acd93c05bbd60c170d015d59c5bd36c89c1ef00aae"
"""Hash of the digits' test split."""
CLASSES = tuple("0123456789")
FAILS_EVERY, UNSTABLE_EVERY, INVALID_EVERY = 23, 7, 31
TRIALS, SAMPLES = 5, 2000
SECOND = 1_000_000_000


@dataclass(frozen=True)
class Board:
    """A target: how many times slower it is, and what its power meter covers."""

    target: str
    title: str
    slower: float
    provenance: Provenance | None


@dataclass(frozen=True)
class Network:
    """A model, what it was made from, its accuracy, and its latency in milliseconds."""

    name: str
    role: Role
    parent: str | None
    parameters: int
    accuracy: float
    milliseconds: float


@dataclass(frozen=True)
class Variant:
    """A format and a precision: bytes a parameter, how many times slower, how much accuracy it costs."""

    format: str
    precision: str
    bytes_each: float
    slower: float
    loss: float


BOARDS = (
    Board("cpu", "Test Xeon", 1.0, None),
    Board("jetson-nano", "NVIDIA Jetson Nano", 6.0, "board"),
    Board("raspberry-pi-5", "Raspberry Pi 5", 4.0, "wall"),
    Board("coral-dev-board", "Coral Dev Board", 2.5, "soc"),
)
NETWORKS = (
    Network("resnet18", "teacher", None, 11_180_000, 0.992, 2.4),
    Network("mobilenetv2", "baseline", None, 2_240_000, 0.978, 0.7),
    Network("mobilenetv2-distilled", "student", "resnet18", 2_240_000, 0.986, 0.7),
    Network("mobilenetv2-pruned", "pruned", "mobilenetv2-distilled", 1_020_000, 0.981, 0.5),
    Network("efficientnet-b0", "student", "resnet18", 4_050_000, 0.989, 1.3),
)
VARIANTS = (
    Variant("torch", "fp32", 4.0, 8.0, 0.0),
    Variant("onnx", "fp32", 4.0, 1.0, 0.0),
    Variant("onnx", "fp16", 2.0, 0.9, 0.001),
    Variant("onnx", "int8", 1.0, 0.5, 0.004),
    Variant("tflite", "fp32", 4.0, 0.95, 0.0),
    Variant("tflite", "int8", 1.0, 0.3, 0.005),
)
RUNTIMES = {"torch": "torch 2.13.0", "onnx": "onnxruntime 1.31.1", "tflite": "LiteRT 2.3.0"}


def records(wanted: int) -> Iterator[Record]:
    """Make records, the same ones each time: boards turn fastest, then variants, networks, and generations of them."""
    return islice(_endless(), wanted)


def save(results: Path, wanted: int) -> list[Record]:
    """Write records with their samples below a folder of results."""
    labels = open_dataset(DatasetRef(name="digits")).read("test").labels
    made = []
    for index, record in enumerate(records(wanted)):
        measured = measurement(record, labels, index) if record.status == "done" else None
        made.append(records_.save(results, record, measured, labels if measured else None))
    return made


def _endless() -> Iterator[Record]:
    index = count()
    for generation in count():
        for network in NETWORKS:
            for variant in VARIANTS:
                for board in BOARDS:
                    yield _record(next(index), generation, network, variant, board)


def _record(index: int, generation: int, network: Network, variant: Variant, board: Board) -> Record:
    random = np.random.default_rng(index)
    parameters = int(network.parameters * 0.97 ** (generation % 60))
    common: dict[str, Any] = {
        "cell": _cell(generation, network, variant, board),
        "role": network.role,
        "parameters": parameters,
        "size": int(parameters * variant.bytes_each) + 40_000,
        "model": _model(generation, network, parameters),
        "environment": {"board": board.title, "cores": 4, "threads": 1, "os": "Testix 12", "governor": "performance"},
    }
    if index % FAILS_EVERY == FAILS_EVERY - 1:
        return make_record(status="failed", **common)
    median_ns = float(network.milliseconds * board.slower * variant.slower * 1e6 * random.lognormal(0, 0.1))
    reached = network.accuracy - variant.loss - 0.003 * (generation % 60) + random.normal(0, 0.001)
    return make_record(
        latency=_latency(median_ns, random),
        accuracy=round(min(reached, 1.0), 6),
        energy=_energy(median_ns, board),
        verdict=_verdict(index),
        **common,
    )


def _cell(generation: int, network: Network, variant: Variant, board: Board) -> Any:
    return make_cell(
        model=_name(network.name, generation),
        format=variant.format,
        precision=variant.precision,
        target=board.target,
        device=_sha(board.target),
        bundle_sha256=_sha(network.name, generation, variant.format, variant.precision),
        evaluation_sha256=SPLIT,
        mode="standard",
        runtime=RUNTIMES[variant.format].split()[0].lower(),
        runtime_version=RUNTIMES[variant.format],
    )


def _name(name: str, generation: int) -> str:
    return f"{name}-{generation}" if generation else name


def _sha(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _model(generation: int, network: Network, parameters: int) -> Model:
    return Model(
        name=_name(network.name, generation),
        architecture=network.name.split("-")[0],
        role=network.role,
        task="multi-class",
        classes=CLASSES,
        inputs=(image_input(Preprocessing(height=16, width=16, channels=1, mean=(0.3049,), std=(0.3757,))),),
        sha256=_sha(network.name, generation),
        parameters=parameters,
        lineage=Lineage(
            recipe={"pruned": "prune", "student": "distill"}.get(network.role, "train"),
            options={"epochs": 20, "seed": generation},
            parents=(_sha(network.parent, generation),) if network.parent else (),
            dataset=DatasetRef(name="digits"),
            splits={"test": SPLIT},
        ),
    )


def _latency(median_ns: float, random: Generator) -> Any:
    trials = tuple(float(median_ns * factor) for factor in random.normal(1, 0.004, TRIALS))
    return make_latency(median_ns, trials=TRIALS, samples=TRIALS * SAMPLES, trial_medians_ns=trials)


def _energy(median_ns: float, board: Board) -> Energy:
    if board.provenance is None:
        return Energy(reason="no power meter")
    watts = 4.0 + board.slower / 2
    joules = watts * median_ns / 1e9
    return Energy(
        joules=Interval(value=joules, low=joules * 0.98, high=joules * 1.02),
        watts=watts,
        idle_watts=2.0,
        provenance=board.provenance,
        meter="ina3221",
        rail="VDD_IN",
        counter=False,
        rate_hz=10.0,
        updates=150,
        window_seconds=62.0,
        short=False,
    )


def _verdict(index: int) -> Verdict:
    if index % INVALID_EVERY == INVALID_EVERY - 1:
        return Verdict(word="INVALID", reasons=(Reason(reason="the clock was cut", recommendation="cool the device"),))
    if index % UNSTABLE_EVERY == UNSTABLE_EVERY - 1:
        reason = Reason(reason="the trials' medians are 11.9 % apart", recommendation="run on an idle device with fixed clocks")
        return Verdict(word="UNSTABLE", reasons=(reason,))
    return Verdict(word="VALID")


# ---------------------------------------------------------------- samples


def measurement(record: Record, labels: NDArray[np.int64], seed: int) -> Measurement:
    """Draw what a device would have said: trials, conditions, power and predictions."""
    random = np.random.default_rng(seed)
    assert record.latency and record.accuracy
    trials = [_trial(index, median, random) for index, median in enumerate(record.latency.trial_medians_ns)]
    scores = _scores(labels, record.accuracy.metrics["accuracy"], random)
    return Measurement(
        environment=record.environment,
        clock={},
        trials=trials,
        memory={},
        predictions=Predictions(len(scores), scores.shape[1], scores.astype("<f4").tobytes()),
        conditions=_conditions(trials, random),
        failure=None,
        power=_power(record, trials, random),
    )


def _trial(index: int, median_ns: float, random: Generator) -> Trial:
    samples = (median_ns * (1 + random.gamma(0.6, 0.03, SAMPLES)) + random.normal(0, median_ns / 400, SAMPLES)).astype(np.int64)
    begin, chunk = (5 + 15 * index) * SECOND, SAMPLES // 10
    windows = [Window(index, begin + part * SECOND, begin + (part + 1) * SECOND, chunk) for part in range(10)]
    return Trial(
        index=index,
        load_ns=5_000_000,
        first_ns=2_000_000,
        warmup_ns=samples[:50].tolist(),
        settled=True,
        calls_per_sample=1,
        samples_ns=samples.tolist(),
        prepare_ns=[10_000] * 20,
        scores_ns=[1_000] * 20,
        complete=True,
        windows=windows,
    )


def _scores(labels: NDArray[np.int64], accuracy: float, random: Generator) -> NDArray[np.float64]:
    """Draw logits [n, 10] of which so many decide rightly."""
    wrong = random.permutation(len(labels))[: round((1 - accuracy) * len(labels))]
    decided = labels.copy()
    decided[wrong] = (labels[wrong] + random.integers(1, 10, len(wrong))) % 10
    scores = random.normal(0, 1, (len(labels), 10))
    scores[np.arange(len(labels)), decided] = scores.max(axis=1) + random.gamma(2, 2, len(labels))
    return np.asarray(scores)


def _conditions(trials: list[Trial], random: Generator) -> list[dict[str, Any]]:
    times = [(trial.index, window.begin_ns) for trial in trials for window in trial.windows]
    return [
        {"trial": trial, "t_ns": t_ns, "celsius": 40 + place / 4, "khz": 1.5e6 + float(random.integers(0, 3)) * 1e5}
        for place, (trial, t_ns) in enumerate(times)
    ]


def _power(record: Record, trials: list[Trial], random: Generator) -> Power:
    energy = record.energy
    if energy.joules is None or energy.provenance is None:
        return Power(absent={"ina3221": "no such sensor here"})
    end_ns = trials[-1].windows[-1].end_ns + 3 * SECOND
    times = np.arange(0, end_ns, SECOND // 10)
    busy = np.any([(times > trial.windows[0].begin_ns) & (times < trial.windows[-1].end_ns) for trial in trials], axis=0)
    values = np.where(busy, energy.watts or 0.0, 2.0) + random.normal(0, 0.05, len(times))
    trace = PowerTrace("ina3221", "VDD_IN", energy.provenance, False, False, times.tolist(), values.tolist())
    return Power([trace], idle=[(0, 4 * SECOND), (end_ns - 2 * SECOND, end_ns)])
