"""Records of devices over SSH when something breaks: nothing lost that had arrived, and every failure named."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import verbs
from conftest import Devices
from remote import AS_ROOT, fill, runs
from sshd import Sshd
from test_ssh import Bundles, board

from edgebench.device import events
from edgebench.run.outcome import RunResult
from edgebench.schema import Measurement, Record
from edgebench.store import records

pytestmark = pytest.mark.usefixtures("whole_quick")
BRIEF = {"half_width": 0.5, "warmup_seconds": 0}
DOUBLES = Path(__file__).parent / "doubles"


def run(bundles: Sequence[Path], *targets: str, **options: Any) -> RunResult:
    return verbs.run(bundle=bundles, target=targets, scenario=BRIEF, **options)


class Progress:
    """Does something at some of the moments when a cell is being measured."""

    def __init__(self, **actions: Callable[[], object]) -> None:
        self.actions = {int(key.removeprefix("at_")): action for key, action in actions.items()}
        self.count = 0

    def __call__(self, what: str, done: float, total: float, lane: str = "") -> None:
        if what.startswith("measure"):
            self.count += 1
            self.actions.get(self.count, bool)()


def measurement_of(record: Record) -> Measurement:
    [path] = [path for path, found in records.read_all(Path("results")) if found.key == record.key]
    return records.read_measurement(path, record)[0]


def check_whole(record: Record) -> None:
    """A record holds everything that was measured, once."""
    assert record.failure is None, record.failure
    found = measurement_of(record)
    assert [trial.complete for trial in found.trials] == [True] * 3
    for trial in found.trials:
        windows = [(window.begin_ns, window.end_ns) for window in trial.windows]
        assert windows == sorted(set(windows)) and all(end <= begin for (_, end), (begin, _) in itertools.pairwise(windows))
        assert sum(window.inferences for window in trial.windows) == len(trial.samples_ns) * trial.calls_per_sample
    assert found.predictions is not None and found.predictions.rows == 360
    assert record.accuracy is not None and record.accuracy.metrics


def began(record: Record) -> float:
    return datetime.datetime.fromisoformat(record.started_at.replace("Z", "+00:00")).timestamp()


def test_a_record_is_whole_though_its_sessions_were_killed(here: Path, sshd: Devices, tiny_bundles: Bundles) -> None:
    device, begin = sshd(), time.time()
    actions = {f"at_{count}": device.kill_sessions for count in (1, 2, 6, 7, 8, 12, 15, 18, 21, 24, 27, 30, 33, 36)}
    [record] = run([tiny_bundles["onnx", "fp32"]], board(device), progress=Progress(**actions)).records
    check_whole(record)
    assert abs(began(record) - begin) < 10
    assert runs(device) == []


def test_a_device_that_restarts_loses_one_cell_and_goes_on(here: Path, sshd: Devices, tiny_bundles: Bundles) -> None:
    device = sshd()

    def restart() -> None:
        device.power_off()
        threading.Timer(2, device.start).start()

    bundles = [tiny_bundles["onnx", "fp32"], tiny_bundles["torch", "fp32"]]
    result = run(bundles, board(device), progress=Progress(at_12=restart))
    assert [cell.state for cell in result.cells] == ["failed", "done"]
    assert "the agent was killed on the device" in result.cells[0].reason
    assert result.records[0].failure is not None
    check_whole(result.records[1])


def test_a_device_that_was_lost_is_taken_up(here: Path, sshd: Devices, tiny_bundles: Bundles) -> None:
    lost, well, begin = sshd("lost"), sshd("well"), time.time()
    targets = [board(lost, "lost"), board(well, "well")]

    def lose() -> None:
        lost.stop()
        lost.kill_sessions()

    bundles = [tiny_bundles["onnx", "fp32"]]
    result = run(bundles, *targets, progress=Progress(at_24=lose), reconnect_seconds=1)
    states = {cell.target: cell for cell in result.cells}
    assert (states["lost"].state, states["well"].state) == ("failed", "done")
    assert "was not back within 1 s" in states["lost"].reason and "edgebench run --resume" in states["lost"].reason
    assert lost.strays(within_seconds=10) == []  # it measures to its end
    lost.start()
    time.sleep(2)
    again = run(bundles, *targets, resume=True)
    assert {cell.target: cell.state for cell in again.cells} == {"lost": "done", "well": "cached"}
    [record] = [record for record in again.records if record.cell.target == "lost"]
    check_whole(record)
    assert abs(began(record) - begin) < 6  # when it began, not when it was taken up
    assert record.seconds < time.time() - began(record) - 2  # and for as long as it ran
    assert runs(lost) == []


def test_a_device_whose_clock_is_a_year_off_gives_a_right_record(here: Path, sshd: Devices, tiny_bundles: Bundles) -> None:
    compiler, library = shutil.which("cc"), here / "clock.so"
    if compiler is None:
        pytest.skip("no C compiler (cc) to make a clock that is off")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, DOUBLES / "clock.c", "-ldl"], check=True, timeout=60)
    device, begin = sshd(environment={"LD_PRELOAD": str(library)}), time.time()
    year = subprocess.run(device.ssh("date +%s"), capture_output=True, check=True, timeout=20, stdin=subprocess.DEVNULL)
    assert int(year.stdout) < begin - 364 * 86400
    [record] = run([tiny_bundles["onnx", "fp32"]], board(device), progress=Progress(at_9=device.kill_sessions)).records
    check_whole(record)
    assert abs(began(record) - begin) < 10
    assert 3 < record.seconds < 60


def test_a_python_and_a_runtime_that_print_disturb_nothing(here: Path, sshd: Devices, tiny_bundles: Bundles) -> None:
    noisy = here / "noisy"
    noisy.write_text(f"#!/bin/sh\nhead -c 3000000 /dev/zero | tr '\\0' '{{'\n>&2 echo noise\nexec {sys.executable} \"$@\"\n")
    noisy.chmod(0o755)
    device = sshd(python=noisy, environment={"EDGEBENCH_FAULT": "noise"})
    [record] = run([tiny_bundles["onnx", "fp32"]], board(device)).records
    check_whole(record)


@AS_ROOT
def test_a_disk_that_fills_up_fails_the_cell_with_that_reason(here: Path, sshd: Devices, tiny_bundles: Bundles) -> None:
    device = sshd()
    device.mount_home(40)
    [cell] = run([tiny_bundles["onnx", "fp32"]], board(device), progress=Progress(at_12=lambda: fill(device.home))).cells
    assert cell.state == "failed" and "the agent ended before it was done (the device's disk is full)" in cell.reason


def test_an_agent_that_stalls_fails_the_cell(
    here: Path, sshd: Devices, tiny_bundles: Bundles, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = sshd()
    monkeypatch.setattr(events, "SILENCE_SECONDS", 3.0)

    def stall() -> None:
        for line in device.strays():
            if ".pyz" in line:
                os.kill(int(line.split()[0]), signal.SIGSTOP)

    [cell] = run([tiny_bundles["onnx", "fp32"]], board(device), progress=Progress(at_12=stall)).cells
    assert cell.state == "failed" and "the agent said nothing for 3 s" in cell.reason
    assert runs(device) == []


# ---------------------------------------------------------------- the host's own end


@contextlib.contextmanager
def started(bundles: Sequence[Path], *targets: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the command line as a program of its own."""
    command = [sys.executable, "-m", "edgebench", "run", *map(str, bundles), "--half-width", "0.5", "--trust"]
    command += [part for target in targets for part in ("--target", target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            yield process
        finally:
            process.kill()


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def ended(process: subprocess.Popen[bytes], number: int, seconds: float = 15) -> str:
    begin = time.monotonic()
    process.send_signal(number)
    told = process.communicate(timeout=60)[0].decode()
    assert time.monotonic() - begin < seconds, told
    return told


def measuring(device: Sshd) -> bool:
    return any(path.stat().st_size > 20_000 for path in device.home.glob(".edgebench/runs/*/events"))


def test_ctrl_c_ends_the_runs_on_two_devices_and_keeps_what_is_finished(here: Path, sshd: Devices, tiny_bundles: Bundles) -> None:
    one, other = sshd("one"), sshd("other", environment={"EDGEBENCH_SLEEP": "0.01"})
    targets = [board(one, "one"), board(other, "other")]
    bundles = [tiny_bundles["onnx", "fp32"], tiny_bundles["torch", "fp32"]]
    with started(bundles, *targets) as process:
        until(lambda: list(here.glob("results/records/one/*.json")) and measuring(one) and measuring(other))
        told = ended(process, signal.SIGINT)
    assert process.returncode == 130, told
    assert "interrupted; what was finished is kept" in told
    for device in (one, other):
        assert device.strays(within_seconds=5) == []
        assert runs(device) == []
    found = [record for _, record in records.read_all(Path("results"))]
    assert found and {record.status for record in found} == {"done"}
    result = run(bundles[:1], targets[0])
    assert len(result.records) == 1


def test_ctrl_c_in_a_push_that_hangs_ends_at_once(here: Path, sshd: Devices, tiny_bundles: Bundles) -> None:
    device = sshd()
    device.cut(25_000, "up", how="freeze")
    with started([tiny_bundles["onnx", "fp32"]], board(device)) as process:
        until(device.cuts)
        told = ended(process, signal.SIGINT, 8)
    assert process.returncode == 130, told
    assert device.strays(within_seconds=5) == []


def test_a_host_that_is_killed_takes_its_run_up_again(here: Path, sshd: Devices, tiny_bundles: Bundles) -> None:
    device = sshd()
    with started([tiny_bundles["onnx", "fp32"]], board(device)) as process:
        until(lambda: measuring(device))
        before = time.time()
        ended(process, signal.SIGKILL)
    assert not list(here.glob("results/**/*.json"))
    [folder] = runs(device)
    time.sleep(0.5)
    assert any(".pyz" in line for line in device.strays())
    command = [sys.executable, "-m", "edgebench", "run", str(tiny_bundles["onnx", "fp32"]), "--half-width", "0.5", "--trust"]
    subprocess.run([*command, "--target", "board.yaml", "--resume"], check=True, capture_output=True, timeout=100)
    [(_, record)] = records.read_all(Path("results"))
    check_whole(record)
    assert began(record) < before  # of the first try
    assert runs(device) == [], folder


PUSH = """
import sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from types import SimpleNamespace
from remote import connected
with connected(SimpleNamespace(host=sys.argv[2])) as transport:
    transport.push(bytes(64 << 20), "sets/big", lambda done, total: (print(done, flush=True), time.sleep(0.05)))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_host_that_ends_in_a_push_leaves_nothing_running(sshd: Devices, number: int) -> None:
    device = sshd()
    command = [sys.executable, "-c", PUSH, str(Path(__file__).parent), device.host]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout and process.stdout.readline() and process.stdout.readline()
        process.send_signal(number)
        process.communicate(timeout=10)
    assert device.strays(within_seconds=5) == []
    [partial] = (device.home / ".edgebench" / "partial").iterdir()
    assert 0 < partial.stat().st_size < 64 << 20
