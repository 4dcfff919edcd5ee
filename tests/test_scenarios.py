"""The scenarios on the packed agent, with real runtimes and with one that sleeps."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import verbs
from conftest import Cli
from factory import parity_of
from test_measure import BRIEF, Bundles, run

import edgebench
from edgebench import api
from edgebench.agent.cell import loop, server
from edgebench.agent.cell.loadgen import figures
from edgebench.agent.clock import now_ns
from edgebench.analysis import energy, stats
from edgebench.errors import ExportError, InputError
from edgebench.run.session import scenario_with
from edgebench.schema import Measurement, MeterSpec, Scenario, cell


@pytest.fixture
def sleeping(here: Path, tiny_bundles: Bundles, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Measure a runtime that sleeps 2 ms."""
    monkeypatch.setenv("EDGEBENCH_SLEEP", "0.002")

    def measured(**wishes: Any) -> Measurement:
        found = run(tiny_bundles["onnx", "fp32"], "sleeper.yaml", "sleep", **wishes)
        assert found.failure is None, found.failure
        return found

    yield measured


def medians(found: Measurement) -> list[float]:
    return [float(np.median(trial.samples_ns)) for trial in found.trials]


def test_a_trial_says_when_its_samples_were_taken(sleeping: Any) -> None:
    found = sleeping()
    for trial in found.trials:
        assert sum(window.inferences for window in trial.windows) == len(trial.samples_ns)
        assert all(a.end_ns <= b.begin_ns for a, b in zip(trial.windows, trial.windows[1:], strict=False))
        assert sum(trial.samples_ns) <= sum(window.end_ns - window.begin_ns for window in trial.windows)


def test_snapshots_of_the_samples_are_marked(sleeping: Any) -> None:
    found = sleeping()
    for index, trial in enumerate(found.trials):
        during = [row for row in found.conditions if row["trial"] == index and row["sampling"]]
        assert len(during) >= 2
        assert during[0]["t_ns"] <= trial.windows[0].begin_ns + 5e7
        assert during[-1]["t_ns"] >= trial.windows[-1].end_ns
        assert during[-1]["worker_ns"] is None or during[-1]["worker_ns"] > during[0]["worker_ns"]


def test_paced_inferences_keep_their_rate_and_count_no_pause(sleeping: Any) -> None:
    found = sleeping(kind="paced", rate=50.0)
    for trial in found.trials:
        assert trial.calls_per_sample == 1
        spent = sum(window.end_ns - window.begin_ns for window in trial.windows) / 1e9
        assert len(trial.samples_ns) / spent == pytest.approx(50, rel=0.25)
    assert all(2e6 <= value < 15e6 for value in medians(found))
    paused = sleeping(kind="paced", idle_ms=10.0)
    assert len(paused.trials[0].samples_ns) <= 80


def test_a_multi_stream_query_of_a_batch_1_bundle_is_its_samples_one_after_the_other(sleeping: Any) -> None:
    found = sleeping(kind="multi-stream", streams=4)
    assert [trial.batch for trial in found.trials] == [4, 4]
    assert all(8e6 <= value < 40e6 for value in medians(found))
    assert found.trials[0].windows[0].inferences % 4 == 0
    assert stats.summarize(found.trials).per_second < 500


def test_a_server_finds_a_rate_below_saturation(sleeping: Any) -> None:
    spec = dataclasses.replace(BRIEF, trials=1, min_samples=64, cap_seconds=10)
    found = sleeping(kind="server", bound_ms=20.0, spec=spec)
    [trial] = found.trials
    assert trial.rate is not None
    assert 0 < trial.rate < 500
    assert len(trial.steps) == server.STEPS
    held = [step.rate for step in trial.steps if step.held]
    assert max(held) == trial.rate
    assert all(step.queries >= 662 for step in trial.steps)
    assert np.quantile(trial.samples_ns, 0.99) <= 20e6 * 1.01


def test_a_bound_that_nothing_keeps_gives_no_rate(sleeping: Any) -> None:
    spec = dataclasses.replace(BRIEF, trials=1, min_samples=64)
    found = sleeping(kind="server", bound_ms=1.0, spec=spec)
    assert found.trials[0].rate is None
    assert found.trials[0].complete
    assert stats.server(found.trials, 1e6).held_trials == 0


def test_a_chosen_core_is_where_the_model_runs(sleeping: Any) -> None:
    core = min(os.sched_getaffinity(0))
    assert sleeping(affinity=(core,)).environment["affinity"] == [core]


def test_a_core_that_is_not_there_fails_with_those_that_are(here: Path, tiny_bundles: Bundles) -> None:
    failure = run(tiny_bundles["onnx", "fp32"], "sleeper.yaml", "sleep", affinity=(4000,)).failure
    assert failure is not None
    assert "this process may use the cores [" in failure.reason


def test_trials_stop_when_the_median_is_known(sleeping: Any) -> None:
    spec = dataclasses.replace(BRIEF, cap_seconds=10, window_seconds=0.05, min_samples=5)
    found = sleeping(spec=spec, half_width=0.5)
    assert [trial.precise for trial in found.trials] == [True, True]
    assert all(sum(w.end_ns - w.begin_ns for w in trial.windows) < 5e9 for trial in found.trials)
    never = sleeping(spec=dataclasses.replace(spec, cap_seconds=0.5), precision=1e-9)
    assert [trial.precise for trial in never.trials] == [False, False]
    assert stats.summarize(never.trials).precise_trials == 0
    unasked = sleeping(spec=dataclasses.replace(spec, adaptive=False))
    assert [trial.precise for trial in unasked.trials] == [None, None]


# ---------------------------------------------------------------- batches


@pytest.mark.parametrize(("format", "precision"), [("onnx", "fp32"), ("onnx", "int8"), ("torch", "fp32")])
def test_dynamic_bundles_take_every_batch_offline(here: Path, format: str, precision: str) -> None:
    made = verbs.export(
        "tinynet:net", format=format, precision=precision, dataset="digits", size=16, channels=1, name="tiny", dynamic_batch=True
    )
    assert made.bundle.dynamic_batch
    assert parity_of(made.bundle).samples == 256
    runtime = {"onnx": "onnxruntime", "torch": "torch"}[format]
    batches = (1, 8) if format == "torch" else (1, 3, 8)  # each loads torch
    spec = dataclasses.replace(BRIEF, trials=1)
    found = run(made.folder, "cpu", runtime, kind="offline", batches=batches, spec=spec, without=("accuracy", "memory"))
    assert found.failure is None, found.failure
    assert [trial.batch for trial in found.trials] == [*batches]
    points = {point.batch: point.per_second.value for point in stats.throughput(found.trials)}
    assert points[8] > points[1]


def test_bundles_of_batch_1_say_so_offline(sleeping: Any) -> None:
    assert {trial.batch for trial in sleeping(kind="offline").trials} == {1}


def test_formats_with_one_batch_size_refuse_a_dynamic_one(here: Path) -> None:
    with pytest.raises(ExportError, match="hold one batch size"):
        verbs.export("tinynet:net", format="tflite", dataset="digits", size=16, channels=1, name="tiny", dynamic_batch=True)


# ---------------------------------------------------------------- LoadGen


def test_loadgen_agrees_with_the_loop(here: Path, tiny_bundles: Bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlperf_loadgen")
    monkeypatch.setenv("EDGEBENCH_SLEEP", "0.002")
    found = run(tiny_bundles["onnx", "fp32"], "sleeper.yaml", "sleep", loadgen=True)
    assert found.failure is None, found.failure
    assert found.loadgen is not None
    assert found.loadgen["result"] == "VALID"
    assert found.loadgen["median_ns"] == pytest.approx(float(np.median(medians(found))), rel=0.3)
    assert "MLPerf Results Summary" in found.loadgen["summary"]


def test_a_summary_without_numbers_has_none() -> None:
    assert figures("Result is : INVALID\nnonsense") == {
        "result": "INVALID",
        "median_ns": None,
        "p99_ns": None,
        "per_second": None,
    }
    assert figures("")["result"] == "none"


# ---------------------------------------------------------------- power


def test_a_program_that_prints_watts_gives_the_energy_of_an_inference(
    here: Path, tiny_bundles: Bundles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEBENCH_SLEEP", "0.01")
    (here / "watts.py").write_text(
        "import itertools, time\nfor i in itertools.count():\n    print(5 + 0.001 * (i % 7), flush=True)\n    time.sleep(0.01)\n"
    )
    spec = dataclasses.replace(BRIEF, trials=1, min_seconds=6.5, cap_seconds=7, window_seconds=0.25, idle_seconds=4.2)
    meter = MeterSpec(name="command", options={"arguments": [sys.executable, str(here / "watts.py")]})
    found = run(tiny_bundles["onnx", "fp32"], "sleeper.yaml", "sleep", spec=spec, meters=[meter])
    assert found.failure is None, found.failure
    assert len(found.power.idle) == 2
    windows = [window for trial in found.trials for window in trial.windows]
    headline, others = energy.energies(found.power, windows, [meter], None)
    assert others == ()
    assert headline.joules is not None, headline.reason
    assert (headline.provenance, headline.short, headline.meter) == ("wall", True, "command")
    assert headline.joules.value == pytest.approx(5.003 * medians(found)[0] / 1e9, rel=0.05)
    assert headline.net_joules is not None
    assert headline.net_joules.value == pytest.approx(0, abs=0.05 * headline.joules.value)


def test_a_meter_that_is_not_there_leaves_its_reason(here: Path, tiny_bundles: Bundles) -> None:
    meter = MeterSpec(name="command", options={"arguments": ["/nowhere/watts"]})
    found = run(tiny_bundles["onnx", "fp32"], "sleeper.yaml", "sleep", meters=[meter])
    assert found.failure is None
    assert found.power.idle == []
    headline, _ = energy.energies(found.power, [], [meter], None)
    assert headline.joules is None
    assert "/nowhere/watts" in str(headline.reason)


# ---------------------------------------------------------------- records


@pytest.mark.parametrize(
    ("mode", "options", "circumstances"),
    [
        ("quick", ("--scenario", "server", "--bound-ms", "20"), "scenario server (Poisson arrivals, p99 under 20.0 ms)"),
        ("quick", ("--scenario", "offline", "--batches", "1,2"), "scenario offline"),
        ("quick", ("--scenario", "multi-stream", "--streams", "2"), "(2 samples a query)"),
        ("quick", ("--scenario", "paced", "--rate", "50"), "(50 per second)"),
        ("sustained", (), "mode sustained"),
    ],
)
def test_each_scenario_ends_in_a_record_that_holds_and_a_table_of_its_own(
    here: Path,
    tiny_bundles: Bundles,
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    options: tuple[str, ...],
    circumstances: str,
) -> None:
    monkeypatch.setenv("EDGEBENCH_SLEEP", "0.001")
    for name in ("quick", "sustained"):
        monkeypatch.setitem(cell.MODES, name, dataclasses.replace(BRIEF, trials=1, adaptive=name == "quick", cap_seconds=3))
    folder = tiny_bundles["onnx", "fp32"]
    code, out, err = cli("run", folder, "--target", "sleeper.yaml", "--mode", mode, *options, "--json")
    assert code == 0, err
    [record] = json.loads(out)["records"]
    assert (record["server"] is None) == ("server" not in options)
    assert len(record["throughput"]) == ("offline" in options)
    assert (record["sustained"] is None) == (mode != "sustained")
    assert record["latency"]["batch"] == (2 if "multi-stream" in options else 1)
    assert api.verify(Path("results"))[0].wrong == ()
    assert circumstances in edgebench.leaderboard(Path("results"))
    code, out, _ = cli("run", folder, "--target", "sleeper.yaml", "--mode", mode, *options)
    assert (code, "cached" in out) == (0, True)


# ---------------------------------------------------------------- parts


def test_the_interval_of_windows_needs_six_and_narrows() -> None:
    assert loop.half_width([1.0] * 5) is None
    assert loop.half_width([98, 99, 100, 101, 102, 103]) == pytest.approx(2.5 / 100.5)
    assert loop.half_width([1.0] * 600) == 0
    ordered = [float(value) for value in range(1, 21)]
    assert loop.half_width(ordered) == pytest.approx((15 - 6) / 2 / 10.5)  # ranks 6 and 15 of 20


def test_arrivals_count_from_when_they_were_due() -> None:
    """A query that finds the model busy has waited, though it was picked up late."""
    busy = server.Server(lambda _: server.wait_until(now_ns() + 1_000_000), [0], seed=1)
    calm = busy.serve(rate=50, queries=40)
    overloaded = busy.serve(rate=2000, queries=40)
    assert np.median(calm) < 3e6
    assert overloaded[-1] > 10e6


def test_a_higher_rate_sees_the_same_gaps() -> None:
    served = server.Server(lambda _: None, [0], seed=3)
    served.serve(1e5, 20)
    gaps = list(served._gaps)
    served.serve(2e5, 20)
    assert served._gaps == gaps


def test_p99_is_by_nearest_rank() -> None:
    assert server.quantile99(array("q", range(1, 101))) == 99


def test_another_kind_forgets_the_options_of_the_former() -> None:
    base = Scenario(kind="server", bound_ms=5, threads=2)
    assert scenario_with(base, {"kind": "single-stream"}) == Scenario(threads=2)
    with pytest.raises(InputError, match="bound_ms goes with the scenario server"):
        scenario_with(Scenario(), {"bound_ms": 5.0})
    with pytest.raises(InputError, match="server wants bound_ms"):
        scenario_with(Scenario(), {"kind": "server"})
    with pytest.raises(InputError, match="either rate"):
        scenario_with(Scenario(), {"kind": "paced", "rate": 5.0, "idle_ms": 2.0})
    with pytest.raises(InputError, match="loadgen goes with"):
        scenario_with(Scenario(), {"kind": "paced", "rate": 5.0, "loadgen": True})
    with pytest.raises(InputError, match="half_width"):
        scenario_with(Scenario(), {"half_width": 0.0})
