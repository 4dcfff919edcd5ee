"""A split of 50 000 images of 224 px: `export` and `run` keep below 2 GiB, on the host and in the agent.

The peak of resident memory (mapped files included) of every process that the commands start, while an INT8 file is made of a
tiny network, and its accuracy measured over the whole split.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
from figures import state

DEPENDS = (
    "edgebench/agent/cell/",
    "edgebench/bundle/",
    "edgebench/data/",
    "edgebench/device/deploy.py",
    "edgebench/run/",
    "targets/transports/local.py",
)
SIDE, CHUNK, CLASSES = 224, 250, 10
BOUND_MIB = 2048.0
NETWORK = """
import torch

def net(classes, channels, size):
    return torch.nn.Sequential(
        torch.nn.Conv2d(channels, 8, 7, stride=7), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(), torch.nn.Linear(8, classes))
"""


def write(path: Path, count: int) -> None:
    """Write an archive with so many test images, chunk by chunk; no image stands in it twice."""
    base = np.random.default_rng(0).integers(0, 256, (CHUNK, SIDE, SIDE, 3), dtype=np.uint8)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        number = 0
        for name, many in (("train", 500), ("val", CHUNK), ("test", count)):
            with archive.open(f"{name}_images.npy", "w", force_zip64=True) as stream:
                header = {"descr": "|u1", "fortran_order": False, "shape": (many, SIDE, SIDE, 3)}
                np.lib.format.write_array_header_1_0(stream, header)
                for first in range(0, many, CHUNK):
                    base[:, 0, 0] = number // 256, number % 256, 0
                    stream.write(base[: min(CHUNK, many - first)].data)
                    number += 1
            with archive.open(f"{name}_labels.npy", "w") as stream:
                np.lib.format.write_array(stream, np.arange(many) % CLASSES)


def family(pid: int) -> list[int]:
    """List a process and all that it started."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text().split():
                found += family(int(child))
    return found


def peak_mib(pid: int) -> float:
    """Return the most memory that a process has had resident, mapped files included."""
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        return int(found[1]) / 1024 if found else 0.0
    return 0.0


def watched(folder: Path, *arguments: str) -> tuple[float, float]:
    """Run a command of edgebench; returns the peaks of its own process and of the largest that it started, in MiB."""
    variables = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "XDG_STATE_HOME": str(folder / "state")}
    process = subprocess.Popen([sys.executable, "-m", "edgebench", *arguments], cwd=folder, env=variables)
    own = others = 0.0
    while process.poll() is None:
        every = family(process.pid)
        own = max(own, peak_mib(every[0]))
        others = max([others, *map(peak_mib, every[1:])])
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"edgebench {arguments[0]} ended with {process.returncode}")
    return own, others


def main() -> int:
    """Print the peaks; 1 where one is above the bound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--folder", type=Path, help="where 3 times the images fit; a temporary one unless given")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        (folder / "benchnet.py").write_text(NETWORK)
        write(folder / "own.npz", given.images)
        size = (folder / "own.npz").stat().st_size / 2**30
        print(f"{given.images} images, {size:.1f} GiB", flush=True)
        source = ["benchnet:net", "--dataset", "medmnist:own.npz", "--size", str(SIDE), "--name", "net", "--out", "bundles"]
        host, agent = watched(folder, "export", *source, "--format", "onnx", "--precision", "int8", "--trust")
        figures = [f"export {host:.0f} MiB, what it starts {agent:.0f} MiB"]
        print(figures[-1], flush=True)
        began = time.monotonic()
        own, other = watched(folder, "run", "bundles/net.onnx.int8")
        figures.append(f"run {own:.0f} MiB, the agent {other:.0f} MiB, in {time.monotonic() - began:.0f} s")
        most = max(host, agent, own, other)
    return state(most < BOUND_MIB, f"{given.images} images, {size:.1f} GiB: {'; '.join(figures)}", f"{BOUND_MIB:.0f} MiB")


if __name__ == "__main__":
    sys.exit(main())
