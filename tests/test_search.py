"""The parts of a search: its study, what it predicts, what it judges, and grids of options."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import verbs
from factory import make_cell, make_latency, make_record
from torch.utils.flop_counter import FlopCounterMode

from edgebench import models
from edgebench.bundle.export import accepted
from edgebench.config import read_dataset, read_profile, read_target
from edgebench.data import open_images
from edgebench.errors import InputError
from edgebench.report import compression
from edgebench.report.limits import SPANS, amount
from edgebench.report.tables import front
from edgebench.schema import METHOD, Record, Verdict, no_progress
from edgebench.search import latency, study, task
from edgebench.search.clock import Clock
from edgebench.search.latency import Measured, Point, fit
from edgebench.search.outcome import beyond, judge, verdict
from edgebench.search.shapes import Shapes
from edgebench.search.space import SAME, Choice, File, Source, Space, files
from edgebench.search.study import DONE, FAILED, SKIPPED, Tried
from edgebench.search.sweep import spread
from edgebench.search.task import Made, Task
from edgebench.store.row import Entry, flatten

FLOAT, INT8, LEARNED = File("onnx", "fp32"), File("onnx", "int8"), File("onnx", "int8", learned=True)
SPACE = Space(("small",), (0.0, 0.5), (0.0, 0.7), (FLOAT, INT8, LEARNED))
AS_IS = Choice(SAME, 0.0, 0.0, FLOAT)


# ---------------------------------------------------------------- the study


def figures(choice: Choice) -> tuple[float, float, float]:
    """Make up a metric, a latency and a size that no two choices share."""
    width = (1 - choice.ratio) * {SAME: 1.0, "small": 0.6}[choice.student]
    byte = 0.3 if choice.file.precision == "int8" else 1.0
    metric = 0.8 + 0.15 * width - 0.02 * (byte < 1) + 0.015 * choice.file.learned + 0.01 * choice.alpha
    return metric, 1e6 * (0.1 + width * byte), 1e5 * width * byte + 7 * choice.alpha


def finish(folder: Path, pause: float = 0.0, log: Path | None = None, key: str = "key") -> list[Tried]:
    """Try everything; each trial is a line of the log once it is measured."""
    with study.open_study(folder, key, SPACE) as kept:
        kept.resume()
        kept.queue(SPACE.single(0.5))
        while (begun := kept.ask()) is not None:
            time.sleep(pause)
            if log is not None:
                with log.open("a") as stream:
                    stream.write(f"{begun.choice.told()}\n")
            kept.close(begun, {"state": DONE, "reason": ""}, figures(begun.choice), {"max_size": -0.1})
        return kept.tried()


def test_everything_is_tried_once_and_single_recipes_come_first(tmp_path: Path) -> None:
    tried = finish(tmp_path)
    assert Counter(each.choice for each in tried) == Counter(SPACE.every())
    single = SPACE.single(0.5)
    assert [(each.label, each.choice) for each in tried[: len(single)]] == list(single.items())
    assert set(single) == {"export onnx fp32", "export onnx int8", "qat onnx", "prune onnx", "distill onnx"}
    assert not any(each.label for each in tried[len(single) :])
    assert finish(tmp_path) == tried


def test_a_choice_without_anything_to_teach_is_one_choice_whatever_the_teacher_says() -> None:
    every = list(SPACE.every())
    assert len(every) == len(set(every)) == 3 * (1 + 2 + 2 + 2)
    assert {SPACE.choice(SPACE.params(choice)) for choice in every} == set(every)
    assert SPACE.choice({"student": SAME, "ratio": 0, "alpha": 1, "file": "onnx fp32"}) == AS_IS


def test_a_study_killed_at_random_moments_loses_no_trial_and_doubles_none(tmp_path: Path) -> None:
    log, chosen = tmp_path / "log", random.Random(3)
    for _ in range(5):
        number = os.fork()
        if number == 0:
            finish(tmp_path / "study", 0.01, log)
            os._exit(0)
        time.sleep(chosen.uniform(0.1, 0.5))
        os.kill(number, signal.SIGKILL)
        os.waitpid(number, 0)
    tried = finish(tmp_path / "study", 0.0, log)
    assert Counter(each.choice for each in tried) == Counter(SPACE.every())
    assert Counter(each.label for each in tried if each.label) == Counter(SPACE.single(0.5).keys())
    measured = Counter(log.read_text().splitlines())
    assert set(measured) == {choice.told() for choice in SPACE.every()}
    assert sum(measured.values()) <= len(measured) + 5  # what was running when it was killed, once for each kill
    with study.open_study(tmp_path / "study", "key", SPACE) as kept:
        assert kept.resume() == 0


def test_a_choice_that_a_dead_process_was_still_making_doubles_none(tmp_path: Path) -> None:
    with study.open_study(tmp_path, "key", SPACE) as kept:
        kept.queue(SPACE.single(0.5))
        for _ in SPACE.single(0.5):
            begun = kept.ask()
            assert begun is not None
            kept.close(begun, {"state": DONE, "reason": ""}, figures(begun.choice))
        kept.study.enqueue_trial(SPACE.params(AS_IS))
        kept._suggested(kept.study.ask())  # there it died, before it wrote that this was tried before
    with study.open_study(tmp_path, "key", SPACE) as kept:
        assert kept.resume() == 1
        kept.study.ask().suggest_categorical("student", [SAME, *SPACE.students])  # or here
    assert Counter(each.choice for each in finish(tmp_path)) == Counter(SPACE.every())


def test_a_trial_of_a_dead_process_is_begun_again_and_one_that_can_be_tried_again_is(tmp_path: Path) -> None:
    with study.open_study(tmp_path, "key", SPACE) as kept:
        kept.queue({"export onnx fp32": AS_IS})
        begun = kept.ask()
        assert begun is not None
    with study.open_study(tmp_path, "key", SPACE) as kept:
        assert (kept.resume(), kept.resume()) == (1, 0)
        again = kept.ask()
        assert again is not None
        assert (again.choice, again.label) == (AS_IS, "export onnx fp32")
        assert again.number > begun.number
        kept.close(again, {"state": FAILED, "reason": "the agent died", "retry": True})
        [tried] = kept.tried()
        kept.repeat(tried)
        kept.repeat(tried)
        third = kept.ask()
        assert third is not None
        assert third.choice == AS_IS
        kept.close(third, {"state": DONE, "reason": ""}, (0.9, 1.0, 1.0))
        assert [each.state for each in kept.tried()] == [DONE]
        following = kept.ask()
        assert following is not None
        assert following.choice != AS_IS


def test_a_folder_is_one_search_s_and_one_process_s(tmp_path: Path) -> None:
    with study.open_study(tmp_path, "key", SPACE), pytest.raises(InputError, match="another process searches there"):
        finish(tmp_path)
    with pytest.raises(InputError, match=r"another search .*give another --out"):
        finish(tmp_path, key="other")
    assert finish(tmp_path)


def test_what_breaks_limits_is_followed_less(tmp_path: Path) -> None:
    wide = Space(("small",), tuple(step / 24 for step in range(24)), (0.0,), (FLOAT, INT8))
    with study.open_study(tmp_path, "key", wide) as kept:
        for _ in range(24):
            begun = kept.ask()
            assert begun is not None
            broken = 0.5 if begun.choice.file == FLOAT else -0.5
            kept.close(begun, {"state": DONE, "reason": ""}, figures(begun.choice), {"max_p50": broken})
        late = [each.choice.file for each in kept.tried()[12:]]
    assert late.count(INT8) > late.count(FLOAT)


# ---------------------------------------------------------------- time


def test_a_budget_is_that_of_all_processes_together(tmp_path: Path) -> None:
    times = [100.0]
    first = Clock(tmp_path / "clock.json", 60.0, lambda: times[0])
    times[0] = 125.0
    assert (first.spent, first.left) == (25.0, 35.0)
    first.tick()
    times[0] = 126.0
    first.tick()  # too early: a process killed now has spent 25 s
    again = Clock(tmp_path / "clock.json", 60.0, lambda: times[0])
    assert (again.spent, again.left) == (25.0, 35.0)
    times[0] = 200.0
    again.tick(now=True)
    assert (again.spent, again.left) == (99.0, 0.0)
    (tmp_path / "clock.json").write_text("{")
    assert Clock(tmp_path / "clock.json", 60.0).before == 0.0


def test_time_is_told_beside_and_nothing_is_written_while_a_device_measures(tmp_path: Path) -> None:
    times, told = [0.0], []
    clock = Clock(tmp_path / "clock.json", 600.0, lambda: times[0])
    progress = clock.beside(lambda what, *_: told.append(what))
    times[0] = 300.0
    progress("measure net (warm-up)", 1, 2, "cpu")
    assert not (tmp_path / "clock.json").exists()
    progress("train net", 1, 2)
    progress("a note", 0, 0)
    assert (tmp_path / "clock.json").exists()
    assert told == ["measure net (warm-up; about 5 min left)", "train net (about 5 min left)", "a note"]


def test_spans_are_read_with_their_units() -> None:
    assert [amount("--budget", text, SPANS, "2h") for text in ("90s", "1.5min", "2 h", "1d")] == [90, 90, 7200, 86400]
    with pytest.raises(InputError, match="--budget 2 hours: not understood; write it like 2h"):
        amount("--budget", "2 hours", SPANS, "2h")


# ---------------------------------------------------------------- predictions


def test_a_linear_device_is_predicted_exactly_and_few_networks_not_at_all() -> None:
    sizes = [(2_000_000, 40_000), (9_000_000, 10_000), (500_000, 90_000), (7_000_000, 70_000), (1_000, 1_000)]
    points = [Point(macs, count, 50_000 + 0.02 * macs + 3 * count) for macs, count in sizes]
    found = fit(points)
    assert found is not None
    reference = np.linalg.lstsq([[1, each.macs, each.parameters] for each in points], [each.ns for each in points], rcond=None)[0]
    assert found.coefficients == pytest.approx(tuple(reference), rel=1e-6)
    assert found.predict(4_000_000, 20_000) == pytest.approx(50_000 + 80_000 + 60_000)
    assert found.points == 5
    assert found.error == pytest.approx(0, abs=1e-6)
    assert found.margin == latency.LEAST_MARGIN
    assert fit(points[:3]) is None
    assert fit([*points[:3], *points[:3]]) is None  # the same networks again tell nothing new


def test_no_coefficient_is_negative_and_a_bad_fit_says_so() -> None:
    points = [Point(macs, 0, 1e6 - macs / 10) for macs in (0, 1_000_000, 2_000_000, 4_000_000)]
    found = fit(points)
    assert found is not None
    assert min(found.coefficients) >= 0
    errors = []
    for left in points:
        kept = [each for each in points if each is not left]
        constant = sum(1 / each.ns for each in kept) / sum(1 / each.ns**2 for each in kept)  # least squares of relative errors
        errors.append(abs(constant / left.ns - 1))
    assert found.error == pytest.approx(max(errors), rel=1e-6)
    assert found.margin == pytest.approx(max(latency.LEAST_MARGIN, latency.SPREAD * max(errors)))


def sized(number: int, precision: str = "fp32", **changes: Any) -> Record:
    cell = make_cell(f"net{number}", precision=precision, **changes.pop("cell", {}))
    latency_ = make_latency(1000.0 * number, p99_ns=2000.0 * number)
    return make_record(cell=cell, macs=1000 * number, parameters=10 * number, latency=latency_, **changes)


def test_only_what_the_device_measured_alike_is_fitted() -> None:
    measured = Measured()
    for number in range(1, 6):
        measured.add(sized(number))
        measured.add(sized(10 * number, "int8"))
    measured.add(sized(100, verdict=Verdict(word="INVALID")))
    measured.add(sized(7, cell={"runtime_version": "onnxruntime 1.1"}, started_at="2025-01-01T00:00:00Z"))
    fits = measured.fits("onnx", "fp32", ["max_p50", "max_p99", "max_size"])
    assert {name: found.points for name, found in fits.items()} == {"max_p50": 5, "max_p99": 5}
    assert fits["max_p50"].predict(3000, 30) == pytest.approx(3000)
    assert fits["max_p99"].predict(3000, 30) == pytest.approx(6000)
    assert measured.fits("tflite", "fp32", ["max_p50"]) == {}


def test_records_of_other_devices_modes_and_scenarios_teach_nothing(tmp_path: Path) -> None:
    from edgebench.schema import Scenario
    from edgebench.store import records

    mine = sized(1)
    others = [{"device": "x"}, {"mode": "strict"}, {"scenario": Scenario(threads=1)}, {"method": METHOD - 1}]
    for record in (mine, *(sized(2 + place, cell=changes) for place, changes in enumerate(others))):
        records.save(tmp_path, record, None)
    (tmp_path / "records" / "cpu" / "damaged.json").write_text("{}")
    found = latency.read_measured(tmp_path, "cpu", mine.cell.device, mine.cell.mode, mine.cell.scenario)
    assert list(found.records) == [mine.key]


def shapes_of(folder: Path, journal: Path, **options: Any) -> Shapes:
    data = open_images(read_dataset("digits"))
    source = Source(str(folder), models.read_model(folder), data.ref, "cpu", {"prune": options} if options else {})
    return Shapes(source, lambda: models.load_model(folder), data, journal)


def counted(folder: Path) -> tuple[int, int]:
    """Count a trained network with torch's own counter."""
    network = models.load_model(folder)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.module(*network.example())
    return counter.get_total_flops() // 2, sum(each.numel() for each in network.module.parameters())


def test_macs_parameters_and_file_are_known_before_anything_is_trained(
    trained: Path, half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = shapes_of(trained, tmp_path / "sizes.json")
    whole, pruned = Choice(SAME, 0.0, 0.0, FLOAT), Choice(SAME, 0.5, 0.0, FLOAT)
    for folder, choice in ((trained, whole), (half, pruned)):
        counts = made.counts(choice)
        assert (counts.macs, counts.parameters) == counted(folder)
    student = made.counts(Choice("cnn_large", 0.0, 0.0, FLOAT))
    assert student.parameters == sum(each.numel() for each in models.build("cnn_large", 10, 1, 16).parameters())
    cpu = read_target("cpu")
    for file in (FLOAT, INT8):
        accepts = accepted(cpu, "onnx", file.precision)
        size = made.size(replace(pruned, file=file), accepts)
        real = verbs.export(half, format="onnx", precision=file.precision, dataset="digits", out=tmp_path / "bundles").bundle
        assert size is not None
        assert size == real.size_bytes if file == FLOAT else abs(size / real.size_bytes - 1) < 0.005
    again = shapes_of(trained, tmp_path / "sizes.json")
    monkeypatch.setattr("edgebench.search.shapes.exported_size", None)  # what was counted is kept
    assert again.size(pruned, accepted(cpu, "onnx", "fp32")) == made.size(pruned, accepted(cpu, "onnx", "fp32"))
    assert again.size(replace(pruned, file=File("onnx", "mixed")), accepted(cpu, "onnx", "mixed")) is None


def test_students_compute_less_than_the_network_and_what_cannot_be_pruned_is_told(trained: Path, tmp_path: Path) -> None:
    made = shapes_of(trained, tmp_path / "sizes.json")
    assert made.smaller(("cnn_large", "cnn", "mobilenet_v3_small")) == ("mobilenet_v3_small",)
    assert made.why_unpruned(0.5) == ""
    refused = shapes_of(trained, tmp_path / "sizes.json", scope="nowhere")
    assert "scope" in refused.why_unpruned(0.5)


# ---------------------------------------------------------------- the space


def test_a_target_s_files_are_what_can_be_written_and_trained_for() -> None:
    cpu = read_target("cpu")
    found, notes = files(cpu, ("onnx",), trains=True, mixed=False)
    assert [each.name for each in found] == ["onnx fp32", "onnx fp16", "onnx int8", "onnx int8 qat", "onnx int8-dynamic"]
    assert notes == []
    assert "onnx mixed" in {each.name for each in files(cpu, ("onnx",), trains=False, mixed=True)[0]}
    assert not any(each.learned for each in files(cpu, (), trains=False, mixed=True)[0])
    with pytest.raises(InputError, match="cpu does not run edgetpu; it runs torch, onnx, tflite"):
        files(cpu, ("edgetpu",), trains=True, mixed=True)


def test_a_choice_is_a_profile_that_chains_recipes(trained: Path) -> None:
    model = models.read_model(trained)
    source = Source(str(trained), model, read_dataset("digits"), "cpu", {"qat": {"epochs": 2}})
    profile = source.profile(Choice("mobilenet_v3_small", 0.5, 0.7, LEARNED), 4)
    assert [(each.recipe, each.teacher, each.parent) for each in profile.models] == [
        (None, None, None),
        ("distill", "base", None),
        ("prune", None, profile.models[1].name),
        ("qat", None, profile.models[2].name),
    ]
    assert profile.models[2].options == {"ratio": 0.5, "control": False, "alpha": 0.7}
    assert profile.models[3].options == {"control": False, "epochs": 2}
    assert (profile.input.size, profile.input.channels, profile.goals.max_degradation) == (16, 1, None)
    [_, student] = source.models(Choice("mobilenet_v3_small", 0.0, 0.0, FLOAT))
    assert (student.recipe, student.teacher) == ("train", None)
    names = [source.models(choice)[-1].name for choice in Space(("a" * 40,), (0.0, 0.125), (0.0, 0.7), (FLOAT, LEARNED)).every()]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) <= 64


# ---------------------------------------------------------------- what was found


def tried(number: int, label: str = "", state: str = DONE, choice: Choice = AS_IS, **result: Any) -> Tried:
    return Tried(number, label, choice, {"state": state, "reason": "", "bundle": "b", "key": str(number), **result})


def entry(name: str, metric: float, ms: float, size: int, **changes: Any) -> Entry:
    record = make_record(cell=make_cell(name), median_ns=1e6 * ms, accuracy=metric, size=size, **changes)
    return flatten(f"records/cpu/{name}.json", record)


def test_the_pareto_set_is_that_of_brute_force() -> None:
    chosen = random.Random(1)
    for _ in range(20):
        entries = [
            entry(f"n{number}", chosen.randint(80, 90) / 100, float(chosen.randint(1, 9)), chosen.randint(1, 9))
            for number in range(30)
        ]
        points = {each.path: (each.median_ns or 0, -(each.metric or 0), each.size_bytes or 0) for each in entries}
        wanted = {
            path
            for path, own in points.items()
            if not any(other != own and all(x <= y for x, y in zip(other, own, strict=True)) for other in points.values())
        }
        found = judge([(tried(number), each) for number, each in enumerate(entries)], {}, "latency")
        assert {each.entry.path for each in found.unbeaten if each.entry} == front(entries) == wanted
        speeds = [each.entry.median_ns for each in found.unbeaten if each.entry]
        assert speeds == sorted(map(float, [value for value in speeds if value is not None]))


LIMITS = {"max_p99": 4.5e6, "max_size": 3e6, "min_metric": 0.85}


def test_the_best_keeps_to_all_limits_and_each_other_is_told_why_not() -> None:
    pairs = [
        (tried(0, "export onnx fp32"), entry("slow", 0.95, 4.0, 2_000_000)),
        (tried(1, "export onnx int8"), entry("good", 0.90, 2.0, 1_000_000)),
        (tried(2), entry("wrong", 0.80, 0.5, 500_000)),
        (tried(3), entry("fast", 0.88, 1.0, 900_000)),
        (tried(4, state=SKIPPED, reason="not tried: size 9.54 MiB counted"), None),
        (tried(5, state=FAILED, reason="no such layer"), None),
        (tried(6), entry("invalid", 0.99, 0.1, 100, verdict=Verdict(word="INVALID"))),
    ]
    found = judge(pairs, LIMITS, "latency")
    names = [None if each is None or each.entry is None else each.entry.model for each in (found.best, found.single)]
    assert names == ["fast", "good"]
    why = [found.why_not(each) for each in found.candidates]
    assert why == [
        "p99 6.00 ms, 4.50 ms is the most",
        "keeps to all limits; fast onnx fp32 has p50 1.000 ms, this one p50 2.000 ms",
        "metric 80.0 %, 85.0 % is the least",
        "",
        "not tried: size 9.54 MiB counted",
        "failed: no such layer",
        "its measurement is INVALID",
    ]
    assert {each.entry.model for each in found.unbeaten if each.entry} == {"slow", "good", "wrong", "fast"}
    most = judge(pairs, LIMITS, "metric")
    assert most.best is most.single
    assert (
        verdict(most)
        == "The search did not beat the best single recipe: good onnx fp32 (export onnx int8) is the best that was found."
    )


def compared(word: str, value: float, low: float = 0.01, high: float = 0.03) -> Mapping[str, Any]:
    ratio = {"value": value, "low": value - 0.01, "high": value + 0.01}
    return {"latency": {"ratio": ratio, "word": word}, "accuracy": {"difference": {"low": low, "high": high}}}


def test_the_verdict_rests_on_what_ran_in_turn() -> None:
    pairs = [(tried(0, "export onnx int8"), entry("one", 0.90, 2.0, 1000)), (tried(1), entry("two", 0.92, 1.0, 900))]
    found = judge(pairs, LIMITS, "latency")
    told = "one onnx fp32 (export onnx int8): two onnx fp32 takes"
    faster = verdict(replace(found, compared=compared("faster", 0.5)))
    assert (
        faster
        == f"The search beat the best single recipe, {told} 50.0 % of its time in turn with it (95 %: 49.0 to 51.0), faster."
    )
    same = verdict(replace(found, compared=compared("same", 0.99)))
    assert same.startswith(f"The search did not beat the best single recipe, {told} 99.0 % of its time")
    metric = judge(pairs, LIMITS, "metric")
    assert verdict(replace(metric, compared=compared("same", 1.0))).startswith("The search beat")
    by_chance = verdict(replace(metric, compared=compared("same", 1.0, low=-0.01)))
    assert by_chance.startswith("The search did not beat")
    assert "chance could make as much" in by_chance
    assert verdict(judge(pairs[1:], LIMITS, "latency")) == "No single recipe keeps to all limits; two onnx fp32 does."
    assert verdict(judge(pairs, {"max_p50": 1.0}, "latency")) == "Nothing that was tried keeps to all limits."


def test_how_far_a_record_is_beyond_limits() -> None:
    record = make_record(median_ns=2e6, accuracy=0.8, size=3_000_000, latency=make_latency(2e6, p99_ns=None))
    found = beyond(record, {"max_p50": 1e6, "max_size": 4e6, "min_metric": 0.9, "max_p99": 1e6})
    assert found == pytest.approx({"max_p50": 1.0, "max_size": -0.25, "min_metric": 1 / 9, "max_p99": 1.0})


def test_the_page_says_what_was_found_and_holds_no_markup_of_others(tmp_path: Path) -> None:
    pairs = [
        (tried(0, "export onnx fp32"), entry("one", 0.90, 2.0, 1000)),
        (tried(1, choice=Choice("tiny", 0.5, 0.7, LEARNED)), entry("two", 0.92, 1.0, 900)),
        (tried(2, state=FAILED, reason="<script>alert(1)</script>"), None),
    ]
    found = judge(pairs, LIMITS, "latency")
    summary = {
        "model": "net <b>",
        "dataset": "digits",
        "samples": 360,
        "target": "cpu",
        "mode": "quick",
        "limits": LIMITS,
        "sort": "latency",
        "budget_seconds": 60.0,
        "spent_seconds": 12.0,
        "ended": "the time is over",
        "notes": ["a note"],
        "verdict": verdict(found),
        **found.values(),
    }
    page = compression.render(summary)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "student tiny, 50 % of the channels pruned, trained for INT8, taught by the original (0.7), onnx int8" in page
    assert "p99 ≤ 4.50 ms, size ≤ 2.86 MiB, metric ≥ 85.0 %" in page
    assert "2 measured, 0 not tried, since they would break a limit, 1 failed; 12 s spent of 60: the time is over." in page
    assert page.count("<circle") == 2
    assert compression.chart({**summary, "trials": summary["trials"][:1]}) is None


# ---------------------------------------------------------------- grids

PROFILE = """
name: grid
dataset: {name: digits}
input: {size: 16, channels: 1}
models:
  - {name: base, architecture: cnn, recipe: train, options: {epochs: 1, augment: none, threads: 1}}
  - name: half
    architecture: cnn
    role: pruned
    recipe: prune
    parent: base
    options: {epochs: 1, control: false, augment: none, threads: 1}
variants: [{format: onnx, precisions: [fp32]}]
"""


@pytest.fixture
def grid(here: Path) -> str:
    (here / "grid.yaml").write_text(PROFILE)
    return "grid.yaml"


def test_a_grid_varies_what_has_the_option_and_what_is_made_of_it(grid: str) -> None:
    profile = read_profile(grid)
    made, chosen = spread(profile, {"ratio": [0.3, 0.5]})
    assert [each.name for each in made.models] == ["base", "half-ratio-0.3", "half-ratio-0.5"]
    assert [each.options.get("ratio") for each in made.models] == [None, 0.3, 0.5]
    assert chosen == {"base": {}, "half-ratio-0.3": {"ratio": 0.3}, "half-ratio-0.5": {"ratio": 0.5}}
    made, _ = spread(profile, {"base.learning_rate": [0.001, 0.01], "half.ratio": [0.5]})
    assert [(each.name, each.parent) for each in made.models] == [
        ("base-learning_rate-0.001", None),
        ("half-learning_rate-0.001-ratio-0.5", "base-learning_rate-0.001"),
        ("base-learning_rate-0.01", None),
        ("half-learning_rate-0.01-ratio-0.5", "base-learning_rate-0.01"),
    ]
    assert len(spread(profile, {"learning_rate": [1, 2, 3], "ratio": [0.1, 0.2]})[0].models) == 3 + 6
    with pytest.raises(InputError, match="grid: --over width: no recipe of its models has such an option"):
        spread(profile, {"width": [1]})
    with pytest.raises(InputError, match="recipe prune: ratio"):
        spread(profile, {"ratio": [2.0]})
    with pytest.raises(InputError, match="more than 1000 points"):
        spread(profile, {"seed": list(range(40)), "batch_size": list(range(2, 40))})


def test_tasks_are_made_side_by_side_each_after_what_it_needs(grid: str, monkeypatch: pytest.MonkeyPatch) -> None:
    profile, order = read_profile(grid), []

    def made(given: Task, progress: Any = no_progress) -> Made:
        order.append(given.model)
        return Made(given.model, None, "torn") if given.model == "bad" else Made(given.model, Path(given.model))

    monkeypatch.setattr(task, "make", made)
    tasks = [
        Task(profile, name, Path("work"), needs=needs)
        for name, needs in (("last", ("middle",)), ("middle", ("first",)), ("first", ("there",)), ("bad", ()), ("lost", ("bad",)))
    ]
    with ThreadPoolExecutor(2) as pool:
        found = task.make_all(tasks, pool)
    assert order.index("first") < order.index("middle") < order.index("last")
    assert "lost" not in order
    assert [each.folder for each in found] == [Path("last"), Path("middle"), Path("first"), None, None]
    assert found[-1].reason == "bad could not be made: torn"
    assert [each.folder is None for each in task.make_here(tasks[3:], no_progress)] == [True, True]


def test_a_task_goes_to_another_process_and_its_errors_come_back(here: Path, grid: str) -> None:
    import pickle

    profile = read_profile(grid)
    broken = profile.models[0].model_copy(update={"architecture": "resnet_of_nobody"})
    wrong = Task(profile.model_copy(update={"models": (broken,)}), "base", here / "work")
    assert pickle.loads(pickle.dumps(wrong)) == wrong
    found = task.make(wrong)
    assert found.folder is None
    assert "unknown model 'resnet_of_nobody'" in found.reason
