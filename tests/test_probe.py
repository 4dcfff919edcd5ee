"""What a device is and has: read from laid-out folders, compared with the catalogue, and asked of real agents."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli, Devices

from edgebench import plugins
from edgebench.agent import cores
from edgebench.agent.probe import inventory
from edgebench.cli.targets import probe
from edgebench.config import read_target
from edgebench.device import deploy, inspect, measure
from edgebench.errors import MeasureError, TransportError
from edgebench.schema import Keep, Link, Target

ROOT = Path(__file__).parent.parent
NANO = "# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t210ref, EABI: aarch64, DATE: Sat Feb 19 17:05:08 UTC 2022\n"
BOARDS = {
    "jetson-nano": ("NVIDIA Jetson Nano Developer Kit", "Ubuntu 18.04.6 LTS", "3.6.9"),
    "jetson-xavier-nx": ("NVIDIA Jetson Xavier NX Developer Kit", "Ubuntu 20.04.6 LTS", "3.8.10"),
    "jetson-orin-nano": ("NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super", "Ubuntu 22.04.5 LTS", "3.10.12"),
    "jetson-agx-orin": ("Jetson AGX Orin Developer Kit", "Ubuntu 22.04.5 LTS", "3.10.12"),
    "raspberry-pi-4": ("Raspberry Pi 4 Model B Rev 1.4", "Debian GNU/Linux 12 (bookworm)", "3.11.2"),
    "raspberry-pi-5": ("Raspberry Pi 5 Model B Rev 1.0", "Debian GNU/Linux 13 (trixie)", "3.13.5"),
    "coral-dev-board": ("Freescale i.MX8MQ Phanbell", "Mendel GNU/Linux 5 (Eagle)", "3.7.3"),
}
EVERY = {name: {"version": f"{name} 1", "reason": None} for name in plugins.on_device("runtimes")}


def laid_out(root: Path, files: dict[str, str]) -> str:
    """Write files as a device has them."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


def hello(**identity: Any) -> dict[str, Any]:
    """Say what a device says: a 64-bit Arm Linux with every runtime, unless told otherwise."""
    usual = {"machine": "aarch64", "bits": 64, "board": None, "system": "Linux", "os": "Testix 1", "python": "3.11.2"}
    return {"identity": {**usual, "usb": [], "gpus": [], **identity}, "runtimes": EVERY}


def board(name: str, **more: Any) -> dict[str, Any]:
    model, system, python = BOARDS[name]
    return hello(board=model, os=system, python=python, **more)


# ---------------------------------------------------------------- on the device


def test_a_jetson_is_known_by_its_files(tmp_path: Path) -> None:
    files = {
        "proc/device-tree/model": "NVIDIA Jetson Nano Developer Kit\0",
        "etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 18.04.6 LTS"\n',
        "etc/nv_tegra_release": NANO,
    }
    root = laid_out(tmp_path, files)
    found = inventory.identity(root)
    assert (found["board"], found["os"]) == ("NVIDIA Jetson Nano Developer Kit", "Ubuntu 18.04.6 LTS")
    assert (found["usb"], found["gpus"]) == ([], [])
    assert found["machine"] == os.uname().machine
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert inventory.tegra(root) == {"l4t": "32.7.1", "jetpack": "4.6.1"}


@pytest.mark.parametrize(
    ("line", "l4t", "jetpack"),
    [
        ("# R32 (release), REVISION: 1.0, GCID: 14531094, BOARD: t210ref, EABI: aarch64", "32.1.0", "4.2"),
        ("# R32 (release), REVISION: 4.3, GCID: 21589087, BOARD: t210ref, EABI: aarch64", "32.4.3", "4.4"),
        ("# R32 (release), REVISION: 5.1, GCID: 26202423, BOARD: t186ref, EABI: aarch64", "32.5.1", "4.5.1"),
        ("# R32 (release), REVISION: 6.1, GCID: 1", "32.6.1", "4.6"),
        ("# R32 (release), REVISION: 7.6, GCID: 1", "32.7.6", "4.6.6"),
        ("# R35 (release), REVISION: 1.0, GCID: 1", "35.1.0", "5.0.2"),
        ("# R35 (release), REVISION: 2.1, GCID: 1", "35.2.1", "5.1"),
        ("# R35 (release), REVISION: 4.1, GCID: 1", "35.4.1", "5.1.2"),
        ("# R35 (release), REVISION: 5.0, GCID: 1", "35.5.0", "5.1.3"),
        ("# R35 (release), REVISION: 6.0, GCID: 1", "35.6.0", "5.1.4"),
        ("# R35 (release), REVISION: 6.4, GCID: 1", "35.6.4", "5.1.6"),
        ("# R36 (release), REVISION: 3.0, GCID: 1", "36.3.0", "6.0"),
        ("# R36 (release), REVISION: 4.0, GCID: 1", "36.4.0", "6.1"),
        ("# R36 (release), REVISION: 4.3, GCID: 1", "36.4.3", "6.2"),
        ("# R36 (release), REVISION: 4.7, GCID: 1", "36.4.7", "6.2.1"),
        ("# R36 (release), REVISION: 5.0, GCID: 1", "36.5.0", "6.2.2"),
        ("# R38 (release), REVISION: 2.0, GCID: 41844464, BOARD: generic, EABI: aarch64", "38.2.0", "7.0"),
        ("# R38 (release), REVISION: 4.0, GCID: 1", "38.4.0", "7.1"),
        ("# R39 (release), REVISION: 2.0, GCID: 1", "39.2.0", "7.2"),
        ("# R39 (release), REVISION: 2.1, GCID: 1", "39.2.1", "7.2.1"),
        ("# R36 (release), REVISION: 4.9, GCID: 1", "36.4.9", None),  # not known: 36.4's would be a guess
        ("# R99 (release), REVISION: 1.0, GCID: 1", "99.1.0", None),
        ("something else", None, None),
    ],
)
def test_a_release_of_linux_for_tegra_is_a_jetpack(tmp_path: Path, line: str, l4t: str | None, jetpack: str | None) -> None:
    root = laid_out(tmp_path, {"etc/nv_tegra_release": line + "\n"})
    assert inventory.tegra(root) == {"l4t": l4t, "jetpack": jetpack}


def test_usb_sticks_and_gpus_are_found(tmp_path: Path) -> None:
    gpu = "Model: \t\t NVIDIA GeForce RTX 3080\nIRQ:   \t\t 145\nGPU UUID: \t GPU-1\n"
    files = {
        "sys/bus/usb/devices/1-1/idVendor": "1a6e\n",
        "sys/bus/usb/devices/1-1/idProduct": "089a\n",
        "sys/bus/usb/devices/usb1/idVendor": "1d6b\n",
        "sys/bus/usb/devices/usb1/idProduct": "0002\n",
        "sys/bus/usb/devices/1-2/idVendor": "dead\n",
        "proc/driver/nvidia/gpus/0000:01:00.0/information": gpu,
    }
    found = inventory.identity(laid_out(tmp_path, files))
    assert found["usb"] == ["1a6e:089a", "1d6b:0002"]
    assert found["gpus"] == ["NVIDIA GeForce RTX 3080"]
    assert (found["board"], found["os"]) == (None, None)


def test_the_identity_takes_less_than_20_ms() -> None:
    def seconds() -> float:
        begin = time.perf_counter()
        inventory.identity()
        return time.perf_counter() - begin

    assert min(seconds() for _ in range(5)) < 0.02


def test_an_inspection_reads_clocks_storage_and_every_meter(tmp_path: Path) -> None:
    files = {
        "etc/mendel_version": "5.3\n",
        "etc/nv_tegra_release": NANO,
        "proc/meminfo": "MemTotal: 4000000 kB\nMemAvailable: 1000000 kB\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1479000\n",
        "sys/class/thermal/thermal_zone0/type": "CPU-therm\n",
        "sys/class/thermal/thermal_zone0/temp": "41500\n",
        "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/rail_name_0": "POM_5V_IN\n",
        "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_power0_input": "2500\n",
    }
    job = {"meters": [{"name": "ina3221", "options": {}}, {"name": "csv", "options": {}}], "cache": str(tmp_path / "no" / "such")}
    found = inventory.inspect(job, laid_out(tmp_path, files))
    assert (found["jetpack"], found["mendel"]) == ("4.6.1", "5.3")
    assert (found["governor"], found["khz"], found["celsius"]) == ("schedutil", 1479000, 41.5)
    assert found["available_bytes"] == 1000000 * 1024
    assert 0 < found["disk"]["free_bytes"] <= found["disk"]["total_bytes"]
    ina, csv, *others = found["meters"]
    assert ina == {"name": "ina3221", "wanted": True, "rails": [{"rail": "POM_5V_IN", "provenance": "module"}], "reason": None}
    assert (csv["wanted"], csv["rails"]) == (True, [])
    assert csv["reason"]
    assert {meter["name"] for meter in others} == set(plugins.on_device("meters")) - {"ina3221", "csv", "command"}
    assert all(bool(meter["rails"]) != bool(meter["reason"]) and not meter["wanted"] for meter in others)


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    found = inventory.inspect({"meters": [], "cache": "/proc/edgebench"}, str(tmp_path))
    if os.geteuid() != 0:
        assert "cannot be written" in found["disk"]["reason"]
    assert found["disk"]["free_bytes"] is not None


def program(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_nvidia_s_programs_are_asked_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    job: dict[str, Any] = {"meters": [], "cache": "/"}
    program(tmp_path, "nvidia-smi", "echo 'NVIDIA GeForce RTX 3080, 550.54.15'")
    program(tmp_path, "nvpmodel", "echo 'NV Power Mode: MAXN'; echo 0")
    found = inventory.inspect(job)
    assert found["gpu_driver"] == ["NVIDIA GeForce RTX 3080, 550.54.15"]
    assert found["power_mode"] == "0 MAXN"
    program(tmp_path, "nvidia-smi", "echo 'NVIDIA-SMI has failed'; exit 9")
    program(tmp_path, "nvpmodel", "echo gibberish")
    found = inventory.inspect(job)
    assert (found["gpu_driver"], found["power_mode"]) == ([], None)


def test_a_raspberry_pi_says_why_its_flags_cannot_be_read(tmp_path: Path) -> None:
    job: dict[str, Any] = {"meters": [], "cache": "/"}
    root = laid_out(tmp_path, {"proc/device-tree/model": BOARDS["raspberry-pi-5"][0] + "\0"})
    found = inventory.inspect(job, root)
    assert (found["throttled"], found["throttled_reason"]) == (None, "it has no file here")
    shown = probe._clock({**found, "khz": None, "power_mode": None})
    assert shown == "no governor, whether it is throttled cannot be read: it has no file here"
    laid_out(tmp_path, {"sys/devices/platform/soc/soc:firmware/get_throttled": "0\n"})
    assert (inventory.inspect(job, root)["throttled"], inventory.inspect(job, root)["throttled_reason"]) == (0, None)
    laid_out(tmp_path, {"proc/device-tree/model": BOARDS["jetson-nano"][0] + "\0"})
    (tmp_path / "sys/devices/platform/soc/soc:firmware/get_throttled").unlink()
    assert inventory.inspect(job, root)["throttled_reason"] is None


# ---------------------------------------------------------------- what differs


@pytest.mark.parametrize("name", BOARDS)
def test_a_board_is_accepted_as_what_it_is_and_as_any_linux_and_refused_as_all_else(name: str) -> None:
    found = board(name)
    assert inspect.differences(read_target(name), found) == []
    assert inspect.fitting(found, "ssh") == [name, "linux-ssh"]
    for other in BOARDS.keys() - {name}:
        with pytest.raises(MeasureError, match="board: wanted ") as caught:
            inspect.refuse(read_target(other), found)
        assert BOARDS[name][0] in str(caught.value)
        assert f"--target {name} or linux-ssh" in str(caught.value)


def test_a_device_that_names_no_board_is_refused_where_one_is_wanted() -> None:
    with pytest.raises(MeasureError, match=r"is not a raspberry-pi-5: board: wanted .*, found no name of a board"):
        inspect.refuse(read_target("raspberry-pi-5"), hello())
    inspect.refuse(read_target("linux-ssh"), hello())


def test_another_processor_and_a_32_bit_system_are_refused() -> None:
    with pytest.raises(MeasureError, match="machine: wanted aarch64, found x86_64"):
        inspect.refuse(read_target("jetson-nano"), board("jetson-nano", machine="x86_64"))
    with pytest.raises(MeasureError, match="system: wanted 64 bit, found 32 bit; install the 64-bit system"):
        inspect.refuse(read_target("raspberry-pi-4"), board("raspberry-pi-4", bits=32))
    assert inspect.fitting(hello(machine="armv7l", bits=32), "ssh") == []


@pytest.mark.parametrize("stick", ["1a6e:089a", "18d1:9302"])
def test_the_coral_stick_is_known_before_and_after_its_first_use(stick: str) -> None:
    inspect.refuse(read_target("coral-usb"), hello(usb=["1d6b:0002", stick]))
    with pytest.raises(MeasureError, match="usb: wanted 1a6e:089a or 18d1:9302, found 1d6b:0002; plug it in"):
        inspect.refuse(read_target("coral-usb"), hello(usb=["1d6b:0002"]))


def test_a_pc_without_a_gpu_is_no_nvidia_gpu() -> None:
    inspect.refuse(read_target("nvidia-gpu"), hello(machine="x86_64", gpus=["NVIDIA H200"]))
    with pytest.raises(MeasureError, match=r"gpu: wanted an NVIDIA GPU, found none; install NVIDIA's driver.*linux-ssh"):
        inspect.refuse(read_target("nvidia-gpu"), hello(machine="x86_64"))


def test_another_system_or_python_is_told_and_not_refused() -> None:
    found = hello(board=BOARDS["jetson-nano"][0], os="Ubuntu 20.04.6 LTS", python="3.60.1")
    inspect.refuse(read_target("jetson-nano"), found)
    told = inspect.differences(read_target("jetson-nano"), found)
    assert [(item.what, item.wanted, item.found, item.refuse) for item in told] == [
        ("os", "Ubuntu 18.04", "Ubuntu 20.04.6 LTS", False),
        ("python", "3.6", "3.60.1", False),
    ]


def test_a_missing_runtime_comes_with_the_command_that_brings_it() -> None:
    gone = {name: {"version": None, "reason": f"no module named {name!r}"} for name in EVERY}
    found = {**board("raspberry-pi-5"), "runtimes": gone}
    inspect.refuse(read_target("raspberry-pi-5"), found)
    remedies = {item.wanted: item.remedy for item in inspect.differences(read_target("raspberry-pi-5"), found)}
    assert set(remedies) == {"torch (for torch)", "onnxruntime (for onnx)", "tflite (for tflite)"}
    assert "targets setup, with" in remedies["onnxruntime (for onnx)"]
    assert "targets setup, with" in remedies["tflite (for tflite)"]
    assert "--requirement torch" in remedies["torch (for torch)"]
    [local, *_] = inspect.differences(read_target("cpu"), found)
    assert "pip install" in local.remedy
    [unknown, *_] = inspect.differences(read_target("cpu"), {**found, "runtimes": {}})
    assert "agent_plugins" in unknown.remedy


def test_what_is_refused_comes_first() -> None:
    found = {**hello(os="Other", python="3.9.1"), "runtimes": {}}
    order = [item.refuse for item in inspect.differences(read_target("jetson-nano"), found)]
    assert order == [True, *[False] * 4]  # a wrong processor; then Python, system, and two runtimes


# ---------------------------------------------------------------- asking


class Said:
    """A stream of given lines."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = lines
        self.stopped = False

    def lines(self, silence_seconds: float) -> Iterator[str]:
        yield from self._lines

    def stop(self) -> None:
        self.stopped = True

    def stderr(self) -> str:
        return "its last words"


class Saying:
    """A transport to a device that says given lines, whatever it is asked."""

    def __init__(self, *lines: str) -> None:
        self.stream = Said(lines)
        self.asked: list[tuple[list[str], str]] = []

    def run(self, arguments: Sequence[str], stdin: str, keep: Keep | None = None) -> Said:
        self.asked.append((list(arguments), stdin))
        return self.stream

    def push(self, source: Path | bytes, destination: str, sent: Callable[[int, int], None]) -> str:
        raise TransportError("nothing is pushed here")

    def close(self) -> None:
        """Nothing is held open."""


def test_a_clock_that_is_a_year_off_is_reported_and_nothing_more() -> None:
    year = 365 * 86400.0
    environment = {"cpu": None, "machine": "aarch64", "cores": 4, "system": "Linux"}
    disk = {"free_bytes": 1, "total_bytes": 2, "reason": None}
    unknown = ("l4t", "jetpack", "mendel", "governor", "power_mode", "khz", "celsius", "throttled", "available_bytes")
    device: dict[str, Any] = {**dict.fromkeys(unknown), "gpu_driver": [], "disk": disk, "meters": []}
    said = {"protocol": 2, "environment": environment, "clock": {}, "device": device, "wall_s": time.time() - year}
    transport = Saying(json.dumps({"event": "hello", **hello(), **said}) + "\n")
    target = read_target("linux-ssh", "there")
    found = inspect.inspect(transport, "/home/me/.edgebench/agents/1.pyz", target)
    assert found["skew_seconds"] == pytest.approx(-year, abs=60)
    assert inspect.differences(target, found) == []
    [(arguments, job)] = transport.asked
    assert arguments == ["/home/me/.edgebench/agents/1.pyz", "inspect"]
    assert json.loads(job)["cache"] == "/home/me/.edgebench"
    assert [spec["name"] for spec in json.loads(job)["meters"]] == ["rapl", "battery"]
    assert transport.stream.stopped


def test_an_agent_that_says_nothing_is_a_failure_with_its_last_words() -> None:
    transport = Saying("garbage")
    with pytest.raises(MeasureError, match=r"probe: the agent ended without a word \(its last words\)"):
        inspect.inspect(transport, "/a/b/c.pyz", read_target("linux-ssh", "there"))
    assert transport.stream.stopped


def asked(target: Target, root: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Probe and inspect a device here."""
    with closing(deploy.connect(target, Link(root))) as transport:
        agent = deploy.deploy_agent(target, transport)
        return measure.probe(transport, agent), inspect.inspect(transport, agent, target)


def test_a_real_agent_says_both_in_the_same_words(tmp_path: Path) -> None:
    quick, full = asked(read_target("cpu"), tmp_path)
    assert quick["identity"] == full["identity"]
    assert "device" not in quick
    assert abs(full["skew_seconds"]) < 5
    assert full["device"]["disk"]["free_bytes"]
    assert full["runtimes"]["onnxruntime"]["version"]
    assert inspect.differences(read_target("cpu"), full) == []


@pytest.mark.parametrize(("twin", "version"), [("py36", "3.6"), ("py37", "3.7")])
def test_an_old_python_says_it_as_well(tmp_path: Path, twin: str, version: str) -> None:
    python = ROOT / "build" / "twins" / twin / "bin" / "python"
    if not python.exists():
        pytest.skip(f"no {python.relative_to(ROOT)}: `make twins` makes it")
    target = read_target("cpu").model_copy(update={"python": str(python)})
    _, full = asked(target, tmp_path)
    assert full["identity"]["python"].startswith(version)
    assert {meter["name"] for meter in full["device"]["meters"]} == set(plugins.on_device("meters")) - {"command", "csv"}
    assert {item.what for item in inspect.differences(target, full)} == {"runtime"}


# ---------------------------------------------------------------- the command


def test_the_command_prints_what_it_is_and_what_differs(cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli("targets", "probe", "--target", "cpu", "--work", tmp_path)
    assert (code, err) == (0, "")
    assert "processor" in out
    assert "onnxruntime" in out
    assert "GiB free" in out
    assert "What differs from cpu: none" in out


def test_the_command_refuses_another_device(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: cpu\nname: mine\nexpects: {board: No Such Board, os: Other}\n")
    code, out, err = cli("targets", "probe", "--target", path, "--work", tmp_path)
    assert code == 1
    assert "No Such Board" in out
    assert "measured all the same" in out
    assert "nothing will be measured on it as mine: --target cpu describes it" in err
    code, out, err = cli("targets", "probe", "--target", path, "--work", tmp_path, "--json")
    said = json.loads(out)
    assert (code, err, said["refused"], said["fits"]) == (1, "", True, ["cpu"])
    assert [item["what"] for item in said["differences"]] == ["board", "os"]


def test_the_command_looks_at_a_device_over_ssh(cli: Cli, sshd: Devices, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    assert cli("targets", "add", path, "--target", "linux-ssh", "--host", sshd("desk").host, "--python", sys.executable)[0] == 0
    code, out, _ = cli("targets", "probe", "--target", path, "--work", tmp_path, "--json")
    said = json.loads(out)
    assert (code, said["refused"], said["target"]) == (0, False, "linux-ssh")
    assert said["found"]["identity"]["machine"] == os.uname().machine
    assert said["found"]["device"]["disk"]["free_bytes"]
    code, out, err = cli("targets", "probe", "--target", "jetson-nano", "--host", sshd("nano").host, "--work", tmp_path)
    assert code == 1
    assert "What differs from jetson-nano" in out
    assert "--target linux-ssh describes it" in err


def test_the_command_names_bad_addresses_before_it_connects(cli: Cli, tmp_path: Path) -> None:
    code, _, err = cli("targets", "probe", "--target", "jetson-nano", "--host", "-oProxyCommand=id", "--work", tmp_path)
    assert code == 2
    assert "is not user@host" in err
    code, _, err = cli("targets", "probe", "--target", "cpu", "--host", "there", "--work", tmp_path)
    assert code == 2
    assert "this computer" in err


@pytest.mark.parametrize(
    ("capacities", "wanted"),
    [
        ({0: 250, 1: 250, 2: 250, 3: 250, 4: 870, 5: 870, 6: 870, 7: 1024}, [4, 5, 6, 7]),
        ({0: 1024, 1: 400, 2: 512}, [0, 2]),
        ({0: 1024, 1: 1024}, None),
        ({0: 160, 1: 500, 10: 1024}, [10]),
        ({}, None),
    ],
)
def test_big_cores_are_those_that_the_kernel_weighs_so(
    tmp_path: Path, capacities: dict[int, int], wanted: list[int] | None
) -> None:
    files = {f"sys/devices/system/cpu/cpu{core}/cpu_capacity": f"{value}\n" for core, value in capacities.items()}
    assert cores.big(laid_out(tmp_path, files)) == wanted
