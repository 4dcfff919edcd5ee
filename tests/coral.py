"""What tests of the Edge TPU share: the compiler's double on PATH, and a board's libraries."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import verbs

from edgebench.exporters._edgetpu import compiler
from edgebench.run.outcome import ExportResult

DOUBLES = Path(__file__).parent / "doubles"
CORAL = DOUBLES / "coral"
NETS = """
import torch
from torch import nn

def _net(channels, classes, *layers):
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(channels, 8, 3, 2, 1), nn.ReLU6()), nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), *layers),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes))

def plain(classes, channels, size):
    return _net(channels, classes, nn.ReLU())

def swish(classes, channels, size):
    return _net(channels, classes, nn.Hardswish())

def gelu(classes, channels, size):
    return _net(channels, classes, nn.GELU())

def grouped(classes, channels, size):
    return _net(channels, classes, nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2))

def leaky(classes, channels, size):
    return _net(channels, classes, nn.LeakyReLU())

def layernorm(classes, channels, size):
    return _net(channels, classes, nn.LayerNorm([8, size // 2, size // 2]))

class Floor(nn.Module):
    def forward(self, x):
        return torch.floor(x)

def floor(classes, channels, size):
    return _net(channels, classes, Floor())

class Erf(nn.Module):
    def forward(self, x):
        return torch.erf(x)

def erf(classes, channels, size):
    return _net(channels, classes, Erf())

def many(classes, channels, size):
    return _net(channels, classes, nn.MaxPool2d(2), nn.Sigmoid(), nn.ConvTranspose2d(8, 8, 2, 2), nn.ReLU(), nn.Tanh(),
                nn.Upsample(scale_factor=2), nn.Softmax(1), nn.AvgPool2d(2), nn.PReLU(), nn.BatchNorm2d(8))
"""
GIVEN: dict[str, Any] = {
    "format": "edgetpu",
    "precision": "int8",
    "dataset": "digits",
    "target": "coral-usb",
    "size": 16,
    "channels": 1,
    "calibration": {"samples": 32},
}


def program(path: Path, source: str) -> Path:
    """Write a Python program that runs with this interpreter."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!{sys.executable}\n{source}")
    path.chmod(0o755)
    return path


@contextmanager
def exporting(folder: Path) -> Iterator[None]:
    """Work in a folder with the compiler's double, where a fixture of a whole module exports once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        compiler_on_path(folder, patch)
        yield


def compiler_on_path(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the compiler's double on PATH; what it does is chosen by EDGETPU_DOUBLE."""
    source = (DOUBLES / "edgetpu_compiler").read_text().split("\n", 1)[1]
    monkeypatch.setenv("PATH", f"{program(here / 'bin' / 'edgetpu_compiler', source).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv(compiler.VARIABLE, raising=False)
    return here / "bin" / "edgetpu_compiler"


def export(network: str, **changes: Any) -> ExportResult:
    """Export one of NETS, named like it."""
    Path("coralnets.py").write_text(NETS)
    return verbs.export(f"coralnets:{network}", **{**GIVEN, "name": network, **changes})


def library(folder: Path) -> Path:
    """Compile the double of libedgetpu; returns its folder."""
    program = shutil.which("cc")
    if program is None:
        pytest.skip("no C compiler (cc) to make the library's double")
    folder.mkdir(exist_ok=True)
    made = folder / "libedgetpu.so.1"
    subprocess.run([program, "-shared", "-fPIC", "-o", made, CORAL / "edgetpu.c"], check=True, timeout=60)
    return folder


def modules(folder: Path, version: str = "2.5.0.post1", pycoral: bool = False) -> Path:
    """Lay tflite_runtime, and pycoral if wanted, into a folder; returns it."""
    shutil.copytree(CORAL / "tflite_runtime", folder / "tflite_runtime")
    init = folder / "tflite_runtime" / "__init__.py"
    init.write_text(init.read_text().replace('"2.5.0.post1"', f'"{version}"'))
    if pycoral:
        shutil.copytree(CORAL / "pycoral", folder / "pycoral")
    return folder
