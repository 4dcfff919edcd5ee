"""Phones over adb: a real adbd in a system without glibc, /usr and /tmp (`tests/phone.sh` makes it), and what breaks."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import phone
import pytest
import verbs
from conftest import Cli, Phones
from phone import BUILT, Phone
from remote import fill

from edgebench.agent.runtimes import preprocess
from edgebench.bundle.manifest import read_bundle
from edgebench.data import open_images
from edgebench.run.outcome import RunResult
from edgebench.schema import DatasetRef, Record
from edgebench.store import records
from edgebench.targets.transports import _remote

Bundles = dict[tuple[str, str], Path]
SLEEPER = """
name: NAME
description: a phone whose runtime sleeps
transport: adb
host: HOST
cache: {path: /data/local/tmp/edgebench/cache}
agent_plugins: [rt_sleep.py]
cores: big
accepts:
  - {format: onnx, precisions: [fp32, int8], runtime: sleep}
"""
BRIEF = {"half_width": 0.5, "warmup_seconds": 0}


def sleeper(device: Phone, name: str = "handset") -> str:
    """Write a target file of the phone, whose runtime needs no wheels; returns its path."""
    own = Path("rt_sleep.py")
    if "def version" not in own.read_text():
        own.write_text(own.read_text() + '\n\ndef version():\n    return "sleep 1"\n')
    Path(f"{name}.yaml").write_text(SLEEPER.replace("NAME", name).replace("HOST", device.host))
    return f"{name}.yaml"


def run(bundle: Path, *targets: str, **options: Any) -> RunResult:
    return verbs.run(bundle=[bundle], target=targets, scenario=BRIEF, **options)


class Progress:
    """Does something at the first moment when a cell is being measured, or a later one; knows what was pushed."""

    def __init__(self, action: Callable[[], object] = bool, at: int = 2) -> None:
        self.action, self.at = action, at
        self.count = 0
        self.pushed = 0.0

    def __call__(self, what: str, done: float, total: float, lane: str = "") -> None:
        if what.startswith("push"):
            self.pushed += total
        if what.startswith("measure"):
            self.count += 1
            if self.count == self.at:
                self.action()


def check_whole(result: RunResult, device: Phone) -> Record:
    """A run gave one record that holds everything, and nothing that names the phone."""
    [record] = result.records
    assert record.failure is None, record.failure
    assert record.latency is not None
    assert not list((device.home / "cache" / "runs").iterdir())
    check_nameless(device)
    return record


def check_nameless(device: Phone) -> None:
    """No file that is kept names the phone."""
    for path in Path("results").rglob("*"):
        if path.is_file():
            assert device.host.encode() not in path.read_bytes(), path


def test_the_big_cores_are_measured_and_a_second_run_brings_nothing(here: Path, phones: Phones, tiny_bundles: Bundles) -> None:
    capacities = {f"devices/system/cpu/cpu{core}/cpu_capacity": text for core, text in enumerate(("1024", "250"))}
    device, first, second = phones(sysfs=capacities), Progress(), Progress()
    target = sleeper(device)
    record = check_whole(run(tiny_bundles["onnx", "fp32"], target, progress=first), device)
    assert record.environment["affinity"] == ([0] if len(os.sched_getaffinity(1)) > 1 else None)
    [python] = (device.home / "python").iterdir()
    made = python.stat().st_ino
    check_whole(run(tiny_bundles["onnx", "fp32"], target, progress=second, repeat=True), device)
    assert first.pushed > 0
    assert second.pushed == 0
    assert [path.stat().st_ino for path in (device.home / "python").iterdir()] == [made]


@pytest.mark.parametrize("fault", ["adbd", "server", "disconnect"])
def test_a_run_goes_on_over_a_connection_that_broke(
    here: Path, phones: Phones, tiny_bundles: Bundles, whole_quick: None, fault: str
) -> None:
    device = phones()

    def restart() -> None:
        assert len(device.daemons()) == 1
        device.kill_adbd()
        device.start()

    def kill_server() -> None:
        assert device.network.servers()
        device.network.kill_server()

    def disconnect() -> None:
        assert "disconnected" in device.network.adb("disconnect", device.host).stdout

    progress = Progress({"adbd": restart, "server": kill_server, "disconnect": disconnect}[fault])
    check_whole(run(tiny_bundles["onnx", "fp32"], sleeper(device), progress=progress), device)
    assert progress.count > progress.at


def test_a_frozen_phone_is_noticed_and_waited_for(
    here: Path, phones: Phones, tiny_bundles: Bundles, whole_quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_remote, "SILENCE_SECONDS", 5.0)
    device = phones()

    def freeze() -> None:
        [adbd] = device.daemons()
        os.kill(adbd, signal.SIGSTOP)
        threading.Timer(8, os.kill, (adbd, signal.SIGCONT)).start()

    check_whole(run(tiny_bundles["onnx", "fp32"], sleeper(device), progress=Progress(freeze)), device)


def test_a_phone_that_ends_its_shells_fails_the_cell_and_the_next_run_measures_it(
    here: Path, phones: Phones, tiny_bundles: Bundles, whole_quick: None
) -> None:
    device = phones()
    target = sleeper(device)

    def restart() -> None:
        device.kill_all()
        device.start()

    [cell] = run(tiny_bundles["onnx", "fp32"], target, progress=Progress(restart)).cells
    assert cell.state == "failed"
    assert "killed on the device" in cell.reason
    check_nameless(device)
    check_whole(run(tiny_bundles["onnx", "fp32"], target, resume=True), device)


def test_what_a_lost_phone_goes_on_measuring_is_taken_up(
    here: Path, phones: Phones, tiny_bundles: Bundles, whole_quick: None
) -> None:
    device = phones()
    target = sleeper(device)
    lost = run(tiny_bundles["onnx", "fp32"], target, progress=Progress(device.kill_adbd), reconnect_seconds=1)
    assert [cell.state for cell in lost.cells] == ["failed"]
    assert "edgebench run --resume" in lost.cells[0].reason
    started = {path.name for path in (device.home / "cache" / "runs").iterdir()}
    assert len(started) == 1
    device.start()
    check_whole(run(tiny_bundles["onnx", "fp32"], target, resume=True), device)


def test_two_phones_are_measured_side_by_side(here: Path, phones: Phones, tiny_bundles: Bundles) -> None:
    one, other = phones(), phones()
    result = run(tiny_bundles["onnx", "fp32"], sleeper(one, "one"), sleeper(other, "other"))
    assert [(record.cell.target, record.failure) for record in result.records] == [("one", None), ("other", None)]
    for device in (one, other):
        check_nameless(device)


def test_a_phone_without_room_for_its_python_is_refused_and_left_as_it_was(here: Path, phones: Phones, cli: Cli) -> None:
    device = phones(mebibytes=40)
    code, _, errors = cli("targets", "probe", "--target", "android-emulator", "--host", device.host)
    assert code != 0
    assert "MiB free at /data/local/tmp/edgebench, its Python needs" in errors
    assert not device.home.exists()


@pytest.mark.timeout(240, func_only=True)
def test_an_arm64_phone_answers_as_this_computer_does(here: Path, phones: Phones, tiny_bundles: Bundles, cli: Cli) -> None:
    import numpy as np

    if (
        reason := phone.missing("aarch64")
        or phone.unusable("aarch64")
        or phone.userland(Path(os.environ["XDG_CACHE_HOME"]), "aarch64")
    ):
        pytest.skip(reason)
    device, bundle = phones(machine="aarch64"), tiny_bundles["onnx", "fp32"]
    wanted = f"onnxruntime=={version('onnxruntime')}"
    Path("handset.yaml").write_text(
        f"extends: android\nhost: {device.host}\nsetup: {{requirements: [{wanted}]}}\n"
        "accepts: [{format: onnx, precisions: [fp32], runtime: onnxruntime}]\n"
    )
    assert told(cli, "targets", "setup", "--target", "handset.yaml", "--work", BUILT / "wheels")["machine"] == "aarch64"
    record = check_whole(run(bundle, "handset.yaml"), device)
    assert record.environment["machine"] == "aarch64"
    assert record.cell.runtime_version == f"onnxruntime {version('onnxruntime')}"
    [path] = [path for path, _ in records.read_all(Path("results"))]
    scores, right = records.read_samples(path, record)["predictions"], direct(bundle)
    assert np.array_equal(scores.argmax(1), right.argmax(1))
    assert np.allclose(scores, right, rtol=0, atol=1e-4)  # the sums are taken in another order
    told(cli, "targets", "setup", "--target", "handset.yaml", "--remove")
    assert list((device.data / "local" / "tmp").iterdir()) == []


def test_a_32_bit_phone_is_refused_in_a_line(here: Path, phones: Phones, cli: Cli) -> None:
    device = phones(properties={"ro.product.cpu.abilist64": "", "ro.product.cpu.abilist": "armeabi-v7a,armeabi"})
    code, _, errors = cli("targets", "probe", "--target", "android", "--host", device.host)
    assert code != 0
    assert "no 64-bit one (armeabi-v7a,armeabi)" in errors
    assert len(errors.strip().splitlines()) == 1
    assert not device.home.exists()


def direct(bundle: Path) -> Any:
    """Infer the test images by the bundle's runtime, called directly: scores [n, classes]."""
    import numpy as np
    import onnxruntime
    from ai_edge_litert.interpreter import Interpreter

    manifest = json.loads((bundle / "bundle.json").read_text())
    [spec], path = manifest["inputs"], str(bundle / manifest["entry"])
    images = preprocess.apply(open_images(DatasetRef(name="digits")).read("test").images, spec["preprocessing"])
    if manifest["format"] == "onnx":
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return np.concatenate([session.run(None, {spec["name"]: image[None]})[0] for image in images])
    interpreter = Interpreter(model_path=path, num_threads=1)
    interpreter.allocate_tensors()
    [given], [made], rows = interpreter.get_input_details(), interpreter.get_output_details(), []
    for image in images:
        if given["dtype"] == np.int8:
            scale, zero = given["quantization"]
            image = np.clip(np.round(image / scale) + zero, -128, 127).astype(np.int8)
        interpreter.set_tensor(given["index"], image[None])
        interpreter.invoke()
        scores = interpreter.get_tensor(made["index"])
        if made["dtype"] == np.int8:
            scale, zero = made["quantization"]
            scores = (scores.astype(np.float32) - zero) * np.float32(scale)
        rows.append(scores)
    return np.concatenate(rows)


def told(cli: Cli, *arguments: Any) -> dict[str, Any]:
    """Run a command that must succeed and read its JSON."""
    code, output, errors = cli(*arguments, "--json")
    assert code == 0, errors + output
    answer: dict[str, Any] = json.loads(output)
    return answer


def test_a_phone_is_set_up_answers_as_this_computer_does_and_is_left_as_it_was(here: Path, phones: Phones, cli: Cli) -> None:
    import numpy as np

    device = phones()
    place = ["--target", "android-emulator", "--host", device.host]
    seen = told(cli, "targets", "probe", *place)
    assert seen["refused"] is False
    assert seen["found"]["identity"]["python"].startswith("3.13.")
    assert seen["found"]["environment"]["libc"] == "glibc 2.41"

    wanted = [f"--requirement={name}=={version(name)}" for name in ("onnxruntime", "ai-edge-litert")]
    setup = ["targets", "setup", *place, *wanted, "--work", BUILT / "wheels"]  # kept, so that a later run needs no network
    code, output, errors = cli(*setup, "--dry-run")
    assert code == 0, errors
    assert re.search(r"libc6 +2\.41-\S+ +[0-9.]+ +LGPL-2\.1-or-later +Debian source package glibc", output)
    assert re.search(rf"onnxruntime-{version('onnxruntime')}-cp313\S+x86_64.whl +[0-9.]+ +MIT", output)
    assert not (device.home / "cache" / "env").exists()
    first, second = told(cli, *setup), told(cli, *setup)
    assert first["outcome"]["pushed_bytes"] == first["push_bytes"] > 1 << 20
    assert (second["done"], second["outcome"]["made"], second["outcome"]["pushed_bytes"]) == (True, False, 0)

    given: dict[str, Any] = {"dataset": "digits", "size": 16, "channels": 1, "name": "tiny", "target": "android-emulator"}
    formats = [(format, precision) for format in ("onnx", "tflite") for precision in ("fp32", "int8")]
    bundles = [verbs.export("tinynet:net", format=format, precision=precision, **given).folder for format, precision in formats]
    code, output, errors = cli("run", *bundles, *place, "--half-width", "0.5", "--results", "results")
    assert code == 0, errors + output
    assert device.host not in output + errors
    found = {record.cell.bundle_sha256: (path, record) for path, record in records.read_all(Path("results"))}
    assert len(found) == len(bundles)
    for bundle in bundles:
        path, record = found[read_bundle(bundle).sha256]
        assert record.failure is None, record.failure
        assert record.cell.runtime_version.endswith(version("onnxruntime" if record.cell.format == "onnx" else "ai-edge-litert"))
        assert record.memory is not None
        assert record.memory.peak_bytes
        scores, right = records.read_samples(path, record)["predictions"], direct(bundle)
        assert np.array_equal(scores, right), (bundle.name, np.abs(scores - right).max())
    check_nameless(device)

    freed = told(cli, "targets", "setup", *place, "--remove")["freed_bytes"]
    assert freed > first["push_bytes"]
    assert list((device.data / "local" / "tmp").iterdir()) == []


def test_a_phone_whose_disk_is_full_fails_the_cell_until_there_is_room(here: Path, phones: Phones, tiny_bundles: Bundles) -> None:
    device = phones(mebibytes=120)
    target = sleeper(device)
    fault = Progress(lambda: fill(device.data), at=1)
    assert told_space(run(tiny_bundles["onnx", "fp32"], target, progress=fault))
    (device.data / "filler").unlink()
    check_whole(run(tiny_bundles["onnx", "fp32"], target), device)


def told_space(result: RunResult) -> bool:
    """Return whether the one cell failed for want of space."""
    [cell] = result.cells
    return cell.state == "failed" and ("free some space" in cell.reason or "disk is full" in cell.reason)
