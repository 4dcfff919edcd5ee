"""Whole runs of the packed agent, with real runtimes and with one that sleeps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgebench.bundle.manifest import read_bundle
from edgebench.config import read_target
from edgebench.device import deploy, measure
from edgebench.device import job as job_
from edgebench.errors import TransportError
from edgebench.schema import Keep, Link, Measurement, MeterSpec, ModeSpec, Scenario

BRIEF = ModeSpec(trials=2, min_samples=20, min_seconds=0.2, cap_seconds=0.6, window_seconds=0.05)
Bundles = dict[tuple[str, str], Path]


def run(
    folder: Path,
    target: str,
    runtime: str,
    spec: ModeSpec = BRIEF,
    meters: Any = (),
    heard: Any = bool,
    without: Sequence[str] = (),
    **wishes: Any,
) -> Measurement:
    """Measure a bundle briefly on a target; `without` some passes, and `wishes` change the scenario."""
    from edgebench.data import open_dataset

    bundle, device = read_bundle(folder), read_target(target, trust=True)
    assert bundle.model.lineage.dataset is not None
    images = open_dataset(bundle.model.lineage.dataset).read("test").images[:70]
    transport = deploy.connect(device, Link(Path("device")))
    deployed = deploy.deploy(device, transport, folder, bundle, [images])
    scenario = Scenario(**{"threads": 1, "warmup_seconds": 0.1, **wishes})
    cell = job_.cell_job(bundle, runtime, deployed, [images], scenario)
    passes = [each for each in job_.all_passes(spec, scenario, bundle.dynamic_batch) if each.name not in without]
    job = job_.job([cell], passes, spec, scenario, meters)
    [found] = measure.measure(transport, deployed.agent, job, heard)
    return found


def test_a_cell_yields_everything_that_a_record_needs(here: Path, tiny_bundles: Bundles) -> None:
    found = run(tiny_bundles["onnx", "fp32"], "cpu", "onnxruntime")
    assert found.failure is None
    assert [trial.index for trial in found.trials] == [0, 1]
    for trial in found.trials:
        assert trial.complete
        assert len(trial.samples_ns) * trial.calls_per_sample >= 20
        assert min(trial.samples_ns) > 0
        assert trial.load_ns > 0
        assert trial.first_ns > 0
        assert len(trial.prepare_ns) == len(trial.scores_ns) == 32
        assert len(trial.warmup_ns) >= 10
    assert found.predictions is not None
    assert (found.predictions.rows, found.predictions.columns) == (70, 10)
    assert found.memory["peak_bytes"] >= found.memory["baseline_bytes"] > 0
    assert found.environment["cores"] >= 1
    assert found.clock["cost_ns"] > 0
    assert {condition["trial"] for condition in found.conditions} == {0, 1}


def test_the_device_returns_what_the_file_says(here: Path, tiny_bundles: Bundles) -> None:
    folder = tiny_bundles["onnx", "fp32"]
    found = run(folder, "cpu", "onnxruntime")
    assert found.predictions is not None
    scores = np.frombuffer(found.predictions.values, "<f4").reshape(70, 10)
    with np.load(folder / "parity.npz") as saved:
        inside = saved["indices"] < 70
        assert inside.sum() > 10
        assert np.allclose(saved["reference"][inside], scores[saved["indices"][inside]], atol=1e-4)


def test_samples_are_as_long_as_the_inference(here: Path, tiny_bundles: Bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEBENCH_SLEEP", "0.005")
    found = run(tiny_bundles["onnx", "fp32"], "sleeper.yaml", "sleep")
    assert found.failure is None
    for trial in found.trials:
        assert 5e6 <= float(np.median(trial.samples_ns)) < 5e7


@pytest.mark.parametrize(
    ("fault", "stage", "reason", "trials"),
    [
        ("killed", "trial 1", "SIGKILL", 2),
        ("load", "load", "no such operator: Frobnicate", 0),
    ],
)
def test_a_runtime_that_fails_is_a_failure_with_its_stage_and_reason(
    here: Path,
    tiny_bundles: Bundles,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    stage: str,
    reason: str,
    trials: int,
) -> None:
    monkeypatch.setenv("EDGEBENCH_FAULT", fault)
    found = run(tiny_bundles["onnx", "fp32"], "sleeper.yaml", "sleep")
    assert found.failure is not None
    assert stage in found.failure.stage
    assert reason in found.failure.reason
    assert len(found.trials) == trials
    if trials:
        assert found.trials[0].complete
        assert not found.trials[1].complete


def test_what_a_runtime_prints_never_becomes_an_event(here: Path, tiny_bundles: Bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEBENCH_FAULT", "noise")
    found = run(tiny_bundles["onnx", "fp32"], "sleeper.yaml", "sleep")
    assert found.failure is None
    assert all(trial.complete for trial in found.trials)


def test_a_file_that_changed_on_the_device_is_refused_and_pushed_anew(here: Path, tiny_bundles: Bundles) -> None:
    folder = tiny_bundles["onnx", "fp32"]
    assert run(folder, "cpu", "onnxruntime").failure is None
    deployed = next(Path("device/bundles").rglob("model.onnx"))
    deployed.write_bytes(deployed.read_bytes()[:-1] + b"?")
    failure = run(folder, "cpu", "onnxruntime").failure
    assert failure is not None
    assert (failure.stage, "was changed on the device" in failure.reason) == ("deploy", True)
    assert run(folder, "cpu", "onnxruntime").failure is None


def test_a_second_deployment_pushes_nothing(here: Path, tiny_bundles: Bundles) -> None:
    folder = tiny_bundles["torch", "fp32"]
    bundle, device = read_bundle(folder), read_target("cpu")
    images = np.zeros((4, 8, 8, 1), np.uint8)
    transport = deploy.connect(device, Link(Path("device")))
    first = deploy.deploy(device, transport, folder, bundle, [images])
    before = {path: path.stat().st_mtime_ns for path in Path("device").rglob("*") if path.is_file()}
    assert deploy.deploy(device, transport, folder, bundle, [images]) == first
    assert {path: path.stat().st_mtime_ns for path in Path("device").rglob("*") if path.is_file()} == before


def test_the_packed_agent_is_the_same_bytes_every_time(here: Path) -> None:
    assert deploy.pack_agent() == deploy.pack_agent()
    assert deploy.pack_agent(["rt_sleep.py"]) != deploy.pack_agent()


def agents(folder: Path) -> list[int]:
    """List the processes that run an agent below a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_text()
            if f"{folder}/" in command and "/agents/" in command and "Z" not in (path.parent / "stat").read_text().split()[2]:
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def end_with_the_host(here: Path, code: str, bundle: Path, count: int) -> None:
    """Kill a host once so many processes of its agent are there: all of them end."""
    command = [sys.executable, "-c", f"import sys, pathlib; sys.path.insert(0, sys.argv[2]); {code}"]
    host = subprocess.Popen([*command, str(bundle), str(Path(__file__).parent)], env={**os.environ, "EDGEBENCH_SLEEP": "0.05"})
    deadline = time.monotonic() + 60
    while len(agents(here)) < count and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(agents(here)) >= count
    host.kill()
    host.wait()
    deadline = time.monotonic() + 10
    while agents(here) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert agents(here) == []


def test_the_agent_ends_with_the_host(here: Path, tiny_bundles: Bundles) -> None:
    """A host that is killed leaves no agent behind, neither the supervisor nor its worker."""
    code = "import test_measure; test_measure.run(pathlib.Path(sys.argv[1]), 'sleeper.yaml', 'sleep')"
    end_with_the_host(here, code, tiny_bundles["onnx", "fp32"], 2)


def test_a_meter_s_program_ends_with_the_agent(here: Path, tiny_bundles: Bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the host stops in the middle, and though the program is in a session of its own."""
    monkeypatch.setenv("EDGEBENCH_SLEEP", "0.05")
    code = "import os, time; open('meter.pid', 'w').write(str(os.getpid())); print(5.0, flush=True); time.sleep(600)"
    (here / "watts.py").write_text(code)
    meter = MeterSpec(name="command", options={"arguments": [sys.executable, str(here / "watts.py")]})

    class Enough(Exception):
        pass

    def heard(event: Any) -> None:
        if event["event"] == "samples":
            raise Enough

    with pytest.raises(Enough):
        run(tiny_bundles["onnx", "fp32"], "sleeper.yaml", "sleep", meters=[meter], heard=heard)
    pid = int((here / "meter.pid").read_text())
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()


class Script:
    """A transport that plays lines back; `None` is a silence."""

    def __init__(self, lines: Sequence[str | None]) -> None:
        self.script = lines
        self.stopped = False

    def run(self, arguments: Sequence[str], stdin: str, keep: Keep | None = None) -> Script:
        return self

    def lines(self, silence_seconds: float) -> Iterator[str]:
        for line in self.script:
            if line is None:
                raise TransportError(f"the agent said nothing for {silence_seconds:g} s")
            yield line

    def stop(self) -> None:
        self.stopped = True

    def stderr(self) -> str:
        return "first\nSegmentation fault"

    def push(self, source: Path | bytes, destination: str, sent: Callable[[int, int], None]) -> str:
        return destination

    def close(self) -> None: ...


def event(kind: str, **fields: Any) -> str:
    return json.dumps({"event": kind, **fields}) + "\n"


TRIAL = {"name": "trial", "trial": 0, "cell": 0}
ENVIRONMENT = {"cpu": "a processor", "machine": "x86_64", "cores": 2, "system": "Linux"}
HELLO = event("hello", protocol=job_.PROTOCOL, environment=ENVIRONMENT, clock={"cost_ns": 50.0})
LOADED = event("loaded", load_ns=1, first_ns=1, prepare_ns=[1], scores_ns=[1], **TRIAL)
WARM = event("warm", warmup_ns=[5], settled=True, calls_per_sample=1, batch=1, **TRIAL)
STARTED = HELLO + event("started", **TRIAL) + LOADED + WARM
SAMPLES = event("samples", ns=[5, 6, 7], begin_ns=1, end_ns=19, inferences=3, **TRIAL)
FINISHED = event("finished", threads=1, **TRIAL)
ACCURACY = {"name": "accuracy", "trial": 0, "cell": 0}
SCORED = {"outputs": [{"name": "output", "shape": [1, 1]}], "scored": ["output"]}
CELL = {"scenario": {"kind": "single-stream"}, "samples": 9, **SCORED}


def play(*lines: str | None, wanted: str = "trial") -> Measurement:
    """Play events of a job with one pass."""
    script = Script([line for given in lines for line in ([None] if given is None else given.splitlines(keepends=True))])
    job = job_.job([CELL], [job_.Pass(wanted)], BRIEF, Scenario())
    [found] = measure.measure(script, "agent", job, lambda _: None)
    assert script.stopped
    return found


def test_a_stream_without_done_keeps_what_arrived() -> None:
    found = play(STARTED, SAMPLES)
    assert found.failure is not None
    assert found.failure.stage == "trial 0"
    assert "Segmentation fault" in found.failure.reason
    assert list(found.trials[0].samples_ns) == [5, 6, 7]
    assert not found.trials[0].complete


def test_garbage_between_events_is_passed_over() -> None:
    garbage = ("\x00\xff garbage\n", "[1, 2]\n", '{"no": "event"}\n', event("frobnicated"))
    found = play(STARTED, *garbage, SAMPLES, FINISHED, event("done"))
    assert found.failure is None
    assert list(found.trials[0].samples_ns) == [5, 6, 7]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (event("samples", **TRIAL), "the device sent 'samples' without begin_ns"),
        (SAMPLES.replace('"trial"', '"memory"', 1), "'samples' of memory where trial 0 was due"),
        (SAMPLES.replace('"cell": 0', '"cell": 3'), "'samples' of trial 0 of cell 3 where trial 0 was due"),
        (event("power", meter=0, channel=0, t_ns=[1], values=[1.0]), "readings of meter 0, rail 0, which is not known"),
        (event("hello", protocol=99), "protocol 99, 3 is spoken here"),
        (event("failed", stage="load", reason="out of memory"), "out of memory"),
    ],
)
def test_a_malformed_event_is_a_failure(line: str, reason: str) -> None:
    failure = play(STARTED, line, event("done")).failure
    assert failure is not None
    assert reason in failure.reason


@pytest.mark.parametrize(("first", "values", "reason"), [(5, "AAAAAA==", "sample 5 where 0 was due"), (0, "AAA=", "cut short")])
def test_predictions_that_are_not_whole_are_a_failure(first: int, values: str, reason: str) -> None:
    sent = event("predictions", first=first, rows=1, values=values, **ACCURACY)
    failure = play(HELLO, event("started", **ACCURACY), sent, wanted="accuracy").failure
    assert failure is not None
    assert reason in failure.reason


def test_a_silent_agent_is_given_up() -> None:
    failure = play(STARTED, None).failure
    assert failure is not None
    assert "said nothing for 60 s" in failure.reason


def test_a_python_that_is_not_there_is_a_failure_not_a_traceback(here: Path, tiny_bundles: Bundles) -> None:
    text = Path("sleeper.yaml").read_text() + "python: /nowhere/python3\n"
    Path("nowhere.yaml").write_text(text)
    failure = run(tiny_bundles["onnx", "fp32"], "nowhere.yaml", "sleep").failure
    assert failure is not None
    assert "/nowhere/python3" in failure.reason
