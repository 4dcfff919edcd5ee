"""What is measured sends nothing and leaves nothing behind, whatever ONNX Runtime would do by itself."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import DOUBLES

from edgebench.device import deploy

GOLDEN = Path(__file__).parent / "golden" / "tiny.onnx.fp32"
TARGET = """
name: overheard
description: this computer, with a runtime that notes what its process was told
transport: local
agent_plugins: [rt_overheard.py]
accepts:
  - {format: onnx, precisions: [fp32], runtime: overheard}
"""
RUN = """
import pathlib, sys, test_measure
found = test_measure.run(pathlib.Path(sys.argv[1]), "overheard.yaml", "overheard")
print(found.failure, len(found.trials))
"""
SINCE = (1, 29)
"""ONNX Runtime sends telemetry on Linux from this version on."""
SILENT = (
    *("CI", "TF_BUILD", "GITHUB_ACTIONS", "GITLAB_CI", "CIRCLECI", "TRAVIS", "JENKINS_URL", "CODEBUILD_BUILD_ID"),
    *("BUILDKITE", "TEAMCITY_VERSION", "APPVEYOR", "BITBUCKET_BUILD_NUMBER"),
)
"""Where one of these is set, ONNX Runtime takes the computer for a build server, and is silent by itself."""


@pytest.fixture
def user(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a user who has a home of their own, and asks for telemetry."""
    home = tmp_path / "home"
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if name not in SILENT and not name.startswith(("XDG_", "ORT_"))}
    return {**kept, "HOME": str(home), "ORT_DISABLE_TELEMETRY": "0"}


def call(user: dict[str, str], *arguments: Any, **more: Any) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, *map(str, arguments)]
    done = subprocess.run(words, env=user, capture_output=True, text=True, timeout=120, check=False, **more)
    assert done.returncode == 0, done.stderr
    return done


def left(user: dict[str, str]) -> set[str]:
    """List the files in the user's home."""
    home = Path(user["HOME"])
    return {path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()}


WAITING = """
import os, pathlib, time, onnxruntime
end = time.monotonic() + 6
while time.monotonic() < end and not any("onnxruntime" in str(path) for path in pathlib.Path(os.environ["HOME"]).rglob("*")):
    time.sleep(0.05)
os._exit(0)
"""


def test_onnx_runtime_alone_would_write_into_the_home(user: dict[str, str]) -> None:
    version = importlib.metadata.version("onnxruntime")
    if tuple(map(int, version.split(".")[:2])) < SINCE or sys.platform != "linux":
        pytest.skip(f"ONNX Runtime {version} on {sys.platform} may have no telemetry")
    call(user, "-c", WAITING)  # before it would send
    assert any("onnxruntime" in name for name in left(user)), "then the tests below show nothing"


def test_a_run_leaves_nothing_opens_no_socket_and_its_workers_are_told(tmp_path: Path, user: dict[str, str]) -> None:
    (tmp_path / "overheard.yaml").write_text(TARGET)
    (tmp_path / "rt_overheard.py").write_bytes((DOUBLES / "rt_overheard.py").read_bytes())
    notes = tmp_path / "notes"
    beside = {"EDGEBENCH_OVERHEARD": str(notes), "PYTHONPATH": str(Path(__file__).parent)}
    done = call({**user, **beside}, "-c", RUN, GOLDEN, cwd=tmp_path)
    assert done.stdout == "None 2\n"
    said = {tuple(line.split()) for line in notes.read_text().splitlines()}
    assert said == {("accuracy", "1"), ("memory", "1"), ("trial", "1"), ("sockets", "0")}
    assert left(user) == set()


@pytest.mark.parametrize("package", ["edgebench", "edgebench.agent"])
def test_whoever_imports_edgebench_first_sends_nothing(user: dict[str, str], package: str) -> None:
    call(user, "-c", f"import {package}, onnxruntime, os; os._exit(0)")
    assert left(user) == set()


def test_a_setups_trial_import_leaves_nothing(tmp_path: Path, user: dict[str, str]) -> None:
    agent = tmp_path / "agent.pyz"
    agent.write_bytes(deploy.pack_agent())
    words = [sys.executable, str(agent), "setup", "--import", "onnxruntime"]
    with subprocess.Popen(words, env=user, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.read()  # its standard input stays open: the end of it would end the process
    assert importlib.metadata.version("onnxruntime") in said
    assert left(user) == set()
