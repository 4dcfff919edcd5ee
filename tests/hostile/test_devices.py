"""Devices that are broken or hostile: whatever they do fails their cell in one line and in time, and the next one is measured."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import misbehaviour
import pytest
import verbs
import yaml
from conftest import Cli, Devices
from misbehaviour import EXTREME, NUMBERS, ORDER, SIZE, TIME, Behaviour

from edgebench import files
from edgebench.config import read_target
from edgebench.device import budget, deploy, events, inspect, measure, setup, tune
from edgebench.device.bounds import BadEvent
from edgebench.device.job import Pass, all_passes
from edgebench.device.job import job as job_of
from edgebench.errors import InputError, MeasureError
from edgebench.schema import MODES, Link, Mode, Record, Scenario, Target, no_progress
from edgebench.store import records

Bundles = dict[tuple[str, str], Path]
IN_TIME = 10.0
"""Seconds within which each behaviour ends where the bounds are those of the tests."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scale the bounds down: seconds in place of minutes, a few megabytes in place of many."""
    monkeypatch.setattr(events, "SILENCE_SECONDS", 1.5)
    monkeypatch.setattr(budget, "START_SECONDS", 1.5)
    monkeypatch.setattr(budget, "SAMPLE_SECONDS", 0.003)
    monkeypatch.setattr(budget, "EVENTS", 1000)
    monkeypatch.setattr(budget, "BYTES", 12 << 20)
    monkeypatch.setattr(budget, "SAMPLE_BYTES_PER_SECOND", 1 << 20)


def copies(source: Path, folder: Path, names: list[str]) -> dict[str, Path]:
    """Copy a bundle under other names; by what is to become of it."""
    manifest = json.loads((source / "bundle.json").read_text())
    found = {}
    for number, name in enumerate(names):
        found[name] = folder / f"{number:03d}"
        found[name].mkdir(parents=True)
        for file in manifest["files"]:
            (found[name] / file).hardlink_to(source / file)
        model = {**manifest["model"], "name": f"tiny-{number:03d}"}
        (found[name] / "bundle.json").write_text(json.dumps(files.seal({**manifest, "model": model})))
    return found


def planned(source: Path, folder: Path, behaviours: Mapping[str, Behaviour]) -> tuple[dict[str, Path], dict[str, str]]:
    """Make a bundle for the real agent, one for each behaviour, and an honest one after every third of these; and the plan."""
    names = ["real"]
    for number, name in enumerate(behaviours):
        names += [name, f"after {name}"] if number % 3 == 2 or number == len(behaviours) - 1 else [name]
    bundles = copies(source, folder, names)
    hashes = {name: json.loads((path / "bundle.json").read_text())["sha256"] for name, path in bundles.items()}
    return bundles, {hashes[name]: name if name in behaviours else "honest" for name in names if name != "real"}


def by_name(bundles: Mapping[str, Path]) -> dict[str, Record]:
    """Read the records, by what was to become of them."""
    found = {record.cell.model: record for _, record in records.read_all(Path("results"))}
    return {name: found[f"tiny-{path.name}"] for name, path in bundles.items()}


def check(behaviours: Mapping[str, Behaviour], found: Mapping[str, Record]) -> None:
    """Compare what became of each cell with what was to; all that differs is told."""
    wrong = []
    for name, (_, expected) in behaviours.items():
        record, after = found[name], found.get(f"after {name}")
        reason = None if record.failure is None else record.failure.reason
        if not (reason is None and not expected) and not (reason and expected and re.search(expected, reason)):
            wrong.append(f"{name}: {reason!r} is not {expected!r}")
        if reason is not None and not (reason.isprintable() and len(reason) < 1001):
            wrong.append(f"{name}: {reason!r} is not one line")
        if record.seconds > IN_TIME:
            wrong.append(f"{name}: took {record.seconds:.1f} s")
        if after is not None and (after.failure is not None or after.latency is None):
            wrong.append(f"after {name}: {after.failure}")
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize("behaviours", [NUMBERS, ORDER, SIZE, TIME], ids=["numbers", "order", "size", "time"])
def test_a_device_that_misbehaves_fails_its_cell_alone(
    here: Path, cli: Cli, tiny_bundles: Bundles, behaviours: Mapping[str, Behaviour]
) -> None:
    bundles, plan = planned(tiny_bundles["onnx", "fp32"], here / "bundles", behaviours)
    misbehaviour.install(here / ".edgebench" / "device" / "sleeper", plan)
    code, out, errors = cli("run", *bundles.values(), "--target", "sleeper.yaml", "--half-width", 0.5)
    assert code == 1
    assert "Traceback" not in out + errors and "unexpected" not in out + errors
    assert "\x1b" not in out + errors and "\x07" not in out + errors
    found = by_name(bundles)
    assert found["real"].failure is None, found["real"].failure
    check(behaviours, found)


def test_numbers_as_large_as_they_may_be_are_shown_like_others(here: Path, cli: Cli, tiny_bundles: Bundles) -> None:
    bundles, plan = planned(tiny_bundles["onnx", "fp32"], here / "bundles", EXTREME)
    misbehaviour.install(here / ".edgebench" / "device" / "sleeper", plan)
    cli("run", *bundles.values(), "--target", "sleeper.yaml", "--half-width", 0.5)
    check(EXTREME, by_name(bundles))
    for command in (["leaderboard", "results"], ["report", "results", "--out", "report.html"], ["verify", "results"]):
        code, out, errors = cli(*command)
        assert code == 0, out + errors
        assert "Traceback" not in out + errors, command


def test_devices_misbehave_in_fifty_ways_at_least() -> None:
    assert len([name for name, (_, expected) in misbehaviour.BEHAVIOURS.items() if expected]) >= 50


OVER_SSH = (
    "samples are negative",
    "an end in the middle",
    "an event without an end",
    "conditions without end",
    "a byte now and then",
)


def test_devices_misbehave_over_ssh_as_well(here: Path, sshd: Devices, tiny_bundles: Bundles) -> None:
    behaviours = {name: misbehaviour.BEHAVIOURS[name] for name in OVER_SSH}
    bundles, plan = planned(tiny_bundles["onnx", "fp32"], here / "bundles", behaviours)
    device = sshd()
    misbehaviour.install(device.home / ".edgebench", plan)
    given = yaml.safe_load(Path("sleeper.yaml").read_text()) | {"name": "board", "transport": "ssh", "host": device.host}
    Path("board.yaml").write_text(yaml.safe_dump(given))
    verbs.run(bundle=list(bundles.values()), target=["board.yaml"], scenario={"half_width": 0.5})
    check(behaviours, by_name(bundles))


# ---------------------------------------------------------------- the host's memory


ENDLESS = (
    "a line without an end",
    "an event without an end",
    "long lines without end",
    "complaints without end",
    "too many numbers",
)


def test_what_has_no_end_takes_bounded_memory(here: Path, tiny_bundles: Bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "BYTES", 32 << 20)
    bundles, plan = planned(tiny_bundles["onnx", "fp32"], here / "bundles", {name: SIZE[name] for name in ENDLESS})
    misbehaviour.install(here / ".edgebench" / "device" / "sleeper", plan)
    given: dict[str, Any] = {"target": ["sleeper.yaml"], "scenario": {"half_width": 0.5}}
    verbs.run(bundle=[bundles.pop("real")], **given)
    for name in ENDLESS:
        tracemalloc.start()
        verbs.run(bundle=[bundles[name]], **given)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 160 << 20, f"{name}: {peak >> 20} MiB"


# ---------------------------------------------------------------- what may take long


def job(mode: str, **scenario: Any) -> dict[str, Any]:
    """Write a job of one cell whose device builds an engine for two hours."""
    wanted = Scenario(**scenario)
    cell = {
        "scenario": wanted.model_dump(),
        "samples": 10_000,
        "outputs": [{"name": "output", "shape": [1, 1000]}],
        "scored": ["output"],
    }
    passes = [Pass("finish"), *all_passes(MODES[cast("Mode", mode)], wanted, False)]
    return job_of([{**cell, "finish": {"timeout_seconds": 7200}}], passes, MODES[cast("Mode", mode)], wanted)


@pytest.mark.parametrize("mode", ["quick", "standard", "strict", "sustained"])
def test_what_may_take_long_has_the_time(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    stall = 300.0  # after so long without a word the agent itself ends a process
    plain, served = job(mode, loadgen=True), job(mode, kind="server", bound_ms=10)
    allowed = {each["name"]: budget.of_pass(plain, each) for each in plain["passes"]}
    cap, window = plain["mode"]["cap_seconds"], plain["mode"]["window_seconds"]
    assert allowed["finish"].seconds >= 7200 + stall
    assert allowed["trial"].seconds >= 3 * stall + cap
    assert allowed["trial"].events > 2 * cap / window
    assert allowed["trial"].bytes >= min(cap * 400_000 * 6, 1 << 30)  # a sample each 2.5 µs, in six characters
    assert allowed["loadgen"].seconds >= stall + cap
    assert allowed["accuracy"].bytes >= 10_000 * 1000 * 4 * 4 / 3
    assert allowed["memory"].seconds >= 2 * stall
    assert budget.of_pass(served, served["passes"][-1]).seconds >= allowed["trial"].seconds + 7 * stall
    assert budget.between(plain).seconds >= stall + 2 * plain["mode"]["idle_seconds"]


def test_an_outage_does_not_use_the_deadline_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(budget, "time", SimpleNamespace(monotonic=lambda: now[0]))
    spent = budget.Budget(budget.Allowance(100.0, 1000, 1000), "the end")
    for moment in (3600.0, 3610.0):
        now[0] = moment
        spent.spend("{}")
    now[0] = 3680.0
    with pytest.raises(BadEvent, match="signs of life for 100 s and not the end"):
        spent.spend("{}")


# ---------------------------------------------------------------- what a device says of itself


Nested = dict[str, Any]


def changed(said: Nested, path: str, value: Any) -> Nested:
    """Change one value, by the names on the way to it."""
    name, _, rest = path.partition("/")
    return {**said, name: changed(said[name], rest, value) if rest else value}


HELLO: dict[str, tuple[str, Any, str]] = {
    "no core": ("environment/cores", 0, r"'hello' whose environment\.cores should be greater"),
    "cores for ever": ("environment/cores", 10**9, r"'hello' whose environment\.cores should be less"),
    "cores in words": ("environment/cores", "many", r"'hello' whose environment\.cores should be a valid integer"),
    "memory below nothing": ("environment/memory_bytes", -1, r"'hello' whose environment\.memory_bytes should be greater"),
    "a processor without end": ("environment/cpu", "x" * 10_000, r"'hello' whose environment\.cpu should have at most"),
    "instructions in one word": (
        "environment/int8_instructions",
        "vnni",
        r"'hello' whose environment\.int8_instructions should be",
    ),
    "no identity": ("identity", None, r"'hello' whose identity should be"),
    "bits of another kind": ("identity/bits", 2**40, r"'hello' whose identity\.bits should be less"),
    "a million things plugged in": ("identity/usb", ["x"] * 10**5, r"'hello' whose identity\.usb should have at most"),
    "runtimes in a list": ("runtimes", [], r"'hello' whose runtimes should be"),
    "a runtime that is a path": ("runtimes", {"../x": {"version": "1", "reason": None}}, r"'hello' whose runtimes\.\.\./x"),
    "a version that is a number": (
        "runtimes/sleep",
        {"version": 1, "reason": None},
        r"'hello' whose runtimes\.sleep\.version should",
    ),
    "a time after all times": ("wall_s", 1e300, r"'hello' whose wall_s should be less"),
    "a deep fact": ("environment/new", misbehaviour.deep(1, 100), r"'hello' with a wrong environment: nested deeper"),
    "free space below nothing": ("device/disk/free_bytes", -5, r"'hello' whose device\.disk\.free_bytes should be greater"),
    "meters in words": ("device/meters", "all", r"'hello' whose device\.meters should be"),
    "heat in words": ("device/celsius", "hot", r"'hello' whose device\.celsius should be a valid number"),
}


@pytest.fixture
def board(here: Path) -> Target:
    return read_target("sleeper.yaml")


def asked(here: Path, *arguments: str, job: Mapping[str, Any]) -> list[Nested]:
    """Ask the real agent here."""
    board = read_target("sleeper.yaml")
    with closing(deploy.connect(board, Link(here / "real"))) as transport:
        agent = deploy.deploy_agent(board, transport)
    with subprocess.Popen([sys.executable, agent, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(job).encode() + b"\n")
        process.stdin.flush()  # left open: the agent ends when its host leaves
        return [json.loads(line) for line in process.stdout]


def answering(here: Path, **answers: str) -> None:
    """Let the device answer commands so."""
    misbehaviour.install(here / "board", {}, {command: f"{said}\n" for command, said in answers.items()})


def test_a_device_that_says_nonsense_of_itself_is_refused_before_anything_is_measured(here: Path, board: Target) -> None:
    [said] = asked(here, "inspect", job={"meters": [], "cache": str(here)})
    with closing(deploy.connect(board, Link(here / "board"))) as transport:
        agent = deploy.deploy_agent(board, transport)
        answering(here, inspect=json.dumps(said))
        assert inspect.inspect(transport, agent, board)["environment"] == said["environment"]
        for name, (path, value, expected) in HELLO.items():
            answering(here, inspect=json.dumps(changed(said, path, value)))
            with pytest.raises(MeasureError) as caught:
                inspect.inspect(transport, agent, board)
            assert re.search(f"probe: the device sent {expected}", str(caught.value)), f"{name}: {caught.value}"
            assert str(caught.value).isprintable(), name
        for line in (
            '{"event": "hello", "wall_s": NaN}',
            '{"event": "hello"',
            '{"event": "hello"}',
            '{"event": "hello", "x": 1e400}',
        ):
            answering(here, probe=line)
            with pytest.raises(MeasureError, match=r"^probe: the device sent "):
                measure.probe(transport, agent)


SETUP: dict[str, tuple[str, Any, str]] = {
    "a Python of words": ("python", "three", "python"),
    "a Python of a million": ("python", "3.1000000.0", "python"),
    "an option as the ABI": ("abi", "--index-url=http://there", "abi"),
    "a machine that is a path": ("machine", "../x86_64", "machine"),
    "a glibc of a million": ("glibc", "2.1000000", "glibc"),
    "a glibc without a minor": ("glibc", "2", "glibc"),
    "a macOS of a million": ("macos", "1000000.0", "macos"),
    "markers in a list": ("markers", [], "markers"),
    "a marker that is no version": ("markers/python_version", "new", "markers.python_version"),
    "a marker that is an old version": ("markers/implementation_version", "x y", "markers.implementation_version"),
    "a root that is not one": ("root", "here", "root"),
    "a root that steers the terminal": ("root", "/x\x1b[2J", "root"),
    "space below nothing": ("free_bytes", -1, "free_bytes"),
    "space in words": ("free_bytes", "much", "free_bytes"),
    "wheels below nothing": ("wheels", {"x": -1}, "wheels.x"),
    "an environment that is a word": ("environment", "current", "environment"),
}


def test_a_device_that_says_nonsense_of_its_python_gets_no_wheels(here: Path, board: Target) -> None:
    said = asked(here, "setup", job={"action": "facts"})[0]
    with closing(deploy.connect(board, Link(here / "board"))) as transport:
        agent = deploy.deploy_agent(board, transport)
        for name, (path, value, field) in SETUP.items():
            answering(here, setup=json.dumps(changed(said, path, value)) + '\n{"event": "done"}')
            with pytest.raises(MeasureError) as caught:
                setup.plan(transport, agent, board, ["tiny"], here / "house", no_progress)
            assert re.search(rf"the device sent 'device' \w+( a wrong)? {re.escape(field)}\b", str(caught.value)), (
                f"{name}: {caught.value}"
            )
        neither = changed(changed(said, "glibc", None), "macos", None)
        answering(here, setup=json.dumps(neither) + '\n{"event": "done"}')
        with pytest.raises(MeasureError, match="neither a glibc nor a macOS"):
            setup.plan(transport, agent, board, ["tiny"], here / "house", no_progress)
        answering(here, setup='{"event": "removed", "freed_bytes": -1}\n{"event": "done"}')
        with pytest.raises(MeasureError, match=r"the device sent 'removed' whose freed_bytes"):
            setup.remove(transport, agent, board)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"event": "tuned", "knobs": 3}', "'tuned' whose knobs should be a valid list"),
        ('{"event": "tuned", "knobs": [{"name": "x"}]}', r"'tuned' without knobs\.0\.available"),
        ('{"event": "failed", "reason": 3}', "'failed' whose reason should be a valid string"),
    ],
)
def test_a_device_that_tunes_in_nonsense_is_named(here: Path, board: Target, line: str, expected: str) -> None:
    with closing(deploy.connect(board, Link(here / "board"))) as transport:
        agent = deploy.deploy_agent(board, transport)
        answering(here, tune=line)
        with pytest.raises(MeasureError, match=f"tune: the device sent {expected}"):
            tune.tune(transport, agent, "show", str(here / "state"), {}, "")


def test_a_setup_that_never_ends_is_given_up(here: Path, board: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "SETUP_SECONDS", 1.0)
    begin = time.monotonic()
    with closing(deploy.connect(board, Link(here / "board"))) as transport:
        agent = deploy.deploy_agent(board, transport)
        answering(here, setup="\n".join(['{"event": "checking", "runtime": "sleep"}'] * 5000))
        with pytest.raises(MeasureError, match="more than 1100 lines and not its answer"):
            setup.remove(transport, agent, board)
    assert time.monotonic() - begin < IN_TIME


def test_a_marker_that_cannot_be_judged_is_named(here: Path) -> None:
    from edgebench.device import wheelhouse

    markers = {"platform_release": "no version", "python_version": "3.11"}
    python = wheelhouse.Interpreter("3.11.2", "cp311", "x86_64", "2.31", None, markers)
    with pytest.raises(InputError, match="its marker cannot be judged"):
        wheelhouse.resolve(["tiny; platform_release ~= 'five'"], python, here / "house", no_progress)
