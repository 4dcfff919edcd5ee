"""What is behind a record: read from its sidecar, thinned, and never a guess."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factory import make_cell, make_measurement, make_record, replace_samples
from numpy.typing import NDArray
from PIL import Image

from edgebench.agent.meters.meters import LOADS, RESTS
from edgebench.analysis import timeline
from edgebench.config import read_dataset
from edgebench.data import Split, open_images, open_offline
from edgebench.errors import DataError
from edgebench.report.detail import Evidence, Splits, gather, pictures
from edgebench.schema import (
    DatasetRef,
    Energy,
    Lineage,
    Measurement,
    Model,
    Power,
    PowerTrace,
    Predictions,
    Preprocessing,
    Record,
    Scenario,
    Sustained,
    Trial,
    Window,
    image_input,
)
from edgebench.store import layout, records

Array = NDArray[Any]
RECORDS = Path(__file__).parent.parent / "results" / "records" / "cpu"
ZERO = 7_000_000_000_000
PARTS = ("trials", "series", "conditions", "onset", "power", "stretches", "evaluation")


def ns(seconds: float) -> int:
    return ZERO + round(seconds * 1e9)


@pytest.fixture(scope="module")
def digits() -> Split:
    return open_images(read_dataset("digits")).read("test")


@pytest.fixture(scope="module")
def committed() -> tuple[Path, Record]:
    (path,) = (Path(__file__).parent / "golden/results-1/records/cpu").glob("*.json")
    return path, records.read_record(path)


def a_trial(index: int, begin: float, windows: list[list[int]], seconds: float = 1.0, **changes: Any) -> Trial:
    """Make a trial of windows of samples, one after the other."""
    spans = [Window(index, ns(begin + n * seconds), ns(begin + (n + 1) * seconds), len(part)) for n, part in enumerate(windows)]
    base = make_measurement().trials[0]
    return replace(base, index=index, samples_ns=[value for part in windows for value in part], windows=spans, **changes)


def kept(measurement: Measurement, labels: Array | None = None, **changes: Any) -> Evidence:
    """Keep a measurement as `edgebench run` does, and read what is behind it."""
    record = records.save(Path("results"), make_record(**changes), measurement, labels)
    path = Path("results") / "records" / f"{layout.stem(record)}.json"
    return gather(path, records.read_record(path), None, "not at hand")


def a_model(classes: tuple[str, ...], task: str = "multi-class") -> Model:
    shape = Preprocessing(height=8, width=8, channels=1, mean=(0.5,), std=(0.5,))
    values = {"name": "net", "architecture": "a:b", "task": task, "classes": classes, "sha256": "c" * 64, "parameters": 1}
    return Model(inputs=(image_input(shape),), lineage=Lineage(recipe="train"), **values)


# ---------------------------------------------------------------- latency


def test_the_drawn_shares_are_those_of_the_samples(committed: tuple[Path, Record], digits: Split) -> None:
    found, arrays = gather(*committed, digits), records.read_samples(*committed)
    assert found.trials is not None
    assert [line["trial"] for line in found.trials] == [1, 2, 3, 4, 5]
    for index, line in enumerate(found.trials):
        samples = arrays[f"trial{index}.samples_ns"].astype(float)
        assert line["samples"] == len(samples)
        assert 50 <= len(line["ns"]) == len(line["share"]) <= 64
        for value, share in zip(line["ns"], line["share"], strict=True):
            assert (samples <= value * 1.00006).mean() >= share - 5e-5
            assert (samples < value * 0.99994).mean() <= share + 5e-5
        assert line["ns"][-1] == pytest.approx(samples.max(), rel=6e-5)
        for tail in (0.99, 0.995, 0.999):
            assert any(tail - 5e-5 <= share <= tail + 1.1 / len(samples) for share in line["share"])


def test_few_samples_are_all_drawn(here: Path) -> None:
    found = kept(replace(make_measurement(), trials=[a_trial(0, 0, [[30, 10, 20]])]))
    assert found.trials is not None
    line = found.trials[0]
    assert (line["ns"], line["share"]) == ([10, 20, 30], [0.3333, 0.6667, 1.0])


def test_the_density_is_that_of_gaussian_kernels() -> None:
    samples = np.sort(np.random.default_rng(0).normal(5e6, 1e5, 900))
    at, dense = timeline.density(samples, samples[0], samples[-1])
    width = 0.9 * min(samples.std(ddof=1), np.subtract(*np.quantile(samples, [0.75, 0.25])) / 1.34) * 900**-0.2
    exact = np.exp(-(((at[:, None] - samples) / width) ** 2) / 2).sum(axis=1)
    assert dense == pytest.approx(exact / exact.max(), abs=1e-6)
    assert len(at) <= 40


def test_samples_that_are_all_the_same_have_a_density(here: Path) -> None:
    found = kept(replace(make_measurement(), trials=[a_trial(0, 0, [[5000] * 80])]))
    assert found.trials is not None
    assert (found.trials[0]["at_ns"], found.trials[0]["density"]) == ([5000], [1.0])


def test_an_offline_record_shows_its_fastest_batch(here: Path) -> None:
    slow, fast = a_trial(0, 0, [[1000] * 9], batch=1), a_trial(1, 5, [[1200] * 9], batch=4)
    cell = make_cell(scenario=Scenario(kind="offline"))
    found = kept(replace(make_measurement(), trials=[slow, fast]), cell=cell)
    assert found.trials is not None
    assert [(line["trial"], line["batch"]) for line in found.trials] == [(2, 4)]


# ---------------------------------------------------------------- over time


def test_a_sustained_series_has_the_windows_medians_over_time(here: Path) -> None:
    draw = np.random.default_rng(0)
    windows = [draw.integers(900, 1100, 50).tolist() for _ in range(60)] + [
        draw.integers(1900, 2100, 40).tolist() for _ in range(60)
    ]
    conditions = [
        {"trial": 0, "t_ns": ns(second), "celsius": 40 + second / 4, "khz_real": 1.5e6 if second < 60 else 1.2e6, "khz": 1.5e6}
        for second in range(120)
    ]
    measurement = replace(make_measurement(), trials=[a_trial(0, 0, windows)], conditions=conditions)
    fall = Sustained(burst_ns=1000, sustained_ns=2000, slowdown=1.0, onset_seconds=60.0)
    found = kept(measurement, cell=make_cell(mode="sustained"), sustained=fall)
    assert found.series is not None
    assert found.series[0]["median_ns"] == pytest.approx([float(np.median(part)) for part in windows], abs=0.5)
    assert found.series[0]["t_s"] == pytest.approx(np.arange(120) + 0.5)
    assert found.onset == [{"t_s": 60.0, "slowdown": 1.0}]
    assert found.conditions is not None
    heat, clock = found.conditions
    assert (heat["what"], clock["what"]) == ("temperature, °C", "clock, MHz")
    assert len(heat["t_s"]) == len(heat["value"]) <= 100
    assert (max(heat["value"]), min(clock["value"]), max(clock["value"])) == (69.8, 1200.0, 1500.0)
    slow = next(t for t, value in zip(clock["t_s"], clock["value"], strict=True) if value < 1500)
    assert slow == pytest.approx(60, abs=1.5)


def test_many_windows_are_taken_together(here: Path) -> None:
    windows = [[1000 + n, 1001 + n, 1002 + n] for n in range(600)]
    found = kept(replace(make_measurement(), trials=[a_trial(0, 0, windows)]))
    assert found.series is not None
    assert len(found.series[0]["t_s"]) == 120
    assert found.series[0]["t_s"][:2] == [2.5, 7.5]
    assert found.series[0]["median_ns"][0] == np.median(np.array(windows[:5]))


def test_calls_that_share_a_sample_are_counted_once(here: Path) -> None:
    trial = a_trial(0, 0, [[10, 12], [20, 22]], calls_per_sample=1)
    windows = [replace(window, inferences=window.inferences * 50) for window in trial.windows]
    found = kept(replace(make_measurement(), trials=[replace(trial, windows=windows, calls_per_sample=50)]))
    assert found.series is not None
    assert found.series[0]["median_ns"] == [11, 21]


def test_old_records_say_why_they_have_no_series(committed: tuple[Path, Record], digits: Split) -> None:
    found = gather(*committed, digits)
    assert found.series is None
    assert "no times were kept with the samples" in found.reasons["series"]
    assert found.reasons["conditions"] == "the device told neither temperature nor clock"


# ---------------------------------------------------------------- power


def metered(traces: list[PowerTrace], **changes: Any) -> Measurement:
    trials = [a_trial(n, 12 * n, [[1000] * 100] * 10) for n in range(2)]
    idle = [(ns(-6), ns(-1)), (ns(23), ns(28))]
    return replace(make_measurement(), trials=trials, power=Power(traces, idle, **changes))


def a_trace(seconds: Array, values: Array, **changes: Any) -> PowerTrace:
    facts: dict[str, Any] = {"meter": "ina3221", "rail": "VDD_IN", "provenance": "module", "counter": False, **changes}
    facts.setdefault("own_clock", False)
    return PowerTrace(t_ns=[ns(t) for t in seconds], values=values.tolist(), **facts)


def test_a_power_trace_keeps_its_peaks_and_marks_what_went_on(here: Path) -> None:
    t = np.arange(-7, 29, 0.01)
    watts = np.where((t > 0) & (t < 22), 8.0, 3.0)
    watts[1234], watts[2345] = 25.0, 0.5
    found = kept(metered([a_trace(t, watts)]))
    assert found.power is not None
    (line,) = found.power
    assert (line["source"], line["provenance"]) == ("ina3221 VDD_IN", "module")
    assert len(line["t_s"]) == len(line["watts"]) <= 300
    assert (max(line["watts"]), min(line["watts"])) == (25.0, 0.5)
    assert line["t_s"][line["watts"].index(25.0)] == pytest.approx(t[1234], abs=0.01)
    assert found.stretches == [
        {"what": "idle", "label": "idle", "begin_s": -6.0, "end_s": -1.0},
        {"what": "idle", "label": "idle", "begin_s": 23.0, "end_s": 28.0},
        {"what": "samples", "label": "trial 1", "begin_s": 0.0, "end_s": 10.0},
        {"what": "samples", "label": "trial 2", "begin_s": 12.0, "end_s": 22.0},
    ]


def test_a_counter_is_drawn_as_power_and_the_rail_that_counts_comes_first(here: Path) -> None:
    t = np.arange(-7, 29, 0.1)
    joules = np.cumsum(np.full(len(t), 0.4))
    traces = [a_trace(t, np.full(len(t), 1.0), rail="CPU"), a_trace(t, joules, rail="package-0", meter="rapl", counter=True)]
    found = kept(metered(traces), energy=Energy(meter="rapl", rail="package-0"))
    assert found.power is not None
    first, second = found.power
    assert (first["source"], second["source"]) == ("rapl package-0", "ina3221 CPU")
    assert set(first["watts"]) == {4.0}
    assert len(first["watts"]) <= 150


def pulses() -> tuple[list[tuple[float, float]], float]:
    """Return the pulses that the agent makes, in seconds, and when they end."""
    found, t = [], 0.0
    for rest, load in zip(RESTS, LOADS, strict=True):
        found.append((t + rest, t + rest + load))
        t += rest + load
    return found, t


def test_a_meter_with_its_own_clock_is_put_on_the_devices(here: Path) -> None:
    loads, end = pulses()
    marks = [(ns(begin - 12), ns(finish - 12)) for begin, finish in loads]
    t = np.arange(-3, end + 40, 0.02)
    watts = 2 + 5 * np.sum([(t >= begin) & (t < finish) for begin, finish in loads], axis=0)
    found = kept(metered([a_trace(t + 5000, watts.astype(float), own_clock=True)], marks=marks))
    assert found.power is not None
    line = found.power[0]
    high = [second for second, value in zip(line["t_s"], line["watts"], strict=True) if value > 5]
    assert high[0] == pytest.approx(loads[0][0] - 12, abs=0.4)
    assert high[-1] == pytest.approx(loads[-1][1] - 12, abs=0.4)


def test_a_clock_that_cannot_be_aligned_is_a_reason(here: Path) -> None:
    t = np.arange(0, 20, 0.1)
    found = kept(metered([a_trace(t, np.ones(len(t)), own_clock=True)]))
    assert found.power is None
    assert "no pulses of load were marked" in found.reasons["power"]


def test_without_a_meter_the_records_own_reason_is_given(here: Path) -> None:
    found = kept(make_measurement(), energy=Energy(reason="ina3221: not readable; join the group i2c"))
    assert found.reasons["power"] == "ina3221: not readable; join the group i2c"
    assert found.reasons["stretches"] == "no power was read"


# ---------------------------------------------------------------- predictions and pictures


def answered(scores: Array) -> Measurement:
    values = scores.astype("<f4").tobytes()
    return replace(make_measurement(), predictions=Predictions(len(scores), scores.shape[1], values))


def test_labels_that_were_kept_are_used(here: Path) -> None:
    scores = np.array([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0]])
    hostile = ("<b>cat</b>", "dog|\u202e")
    found = kept(answered(scores), np.array([0, 1, 1]), model=a_model(hostile))
    assert found.evaluation is not None
    assert [line["count"] for line in found.evaluation["confusion"]] == [[1, 0], [1, 1]]
    assert [line["true"] for line in found.evaluation["confusion"]] == list(hostile)
    assert found.reasons["pictures"] == "not at hand"


def test_labels_come_from_the_split_where_none_were_kept(committed: tuple[Path, Record], digits: Split) -> None:
    assert "labels" not in records.read_samples(*committed)
    found = gather(*committed, digits)
    assert found.evaluation is not None
    correct = sum(line["count"][place] for place, line in enumerate(found.evaluation["confusion"]))
    accuracy = committed[1].accuracy
    assert accuracy is not None
    assert correct / 360 == pytest.approx(accuracy.metrics["accuracy"], abs=1e-6)
    assert "pictures" not in found.reasons


def test_without_labels_there_is_a_reason(committed: tuple[Path, Record]) -> None:
    found = gather(*committed, None, "digits: its test split here is another")
    assert found.evaluation is None
    assert "the data set is not at hand: digits: its test split here is another" in found.reasons["evaluation"]


def test_predictions_that_do_not_fit_their_labels_are_a_reason(here: Path) -> None:
    found = kept(answered(np.ones((3, 2))), np.array([0, 1]), model=a_model(("a", "b")))
    assert found.evaluation is None
    assert "do not fit 2 classes" in found.reasons["evaluation"]


def test_pictures_are_the_samples_themselves(digits: Split) -> None:
    found = pictures(digits, [3, 5, 3, 100_000, -1])
    assert list(found) == [3, 5]
    with Image.open(io.BytesIO(base64.b64decode(found[3]))) as image:
        assert np.array_equal(np.asarray(image), digits.images[3][:, :, 0])


def test_large_pictures_become_small_and_the_budget_holds() -> None:
    images = np.random.default_rng(0).integers(0, 255, (9, 300, 200, 3)).astype(np.uint8)
    split = Split(images, np.zeros(9, np.int64))
    found = pictures(split, range(9), budget_bytes=40_000)
    assert 1 <= len(found) < 9
    assert sum(map(len, found.values())) <= 40_000
    with Image.open(io.BytesIO(base64.b64decode(found[0]))) as image:
        assert (image.size, image.mode) == ((43, 64), "RGB")


def test_a_split_is_opened_once_and_only_if_it_is_the_one_that_was_measured(committed: tuple[Path, Record]) -> None:
    splits, (_, record) = Splits(), committed
    split, why = splits.of(record)
    assert split is not None
    assert why == ""
    assert splits.of(record)[0] is split
    other = record.model_copy(update={"cell": record.cell.model_copy(update={"evaluation_sha256": "0" * 64})})
    assert splits.of(other) == (None, "digits: its test split here is not the one that was measured (their hashes differ)")


@pytest.mark.parametrize(
    ("ref", "words"),
    [
        ("medmnist:pathmnist,root=nowhere", "pathmnist.npz is not on this computer, and nothing is downloaded"),
        ("medmnist:pathmnist,size=64,root=nowhere", "pathmnist_64.npz is not on this computer"),
        ("medmnist:own.npz", "no file own.npz"),
        ("image-folder:/no/such/folder", "is not a folder"),
        ("imagenet", "unknown data set 'imagenet'"),
        ("digits,size=9", "unknown option"),
        ("image-folder:.,val=x", "val=x is no whole number from 0 to 100"),
    ],
)
def test_a_data_set_that_is_not_here_is_a_reason_and_is_not_fetched(here: Path, ref: str, words: str) -> None:
    for name in ("a", "b"):
        (here / name).mkdir()
    before = sorted(here.rglob("*"))
    split, why = Splits().of(make_record(cell=make_cell(dataset=read_dataset(ref))))
    assert split is None
    assert words in why
    assert sorted(here.rglob("*")) == before


def test_a_data_set_that_is_here_needs_no_network(here: Path) -> None:
    pixels = np.zeros((4, 28, 28), np.uint8)
    arrays: dict[str, Any] = {
        f"{split}_{what}": pixels if what == "images" else np.zeros((4, 1))
        for split in ("train", "val", "test")
        for what in ("images", "labels")
    }
    np.savez(here / "pathmnist.npz", **arrays)
    md5 = hashlib.md5((here / "pathmnist.npz").read_bytes(), usedforsecurity=False).hexdigest()
    ref = DatasetRef(name="medmnist", options={"source": "pathmnist", "root": str(here), "md5": md5})
    assert len(open_offline(ref).read("test")) == 4
    with pytest.raises(DataError, match="not on this computer"):
        open_offline(DatasetRef(name="medmnist", options={"source": "pathmnist", "root": "elsewhere"}))


# ---------------------------------------------------------------- damage and size


@pytest.mark.parametrize("damage", ["changed", "removed", "no zip", "empty zip", "without facts", "samples of zero"])
def test_damaged_readings_are_reasons_and_stop_nothing(here: Path, damage: str) -> None:
    record = records.save(Path("results"), make_record(), make_measurement())
    path = Path("results") / "records" / f"{layout.stem(record)}.json"
    assert record.samples is not None
    samples = path.parent / record.samples.file
    arrays = records.read_samples(path, record)
    if damage == "changed":
        samples.write_bytes(samples.read_bytes()[:-5])
    elif damage == "removed":
        samples.unlink()
    elif damage == "no zip":
        replace_samples(path, b"not a zip at all")
    else:
        gone = {"empty zip": "", "without facts": "trial0.facts", "samples of zero": "trial0.samples_ns"}[damage]
        stream = io.BytesIO()
        left: dict[str, Any] = {name: array for name, array in arrays.items() if gone and name != gone}
        left |= {gone: np.zeros(5, np.uint32)} if damage == "samples of zero" else {}
        np.savez(stream, **left)
        replace_samples(path, stream.getvalue())
    content = json.loads(path.read_text())
    found = gather(path, Record.model_validate(content), None)
    assert found.trials is None
    assert found.reasons["trials"]
    assert all(getattr(found, name) is not None or found.reasons[name] for name in PARTS)
    json.dumps(found.values(), allow_nan=False)


def test_a_record_without_readings_says_so_everywhere() -> None:
    found = gather(Path("nowhere.json"), make_record(status="failed"), None)
    reasons = dict.fromkeys((*PARTS, "pictures"), "no raw readings were kept")
    reasons["explanations"] = "`edgebench explain` was not run on this bundle on this device"
    assert found == Evidence(reasons={**reasons, "training": "the record holds no history of its training"})


def test_a_record_is_small_enough_for_a_page_of_five_hundred(digits: Split) -> None:
    sizes = []
    for path in RECORDS.glob("*.json"):
        found = gather(path, records.read_record(path), digits)
        text = json.dumps(found.values(), separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
        sizes.append((len(text), len(gzip.compress(text))))
    assert max(size for size, _ in sizes) < 20_000
    assert max(packed for _, packed in sizes) < 5_000
    assert sum(packed for _, packed in sizes) / len(sizes) < 4_500
