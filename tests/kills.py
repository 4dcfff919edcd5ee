"""Run commands and kill them at random moments, from one process that is warm: `kills.py JSON`.

Each command is measured once in a folder of its own, then begun and killed so many times here, then run to its end; prints
the last exit codes.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import brief

from edgebench.cli import execute
from edgebench.data._torchvision import load_torchvision

TIMES = 3
LOADED = (
    *("lightning.pytorch", "torchmetrics", "duckdb", "onnxruntime.quantization", "onnx", "optuna"),
    *("scipy.special", "sklearn.datasets", "sklearn.metrics", "sklearn.model_selection", "edgebench.api"),
)


def begun(arguments: list[str], folder: Path) -> int:
    """Run a command in a process of its own, which says nothing; returns its number."""
    number = os.fork()
    if number == 0:
        os.chdir(folder)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (1, 2):
            os.dup2(nowhere, stream)
        os._exit(execute(arguments, False))
    return number


def ended(number: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def main() -> None:
    """Do it."""
    brief.quick(*brief.BRIEF)
    load_torchvision()
    for name in LOADED:
        importlib.import_module(name)  # or each process would spend its time there
    here, aside, codes = Path.cwd(), Path.cwd() / "aside", []
    chosen = random.Random(7)
    for arguments in json.loads(sys.argv[1]):
        begin = time.monotonic()
        measured = ended(begun(arguments, aside))
        seconds = time.monotonic() - begin
        for _ in range(TIMES):
            number = begun(arguments, here)
            time.sleep(chosen.uniform(0.2, 1.0) * seconds)
            os.kill(number, signal.SIGKILL)
            ended(number)
        codes.append([measured, ended(begun(arguments, here)), round(seconds, 2)])
    print(json.dumps(codes))


if __name__ == "__main__":
    main()
