"""An iPhone behind a Mac: coremltools' own remote device, benchmarker and wrapper, on a phone that is played below them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import verbs
from conftest import DOUBLES, TINY

from edgebench.agent import runtimes
from edgebench.agent.runtimes import iphone
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
GIVEN = {"team": SECRETS[3], "phone": "iPhone 15 Pro", "samples": 5}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export the tiny network once, as the phone takes it."""
    folder = tmp_path_factory.mktemp("iphone")
    with pytest.MonkeyPatch.context() as patch:
        (folder / "tinynet.py").write_text(TINY)
        patch.syspath_prepend(str(folder))
        patch.chdir(folder)
        target = read_target("iphone")
        given: dict[str, Any] = {"dataset": "digits", "size": 16, "channels": 1, "name": "tiny", "target": target}
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
    for chosen in (True, *SECRETS[:3]):  # the only one, by its numbers, by its name: the same cell
        outcome = run(own, package, device=chosen)
        record = outcome.record
        assert outcome.state == ("done" if chosen is True else "cached"), outcome.reason
    assert record.cell.options == {"compute_units": "CPU_AND_NE", "phone": "iPhone 15 Pro", "samples": 5}
    assert record.accuracy is None
    assert (record.few_samples.samples, record.few_samples.host_agreement) == (5, 1.0)
    assert record.few_samples.max_abs < 2e-3
    assert "accuracy is not measured on the whole split" in record.few_samples.reason
    assert record.latency.samples == 2 * MODES["quick"].min_samples
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


@pytest.mark.parametrize(
    ("phones", "options", "reason"),
    [
        ("none", {}, "no iPhone is connected (none is paired with this Mac): plug it in, unlock it, and trust this Mac"),
        ("locked", {}, "no iPhone is connected (its state is unavailable): plug it in"),
        ("two", {}, "2 iPhones are connected; say which: --option device=NAME or UDID"),
        ("no developer mode", {}, "the iPhone's developer mode is off"),
        ("one", {"device": "00001111-AAAA"}, "no iPhone of that name or number is paired with this Mac"),
        ("unsigned", {}, "No profiles for '…' on device …"),
        ("no Xcode", {}, "Xcode's devicectl is not on the PATH: add /Applications/Xcode.app"),
    ],
)
def test_what_is_wrong_with_a_phone_is_said_in_one_line_without_its_numbers(
    here: Path, own: Any, package: Path, monkeypatch: pytest.MonkeyPatch, phones: str, options: dict[str, Any], reason: str
) -> None:
    if phones not in ("unsigned", "two"):  # the rest is the same code, asked without the agent
        pytest.skip("below")
    monkeypatch.setenv("EDGEBENCH_DOUBLE_PHONES", phones)
    outcome = run(own, package, **options)
    assert outcome.state == "failed"
    assert reason in outcome.reason
    assert "\n" not in outcome.reason
    assert not [secret for secret in (*SECRETS, *options.values()) if secret in outcome.reason]
