"""Runtimes brought to a device: tiny wheels made here, real pip, real environments; nothing reaches the network."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import signal
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli, Devices
from sshd import Sshd

from edgebench.agent.setup import interpreter, wheels
from edgebench.device import deploy, measure, setup, wheelhouse
from edgebench.device.setup import Outcome, Plan
from edgebench.device.wheelhouse import Interpreter, Wheelhouse
from edgebench.errors import InputError, MeasureError, TransportError
from edgebench.schema import Install, Keep, Link, Stream, Target, Transport

TWIN = Path(__file__).parent.parent / "build" / "twins" / "py36" / "bin" / "python"
WORKS = "import tiny\n__version__ = '{version}'\n"
REFUSES = "raise ImportError('libgomp.so.1: cannot open shared object file')\n"
CRASHES = "import os\nos.kill(os.getpid(), 4)\n"
HANGS = "import time\ntime.sleep(600)\n"
NANO = {"python": "3.6.9", "glibc": "2.27", "machine": "aarch64"}


def make_wheel(
    folder: Path,
    name: str,
    version: str,
    source: str = "",
    requires: Sequence[str] = (),
    tag: str = "py3-none-any",
    files: Mapping[str, str] | None = None,
) -> Path:
    """Write a wheel with one package."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{version}-{tag}.whl"
    info = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {each}\n" for each in requires)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}/__init__.py", source)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n")
        archive.writestr(f"{info}/RECORD", "")
        for place, content in (files or {}).items():
            archive.writestr(place, content)
    return path


def lay_out(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """Make a folder of wheels that is all that pip knows; ONNX Runtime 1.1 is tiny and works."""
    make_wheel(folder, "tiny", "1.0", "answer = 42\n", tag="py2.py3-none-any")
    make_wheel(folder, "onnxruntime", "1.1", WORKS.format(version="1.1"), ["tiny (>=0.5)"])
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        patch.delenv(name)
    patch.setenv("PIP_CONFIG_FILE", os.devnull)
    patch.setenv("PIP_NO_INDEX", "1")
    patch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return lay_out(tmp_path / "index", monkeypatch)


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Let pip fetch once what the requirement `onnxruntime` brings; whoever must see pip at work asks for `onnxruntime>=1`."""
    folder, here = tmp_path_factory.mktemp("fetched"), interpreter.describe()
    python = Interpreter(*(here[name] for name in ("python", "abi", "machine", "glibc", "macos", "markers")))
    with pytest.MonkeyPatch.context() as patch:
        lay_out(folder / "index", patch)
        wheelhouse.resolve(["onnxruntime"], python, folder / "house", lambda *_: None)
    return folder / "house"


def target(*requirements: str, python: str | None = None, **setup: Any) -> Target:
    accepts = [{"format": "onnx", "precisions": ["fp32"], "runtime": "onnxruntime"}]
    content = {"name": "board", "description": "this computer", "transport": "local", "python": python, "accepts": accepts}
    return Target.model_validate({**content, "setup": Install(requirements=requirements, **setup)})


class Device:
    """A folder that plays a device, and what was pushed to it."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "device"
        self.house = folder / "house"
        self.said: list[str] = []

    def open(self, device: Target) -> Transport:
        return deploy.connect(device, Link(self.root))

    def plan(self, device: Target, transport: Transport) -> tuple[str, Plan]:
        agent = deploy.deploy_agent(device, transport)
        return agent, setup.plan(transport, agent, device, (), self.house, self._heard)

    def set_up(self, device: Target, through: Callable[[Transport], Transport] = lambda transport: transport) -> Outcome:
        with closing(through(self.open(device))) as transport:
            agent, plan = self.plan(device, transport)
            return setup.install(transport, agent, plan, self._heard)

    def remove(self, device: Target) -> int:
        with closing(self.open(device)) as transport:
            return setup.remove(transport, deploy.deploy_agent(device, transport), device)

    def runtime(self, device: Target) -> Any:
        """Ask the device, as every command does, which ONNX Runtime it has."""
        with closing(self.open(device)) as transport:
            return measure.probe(transport, deploy.deploy_agent(device, transport))["runtimes"]["onnxruntime"]["version"]

    def environments(self) -> list[str]:
        return sorted(path.name for path in (self.root / "env").iterdir() if path.is_dir() and not path.is_symlink())

    def _heard(self, what: str, done: float, total: float, lane: str = "") -> None:
        self.said.append(what)


@pytest.fixture
def device(tmp_path: Path, index: Path, fetched: Path) -> Device:
    made = Device(tmp_path)
    shutil.copytree(fetched, made.house)
    return made


class Through:
    """A real transport, with something in the way."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner

    def run(self, arguments: Sequence[str], stdin: str, keep: Keep | None = None) -> Stream:
        return self._inner.run(arguments, stdin, keep)

    def push(self, source: Path | bytes, destination: str, sent: Callable[[int, int], None]) -> str:
        return self._inner.push(source, destination, sent)

    def close(self) -> None:
        self._inner.close()


def processes(folder: Path) -> dict[int, str]:
    """Find the running programs that have this folder in their command line."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found[int(path.parent.name)] = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return {pid: line for pid, line in found.items() if str(folder) in line}


def remaining(folder: Path) -> dict[int, str]:
    """Find those that still run once 10 s have passed, or there are none."""
    until = time.monotonic() + 10
    while (left := processes(folder)) and time.monotonic() < until:
        time.sleep(0.02)
    return left


class Watched(Through):
    """Calls `checks` when the device begins to check its new environment."""

    def __init__(self, inner: Transport, checks: Callable[[], None]) -> None:
        super().__init__(inner)
        self._checks = checks

    def run(self, arguments: Sequence[str], stdin: str, keep: Keep | None = None) -> Stream:
        return Watch(super().run(arguments, stdin, keep), self._checks)


class Watch:
    """A stream of `Watched`."""

    def __init__(self, inner: Stream, checks: Callable[[], None]) -> None:
        self._inner, self._checks = inner, checks
        self.stop, self.stderr = inner.stop, inner.stderr

    def lines(self, silence_seconds: float) -> Iterator[str]:
        for line in self._inner.lines(silence_seconds):
            yield line
            if '"checking"' in line:
                self._checks()


def told(python: str = "3.6.9", glibc: str | None = "2.27", machine: str = "aarch64", macos: str | None = None) -> Interpreter:
    """Describe a board's Python without the board."""
    short = ".".join(python.split(".")[:2])
    abi = f"cp{short.replace('.', '')}" + ("m" if short in ("3.6", "3.7") else "")
    markers = {**interpreter.markers(), "python_version": short, "python_full_version": python, "platform_machine": machine}
    return Interpreter(python, abi, machine, glibc, macos, markers)


def resolved(folder: Path, *requirements: str, **facts: str) -> dict[str, str]:
    house = wheelhouse.resolve(requirements, told(**{**NANO, **facts}), folder / "house", lambda *_: None)
    return {wheel.name: wheel.version for wheel in house.wheels}


# ---------------------------------------------------------------- on a device


def test_a_setup_brings_the_runtime_and_every_later_command_runs_in_its_environment(device: Device) -> None:
    board = target("onnxruntime>=1")
    done = device.set_up(board)
    assert done.made
    assert done.runtimes["onnxruntime"] == {"version": "onnxruntime 1.1", "reason": None}
    assert done.pushed_bytes == sum(path.stat().st_size for path in (device.house).rglob("*.whl"))
    assert device.runtime(board) == "onnxruntime 1.1"
    assert not (device.root / "wheels").exists()
    manifest = json.loads((device.root / "env" / "current" / "edgebench.json").read_text())
    assert manifest["requirements"] == ["onnxruntime>=1"]


def test_a_second_setup_pushes_and_fetches_nothing_also_without_a_network(device: Device, index: Path) -> None:
    board = target("onnxruntime>=1")
    first = device.set_up(board)
    for path in index.iterdir():
        path.unlink()
    device.said.clear()
    second = device.set_up(board)
    assert not second.made
    assert (second.pushed_bytes, second.freed_bytes, second.path) == (0, 0, first.path)
    assert not [what for what in device.said if what.startswith(("fetching", "push", "unpacking", "making"))]


def test_another_setup_replaces_the_environment_and_is_made_from_the_systems_python(device: Device, index: Path) -> None:
    device.set_up(target("onnxruntime"))
    [old] = device.environments()
    make_wheel(index, "onnxruntime", "1.2", WORKS.format(version="1.2"), ["tiny"])
    board = target("onnxruntime==1.2")
    assert device.set_up(board).freed_bytes > 0
    [new] = device.environments()
    assert new != old
    assert device.runtime(board) == "onnxruntime 1.2"
    config = (device.root / "env" / new / "pyvenv.cfg").read_text()
    assert str(device.root) not in config.split("home = ")[1].splitlines()[0]


@pytest.mark.parametrize(
    ("source", "reason"), [(REFUSES, "libgomp.so.1: cannot open"), (CRASHES, "killed by SIGILL")], ids=["refuses", "crashes"]
)
def test_a_runtime_that_does_not_start_leaves_the_old_environment_in_force(
    device: Device, index: Path, source: str, reason: str
) -> None:
    device.set_up(target("onnxruntime"))
    before = device.environments()
    make_wheel(index, "onnxruntime", "2.0", source)
    with pytest.raises(MeasureError, match=f"onnxruntime: .*{reason}"):
        device.set_up(target("onnxruntime==2.0"))
    assert device.environments() == before
    assert device.runtime(target()) == "onnxruntime 1.1"


def test_an_environment_that_broke_is_found_out_and_made_anew(device: Device) -> None:
    board = target("onnxruntime")
    done = device.set_up(board)
    [package] = Path(done.path).glob("lib/python*/site-packages/tiny")
    (package / "__init__.py").unlink()
    package.joinpath("__init__.py").write_text("raise ImportError('gone')")
    with pytest.raises(MeasureError, match=r"gone.*; run again to make it anew"):
        device.set_up(board)
    assert device.set_up(board).made
    assert device.runtime(board) == "onnxruntime 1.1"


def test_a_push_that_broke_off_goes_on_with_what_is_missing(device: Device) -> None:
    class Drops(Through):
        def push(self, source: Path | bytes, destination: str, sent: Callable[[int, int], None]) -> str:
            if "tiny" in destination:
                raise TransportError("the connection was lost")
            return super().push(source, destination, sent)

    board = target("onnxruntime")
    with pytest.raises(TransportError):
        device.set_up(board, Drops)
    assert [path.name for path in device.root.rglob("*.whl")] == ["onnxruntime-1.1-py3-none-any.whl"]
    with closing(device.open(board)) as transport:
        _, plan = device.plan(board, transport)
    assert [wheel.name for wheel in plan.missing] == ["tiny"]
    assert device.set_up(board).pushed_bytes == plan.push_bytes


def test_an_interrupted_setup_leaves_no_process_and_the_next_removes_what_is_half_made(device: Device, index: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    device.set_up(target("onnxruntime"))
    make_wheel(index, "onnxruntime", "3.0", HANGS)
    with pytest.raises(KeyboardInterrupt):
        device.set_up(target("onnxruntime==3.0"), lambda transport: Watched(transport, interrupt))
    assert not remaining(device.root)
    assert len(device.environments()) == 2
    assert device.runtime(target()) == "onnxruntime 1.1"
    assert not device.set_up(target("onnxruntime")).made
    assert len(device.environments()) == 1


def test_an_agent_that_is_killed_takes_along_what_it_started(device: Device, index: Path) -> None:
    def kill() -> None:
        until = time.monotonic() + 20
        while not any("--import" in line for line in processes(device.root).values()) and time.monotonic() < until:
            time.sleep(0.01)
        [agent] = [pid for pid, line in processes(device.root).items() if "--import" not in line]
        os.kill(agent, signal.SIGKILL)

    make_wheel(index, "onnxruntime", "3.0", HANGS)
    with pytest.raises(MeasureError, match=r"board: the agent ended before it was done.*; run again"):
        device.set_up(target("onnxruntime==3.0"), lambda transport: Watched(transport, kill))
    assert not remaining(device.root)


def test_a_wheel_that_was_changed_on_the_device_is_removed_and_pushed_anew(device: Device) -> None:
    class Flips(Through):
        def push(self, source: Path | bytes, destination: str, sent: Callable[[int, int], None]) -> str:
            path = super().push(source, destination, sent)
            if "tiny" in destination:
                content = bytearray(Path(path).read_bytes())
                content[50] ^= 1
                Path(path).write_bytes(content)
            return path

    board = target("onnxruntime")
    with pytest.raises(MeasureError, match=r"tiny-1\.0.* was changed on the device"):
        device.set_up(board, Flips)
    assert device.environments() == []
    assert device.set_up(board).made


def test_remove_leaves_nothing_and_may_be_repeated(device: Device) -> None:
    board = target("onnxruntime")
    device.set_up(board)
    taken = sum(path.lstat().st_size for path in (device.root / "env").rglob("*") if path.is_file() and not path.is_symlink())
    assert device.remove(board) >= taken > 0
    assert [path.name for path in device.root.iterdir()] == ["agents"]
    assert device.remove(board) == 0


def test_two_setups_at_once_are_refused(device: Device) -> None:
    board = target("onnxruntime")
    device.set_up(board)
    with (device.root / "env" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(MeasureError, match="another setup is at work"):
            device.set_up(board)


def test_a_full_disk_is_told_before_anything_is_pushed(device: Device) -> None:
    board = target("onnxruntime")
    with closing(device.open(board)) as transport:
        agent, plan = device.plan(board, transport)
        full = dataclasses.replace(plan, device={**plan.device, "free_bytes": 5 << 20})
        with pytest.raises(MeasureError, match=r"board: 5.0 MiB are free at .*, about 1\d\.\d are needed; free some"):
            setup.install(transport, agent, full, lambda *_: None)
    assert not (device.root / "wheels").exists()


@pytest.mark.parametrize("sees", [True, False])
def test_the_environment_sees_the_systems_packages_where_the_target_says_so(device: Device, sees: bool) -> None:
    done = device.set_up(target("onnxruntime", system_site_packages=sees))
    config = (Path(done.path) / "pyvenv.cfg").read_text()
    assert f"include-system-site-packages = {str(sees).lower()}" in config


@pytest.mark.skipif(not TWIN.exists(), reason=f"no {TWIN.name} 3.6: `make twins` makes it")
def test_an_old_python_in_an_environment_of_its_own_is_left_for_the_systems(device: Device) -> None:
    board = target("onnxruntime", python=str(TWIN))
    done = device.set_up(board)
    config = (Path(done.path) / "pyvenv.cfg").read_text()
    assert "version = 3.6" in config
    assert "twins" not in config
    assert device.runtime(board) == "onnxruntime 1.1"
    assert not device.set_up(board).made


def test_a_python_that_the_device_lacks_is_named(device: Device) -> None:
    board = target("onnxruntime")
    device.set_up(board)
    with pytest.raises(MeasureError, match=r"python3\.99: no such Python on the device"):
        device.set_up(board.model_copy(update={"python": "python3.99"}))


def test_a_device_without_glibc_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert interpreter.describe()["refused"] is None

    def unknown(name: str) -> str:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "confstr", unknown)
    assert "musl" in interpreter.describe()["refused"]


@pytest.mark.parametrize("name", ["../../evil.py", "/tmp/evil.py", "tiny/../../evil.py", "..\\evil.py"])
def test_a_wheel_that_leads_out_of_the_environment_is_refused(tmp_path: Path, name: str) -> None:
    wheel = make_wheel(tmp_path / "wheels", "evil", "1.0", files={name: "boo"})
    with pytest.raises(wheels.BadWheel, match="leads out"):
        wheels.unpack(str(wheel), str(tmp_path / "env"), str(tmp_path / "env" / "site"), lambda _: None)
    assert not list(tmp_path.rglob("*evil.py"))


def test_a_wheels_data_goes_where_it_belongs(tmp_path: Path) -> None:
    places = {f"evil-1.0.data/{kind}/x/{kind}.txt": kind for kind in ("purelib", "platlib", "data", "scripts", "headers")}
    wheel = make_wheel(tmp_path / "wheels", "evil", "1.0", files=places)
    wheels.unpack(str(wheel), str(tmp_path / "env"), str(tmp_path / "env" / "site"), lambda _: None)
    found = {path.relative_to(tmp_path / "env").as_posix() for path in (tmp_path / "env").rglob("*.txt")}
    assert found == {"site/x/purelib.txt", "site/x/platlib.txt", "x/data.txt"}


# ---------------------------------------------------------------- over SSH


def remote(server: Sshd) -> Target:
    return target("onnxruntime").model_copy(update={"transport": "ssh", "host": server.host})


@pytest.mark.parametrize("python", [sys.executable, str(TWIN)], ids=["ours", "3.6"])
def test_a_device_over_ssh_is_set_up_once_and_cleaned_up(device: Device, sshd: Devices, python: str) -> None:
    if not Path(python).exists():
        pytest.skip("no Python 3.6: `make twins` makes it")
    server = sshd(python=python)
    board = remote(server)
    done = device.set_up(board)
    assert done.path.startswith(str(server.home))
    assert device.runtime(board) == "onnxruntime 1.1"
    again = device.set_up(board)
    assert (again.made, again.pushed_bytes) == (False, 0)
    assert device.remove(board) > 0
    assert device.runtime(board) != "onnxruntime 1.1"
    assert not server.strays(5)


def test_a_setup_whose_connection_is_killed_leaves_nothing_running(device: Device, index: Path, sshd: Devices) -> None:
    make_wheel(index, "onnxruntime", "3.0", HANGS)
    shutil.rmtree(device.house)
    server = sshd()
    with pytest.raises((MeasureError, TransportError)):
        device.set_up(remote(server), lambda transport: Watched(transport, server.kill_sessions))
    assert not server.strays(10)
    (index / "onnxruntime-3.0-py3-none-any.whl").unlink()
    shutil.rmtree(device.house)
    assert device.set_up(remote(server)).made


@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk is mounted by root alone")
def test_a_device_whose_disk_is_small_is_told_what_it_lacks(device: Device, index: Path, sshd: Devices) -> None:
    server = sshd()
    server.mount_home(24)
    make_wheel(index, "big", "1.0", files={"big/data": "0" * (30 << 20)})
    board = remote(server).model_copy(update={"setup": Install(requirements=("big",))})
    with pytest.raises(MeasureError, match=r"MiB are free at .*, about 5\d\.\d are needed"):
        device.set_up(board)
    assert not list(server.home.rglob("*.whl"))


# ---------------------------------------------------------------- which wheels


def test_markers_are_judged_by_the_device(index: Path, tmp_path: Path) -> None:
    old, new = 'python_version < "3.7"', 'python_version >= "3.7"'
    make_wheel(index, "app", "1.0", requires=[f"dataclasses; {old}", f"modern; {new}", 'arm; platform_machine == "aarch64"'])
    for name in ("dataclasses", "modern", "arm"):
        make_wheel(index, name, "1.0")
    assert set(resolved(tmp_path, "app")) == {"app", "dataclasses", "arm"}
    assert set(resolved(tmp_path, "app", python="3.11.2", machine="armv7l")) == {"app", "modern"}
    assert set(resolved(tmp_path, "app", f"tiny; {new}")) == {"app", "dataclasses", "arm"}


def test_extras_are_followed(index: Path, tmp_path: Path) -> None:
    make_wheel(index, "app", "1.0", requires=['tiny; extra == "fast"', 'missing; extra == "slow"'])
    assert set(resolved(tmp_path, "app")) == {"app"}
    assert set(resolved(tmp_path, "app[fast]")) == {"app", "tiny"}


def test_a_requirement_that_comes_later_narrows_the_choice(index: Path, tmp_path: Path) -> None:
    make_wheel(index, "tiny", "2.0")
    make_wheel(index, "app", "1.0", requires=["tiny", "other"])
    make_wheel(index, "other", "1.0", requires=["tiny<2"])
    assert resolved(tmp_path, "app") == {"app": "1.0", "other": "1.0", "tiny": "1.0"}


def test_requirements_that_contradict_one_another_are_quoted(index: Path, tmp_path: Path) -> None:
    make_wheel(index, "app", "1.0", requires=["tiny<1"])
    with pytest.raises(InputError, match=r"tiny.* has no wheel .*tiny==1\.0 \(the target wants tiny==1.0; app 1.0 wants t"):
        resolved(tmp_path, "app", "tiny==1.0")


def test_what_has_no_wheel_for_the_device_is_named_with_the_nearest_version(index: Path, tmp_path: Path) -> None:
    for version, floor in (("1.0", "2_17"), ("1.2", "2_27"), ("1.3", "2_31")):
        make_wheel(index, "native", version, tag=f"cp36-cp36m-manylinux_{floor}_aarch64")
    assert resolved(tmp_path, "native") == {"native": "1.2"}
    board = r"Python 3\.6\.9 \(cp36m\), aarch64, glibc 2\.27"
    with pytest.raises(InputError, match=f"^native==1.3 has no wheel for {board}: the nearest that has one is native==1.2$"):
        resolved(tmp_path, "native==1.3")
    with pytest.raises(InputError, match=r"absent has no wheel for .* is the name right"):
        resolved(tmp_path, "absent")
    with pytest.raises(InputError, match=r"native has no wheel for Python 3\.7\.3"):
        resolved(tmp_path, "native", python="3.7.3")


def test_a_kept_wheel_that_was_changed_is_fetched_again(index: Path, tmp_path: Path) -> None:
    python = told()

    def again() -> Wheelhouse:
        return wheelhouse.resolve(["tiny"], python, tmp_path / "house", lambda *_: None)

    first = again()
    assert not first.kept
    assert again().kept
    first.wheels[0].path.write_bytes(first.wheels[0].path.read_bytes() + b"x")
    assert not again().kept
    assert again().wheels == first.wheels


def test_a_new_kernel_on_the_device_changes_no_wheel() -> None:
    python = told()
    updated = dataclasses.replace(python, markers={**python.markers, "platform_release": "9.9", "platform_version": "#9"})
    assert updated.key() == python.key()
    assert told(python="3.6.10").key() != python.key()


def test_an_index_that_cannot_be_reached_is_no_missing_wheel(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(TransportError, match="index cannot be reached; connect this computer"):
        resolved(tmp_path, "tiny")


@pytest.mark.parametrize(
    ("facts", "first", "last", "count"),
    [
        ({"glibc": "2.27"}, "manylinux_2_27_aarch64", "linux_aarch64", 13),
        ({"glibc": "2.5", "machine": "x86_64"}, "manylinux_2_5_x86_64", "linux_x86_64", 3),
        ({"glibc": "2.36", "machine": "armv7l"}, "manylinux_2_36_armv7l", "linux_armv7l", 22),
        ({"glibc": None, "macos": "14.5", "machine": "arm64"}, "macosx_14_0_arm64", "macosx_11_0_universal2", 8),
    ],
)
def test_platform_tags_go_from_the_newest_to_the_oldest(facts: dict[str, Any], first: str, last: str, count: int) -> None:
    tags = wheelhouse.platforms(told(**facts))
    assert tags[0] == first
    assert last in tags
    assert "manylinux1_aarch64" not in tags
    assert ("manylinux2014_aarch64" in tags) == (facts["glibc"] == "2.27")
    if facts["glibc"]:
        assert (tags[-1], len(tags)) == (last, count)


@pytest.mark.parametrize(
    ("requirement", "versions", "expected"),
    [
        ("onnxruntime==1.19.2", "1.9.0, 1.10.0", "1.10.0"),
        ("onnxruntime==1.9.5", "1.9.0, 1.10.0, 2.0rc1", "1.9.0"),
        ("onnxruntime==0.1", "1.9.0, 1.10.0", "1.9.0"),
        ("onnxruntime>=2", "1.9.0, 1.10.0, 2.0rc1", "1.10.0"),
        ("onnxruntime", "none", None),
    ],
)
def test_the_nearest_version_is_the_newest_that_is_not_too_new(requirement: str, versions: str, expected: str | None) -> None:
    assert wheelhouse.nearest(requirement, versions) == expected


@pytest.mark.parametrize("text", ["--index-url=x", "a b;rm -rf ~", "$(id)", "", "tiny @ https://example.org/t.whl", "-r x.txt"])
def test_what_is_no_requirement_never_reaches_pip(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match="requirement"):
        wheelhouse.resolve([text], told(), tmp_path, lambda *_: None)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- the command


@pytest.fixture
def board_file(device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    content = target("onnxruntime").model_dump(mode="json", exclude_defaults=True)
    (tmp_path / "board.yaml").write_text(json.dumps(content))
    return "board.yaml"


def test_the_command_says_what_it_will_do_does_it_and_undoes_it(cli: Cli, board_file: str) -> None:
    code, out, _ = cli("targets", "setup", "--target", board_file, "--dry-run")
    assert code == 0
    assert "onnxruntime-1.1-py3-none-any.whl" in out
    assert "to be pushed" in out
    assert ": new" in out
    code, out, err = cli("targets", "setup", "--target", board_file)
    assert code == 0
    assert "board is set up" in out
    assert "push 0.0 MiB to board" in err
    code, out, err = cli("targets", "setup", "--target", board_file)
    assert (code, "push" in err) == (0, False)
    assert "is there already" in out
    assert "0.0 MiB pushed" in out
    code, out, _ = cli("targets", "setup", "--target", board_file, "--remove")
    assert code == 0
    assert "MiB are free again" in out


def test_a_dry_run_changes_nothing(cli: Cli, board_file: str, tmp_path: Path) -> None:
    assert cli("targets", "setup", "--target", board_file, "--dry-run")[0] == 0
    assert not [path for path in tmp_path.rglob("env") if path.is_dir()]
    assert not list((tmp_path / ".edgebench" / "device").rglob("*.whl"))


def test_a_requirement_of_the_command_line_takes_the_place_of_the_targets(cli: Cli, board_file: str, index: Path) -> None:
    make_wheel(index, "onnxruntime", "1.2", WORKS.format(version="1.2"))
    given = ("--requirement", "OnnxRuntime==1.1", "--requirement", "tiny")
    code, out, err = cli("targets", "setup", "--target", board_file, *given, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["requirements"] == ["OnnxRuntime==1.1", "tiny"]
    assert found["outcome"]["made"]
    assert found["python"] == ".".join(str(part) for part in sys.version_info[:3])
    assert found["push_bytes"] == sum(wheel["bytes"] for wheel in found["wheels"]) == found["outcome"]["pushed_bytes"]


def test_a_target_that_names_nothing_says_how_to(cli: Cli) -> None:
    code, _, err = cli("targets", "setup", "--target", "cpu")
    assert code == 2
    assert "--requirement" in err
