"""The raw readings of a measurement as the bytes of its sidecar, and back."""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench.schema import Answer, Bundle, Measurement, Power, PowerTrace, Predictions, Record, Step, Trial, Window

Arrays = Mapping[str, NDArray[Any]]
MOST_BYTES = 1 << 29
"""What unpacks to more is no measurement: these are 37 hours of an inference each millisecond."""
PARTS = ("samples_ns", "warmup_ns", "prepare_ns", "scores_ns")
FACTS = ("load_ns", "first_ns", "settled", "calls_per_sample", "complete", "batch", "precise", "rate")
TRACE = ("meter", "rail", "provenance", "counter", "own_clock", "note")


def pack(
    measurement: Measurement,
    labels: NDArray[Any] | None = None,
    bundle: Bundle | None = None,
    asked: Sequence[Mapping[str, str]] = (),
) -> bytes:
    """Pack the raw readings (times in nanoseconds, predictions, power, conditions with their timestamps) and the manifest.

    `asked`: a language model's prompts, and their references.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for index, trial in enumerate(measurement.trials):
        arrays.update(_trial_arrays(index, trial))
    if measurement.predictions is not None:
        flat = np.frombuffer(measurement.predictions.values, "<f4")
        arrays["predictions"] = flat.reshape(measurement.predictions.rows, -1)
    if labels is not None:
        arrays["labels"] = np.asarray(labels, np.int64)
    if bundle is not None:
        measured = bundle.model_copy(update={"temperature": None})  # whose hash is the record's
        arrays["bundle"] = _text(measured.model_dump(mode="json", by_alias=True))
    if asked:
        arrays["prompts"] = _text(list(asked))
    for name in sorted({key for condition in measurement.conditions for key in condition}):
        arrays[f"conditions.{name}"] = _column([condition.get(name) for condition in measurement.conditions])
    for index, trace in enumerate(measurement.power.traces):
        arrays[f"power{index}.t_ns"] = np.asarray(trace.t_ns, np.int64)
        arrays[f"power{index}.values"] = np.asarray(trace.values, np.float64)
        more = {} if trace.least_updates == PowerTrace.least_updates else {"least_updates": trace.least_updates}
        arrays[f"power{index}.facts"] = _text({name: getattr(trace, name) for name in TRACE} | more)
    for name in ("idle", "marks"):
        arrays[f"power.{name}"] = np.array(getattr(measurement.power, name), np.int64).reshape(-1, 2)
    return _packed(arrays)


def _trial_arrays(index: int, trial: Trial) -> dict[str, NDArray[Any]]:
    """Write what one trial measured."""
    arrays = {f"trial{index}.{name}": _compact(getattr(trial, name)) for name in PARTS}
    windows = [(window.begin_ns, window.end_ns, window.inferences) for window in trial.windows]
    arrays[f"trial{index}.windows"] = np.array(windows, np.int64).reshape(-1, 3)
    for name, values in trial.stages.items():
        arrays[f"trial{index}.stage.{name}"] = _compact(values)
    if trial.answers:
        arrays[f"trial{index}.answers"] = _text([dataclasses.asdict(each) for each in trial.answers])
    facts = {name: getattr(trial, name) for name in FACTS}
    arrays[f"trial{index}.facts"] = _text({**facts, "steps": [dataclasses.astuple(step) for step in trial.steps]})
    return arrays


def _text(content: object) -> NDArray[Any]:
    return np.array(json.dumps(content, sort_keys=True))


def _column(values: Sequence[Any]) -> NDArray[Any]:
    """Keep one condition's readings: as numbers with NaN where there was none, else as JSON text."""
    if any(isinstance(value, str) for value in values):
        return np.array([json.dumps(value) for value in values])
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _packed(arrays: Arrays) -> bytes:
    """Write an `.npz` whose bytes depend on its content alone."""
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


def unpack(content: bytes) -> dict[str, NDArray[Any]]:
    """Read what `pack` wrote; `ValueError` where it would take more memory than any measurement, or holds Python objects."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        total = sum(entry.file_size for entry in archive.infolist())
    if total > MOST_BYTES:
        raise ValueError(f"they unpack to {total >> 20} MiB, more than any measurement's")
    return dict(np.load(io.BytesIO(content), allow_pickle=False))


def measured(arrays: Arrays, record: Record) -> Measurement:
    """Turn a record's arrays into its raw readings as they were measured."""
    count = sum(name.endswith(".samples_ns") for name in arrays)
    predictions = arrays.get("predictions")
    return Measurement(
        environment=record.environment,
        clock=record.clock,
        trials=[_read_trial(arrays, index) for index in range(count)],
        memory=record.memory.model_dump(),
        predictions=None if predictions is None else Predictions(len(predictions), predictions.shape[1], predictions.tobytes()),
        conditions=_read_conditions(arrays),
        failure=None,
        power=_read_power(arrays),
        programs=[{"run": run} for run in (record.program or {}).get("runs", ())],
    )


def _read_trial(arrays: Arrays, index: int) -> Trial:
    facts = json.loads(str(arrays[f"trial{index}.facts"]))
    steps = [Step(*step) for step in facts.pop("steps", ())]
    windows = [Window(index, *map(int, row)) for row in arrays.get(f"trial{index}.windows", ())]
    parts = {name: arrays[f"trial{index}.{name}"].tolist() for name in PARTS}
    prefix = f"trial{index}.stage."
    stages = {name.removeprefix(prefix): array.tolist() for name, array in arrays.items() if name.startswith(prefix)}
    said = arrays.get(f"trial{index}.answers")
    answers = tuple(Answer(**each) for each in json.loads(str(said))) if said is not None else ()
    return Trial(index=index, steps=steps, windows=windows, stages=stages, answers=answers, **parts, **facts)


def _read_conditions(arrays: Arrays) -> list[dict[str, Any]]:
    columns = {name.removeprefix("conditions."): array for name, array in arrays.items() if name.startswith("conditions.")}
    lists = {name: _read_column(array) for name, array in columns.items()}
    names = list(lists)
    return [dict(zip(names, row, strict=True)) for row in zip(*lists.values(), strict=True)]


def _read_column(array: NDArray[Any]) -> list[Any]:
    if array.dtype.kind == "U":
        return [json.loads(value) for value in array.tolist()]
    return [None if np.isnan(value) else value for value in array.tolist()]


def _read_power(arrays: Arrays) -> Power:
    count = sum(name.startswith("power") and name.endswith(".t_ns") for name in arrays)
    traces = [
        PowerTrace(
            t_ns=arrays[f"power{index}.t_ns"].tolist(),
            values=arrays[f"power{index}.values"].tolist(),
            **json.loads(str(arrays[f"power{index}.facts"])),
        )
        for index in range(count)
    ]
    pairs = {name: [(int(a), int(b)) for a, b in arrays.get(f"power.{name}", ())] for name in ("idle", "marks")}
    return Power(traces, pairs["idle"], pairs["marks"])
