"""Processes that take turns window by window, on real runs of the agent; and what their pairs decide."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Cli
from test_measure import BRIEF, CELL, HELLO, Bundles, Script, agents, end_with_the_host, event

from edgebench.agent.turns import shared_cores
from edgebench.analysis import pairs, stats
from edgebench.bundle.manifest import read_bundle
from edgebench.config import read_target
from edgebench.data import open_dataset
from edgebench.device import deploy, measure
from edgebench.device import job as job_
from edgebench.run.interleave import Plan, in_turns
from edgebench.schema import Comparison, Link, Measurement, Scenario, Trial, TurnSpec, Window

SPEC = TurnSpec(pairs=2, turns=4, cap_seconds=5, seconds=0.03)


def take(folder: Path, target: str, runtime: str, spec: TurnSpec = SPEC, **wishes: Any) -> list[Measurement]:
    """Let a bundle take turns with itself."""
    bundle, device = read_bundle(folder), read_target(target, trust=True)
    assert bundle.model.lineage.dataset is not None
    images = open_dataset(bundle.model.lineage.dataset).read("test").images[:32]
    transport = deploy.connect(device, Link(Path("device")))
    deployed = deploy.deploy(device, transport, folder, bundle, [images])
    scenario = Scenario(**{"threads": 1, "warmup_seconds": 0.05, **wishes})
    cell = job_.cell_job(bundle, runtime, deployed, [images], scenario)
    job = job_.job([cell, cell], in_turns((0, 1), spec), BRIEF, scenario)
    return measure.measure(transport, deployed.agent, job, lambda _: None)


def order(found: Sequence[Measurement], pair: int) -> str:
    """Write down whose windows followed each other."""
    windows = [(window, "AB"[side]) for side, each in enumerate(found) for window in each.trials[pair].windows]
    windows.sort(key=lambda window: window[0].begin_ns)
    for (before, _), (after, _) in pairwise(windows):
        assert before.end_ns < after.begin_ns  # one at a time
    return "".join(side for _, side in windows)


# ---------------------------------------------------------------- on the device


def test_sides_go_there_and_back_and_sleep_while_they_wait(here: Path, tiny_bundles: Bundles) -> None:
    """With two threads: those that the runtime keeps would spin into the other's window."""
    found = take(tiny_bundles["onnx", "fp32"], "cpu", "onnxruntime", threads=2)
    assert [each.failure for each in found] == [None, None]
    assert [order(found, pair) for pair in (0, 1)] == ["ABBAABBA", "BAABBAAB"]
    for each in found:
        assert [trial.turns for trial in each.trials] == [0, 1]
        for trial in each.trials:
            assert trial.complete
            assert sum(stats.window_counts(trial)) == len(trial.samples_ns)
            assert all(window.end_ns - window.begin_ns >= 30e6 for window in trial.windows)
            assert len(trial.warmup_ns) >= 10
        assert {condition["trial"] for condition in each.conditions if condition["sampling"]} == {0, 1}
        waiting = pairs.wakeful(each.trials)
        assert waiting is not None
        assert waiting < 0.05
    assert len(pairs.log_ratios(found[0].trials, found[1].trials)) == 2


def test_a_cap_ends_a_pair_after_a_whole_round(here: Path, tiny_bundles: Bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEBENCH_SLEEP", "0.04")
    found = take(tiny_bundles["onnx", "fp32"], "sleeper.yaml", "sleep", TurnSpec(1, 40, 0.05, 0.03))
    assert order(found, 0) == "ABBA"
    assert [len(trial.samples_ns) for each in found for trial in each.trials] == [2, 2]  # one a turn, longer than the turn


def test_a_side_that_dies_ends_the_other_and_says_which(
    here: Path, tiny_bundles: Bundles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEBENCH_FAULT", "killed in turns")
    found = take(tiny_bundles["onnx", "fp32"], "sleeper.yaml", "sleep")
    failure = found[0].failure
    assert failure is not None
    assert failure.stage == "turns 0 of cell 1, run"
    assert "killed by SIGKILL" in failure.reason
    assert [trial.complete for trial in found[0].trials] == [False]
    assert len(found[0].trials[0].warmup_ns) >= 10  # what is there is kept
    assert agents(here) == []


def test_both_sides_end_with_the_host(here: Path, tiny_bundles: Bundles) -> None:
    code = (
        "import test_turns;test_turns.take(pathlib.Path(sys.argv[1]), 'sleeper.yaml', 'sleep', test_turns.TurnSpec(1, 4000, 60))"
    )
    end_with_the_host(here, code, tiny_bundles["onnx", "fp32"], 3)


def test_sides_share_their_cores_and_pairs_have_other_ones(
    here: Path, tiny_bundles: Bundles, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = take(tiny_bundles["onnx", "fp32"], "sleeper.yaml", "sleep", TurnSpec(1, 2, 1, 0.01))
    [one_core], there = {tuple(each.environment["affinity"] or ()) for each in found}, os.sched_getaffinity(0)
    assert (len(one_core) == 1 and set(one_core) < there) or len(there) == 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 3, 5})
    one, two = {"affinity": None, "threads": 1}, {"affinity": None, "threads": 2}
    assert [shared_cores([one, one], round) for round in range(4)] == [[2], [3], [5], [2]]
    assert shared_cores([one, two], 1) == [5, 2]
    for alone in ({"affinity": [5], "threads": 1}, {"affinity": None, "threads": 3}, {"affinity": None, "threads": None}):
        assert shared_cores([one, alone], 0) is None


def test_what_cannot_be_alive_twice_is_compared_trial_by_trial_and_that_is_said(
    here: Path, tiny_bundles: Bundles, cli: Cli
) -> None:
    (here / "rt_single.py").write_text("from .rt_sleep import DISTRIBUTIONS, MODULES, Runtime\n\nSINGLE = True\n")
    text = (here / "sleeper.yaml").read_text().replace("rt_sleep.py", "rt_sleep.py, rt_single.py")
    (here / "single.yaml").write_text(text.replace("runtime: sleep", "runtime: single"))
    arguments = ("compare", *2 * [tiny_bundles["onnx", "fp32"]], "--mode", "quick", "--target", "single.yaml")
    code, out, _ = cli(*arguments)
    assert code == 0
    assert "trials in turn and not windows (single cannot take turns: one process at a time can use its device)" in out


def test_a_comparison_says_what_it_rests_on(here: Path, tiny_bundles: Bundles, cli: Cli) -> None:
    """Two pairs alone leave it open, or not: what is said fits the word."""
    same = tiny_bundles["onnx", "fp32"]
    arguments = ("compare", same, same, "--mode", "quick", "--target", "sleeper.yaml", "--pairs", "3", "--json")
    code, out, _ = cli(*arguments, "--fail-if-slower", "0.001%", "--inconclusive", "fail")
    content = json.loads(out)
    latency = content["pairs"][0]["latency"]
    assert (latency["by"], latency["pairs"], latency["paired"]) == ("window", 3, True)
    assert latency["detectable"] >= latency["threshold"]
    assert (latency["advice"] == "") == (latency["word"] != "inconclusive")
    assert code == (content["failed"] > 0)


def test_more_sides_than_two_take_turns_with_the_first_some_at_a_time() -> None:
    passes = Plan(SPEC, 5).passes(4)
    assert [(each.trial, each.cells) for each in passes] == [(0, (0, 1, 2)), (1, (0, 1, 2)), (0, (0, 3)), (1, (0, 3))]


# ---------------------------------------------------------------- what the host takes


def play(*lines: str) -> tuple[Measurement, Measurement]:
    """Play events of a job with one pass, in which two cells take turns."""
    script = Script([line for given in lines for line in given.splitlines(keepends=True)])
    job = job_.job([CELL, CELL], in_turns((0, 1), TurnSpec(1, 2, 1.0)), BRIEF, Scenario())
    one, other = measure.measure(script, "agent", job, lambda _: None)
    return one, other


def place(cell: int) -> dict[str, Any]:
    return {"name": "turns", "trial": 0, "cell": cell}


def begun(cell: int) -> str:
    loaded = event("loaded", load_ns=1, first_ns=2, prepare_ns=[3], scores_ns=[4], **place(cell))
    warm = event("warm", warmup_ns=[9], settled=True, calls_per_sample=1, batch=1, **place(cell))
    return event("started", **place(cell)) + loaded + warm


def window(cell: int, begin: int) -> str:
    more = {"waited_ns": 7, "waited_cpu_ns": 1}
    return event("samples", ns=[10], begin_ns=begin, end_ns=begin + 12, inferences=1, **more, **place(cell))


def finished(cell: int) -> str:
    return event("finished", threads=1, **place(cell))


def test_windows_are_kept_by_side_with_their_times() -> None:
    turns = window(0, 1) + window(1, 20) + window(1, 40) + window(0, 60)
    one, other = play(HELLO, begun(0), begun(1), turns, finished(0), finished(1), event("done"))
    assert one.failure is None
    assert [each.begin_ns for each in one.trials[0].windows] == [1, 60]
    assert [each.begin_ns for each in other.trials[0].windows] == [20, 40]
    assert pairs.wakeful(other.trials) == pytest.approx(1 / 7)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ((begun(0), window(1, 1)), "'samples' of turns 0 of cell 1 where turns 0 was due"),
        ((begun(0), begun(0)), "the start of turns 0 before the end of turns 0"),
        ((begun(0), begun(1), window(0, 1), finished(0), window(0, 20)), "'samples' of turns 0 where"),
        ((begun(0), begun(1), window(0, 1), finished(0), event("done")), "'done' where turns 0 was due"),
        ((begun(0), begun(1), window(0, 1), finished(1)), "the end of turns 0 of cell 1 without 'samples'"),
    ],
)
def test_turns_that_are_not_due_fail_the_job(lines: tuple[str, ...], reason: str) -> None:
    failure = play(HELLO, *lines)[0].failure
    assert failure is not None
    assert reason in failure.reason


# ---------------------------------------------------------------- what pairs decide


def trials(windows: Sequence[Sequence[float]], first: bool, samples: int = 1) -> list[Trial]:
    """Make one side's trials from the medians of its windows, two of each round A B B A; 100 ns apart."""
    made = []
    for number, values in enumerate(windows):
        times = [400 * (at // 2) + 100 * ((0, 3)[at % 2] if first else (1, 2)[at % 2]) for at in range(len(values))]
        each = [Window(number, begin, begin + 90, samples) for begin in times]
        taken = [round(value) for value in values for _ in range(samples)]
        made.append(Trial(number, 1, 1, [1], True, 1, taken, [1], [1], True, windows=each, turns=number))
    return made


def compared(ratios: Sequence[float], floor: float | None = None) -> Comparison:
    """Compare what has one round a pair, with these ratios."""
    one = trials([[1_000_000, 1_000_000]] * len(ratios), first=True)
    other = trials([[1e6 * ratio, 1e6 * ratio] for ratio in ratios], first=False)
    return pairs.compare(one, other, floor=floor)


def test_a_drift_within_a_round_cancels() -> None:
    one = trials([[100_000, 130_000, 140_000, 170_000]], first=True)
    other = trials([[110_000, 120_000, 150_000, 160_000]], first=False)
    assert abs(pairs.log_ratios(one, other)[0]) < 0.01
    assert math.log(155 / 120) > 0.2  # as much as neighbours in time differ


@pytest.mark.parametrize(
    ("ratios", "word", "advice"),
    [
        ([1.05, 1.049, 1.051, 1.048, 1.052, 1.05], "slower", ""),
        ([0.95, 0.949, 0.951, 0.948, 0.952, 0.95], "faster", ""),
        ([1.0, 1.001, 0.999, 1.002, 0.998, 1.0], "same", ""),
        ([1.01, 1.011, 1.009, 1.012, 1.008, 1.01], "same", ""),
        ([1.0, 1.03, 0.97, 1.04, 0.96, 1.0], "inconclusive", "more pairs would decide it, or a quieter machine"),
        ([1.06, 1.0, 1.12, 1.03, 1.09, 0.99], "inconclusive", "about 6 more pairs would decide it"),
        ([0.7, 1.4, 0.9, 1.2, 0.8, 1.1], "inconclusive", "10 times as many pairs would not"),
        ([1.02, 1.021, 1.019, 1.024, 1.016, 1.0197], "inconclusive", "it lies too near to 2.0 %"),
        ([1.5], "inconclusive", "one pair alone"),
    ],
)
def test_a_word_is_what_the_interval_allows(ratios: list[float], word: str, advice: str) -> None:
    found = compared(ratios)
    assert (found.word, advice in found.advice) == (word, True), found
    assert bool(found.advice) == (word == "inconclusive")
    assert (found.by, found.pairs) == ("window", len(ratios))


def test_a_noisy_target_calls_less_different_and_more_the_same() -> None:
    ratios = [1.05, 1.049, 1.051, 1.048, 1.052, 1.05]
    assert [compared(ratios, floor).word for floor in (None, 0.0505, 0.06)] == ["slower", "inconclusive", "same"]


def test_six_pairs_have_the_interval_of_the_signed_ranks() -> None:
    values = [0.3, -0.1, 0.25, 0.05, 0.4, 0.15]
    _, low, high = stats.over_pairs(values)
    from scipy.stats import wilcoxon

    assert (low, high) == (min(values), max(values))  # 2 of 2 ** 6 orders of signs are as extreme: 3.1 %
    assert low is not None
    assert wilcoxon(np.array(values) - low + 1e-9).pvalue == pytest.approx(0.03125)
    twelve = np.random.default_rng(1).normal(0, 1, 12)
    _, low, high = stats.over_pairs(list(twelve))
    assert low is not None
    assert high is not None
    for edge, outside in ((low, low - 1e-6), (high, high + 1e-6)):
        assert wilcoxon(twelve - outside).pvalue <= 0.05 < wilcoxon(twelve - (2 * edge - outside)).pvalue


def test_pairs_are_the_unit_and_not_their_windows_or_samples() -> None:
    """Processes differ by their layout (1.5 %), windows hardly: pooled, each comparison of a bundle with itself would alarm."""
    draw = np.random.default_rng(0)
    alarms, pooled, found = 0, 0, 0
    for _ in range(60):
        offsets = draw.normal(0, 0.015, (2, 12, 1))
        values = 1e6 * np.exp(offsets + draw.normal(0, 0.002, (2, 12, 8)))
        one, other = trials(values[0], first=True), trials(values[1], first=False)
        alarms += _excludes_one(pairs.compare(one, other, floor=None))
        logs = np.log(values[1] / values[0]).ravel()
        pooled += abs(logs.mean()) > 1.96 * logs.std() / len(logs) ** 0.5
        found += pairs.compare(one, trials(1.05 * values[1], first=False), floor=None).word == "slower"
    assert alarms <= 6  # 5 %, and luck: more are as likely as one in thirty
    assert pooled >= 20
    assert found >= 54


def _excludes_one(found: Comparison) -> bool:
    assert found.ratio.low is not None
    assert found.ratio.high is not None
    return found.ratio.low > 1 or found.ratio.high < 1


def test_the_shift_that_would_have_been_found_is_found_in_nine_of_ten() -> None:
    draw = np.random.default_rng(2)
    noise = draw.normal(0, 0.02, (300, 12))
    said = [stats.decided(list(each), 0.02, None, by="window").detectable or 0 for each in noise]
    shift = float(np.median(said))
    hits = sum(stats.decided(list(each + math.log1p(shift)), 0.02, None, by="window").word == "slower" for each in noise)
    assert 0.85 <= hits / 300 <= 0.97
