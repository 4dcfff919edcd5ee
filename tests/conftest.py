"""What the tests share: a tiny network, bundles made from it, and a target whose runtime sleeps."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import brief
import foreign
import phone
import pytest
import sshd as bed
import verbs

from edgebench import trust
from edgebench.cli import execute

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or each process that a test starts compiles torch again, in seconds
sys.dont_write_bytecode = False

WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
NUMBER = int(WORKER.removeprefix("gw") or 0)
CORES = sorted(os.sched_getaffinity(0)) if WORKER and hasattr(os, "sched_setaffinity") else []
if CORES:  # a core for each worker, or their threads stand in each other's way
    os.sched_setaffinity(0, {CORES[NUMBER % len(CORES)]})

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in a shell's background: what tests start must hear Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)

brief.quick(*brief.BRIEF)
CACHE = tempfile.TemporaryDirectory(prefix="edgebench-cache-")
os.environ["XDG_CACHE_HOME"] = CACHE.name  # indexes of the tests' folders
os.environ["XDG_STATE_HOME"] = CACHE.name  # which exported programs the tests wrote
os.environ["XDG_CONFIG_HOME"] = CACHE.name  # which files the tests trust
DOUBLES = Path(__file__).parent / "doubles"
ARM64 = Path(__file__).parent.parent / "build" / "arm64" / "root"
TINY = """
import torch

def net(classes, channels, size):
    return torch.nn.Sequential(
        torch.nn.Conv2d(channels, 8, 3, stride=2, padding=1, bias=False), torch.nn.BatchNorm2d(8), torch.nn.ReLU(),
        torch.nn.Conv2d(8, 16, 3, stride=2, padding=1), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(), torch.nn.Linear(16, classes))
"""
MOBILE = """
from torchvision.models.mobilenetv3 import InvertedResidualConfig, MobileNetV3

def net(classes, channels, size):
    first = InvertedResidualConfig(16, 3, 16, 16, True, "RE", 2, 1, 1)
    second = InvertedResidualConfig(16, 5, 96, 24, True, "HS", 1, 1, 1)
    third = InvertedResidualConfig(24, 5, 96, 24, True, "HS", 1, 1, 1)
    return MobileNetV3([first, second, third], 1024, num_classes=classes)
"""
SLEEPER = """
name: sleeper
description: a target whose runtime sleeps
transport: local
agent_plugins: [rt_sleep.py]
accepts:
  - {format: onnx, precisions: [fp32, int8], runtime: sleep}
  - {format: torch, precisions: [fp32], runtime: sleep}
"""

_skipped: list[str] = []


def pytest_configure(config: pytest.Config) -> None:
    """Import what must be there before the tests are, where tests run: not where they are only dealt out to workers."""
    if not WORKER and config.getoption("numprocesses", None):
        return
    with contextlib.suppress(ImportError):
        import onnxruntime.transformers  # noqa: F401  it extends sys.path, which monkeypatch would undo

        from edgebench.data._torchvision import load_torchvision

        load_torchvision()
    gc.set_threshold(10_000, 20, 50)  # torch and converters are millions of objects, and to look through all takes half a second


_idle: dict[int, int] = {}
_looked = [0.0]


def pytest_runtest_logstart() -> None:
    """Let a worker that shares a core begin a test on the one that was idle longest: others may wait there, or be done."""
    if not CORES or len(CORES) > NUMBER or time.monotonic() < _looked[0] + 1:
        return
    _looked[0] = time.monotonic()
    lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
    now = {int(words[0][3:]): int(words[4]) + int(words[5]) for words in lines if words[0][:3] == "cpu" != words[0]}
    since = {core: now[core] - _idle.get(core, now[core]) for core in CORES}
    _idle.update(now)
    if max(since.values()) > 0:
        os.sched_setaffinity(0, {max(CORES, key=lambda core: since[core])})


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember what was skipped, and why."""
    if report.skipped and not hasattr(report, "wasxfail"):
        _skipped.append(f"{report.nodeid}: {report.longrepr[2] if isinstance(report.longrepr, tuple) else ''}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail where every test must run (`EDGEBENCH_NO_SKIPS`) and one was skipped."""
    if os.environ.get("EDGEBENCH_NO_SKIPS") and _skipped and not hasattr(session.config, "workerinput"):
        print("\nskipped, but must run here:\n" + "\n".join(sorted(_skipped)))
        session.exitstatus = 1


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder that holds the tiny network and the sleeping target."""
    (tmp_path / "tinynet.py").write_text(TINY)
    (tmp_path / "sleeper.yaml").write_text(SLEEPER)
    (tmp_path / "rt_sleep.py").write_bytes((DOUBLES / "rt_sleep.py").read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


REFUSE = trust.refuse_foreign
vars(trust)["refuse_foreign"] = trust.accept  # the files that tests write may run the code that they name


@pytest.fixture(autouse=True)
def distrust(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let them run nothing where a test is about that."""
    if request.node.get_closest_marker("distrustful"):
        monkeypatch.setattr(trust, "refuse_foreign", REFUSE)


@pytest.fixture
def whole_quick() -> Iterator[None]:
    """Let the mode quick take as long as it does for users, where a test needs time for something to happen within it."""
    brief.quick(*brief.WHOLE)
    yield
    brief.quick(*brief.BRIEF)


@pytest.fixture(scope="session")
def tiny_bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """Export the tiny network once, for all workers: untrained, on digits, in torch and ONNX."""

    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if WORKER else own) / "tiny"
    folder.mkdir(exist_ok=True)
    wanted = [("torch", "fp32"), ("onnx", "fp32"), ("onnx", "int8")]
    given: dict[str, Any] = {"dataset": "digits", "size": 16, "channels": 1, "name": "tiny", "out": folder / "bundles"}
    with pytest.MonkeyPatch.context() as patch, (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # what another worker has exported is found there
        (folder / "tinynet.py").write_text(TINY)
        patch.syspath_prepend(str(folder))
        return {
            (format, precision): verbs.export("tinynet:net", format=format, precision=precision, **given).folder
            for format, precision in wanted
        }


@pytest.fixture(scope="session")
def tiny_tflite(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Export the tiny network once, for all workers: untrained, on digits, in TFLite; a folder for fp32 and for int8."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if WORKER else own) / "tflite"
    folder.mkdir(exist_ok=True)
    given: dict[str, Any] = {"dataset": "digits", "size": 16, "channels": 1, "name": "tiny", "out": folder / "bundles"}
    with pytest.MonkeyPatch.context() as patch, (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (folder / "tinynet.py").write_text(TINY)
        patch.syspath_prepend(str(folder))
        patch.chdir(folder)
        return {
            precision: verbs.export("tinynet:net", format="tflite", precision=precision, **given).folder
            for precision in ("fp32", "int8")
        }


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train the plain network on digits once, for all workers; returns its model folder."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if WORKER else own) / "trained"
    folder.mkdir(exist_ok=True)
    options = {"epochs": 3, "learning_rate": 0.005, "augment": "none", "threads": 1}
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return verbs.train("cnn", name="base", size=16, channels=1, options=options, work=folder)


@pytest.fixture(scope="session")
def half(trained: Path) -> Path:
    """Prune half of its channels, once for all workers."""
    folder = trained.parents[1]
    options = {"epochs": 2, "control_epochs": 1, "learning_rate": 0.002, "augment": "none", "threads": 1}
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return verbs.train("cnn", recipe="prune", parent=trained, name="half", options=options, work=folder)


@pytest.fixture(scope="session")
def rounded(half: Path) -> Path:
    """Train that for INT8, once for all workers."""
    folder = half.parents[1]
    options = {"epochs": 2, "learning_rate": 0.002, "augment": "none", "threads": 1}
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return verbs.train("cnn", recipe="qat", parent=half, name="rounded", options=options, work=folder)


SmallDisk = Callable[[str], Path]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """Mount a real disk of a size like 64k (root alone can), and take it away at the end."""
    disk = tmp_path / "disk"

    def mount(size: str) -> Path:
        disk.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], capture_output=True, check=False)
        if mounted.returncode:
            pytest.skip(f"no mount here: {mounted.stderr.decode().strip()}")
        return disk

    yield mount
    if disk.is_mount():
        subprocess.run(["umount", disk], check=True)


Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Iterator[Cli]:
    """Run a command in this process; returns exit code, output, and errors."""

    def call(*arguments: Any) -> tuple[int, str, str]:
        code = execute([str(argument) for argument in arguments], debug=False)
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    yield call


Devices = Callable[..., bed.Sshd]


@pytest.fixture
def sshd(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Devices]:
    """Make devices on loopback, each a real OpenSSH server; nothing may be left running on them at the end."""
    if reason := bed.missing():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("devices")
    monkeypatch.setenv("EDGEBENCH_SSH", f"ssh -F {bed.combined(folder)}")
    devices: list[bed.Sshd] = []

    def make(name: str = "board", **options: Any) -> bed.Sshd:
        devices.append(bed.serve(folder / name, name, **options))
        return devices[-1]

    yield make
    strays = {device.name: left for device in devices if (left := device.close())}
    assert not strays, f"left running on the devices: {strays}"


@pytest.fixture
def arm64(sshd: Devices) -> bed.Sshd:
    """Start an arm64 Debian as a device: its own programs under QEMU, in a network of its own (`make arm64` makes it)."""
    if reason := foreign.unusable(ARM64):
        pytest.skip(reason)
    return sshd("arm64", root=ARM64)


@pytest.fixture
def fuzzed(request: pytest.FixtureRequest) -> Callable[[Callable[[], None]], None]:
    """Run a hypothesis test once, or again and again for its share of EDGEBENCH_FUZZ_SECONDS; goes with the marker fuzz."""

    def call(test: Callable[[], None]) -> None:
        share = float(os.environ.get("EDGEBENCH_FUZZ_SECONDS", "0")) / max(1, request.session.testscollected)
        ends = time.monotonic() + share
        test()
        while time.monotonic() < ends:
            test()

    return call


Phones = Callable[..., phone.Phone]


@pytest.fixture
def phones(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Phones]:
    """Make phones, each with a real adbd and no C library; nothing may be left running on them at the end."""
    if reason := phone.missing():
        pytest.skip(reason)
    if reason := phone.userland(Path(CACHE.name)):
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("phones")
    network = phone.Network(folder)
    network.open()
    monkeypatch.setenv("EDGEBENCH_ADB", phone.words_of(network.client))
    made: list[phone.Phone] = []

    def make(**options: Any) -> phone.Phone:
        made.append(phone.switched_on(folder / str(len(made)), network, len(made), **options))
        return made[-1]

    yield make
    strays = [left for each in made if (left := each.close())]
    network.close()
    assert not strays, f"left running on the phones: {strays}"
