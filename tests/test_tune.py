"""Tuning on laid-out devices, with programs that play Jetson's own, and killed halfway."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli

from edgebench.agent.events import Events
from edgebench.agent.tune import knobs, tuning
from edgebench.config import read_target
from edgebench.device import deploy
from edgebench.device.tune import tune
from edgebench.errors import InputError, MeasureError
from edgebench.schema import Link

DOUBLES = Path(__file__).parent / "doubles"
GOVERNORS = {0: "schedutil", 1: "schedutil", 2: "powersave", 3: "performance"}
CPUS = "sys/devices/system/cpu"


class Said(Events):
    """Events in a list, in place of the agent's output."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def emit(self, event: str, **fields: Any) -> None:
        self.events.append({"event": event, **fields})


class Device:
    """A laid-out device, and what it is set to."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.state = folder / "var" / "tune.json"
        self.jetson = folder / "jetson.json"

    def put(self, name: str, text: str) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text + "\n")

    def files(self) -> dict[str, str]:
        paths = [path for path in self.root.rglob("*") if path.is_file() and "random" not in path.parts]
        return {str(path.relative_to(self.root)): path.read_text().strip() for path in paths}

    def mode(self) -> tuple[str, bool]:
        found = json.loads(self.jetson.read_text())
        return found["mode"], found["locked"]

    def do(self, action: str, **wanted: Any) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
        """Run an action here; returns the rows by name, and the last event."""
        said = Said()
        job = {"action": action, "root": str(self.root), "state": str(self.state), "wanted": wanted}
        code = tuning.tune(job, said)
        assert code == (said.events[-1]["event"] == "failed")
        rows = [row for event in said.events if event["event"] == "tuned" for row in event["knobs"]]
        return {row["name"]: row for row in rows}, said.events[-1]


@pytest.fixture
def board(tmp_path: Path) -> Device:
    """Lay out four cores with turbo and five interrupts."""
    device = Device(tmp_path)
    for core, value in GOVERNORS.items():
        folder = f"{CPUS}/cpu{core}/cpufreq"
        device.put(f"{folder}/scaling_governor", value)
        device.put(f"{folder}/scaling_available_governors", "performance schedutil powersave")
        device.put(f"{folder}/scaling_min_freq", "102000")
    device.put(f"{CPUS}/online", "0-3")
    device.put(f"{CPUS}/intel_pstate/no_turbo", "0")
    device.put("proc/irq/default_smp_affinity", "f")
    device.put("proc/sys/kernel/random/boot_id", "first")
    for irq, mask in {0: "f", 9: "0000000c", 16: "1"}.items():
        device.put(f"proc/irq/{irq}/smp_affinity", mask)
    return device


@pytest.fixture
def jetson(board: Device, monkeypatch: pytest.MonkeyPatch) -> Device:
    """Add Jetson's programs."""
    board.jetson.write_text(json.dumps({"mode": "1", "locked": False}))
    monkeypatch.setenv("EDGEBENCH_JETSON", str(board.jetson))
    (board.root.parent / "bin").mkdir()
    (board.root.parent / "bin" / "python3").symlink_to(Path(sys.executable).resolve())  # they start by `env python3`
    monkeypatch.setenv("PATH", f"{DOUBLES}:{board.root.parent}/bin:{os.environ['PATH']}")
    return board


def test_show_says_what_would_change_and_changes_nothing(jetson: Device) -> None:
    before = jetson.files()
    rows, last = jetson.do("show", mode=0)
    assert last["event"] == "done"
    assert {name: (row["now"], row["wanted"], row["changed"]) for name, row in rows.items()} == {
        "nvpmodel": ("1 5W", "0", True),
        "governor": ("performance, powersave, schedutil", "performance", True),
        "turbo": ("on", "off", True),
        "irq-affinity": ("1 of 4 on core 0", "1", True),
        "jetson-clocks": ("free", "locked", True),
    }
    assert rows["irq-affinity"]["reason"] == "measure with --affinity 1-3"
    assert (jetson.files(), jetson.mode()) == (before, ("1", False))
    assert not jetson.state.parent.exists()


def test_apply_sets_everything_and_restore_puts_it_back(jetson: Device) -> None:
    before = jetson.files()
    rows, last = jetson.do("apply", mode=0)
    assert last["event"] == "done"
    assert all(row["changed"] and row["error"] is None for row in rows.values())
    after = jetson.files()
    assert {after[f"{CPUS}/cpu{core}/cpufreq/scaling_governor"] for core in GOVERNORS} == {"performance"}
    assert after[f"{CPUS}/intel_pstate/no_turbo"] == "1"
    assert {value for name, value in after.items() if name.endswith("smp_affinity")} == {"1"}
    assert jetson.mode() == ("0", True)
    assert not any(row["changed"] for row in jetson.do("show", mode=0)[0].values())
    assert jetson.do("show", mode=0)[0]["nvpmodel"]["before"] == "1 5W"
    rows, last = jetson.do("restore")
    assert last["event"] == "done"
    assert all(row["changed"] and row["before"] is None for row in rows.values())
    assert (jetson.files(), jetson.mode()) == (before, ("1", False))
    assert list(jetson.state.parent.iterdir()) == []


def test_restoring_twice_or_without_need_changes_nothing(jetson: Device) -> None:
    jetson.do("apply", mode=0)
    jetson.do("restore")
    jetson.put(f"{CPUS}/cpu0/cpufreq/scaling_governor", "ondemand")
    after = jetson.files()
    rows, last = jetson.do("restore")
    assert last["event"] == "done"
    assert not any(row["changed"] for row in rows.values())
    assert jetson.files() == after


def test_a_mode_that_is_not_wanted_is_left_as_it_is(jetson: Device) -> None:
    rows, _ = jetson.do("apply")
    assert (rows["nvpmodel"]["wanted"], rows["nvpmodel"]["changed"]) == (None, False)
    assert jetson.mode() == ("1", True)


def test_applying_again_keeps_the_first_values(jetson: Device) -> None:
    before = jetson.files()
    jetson.do("apply", mode=0)
    jetson.put(f"{CPUS}/cpu1/cpufreq/scaling_governor", "ondemand")
    jetson.do("apply", mode=0)
    assert jetson.files()[f"{CPUS}/cpu1/cpufreq/scaling_governor"] == "performance"
    jetson.do("restore")
    assert (jetson.files(), jetson.mode()) == (before, ("1", False))


def test_a_core_that_comes_later_is_saved_beside_the_first_values(board: Device) -> None:
    board.do("apply")
    board.put(f"{CPUS}/cpu1/cpufreq/scaling_governor", "ondemand")
    board.put(f"{CPUS}/cpu4/cpufreq/scaling_available_governors", "performance ondemand")
    board.put(f"{CPUS}/cpu4/cpufreq/scaling_governor", "ondemand")
    board.do("apply")
    board.do("restore")
    assert board.files()[f"{CPUS}/cpu1/cpufreq/scaling_governor"] == "schedutil"
    assert board.files()[f"{CPUS}/cpu4/cpufreq/scaling_governor"] == "ondemand"


def test_the_mode_comes_before_the_clocks_and_goes_after_them(jetson: Device) -> None:
    for action, order in (("apply", ["nvpmodel", "jetson-clocks"]), ("restore", ["jetson-clocks", "nvpmodel"])):
        knobs, said = knobs_of(jetson, 0), Said()
        before = tuning.Before(str(jetson.state), "first", knobs)
        getattr(tuning, action)(knobs, before, said)
        named = [event["name"] for event in said.events if event["event"] == "tuning"]
        assert [name for name in named[-5:] if name in order] == order


def test_boost_is_switched_off_by_a_zero(board: Device) -> None:
    (board.root / CPUS / "intel_pstate/no_turbo").unlink()
    board.put(f"{CPUS}/cpufreq/boost", "1")
    board.do("apply")
    assert board.files()[f"{CPUS}/cpufreq/boost"] == "0"
    board.do("restore")
    assert board.files()[f"{CPUS}/cpufreq/boost"] == "1"


def test_a_device_without_knobs_says_so_and_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    bare = Device(tmp_path)
    for action in ("show", "apply", "restore"):
        rows, last = bare.do(action)
        assert last["event"] == "done"
        assert not any(row["available"] or row["changed"] for row in rows.values())
        assert all(row["reason"] for row in rows.values())
    assert not bare.state.exists()


def test_two_cores_have_none_to_spare_for_interrupts(board: Device) -> None:
    board.put(f"{CPUS}/online", "0-1")
    rows, _ = board.do("apply")
    assert rows["irq-affinity"]["available"] is False
    assert board.files()["proc/irq/0/smp_affinity"] == "f"


def test_files_that_cannot_be_read_are_passed_over(board: Device) -> None:
    path = board.root / CPUS / "cpu1/cpufreq/scaling_governor"
    path.unlink()
    path.mkdir()
    board.put("proc/irq/9/smp_affinity", "no mask")
    rows, last = board.do("apply")
    assert last["event"] == "done"
    assert rows["governor"]["now"] == "performance"
    assert board.files()["proc/irq/9/smp_affinity"] == "no mask"


def test_a_governor_that_is_not_offered_is_not_set(board: Device) -> None:
    board.put(f"{CPUS}/cpu0/cpufreq/scaling_available_governors", "schedutil powersave")
    board.do("apply")
    assert board.files()[f"{CPUS}/cpu0/cpufreq/scaling_governor"] == "schedutil"


# ---------------------------------------------------------------- refusals


def knobs_of(device: Device, mode: int | None = None) -> list[knobs.Knob]:
    return tuning.known(str(device.root), str(device.state), mode)


def refusing(knob: knobs.Knob, part: str, number: int) -> knobs.Knob:
    """Make a knob whose device refuses to write some keys."""

    def write(key: str, value: str) -> None:
        if part in key:
            raise OSError(number, os.strerror(number), key)
        knob.write(key, value)

    return knob._replace(write=write)


def test_interrupts_that_refuse_are_left_alone_and_named(board: Device) -> None:
    knobs = [refusing(knob, "irq/9/", errno.EIO) for knob in knobs_of(board)]
    before = tuning.Before(str(board.state), "first", knobs)
    rows = {row["name"]: row for row in tuning.apply(knobs, before, Said())}
    assert rows["irq-affinity"]["error"] is None
    assert "1 stay where they are: proc/irq/9/smp_affinity" in rows["irq-affinity"]["reason"]
    assert board.files()["proc/irq/0/smp_affinity"] == "1"
    assert board.do("restore")[1]["event"] == "done"
    assert not board.state.exists()


def test_a_core_that_refuses_is_an_error_and_the_rest_is_done(board: Device) -> None:
    knobs = [refusing(knob, "cpu1/", errno.EBUSY) for knob in knobs_of(board)]
    before = tuning.Before(str(board.state), "first", knobs)
    rows = {row["name"]: row for row in tuning.apply(knobs, before, Said())}
    assert "cpu1" in rows["governor"]["error"]
    assert rows["turbo"]["changed"]
    assert board.files()[f"{CPUS}/cpu0/cpufreq/scaling_governor"] == "performance"


def test_what_cannot_be_restored_stays_written_down(board: Device) -> None:
    original = board.files()
    board.do("apply")
    path = board.root / CPUS / "cpu2/cpufreq/scaling_governor"
    path.unlink()
    path.mkdir()
    rows, last = board.do("restore")
    assert last["event"] == "failed"
    assert "cpu2" in last["reason"]
    assert rows["governor"]["before"] == "powersave"
    assert json.loads(board.state.read_text())["knobs"] == {
        "governor": {f"{CPUS}/cpu2/cpufreq/scaling_governor": "powersave"},
        **{name: {} for name in ("turbo", "irq-affinity")},
    }
    path.rmdir()
    board.put(f"{CPUS}/cpu2/cpufreq/scaling_governor", "performance")
    assert board.do("restore")[1]["event"] == "done"
    assert board.files() == original
    assert not board.state.exists()


def test_an_interrupt_that_is_gone_needs_no_restoring(board: Device) -> None:
    board.do("apply")
    (board.root / "proc/irq/9/smp_affinity").unlink()
    assert board.do("restore")[1]["event"] == "done"
    assert not board.state.exists()


READ_ONLY = Path("/proc/sys/kernel/osrelease")


@pytest.mark.skipif(not READ_ONLY.exists(), reason="no file here that even root may not write")
def test_a_file_that_even_root_may_not_write_is_no_knob(board: Device) -> None:
    path = board.root / CPUS / "cpu0/cpufreq/scaling_governor"
    path.unlink()
    path.symlink_to(READ_ONLY)
    if os.geteuid():
        assert board.do("apply")[1]["privilege"]
        return
    rows, last = board.do("apply")
    assert last["event"] == "done"
    assert (rows["governor"]["available"], rows["governor"]["reason"]) == (False, "read-only here, even for root")
    assert rows["turbo"]["changed"]


# ---------------------------------------------------------------- the file with the values before


@pytest.mark.parametrize(
    "content",
    [
        "",
        '{"boot": "first", "kno',
        "[]",
        '{"boot": "first", "knobs": {"governor": {"etc/passwd": "x"}}}',
        '{"boot": "first", "knobs": {"governor": {"sys/devices/system/cpu/cpu0/../../x/cpufreq/scaling_governor": ""}}}',
    ],
)
@pytest.mark.parametrize("action", ["apply", "restore"])
def test_a_damaged_state_file_is_refused_before_anything_changes(board: Device, action: str, content: str) -> None:
    before = board.files()
    board.state.parent.mkdir()
    board.state.write_text(content)
    rows, last = board.do(action)
    assert (rows, last["event"]) == ({}, "failed")
    assert str(board.state) in last["reason"]
    assert "damaged" in last["reason"]
    assert board.files() == before
    assert board.state.read_text() == content


def test_after_a_reboot_only_the_power_mode_is_restored(jetson: Device) -> None:
    jetson.do("apply", mode=0)
    jetson.put("proc/sys/kernel/random/boot_id", "second")
    jetson.put("proc/irq/9/smp_affinity", "3")
    jetson.jetson.write_text(json.dumps({"mode": "0", "locked": False}))
    rows, last = jetson.do("restore")
    assert last["event"] == "done"
    assert {name for name, row in rows.items() if row["changed"]} == {"nvpmodel"}
    assert rows["irq-affinity"]["reason"] == "a reboot has undone it"
    assert jetson.files()["proc/irq/9/smp_affinity"] == "3"
    assert jetson.mode() == ("1", False)
    assert list(jetson.state.parent.iterdir()) == []


def test_applying_after_a_reboot_saves_anew_but_keeps_the_power_mode(jetson: Device) -> None:
    jetson.do("apply", mode=0)
    jetson.put("proc/sys/kernel/random/boot_id", "second")
    jetson.put(f"{CPUS}/cpu0/cpufreq/scaling_governor", "ondemand")
    jetson.jetson.write_text(json.dumps({"mode": "0", "locked": False}))
    jetson.do("apply", mode=0)
    jetson.do("restore")
    assert jetson.files()[f"{CPUS}/cpu0/cpufreq/scaling_governor"] == "ondemand"
    assert jetson.mode() == ("1", False)


def test_a_state_that_cannot_be_written_stops_before_anything_changes(board: Device) -> None:
    before = board.files()
    board.state.mkdir(parents=True)
    assert board.do("apply")[1]["event"] == "failed"
    board.state.rmdir()
    (board.state.parent / "tune.json.new").mkdir()
    assert board.do("apply")[1]["event"] == "failed"
    assert board.files() == before


# ---------------------------------------------------------------- Jetson's programs


@pytest.mark.parametrize("fan", ["NVPM WARN: fan mode is not set!", "NV Fan Mode:quiet"])
def test_both_forms_of_the_power_mode_are_read(jetson: Device, monkeypatch: pytest.MonkeyPatch, fan: str) -> None:
    jetson.jetson.write_text(json.dumps({"mode": "0", "locked": True, "fan": fan}))
    monkeypatch.setenv("EDGEBENCH_JETSON_FAULT", "denied")
    rows, last = jetson.do("show")
    assert last["event"] == "done"
    assert (rows["nvpmodel"]["now"], rows["jetson-clocks"]["now"]) == ("0 MAXN", "locked")


@pytest.mark.parametrize(("fault", "knob"), [("nvpmodel-garbage", "nvpmodel"), ("clocks-garbage", "jetson-clocks")])
def test_a_program_that_prints_garbage_fails_alone(
    jetson: Device, monkeypatch: pytest.MonkeyPatch, fault: str, knob: str
) -> None:
    monkeypatch.setenv("EDGEBENCH_JETSON_FAULT", fault)
    rows, last = jetson.do("apply", mode=0)
    assert last["event"] == "failed"
    assert {name for name, row in rows.items() if row["error"]} == {knob}
    assert "not understood" in rows[knob]["error"]
    assert rows["governor"]["changed"]
    monkeypatch.delenv("EDGEBENCH_JETSON_FAULT")
    assert jetson.do("restore")[1]["event"] == "done"
    assert jetson.mode() == ("1", False)


def test_a_mode_that_wants_a_reboot_is_a_failure(jetson: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEBENCH_JETSON_FAULT", "reboot")
    rows, _ = jetson.do("apply", mode=0)
    assert "wants a reboot" in rows["nvpmodel"]["error"]
    assert rows["jetson-clocks"]["changed"]
    assert jetson.mode() == ("1", True)


def test_a_mode_that_the_board_does_not_have_is_a_failure(jetson: Device) -> None:
    rows, _ = jetson.do("apply", mode=7)
    assert "exit code 1" in rows["nvpmodel"]["error"]
    assert jetson.mode() == ("1", True)


def test_a_program_that_hangs_is_ended(jetson: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEBENCH_JETSON_FAULT", "lock-hang")
    monkeypatch.setattr(knobs, "PROGRAM_SECONDS", 0.5)
    rows, last = jetson.do("apply")
    assert last["event"] == "failed"
    assert "no end after" in rows["jetson-clocks"]["error"]
    assert jetson.mode() == ("1", False)


def test_clocks_that_do_not_come_back_keep_their_store(jetson: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    jetson.do("apply")
    monkeypatch.setenv("EDGEBENCH_JETSON_FAULT", "restore-fails")
    rows, _ = jetson.do("restore")
    assert "file not found" in rows["jetson-clocks"]["error"]
    assert list(json.loads(jetson.state.read_text())["knobs"]["jetson-clocks"]) == ["clocks"]
    monkeypatch.delenv("EDGEBENCH_JETSON_FAULT")
    assert jetson.do("restore")[1]["event"] == "done"
    assert jetson.mode() == ("1", False)


# ---------------------------------------------------------------- killed


KILLED = """
import os, signal, sys
from edgebench.agent.tune import knobs, tuning
from edgebench.agent.events import Events
root, state, left = sys.argv[1], sys.argv[2], int(sys.argv[3])

def deadly(knob):
    def write(key, value):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        knob.write(key, value)
    return knob._replace(write=write)

class Silent:
    def emit(self, event, **fields): pass

knobs = [deadly(knob) for knob in tuning.known(root, state, 0)]
before = tuning.Before(state, "first", knobs)
getattr(tuning, sys.argv[4])(knobs, before, Silent())
"""
WRITES = 9  # the mode, three governors, turbo, three interrupts, the clocks


@pytest.mark.parametrize("action", ["apply", "restore"])
@pytest.mark.parametrize("after", range(WRITES + 1))
def test_killed_between_any_two_writes_it_is_restored(jetson: Device, action: str, after: int) -> None:
    before = jetson.files()
    if action == "restore":
        jetson.do("apply", mode=0)
    command = [sys.executable, "-c", KILLED, str(jetson.root), str(jetson.state), str(after), action]
    done = subprocess.run(command, timeout=60, check=False)
    assert done.returncode == (0 if after == WRITES else -9)
    if action == "apply":
        assert (jetson.files() == before) == (after <= 1)
        assert set(json.loads(jetson.state.read_text())["knobs"]) == {knob.name for knob in knobs_of(jetson)}
        jetson.do("apply", mode=0)
    assert jetson.do("restore")[1]["event"] == "done"
    assert (jetson.files(), jetson.mode()) == (before, ("1", False))
    assert list(jetson.state.parent.iterdir()) == []


# ---------------------------------------------------------------- from the host


PYTHON = """\
    #!{python}
    import io, json, os, sys
    sys.argv, user = sys.argv[1:], {user}
    sys.path.insert(0, sys.argv[0])
    import edgebench_agent.probe.inventory, edgebench_agent.tune.tuning  # while this user may read them
    from edgebench_agent.commands import main
    sys.stdin = io.StringIO(json.dumps(dict(json.loads(sys.stdin.readline()), root={root!r})))
    if os.geteuid() == 0 and user:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    sys.exit(main())
    """


@pytest.fixture
def laid_out(jetson: Device, tmp_path: Path) -> Callable[..., Path]:
    """Make a target whose Python sees the laid-out device in place of this one, as root or as nobody."""

    def make(user: int = 0, tuning: str = "{mode: 0}") -> Path:
        python = tmp_path / "python"
        python.write_text(textwrap.dedent(PYTHON).format(python=sys.executable, user=user, root=str(jetson.root)))
        python.chmod(0o755)
        target = tmp_path / "laid-out.yaml"
        target.write_text(
            f"name: laid-out\ndescription: d\ntransport: local\npython: {python}\ntuning: {tuning}\n"
            "accepts: [{format: onnx, precisions: [fp32], runtime: sleep}]\n"
        )
        return target

    return make


def test_the_command_shows_applies_and_restores(jetson: Device, laid_out: Callable[..., Path], cli: Cli) -> None:
    before = jetson.files()
    options = ("--target", laid_out(), "--state", jetson.state)
    code, out, err = cli("tune", "show", *options)
    assert code == 0, err
    assert "would change" in out
    assert "0 MAXN" not in out
    code, out, err = cli("tune", "apply", *options, "--json")
    assert code == 0, err
    assert all(row["changed"] for row in json.loads(out))
    assert jetson.mode() == ("0", True)
    code, out, err = cli("tune", "restore", *options)
    assert code == 0, err
    assert "put back" in out
    assert (jetson.files(), jetson.mode()) == (before, ("1", False))


def test_a_knob_that_fails_is_a_row_and_exit_code_1(
    jetson: Device, laid_out: Callable[..., Path], cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEBENCH_JETSON_FAULT", "reboot")
    code, out, _ = cli("tune", "apply", "--target", laid_out(), "--state", jetson.state)
    assert code == 1
    assert "failed: nvpmodel -m 0: wants a reboot" in " ".join(out.split())


def test_without_privilege_nothing_changes_and_the_command_to_run_is_printed(
    jetson: Device, laid_out: Callable[..., Path], cli: Cli, tmp_path: Path
) -> None:
    for path in jetson.root.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o444)
    for path in (tmp_path, *tmp_path.parents[:-2]):  # nobody must find the way to it
        path.chmod(0o755)
    before = jetson.files()
    target = laid_out(user=65534)
    code, out, err = cli("tune", "apply", "--target", target, "--state", jetson.state)
    assert (code, out) == (2, ""), err
    assert len(err.splitlines()) == 1
    for name in ("governor", "turbo", "jetson-clocks"):
        assert name in err
    assert "nothing was changed; run: sudo " in err
    assert f"tune apply --target {target} --state {jetson.state}" in err
    assert (jetson.files(), jetson.mode()) == (before, ("1", False))
    _, out, _ = cli("tune", "show", "--target", target, "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert (rows["jetson-clocks"]["now"], rows["jetson-clocks"]["changed"]) == ("only root may read it", None)
    assert rows["governor"]["changed"]


def test_a_damaged_state_file_is_one_line_and_exit_code_1(jetson: Device, laid_out: Callable[..., Path], cli: Cli) -> None:
    jetson.state.parent.mkdir()
    jetson.state.write_text("{")
    code, _, err = cli("tune", "restore", "--target", laid_out(), "--state", jetson.state)
    assert code == 1
    assert len(err.splitlines()) == 1
    assert "damaged" in err


def test_a_tuning_key_that_is_not_known_is_refused(laid_out: Callable[..., Path], cli: Cli) -> None:
    code, _, err = cli("tune", "apply", "--target", laid_out(tuning="{mode: MAXN}"))
    assert (code, "nvpmodel -q" in err) == (2, True)


def test_an_agent_that_is_killed_is_an_error_and_its_device_is_restored(
    jetson: Device, laid_out: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = jetson.files()
    device = read_target(str(laid_out()))
    transport = deploy.connect(device, Link(tmp_path / "cache"))
    agent = deploy.deploy_agent(device, transport)
    monkeypatch.setenv("EDGEBENCH_JETSON_FAULT", "lock-hang")
    killer = subprocess.Popen([sys.executable, "-c", KILL_WHEN_LOCKING, agent, str(jetson.root)])
    with pytest.raises(MeasureError, match="edgebench tune restore"):
        tune(transport, agent, "apply", str(jetson.state), {"mode": 0}, "")
    assert killer.wait(timeout=30) == 0
    assert jetson.files() != before
    monkeypatch.delenv("EDGEBENCH_JETSON_FAULT")
    assert not any(row["error"] for row in tune(transport, agent, "restore", str(jetson.state), {}, ""))
    assert (jetson.files(), jetson.mode()) == (before, ("1", False))


KILL_WHEN_LOCKING = """
import os, pathlib, signal, sys, time

agent, root = sys.argv[1], pathlib.Path(sys.argv[2])
deadline = time.monotonic() + 30
while time.monotonic() < deadline:
    time.sleep(0.02)
    if (root / "proc/irq/9/smp_affinity").read_text() != "1\\n":
        continue
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\\0")
        except OSError:
            continue
        if agent.encode() in words and b"tune" in words:
            os.kill(int(entry.name), signal.SIGKILL)
            sys.exit(0)
sys.exit(1)
"""


def test_an_unknown_tuning_key_is_bad_input(tmp_path: Path) -> None:
    transport = deploy.connect(read_target("cpu"), Link(tmp_path))
    with pytest.raises(InputError, match="frequency"):
        tune(transport, "agent.pyz", "show", "/nowhere", {"frequency": 1}, "")


THOR = """SOC family:tegra264  Machine:NVIDIA Jetson AGX Thor Developer Kit
Online CPUs: 0-1, Offline CPUs:
cpu0:  Governor=schedutil MinFreq=2601000 MaxFreq=2601000 CurrentFreq=2601000 IdleStates: WFI=0 cc7=0
cpu1:  Governor=schedutil MinFreq=2601000 MaxFreq=2601000 CurrentFreq=2601000 IdleStates: WFI=0 cc7=0
gpu-gpc-0 MinFreq=%d MaxFreq=1575000000 CurrentFreq=%d
gpu-nvd-0 MinFreq=1692000000 MaxFreq=1692000000 CurrentFreq=1692000000
EMC MinFreq=665600000 MaxFreq=4266000000 CurrentFreq=4266000000 FreqOverride=1
PVA0_VPS0: Online=0 MinFreq=0 MaxFreq=1215000000 CurrentFreq=1215000000
NV Power Mode: MAXN
"""


@pytest.mark.parametrize(("hertz", "clocks"), [(1_575_000_000, "locked"), (315_000_000, "free")])
def test_a_thor_s_clocks_are_locked_where_its_gpu_s_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hertz: int, clocks: str
) -> None:
    limit = tmp_path / "sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq"
    limit.parent.mkdir(parents=True)
    limit.write_text("2601000\n")
    (tmp_path / "jetson_clocks").write_text(f"#!/bin/sh\ncat <<'END'\n{THOR % (hertz, hertz)}END\n")
    (tmp_path / "jetson_clocks").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert knobs.jetson_clocks(str(tmp_path), str(tmp_path / "store")).read() == {"clocks": clocks}
