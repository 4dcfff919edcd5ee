"""How long a run still takes: with a clock of the test's own, and once for real."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edgebench import recipes
from edgebench.bundle.preflight import BEGIN_SECONDS, Pace, pace, training_seconds, untrained
from edgebench.cli import console
from edgebench.config import read_dataset, read_profile, read_target
from edgebench.data import open_images
from edgebench.recipes import Job, Work
from edgebench.run.forecast import Forecast, about, export_seconds
from edgebench.run.options import MeasureOptions, RunOptions
from edgebench.run.outcome import RunResult
from edgebench.run.prepare import prepare_profile
from edgebench.run.session import Session, measure_all
from edgebench.schema import InputPlan, ModelPlan, Network, no_progress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def planned() -> tuple[Clock, Forecast]:
    clock = Clock()
    forecast = Forecast(clock)
    forecast.expect("train", {"big": 60.0, "small": 20.0})
    forecast.expect("export", dict.fromkeys("abcd", 10.0))
    forecast.expect("measure", dict.fromkeys("abcd", 12.0))
    return clock, forecast


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "10 s"), (11, "20 s"), (80, "80 s"), (81, "2 min"), (241, "5 min"), (89 * 60, "89 min"), (5401, "1.6 h"), (7200, "2 h")],
)
def test_an_estimate_is_rounded_up(seconds: float, text: str) -> None:
    assert about(seconds) == f"about {text}"


def test_the_whole_is_told_before_anything_is_done() -> None:
    _, forecast = planned()
    assert forecast.left() == 60 + 20 + 40 + 48
    assert forecast.summary() == "2 models to train, 4 bundles to export, 4 cells to measure; about 3 min"
    forecast.expect("import", {"mine": 3.0})
    assert forecast.summary().startswith("1 model to import, 2 models")
    assert Forecast().summary() == ""


def test_what_steps_took_corrects_what_is_expected_of_the_others_of_their_kind() -> None:
    clock, forecast = planned()
    with forecast.during("export", "a"):
        clock.now += 30
    assert forecast.left() == 80 + 3 * 30 + 48
    for name in "bc":
        with forecast.during("export", name):
            clock.now += 3
    assert forecast.left() == 80 + 10 * 36 / 30 + 48


def test_a_few_quick_steps_do_not_promise_as_much_of_the_others() -> None:
    clock, forecast = planned()
    with forecast.during("measure", "a"):
        clock.now += 4
    assert forecast.left() == pytest.approx(80 + 40 + 36 * (4 + 12) / (12 + 12))


def test_an_export_that_loads_libraries_tells_nothing_of_the_others() -> None:
    clock, forecast = planned()
    forecast.expect("export", {"a": 25.0, "b": 10.0, "c": 10.0}, alone="a")
    with forecast.during("export", "a"):
        clock.now += 130
    assert forecast.left() == 80 + 20 + 48
    with forecast.during("export", "b"):
        clock.now += 20
    assert forecast.left() == 80 + 20 + 48


def test_a_training_is_judged_by_how_far_it_has_come() -> None:
    clock, forecast = planned()
    with forecast.during("train", "big"):
        clock.now += 5  # libraries are loaded
        forecast.update("train", 100, 1000)  # it was taken up where it had stopped
        assert forecast.left() == 55 + 20 + 40 + 48
        clock.now += 20
        forecast.update("train", 200, 1000)
        left, whole = 8 * 20, 25 + 8 * 20
        assert forecast.left() == pytest.approx(left + 20 * whole / 54 + 40 + 48)
        clock.now += left
        forecast.update("train", 1000, 1000)
    assert forecast.left() == pytest.approx(20 * 185 / 54 + 40 + 48)


def test_a_step_that_is_overdue_is_not_over() -> None:
    clock, forecast = planned()
    with forecast.during("measure", "a"):
        clock.now += 40
        assert forecast.left() == 80 + 40 + 36 + 4


def test_what_fails_or_was_there_already_is_struck_out_and_tells_nothing() -> None:
    clock, forecast = planned()
    with pytest.raises(ValueError, match="no form"), forecast.during("export", "a"):
        clock.now += 1
        raise ValueError("no form")
    with forecast.during("export", "b"):
        forecast.drop("export", "b")
    with forecast.during("export", "nobody expected it"):
        clock.now += 500
    forecast.drop("measure", "a")
    forecast.drop("measure", "unknown")
    assert forecast.left() == 80 + 20 + 36


def test_devices_go_on_side_by_side_and_this_computer_after_them() -> None:
    forecast = Forecast(Clock())
    forecast.expect("measure", {"a": 10, "b": 10, "c": 15, "d": 4}, {"a": "one", "b": "one", "c": "two"})
    assert forecast.left() == 20 + 4


def test_nothing_is_left_in_the_end() -> None:
    clock, forecast = planned()
    seen = [forecast.left()]
    for kind, names in (("train", ("big", "small")), ("export", "abcd"), ("measure", "abcd")):
        for name in names:
            with forecast.during(kind, name):
                clock.now += {"train": 40, "export": 10, "measure": 12}[kind]
            seen.append(forecast.left())
    assert seen == sorted(seen, reverse=True)
    assert (seen[-1], forecast.summary()) == (0, "")


def test_callbacks_hear_of_it_in_brackets_behind_what_is_done() -> None:
    events: list[tuple[str, float, float, str]] = []
    _, forecast = planned()
    told = forecast.beside(lambda what, done, total, lane="": events.append((what, done, total, lane)))
    told("train big", 1, 100)
    told("push 3 MiB to board (1.2 MiB/s)", 1, 3, "board")
    told("small: 2 models to train", 0, 0)
    Forecast().beside(lambda what, done, total, lane="": events.append((what, done, total, lane)))("measure", 1, 2)
    assert [what for what, *_ in events] == [
        "train big (about 3 min left)",
        "push 3 MiB to board (1.2 MiB/s; about 3 min left)",
        "small: 2 models to train",
        "measure",
    ]
    assert events[1][1:] == (1, 3, "board")


def test_a_line_holds_what_is_left_and_nothing_else_that_changes(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress() as progress:
        progress("push it (1 MiB/s; about 3 min left)", 0, 1)
        progress("push it (9 MiB/s; about 2 min left)", 0, 1)
        progress("build it (engine; 3 s)", 0, 1)
        progress("small: 2 models to train; about 3 min", 0, 0)
    assert capsys.readouterr().err.splitlines() == [
        "edgebench: push it (about 3 min left)",
        "edgebench: build it",
        "edgebench: small: 2 models to train; about 3 min",
    ]


# ---------------------------------------------------------------- what is expected

PLAN = ModelPlan(name="net", architecture="tinynet:net", recipe="train")


def test_recipes_count_what_they_compute() -> None:
    data = open_images(read_dataset("digits"))
    options = {"epochs": 3, "batch_size": 100}
    job = Job("net", "tinynet:net", "baseline", data, InputPlan(size=16, channels=1), options, None, no_progress)
    train, val = len(data.read("train")), len(data.read("val"))
    assert recipes.work_of("train", job) == Work(steps=3 * -(-train // 100), learned=3 * train, judged=3 * val)
    assert recipes.work_of("distill", job) == Work(3 * -(-train // 100), 3 * train, 3 * val, taught=3 * (train + val))


def test_a_teacher_and_calibration_cost_their_time() -> None:
    work, own, teacher = Work(steps=4, learned=90, judged=30, taught=120), Pace(0.02, 0.2), Pace(0.3, 0.5)
    alone = training_seconds(replace(work, taught=0), own, None)
    assert alone == pytest.approx(BEGIN_SECONDS + 1.5 * (4 * (0.02 + 0.01) + 90 * 0.2 + 30 * 0.2 / 3))
    assert training_seconds(work, own, teacher) == pytest.approx(alone + 1.5 * (4 * 0.1 + 120 * 0.5 / 3))
    assert training_seconds(work, own, None) == pytest.approx(alone + 1.5 * (4 * 0.02 / 3 + 120 * 0.2 / 3))
    assert export_seconds("onnx", True, False) > export_seconds("onnx", False, False)
    assert (
        export_seconds("my-own", False, True) > export_seconds("my-own", False, False) >= export_seconds("tflite", False, False)
    )


def test_a_network_is_tried_quickly_and_left_as_it_was(here: Path) -> None:
    data, threads = open_images(read_dataset("digits")), torch.get_num_threads()
    network = untrained(PLAN, data, InputPlan(size=16, channels=1))
    assert network is not None
    found = pace(network)
    assert found is not None
    assert 0 <= found.step < 1
    assert 0 < found.image < 1
    assert not network.module.training
    assert torch.get_num_threads() == threads
    assert all(parameter.grad is None for parameter in network.module.parameters())
    assert pace(Network(network.model, torch.nn.Linear(3, 3), None)) is None


PROFILE = """
name: one
dataset: {name: digits}
input: {size: 16, channels: 1}
models:
  - {name: net, architecture: 'tinynet:net', role: baseline, recipe: train, options: {epochs: 2}}
variants:
  - {format: onnx, precisions: [fp32]}
scenario: {half_width: 0.5}
goals: {threshold: 0.01}
"""


def test_a_run_tells_the_whole_from_the_start_and_nothing_is_left_in_the_end(here: Path) -> None:
    Path("one.yaml").write_text(PROFILE)
    profile, events = read_profile("one.yaml"), list[str]()

    def session() -> Session:
        found = Session(MeasureOptions(), RunOptions(work=Path("work")), no_progress)
        found.progress = found.forecast.beside(lambda what, *_: events.append(what))
        return found

    def run(running: Session) -> RunResult:
        subjects = prepare_profile(running, profile, open_images(profile.dataset), [read_target("cpu")], None)
        result = measure_all(running, subjects)
        assert running.forecast.left() == 0
        return result

    with session() as running:
        first = run(running)
    assert first.cells[0].state == "done"
    assert first.ahead.startswith("1 model to train, 1 bundle to export, 1 cell to measure; about ")
    assert first.seconds > 20
    assert events[:2] == ["check what net can become", f"one: {first.ahead}"]
    assert all(what.endswith(" left)") for what in events[2:])
    events.clear()
    with session() as running:
        second = run(running)
    assert (second.ahead, second.cells[0].state) == ("", "cached")
    assert events == ["prepare bundles"]
