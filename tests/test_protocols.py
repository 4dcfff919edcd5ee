"""Runtimes and meters are what `schema/protocols.py` says, and a target's own are found beside them."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgebench import plugins
from edgebench.agent.plugins import OPTIONAL, offers
from edgebench.agent.tensorrt import trtexec_runtime
from edgebench.device.deploy import pack_agent
from edgebench.schema import protocols

RUNTIMES = [plugins.load_device("runtimes", name).Runtime for name in plugins.on_device("runtimes")]
METERS = [plugins.load_device("meters", name) for name in plugins.on_device("meters")]


def arguments(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


def methods(protocol: type) -> dict[str, Any]:
    return {name: each for name, each in vars(protocol).items() if inspect.isfunction(each) and not name.startswith("_")}


@pytest.mark.parametrize("runtime", [*RUNTIMES, trtexec_runtime.Runtime], ids=lambda each: each.__module__.rpartition(".")[2])
def test_a_runtime_has_what_the_protocol_asks_and_what_it_declares(runtime: Any) -> None:
    for name, wanted in methods(protocols.Runtime).items():
        assert arguments(getattr(runtime, name)) == arguments(wanted), name
    declared = getattr(runtime, "OFFERS", ("stages", "profile", "take"))  # Core ML's depend on an option
    assert set(declared) == {name for name in OPTIONAL if hasattr(runtime, name)}
    for name in declared:
        assert len(arguments(getattr(runtime, name))) == len(arguments(getattr(protocols.OptionalRuntime, name))), name
    assert hasattr(runtime, "abandon") == ("finish" in declared)
    assert hasattr(runtime, "text") == ("generate" in declared)


def test_the_protocol_names_every_optional_method() -> None:
    assert set(methods(protocols.OptionalRuntime)) == set(OPTIONAL)


@pytest.mark.parametrize("module", METERS, ids=lambda each: each.__name__.rpartition(".")[2])
def test_a_meter_has_what_the_protocol_asks(module: Any) -> None:
    for name, wanted in methods(protocols.Meter).items():
        assert arguments(getattr(module.Meter, name)) == arguments(wanted), name
    assert 0 < module.PERIOD_S <= 1
    assert hasattr(module, "NEEDS") == hasattr(module, "options_of")


def test_only_what_a_runtime_declares_is_used() -> None:
    class Older:
        def profile(self) -> None: ...

    class Declared(Older):
        OFFERS = ("take",)

    assert offers(Older()) == ("profile",)
    assert offers(Declared()) == ("take",)


def test_plugins_written_for_an_agent_without_folders_are_loaded(tmp_path: Path) -> None:
    runtime, meter, agent = tmp_path / "rt_old.py", tmp_path / "meter_old.py", tmp_path / "agent.pyz"
    runtime.write_text(
        "from . import preprocess\nfrom .clock import now_ns\nfrom .facts import cores\nfrom .rt_onnxruntime import Runtime\n"
        "MODULES, DISTRIBUTIONS = ('json',), ()\ndef version():\n    return 'old %d' % (cores() > 0 and now_ns() > 0)\n"
    )
    meter.write_text(
        "from .clock import now_ns\nfrom .facts import read\nfrom .meters import Reading, Unavailable, channel\nPERIOD_S = 0.1\n"
        "class Meter(object):\n    def __init__(self, options, root='/'):\n        pass\n"
        "    def start(self):\n        return [channel('all', 'board', PERIOD_S)]\n    def stop(self):\n        pass\n"
    )
    agent.write_bytes(pack_agent([str(runtime), str(meter)]))
    job = json.dumps({"cache": str(tmp_path), "meters": [{"name": "old", "options": {}}]})
    done = subprocess.run([sys.executable, agent, "inspect"], input=job + "\n", capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[0])
    assert found["runtimes"]["old"] == {"version": "old 1", "reason": None}
    assert {"name": "old", "wanted": True, "rails": [{"rail": "all", "provenance": "board"}], "reason": None} in found["device"][
        "meters"
    ]
