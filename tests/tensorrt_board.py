"""A device with TensorRT, CUDA and trtexec, all of them doubles."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import DOUBLES

NANO, ORIN, PC = "NVIDIA Tegra X1:5.3:1:3964", "Orin:8.7:1:7620", "NVIDIA RTX:12.0:0:16000"
GPUS = {"8.0": NANO, "8.2": NANO, "8.6": ORIN, "10.3": ORIN, "11.0": PC}
RELEASES = {"8.0": "8.0.1.6", "8.2": "8.2.1.8", "8.6": "8.6.2.3", "10.3": "10.3.0.30", "11.0": "11.0.0.114"}


def compiled(folder: Path) -> Path:
    """Compile the double of libcudart, once."""
    compiler, library = shutil.which("cc"), folder / "cudart" / "libcudart.so"
    if compiler is None:
        pytest.skip("no C compiler (cc) to make the library's double")
    if not library.exists():
        library.parent.mkdir(exist_ok=True)
        source = DOUBLES / "tensorrt" / "cudart.c"
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True, timeout=60)
    return library


class Board:
    """What a device has of TensorRT and CUDA, laid out for the processes that the agent starts."""

    def __init__(self, folder: Path, cudart: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.log = folder / "cuda.log"
        self._cudart = cudart
        self._patch = patch

    def has(self, version: str, cuda: bool = True, module: bool = True, program: bool = False, gpu: str = "") -> None:
        """Install TensorRT, its `module` or its `program`, and libcudart."""
        site, source = self.folder / "site", DOUBLES / "tensorrt"
        shutil.rmtree(site, ignore_errors=True)
        site.mkdir()
        release = RELEASES[version]
        files = ("double_engine.py", "api.json", *(("tensorrt.py",) if module else ()))
        for name in files:
            shutil.copy(source / name, site / name)
        if module:
            (site / f"tensorrt-{release}.dist-info").mkdir()
            (site / f"tensorrt-{release}.dist-info" / "METADATA").write_text(f"Name: tensorrt\nVersion: {release}\n")
        values = {
            "PYTHONPATH": str(site),
            "EDGEBENCH_DOUBLE_TENSORRT": release,
            "EDGEBENCH_DOUBLE_MODULES": str(site),
            "EDGEBENCH_DOUBLE_CUDART": str(self._cudart),
            "EDGEBENCH_DOUBLE_GPU": gpu or GPUS[version],
            "EDGEBENCH_DOUBLE_LOG": str(self.log),
            "LD_LIBRARY_PATH": str(self._cudart.parent) if cuda else "",
        }
        for name, value in values.items():
            self._patch.setenv(name, value)
        programs = self.folder / "programs"
        programs.mkdir(exist_ok=True)
        if program:
            text = (DOUBLES / "trtexec").read_text().replace("/usr/bin/env python3", sys.executable)
            (programs / "trtexec").write_text(text)
            (programs / "trtexec").chmod(0o755)
            self._patch.setenv("PATH", f"{programs}:{os.environ['PATH']}")

    def mistakes(self) -> str:
        """Return what the CUDA double noted: mistakes, and what was not given back."""
        return self.log.read_text() if self.log.exists() else ""
