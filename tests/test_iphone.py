"""An iPhone behind a Mac: coremltools' own remote device, benchmarker and wrapper, on a phone that is played below them."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from pathlib import Path
from typing import Any

import brief
import numpy as np
import pytest
import verbs
from conftest import DOUBLES, TINY

from edgebench.agent import runtimes
from edgebench.agent.runtimes import iphone, rt_coreml
from edgebench.config import read_target
from edgebench.schema import MODES

pytest.importorskip("coremltools", reason="coremltools has no wheel for this computer")

TARGET = """
name: own
description: an iPhone that is played
transport: local
agent_plugins: [rt_mac.py, rt_iphone.py]
accepts:
  - format: coreml
    precisions: [fp16]
    runtime: iphone
    limits: {version: iOS16, input: tensor}
    options: {compute_units: CPU_AND_NE, device: true}
"""
SECRETS = ("00008130-000A1B2C3D4E001C", "6F9619FF-8B86-D011-B42D-00CF4FC964FF", "Own iPhone", "A1B2C3D4E5")
GIVEN = {"team": SECRETS[3], "phone": "iPhone 15 Pro", "samples": 2}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export the tiny network once, as the phone takes it."""
    folder = tmp_path_factory.mktemp("iphone")
    with pytest.MonkeyPatch.context() as patch:
        (folder / "tinynet.py").write_text(TINY)
        patch.syspath_prepend(str(folder))
        patch.chdir(folder)
        given: dict[str, Any] = {"dataset": "digits", "size": 16, "channels": 1, "name": "tiny", "target": "iphone"}
        return verbs.export("tinynet:net", format="coreml", precision="fp16", out=folder / "bundles", **given).folder


@pytest.fixture
def own(here: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a target whose runtime is the double, and let this computer know what that declares."""
    for name in ("rt_mac.py", "rt_iphone.py"):
        (here / name).write_bytes((DOUBLES / name).read_bytes())
    (here / "own.yaml").write_text(TARGET)
    target = read_target("own.yaml", None)
    (here / "host").mkdir()
    (here / "host" / "rt_iphone.py").write_text("from .rt_coreml import DISTRIBUTIONS, MODULES, OPTIONS, PRIVATE, Runtime, few\n")
    monkeypatch.setattr(runtimes, "__path__", [*runtimes.__path__, str(here / "host")])
    sys.modules.pop("edgebench.agent.runtimes.rt_iphone", None)
    return target


def run(target: Any, package: Path, **options: Any) -> Any:
    return verbs.run(bundle=[package], target=[target], options={**GIVEN, **options}).cells[0]


def test_an_iphone_is_measured_and_compared_and_nobody_is_told_whose_it_is(here: Path, own: Any, package: Path) -> None:
    brief.quick(dataclasses.replace(brief.BRIEF[0], trials=1), brief.BRIEF[1])
    try:
        outcome = run(own, package, device=SECRETS[0])
    finally:
        brief.quick(*brief.BRIEF)
    assert outcome.state == "done", outcome.reason
    record = outcome.record
    assert run(own, package, device=SECRETS[2]).state == "cached"  # the same phone, by its name
    assert record.cell.options == {"compute_units": "CPU_AND_NE", "phone": "iPhone 15 Pro", "samples": 2}
    assert record.accuracy is None
    assert (record.few_samples.samples, record.few_samples.host_agreement) == (2, 1.0)
    assert record.few_samples.max_abs < 2e-3
    assert "accuracy is not measured on the whole split" in record.few_samples.reason
    assert record.latency.samples >= MODES["quick"].min_samples
    assert 0 < record.latency.median_ns.value < 1e9
    assert record.latency.load_ns > 0
    assert (record.memory.peak_bytes, record.memory.reason) == (None, iphone.NO_MEMORY)
    with np.load(package / "parity.npz") as saved:
        assert len(saved["outputs"]) == 256
    kept = [path for path in here.rglob("*") if path.is_file() and not path.name.startswith("rt_")]
    assert any(path.name.endswith(".json") and "results" in path.parts for path in kept)
    for path in kept:
        content = path.read_bytes()
        assert not [secret for secret in SECRETS if secret.encode() in content], path


def phone(**changes: Any) -> Any:
    from coremltools.models.ml_program.experimental.remote_device import Device, DeviceState, DeviceType

    facts = {"name": SECRETS[2], "udid": SECRETS[0], "identifier": SECRETS[1], "type": DeviceType.IPHONE}
    facts |= {"os_version": "18.5", "os_build_number": "22F76", "developer_mode_state": "enabled"}
    return Device(**{**facts, "state": DeviceState.CONNECTED, "session": None, **changes})


def test_the_phone_that_is_meant_is_found_or_what_to_do_is_said() -> None:
    from coremltools.models.ml_program.experimental.remote_device import DeviceState, DeviceType

    def found(devices: list[Any], named: Any = True) -> Any:
        return iphone.chosen(devices, named, DeviceType.IPHONE, DeviceState.CONNECTED)

    own, pad = phone(), phone(type=DeviceType.IPAD, udid="3", name="Pad")
    other = phone(name="Other", udid="1", identifier="2")
    away = phone(state=DeviceState.UNAVAILABLE)
    assert found([pad, own]) is own
    assert found([own, other], "Other") is found([own, other], "1") is found([own, other], "2") is other
    for devices, named, reason in (
        ([pad], True, "none is paired with this Mac.: plug it in, unlock it, and trust this Mac on its screen"),
        ([away], True, "its state is unavailable"),
        ([own, other], True, "2 iPhones are connected; say which: --option device=NAME or UDID"),
        ([own], "00001111-AAAA", "no iPhone of that name or number is paired with this Mac"),
        ([phone(developer_mode_state="disabled")], True, "developer mode is off"),
    ):
        with pytest.raises(ValueError, match=reason) as caught:
            found(devices, named)
        assert not [secret for secret in (*SECRETS, "00001111-AAAA") if secret in str(caught.value)]


def test_messages_do_not_tell_whose_phone_it_is() -> None:
    from coremltools.models.ml_program.experimental.remote_device import _DeviceCtlError

    error = _DeviceCtlError(f"no profile\nfor {SECRETS[0]} of {SECRETS[3]}".encode(), error_code=65)
    assert iphone.told(error, [*SECRETS, None, ""]) == "no profile for … of …"
    assert iphone.told(ValueError("The 'devicectl' command is required."), ()).startswith(
        "Xcode's devicectl is not on the PATH: add"
    )


def test_what_coremltools_says_of_a_failure_is_told_without_them(capfd: pytest.CaptureFixture[str]) -> None:
    runtime: Any = rt_coreml.Runtime({"options": {"device": SECRETS[0], "phone": "x"}, "inputs": [], "outputs": []})
    with pytest.raises(ValueError, match=r"^no profile for device …$"), runtime._discreet():
        sys.stderr.write(f"Setting up '{SECRETS[2]}' for model debugging")
        raise RuntimeError(f"no profile for device {SECRETS[0]}")
    assert SECRETS[2] not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"device": True}, "say which model of iPhone it is, as tables shall call it: --option phone='iPhone 15 Pro'"),
        ({"team": "A1B2"}, "team goes with device, which names an iPhone"),
        ({"device": True, "phone": "x", "compute_units": "GPU"}, "compute_units is ALL"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        rt_coreml.Runtime({"options": options, "inputs": [], "outputs": []})
    with pytest.raises(ValueError, match="samples is a whole number from 1, not 0"):
        iphone.few({"device": True, "samples": 0})
    assert iphone.few({}) is None


def test_nothing_sustained_and_no_pixels_on_a_phone() -> None:
    job = {"options": {"device": True, "phone": "x"}, "inputs": [{"name": "a", "dtype": "uint8", "carry": None}], "outputs": []}
    runtime = rt_coreml.Runtime(job)
    with pytest.raises(ValueError, match=r"idles between predictions .* nothing sustained can be measured"):
        runtime.take("", 1, [], {"adaptive": False}, lambda _: None)
    with pytest.raises(ValueError, match="coremltools sends no images to an iPhone; export for the target iphone"):
        runtime.prepare([b""], 1)


def test_coremltools_has_what_is_called_and_what_the_double_stands_for() -> None:
    """As of coremltools 9.0; where a newer one calls it otherwise, this says so before a Mac does."""
    from coremltools.models.ml_program.experimental import async_wrapper, perf_utils, remote_device

    for function, names in (
        (remote_device.AppSigningCredentials, ["development_team", "provisioning_profile_uuid", "bundle_identifier"]),
        (remote_device.Device.get_devices, []),
        (remote_device.Device.prepare_for_model_debugging, ["self", "credentials", "working_directory", "clean"]),
        (
            remote_device.Device._build_and_launch_model_runner_app,
            ["self", "build_directory", "working_directory", "credentials", "clean"],
        ),
        (
            remote_device._RemoteMLModelService.load_on_device,
            ["device", "compiled_model_path", "compute_units", "function_name", "optimization_hints"],
        ),
        (remote_device._RemoteMLModelService.predict, ["self", "inputs"]),
        (remote_device._AppSession.stop, ["self"]),
        (
            async_wrapper.RemoteMLModelAsyncWrapper,
            ["spec_or_path", "weights_dir", "device", "compute_units", "function_name", "optimization_hints"],
        ),
        (perf_utils.MLModelBenchmarker, ["model", "device"]),
        (perf_utils.MLModelBenchmarker.benchmark_load, ["self", "iterations"]),
        (perf_utils.MLModelBenchmarker.benchmark_predict, ["self", "inputs", "iterations", "warmup"]),
    ):
        assert list(inspect.signature(function).parameters) == names, function


def test_the_catalogues_iphone_takes_tensors_through_a_mac() -> None:
    target = read_target("iphone")
    accepts = target.accepted("coreml", "fp16")
    assert accepts is not None
    assert (target.transport, accepts.runtime, accepts.limits["input"]) == ("ssh", "coreml", "tensor")
    assert accepts.options == {"compute_units": "ALL", "device": True}
    assert target.meters == ()
