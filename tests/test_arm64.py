"""An arm64 Debian under QEMU as a device, reached by SSH, with no network but its own loopback (`make arm64`)."""

from __future__ import annotations

import json
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pairs
import pytest
import torch
import verbs
from conftest import ARM64, Cli
from numpy.typing import NDArray
from sshd import Sshd

from edgebench import models
from edgebench.analysis import processor
from edgebench.config import read_dataset
from edgebench.data import open_images
from edgebench.schema import Record
from edgebench.store import records

RUNTIMES = {"onnx": ("onnxruntime", "onnxruntime"), "tflite": ("tflite", "ai-edge-litert")}
TRAINED = {"epochs": 6, "batch_size": 64, "learning_rate": 0.01, "augment": "none"}
FLOAT_ERROR = 1e-4
"""Most that FP32 scores may differ: the sums are taken in another order (some 1e-6 seen)."""


def on(device: Sshd, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(device.ssh(command), capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)


def told(cli: Cli, *arguments: Any) -> dict[str, Any]:
    """Run a command that must succeed and read its JSON."""
    code, output, errors = cli(*arguments, "--json")
    assert code == 0, errors + output
    answer: dict[str, Any] = json.loads(output)
    return answer


def measured(results: str) -> dict[str, tuple[Record, NDArray[Any]]]:
    """Read records by their bundle, each with the scores for every evaluation sample."""
    found = {}
    for path, record in records.read_all(Path(results)):
        assert record.failure is None, record.failure
        found[record.cell.bundle_sha256] = record, records.read_samples(path, record)["predictions"]
    return found


@pytest.fixture
def digits(here: Path) -> list[Path]:
    """Train the tiny network on digits and export it to both formats; ONNX in FP32 an arm64 phone runs in `test_adb`."""
    model = verbs.train("tinynet:net", options=TRAINED, size=16, name="tiny")
    wanted = [("onnx", "int8"), ("tflite", "fp32"), ("tflite", "int8")]
    return [
        verbs.export(str(model), format=format, precision=precision, target="linux-ssh", dataset="digits").folder
        for format, precision in wanted
    ]


def test_the_system_is_arm64_and_alone_in_its_network(arm64: Sshd) -> None:
    answer = on(arm64, 'uname -m; pwd; python3 -c "import sys; print(sys.version_info[:2])"; ls /sys/class/net')
    assert answer.stdout.splitlines() == ["aarch64", str(arm64.home), "(3, 11)", "lo"], answer.stderr


def test_what_is_left_running_under_emulation_is_found(arm64: Sshd) -> None:
    on(arm64, "nohup sleep 600 >/dev/null 2>&1 &")
    until = time.monotonic() + 20
    while not any(line.endswith(" sleep 600") for line in arm64.strays()) and time.monotonic() < until:
        time.sleep(0.1)  # the shell that becomes it
    [stray] = arm64.strays()
    assert stray.endswith(" sleep 600")
    arm64.power_off()
    assert arm64.strays() == []
    arm64.start()
    assert on(arm64, "echo back").stdout == "back\n"


def test_probe_tells_what_the_device_is_and_refuses_it_as_another(arm64: Sshd, here: Path, cli: Cli) -> None:
    seen = told(cli, "targets", "probe", "--target", "linux-ssh", "--host", arm64.host)
    assert seen["refused"] is False
    assert seen["found"]["identity"]["machine"] == "aarch64"
    assert seen["found"]["identity"]["python"].startswith("3.11.")
    assert "bookworm" in seen["found"]["identity"]["os"]
    assert seen["found"]["environment"]["libc"].startswith("glibc 2.36")
    code, output, _ = cli("targets", "probe", "--target", "raspberry-pi-4", "--host", arm64.host, "--json")
    assert code == 1
    other = json.loads(output)
    assert [item["what"] for item in other["differences"] if item["refuse"]] == ["board"]
    assert "linux-ssh" in other["fits"]


@pytest.fixture
def readers(here: Path) -> dict[str, Path]:
    """Train a network of each way to join text and image."""
    return pairs.trained(pairs.prepared(here))


def test_a_device_without_internet_is_set_up_and_answers_as_this_computer_does(
    arm64: Sshd, digits: list[Path], readers: dict[str, Path], here: Path, cli: Cli
) -> None:
    place = ["--target", "linux-ssh", "--host", arm64.host]
    wanted = [f"--requirement={package}=={version(package)}" for _, package in RUNTIMES.values()]
    wheels = ARM64.parent / "wheels"  # kept, so that a later run needs no network
    first = told(cli, "targets", "setup", *place, *wanted, "--work", wheels)
    assert first["machine"] == "aarch64"
    assert first["outcome"]["pushed_bytes"] == first["push_bytes"] > 1 << 20
    again = told(cli, "targets", "setup", *place, *wanted, "--work", wheels)
    assert (again["done"], again["outcome"]["made"], again["outcome"]["pushed_bytes"]) == (True, False, 0)

    code, _, errors = cli("run", *digits, *place, "--half-width", "0.5", "--results", "there")
    assert code == 0, errors
    verbs.run(bundle=digits, target=["cpu"], scenario={"half_width": 0.5}, results=Path("here"))
    there, near = measured("there"), measured("here")
    assert len(there) == len(digits)
    assert there.keys() == near.keys()
    for bundle, (record, scores) in there.items():
        compare(record, scores, *near[bundle])
    data = f"medmnist:{here / 'pairs.npz'}"
    files = [*((name, "onnx") for name in readers), ("concat", "tflite")]
    bundles = [verbs.export(str(readers[name]), format=format, target="linux-ssh", dataset=data).folder for name, format in files]
    code, _, errors = cli("run", *bundles, *place, "--half-width", "0.5", "--results", "texts")
    assert code == 0, errors
    read = {(record.cell.model, record.cell.format): (record, scores) for record, scores in measured("texts").values()}
    assert read.keys() == set(files)
    for (name, _), found in read.items():
        compare_texts(*found, readers[name], here)
    freed = told(cli, "targets", "setup", *place, "--remove")
    assert freed["freed_bytes"] > first["push_bytes"]


def compare(there: Record, far: NDArray[Any], here: Record, near: NDArray[Any]) -> None:
    """Check that a device's record holds what the host's does: the same runtime, the same scores, the same accuracy."""
    assert there.cell.runtime_version == here.cell.runtime_version
    assert there.environment["libc"] == "glibc 2.36"
    assert there.accuracy is not None
    assert here.accuracy is not None
    assert there.accuracy.metrics["accuracy"] == here.accuracy.metrics["accuracy"] > 0.5
    assert there.accuracy.host_agreement == 1.0
    assert np.array_equal(far.argmax(1), near.argmax(1))
    if there.cell.precision == "fp32":
        assert np.allclose(far, near, rtol=0, atol=FLOAT_ERROR)
    elif there.cell.format == "tflite":  # ONNX Runtime rounds some sums otherwise on arm64, by a step of the quantization
        steps = 2 if processor.saturates(here.environment) else 0  # XNNPACK's kernels for AVX2 without VNNI round otherwise
        assert np.abs(far - near).max() <= 1.01 * steps * np.diff(np.unique(near)).min()


def compare_texts(there: Record, far: NDArray[Any], model: Path, room: Path) -> None:
    """Check that a device reads each text as torch does beside its image, and that others' texts make it worse."""
    network, data = models.load_model(model), open_images(read_dataset(f"medmnist:{room / 'pairs.npz'}"))
    with torch.no_grad():
        near = network.module(*pairs.fed(network, data, room)).numpy()
    assert there.environment["libc"] == "glibc 2.36"
    assert np.allclose(far, near, rtol=0, atol=FLOAT_ERROR)
    assert there.accuracy is not None and there.accuracy.shuffled_text is not None
    own = float((near.argmax(1) == data.read("test").labels).mean())
    assert there.accuracy.metrics["accuracy"] == pytest.approx(own, abs=1e-6)
    assert there.accuracy.shuffled_text < own - 0.25
