"""Start the device's Python with a job, and end it with all that it started."""

import os
import signal
import subprocess
import sys
import time
from typing import IO, List, Optional

from .messages import in_background

ENDING_SECONDS = 3.0


def _python(root: str) -> str:
    """Choose the environment's Python where `targets setup` made one, else the one that runs this."""
    made = os.path.join(root, "env", "current", "bin", "python")
    return made if os.path.exists(made) else sys.executable


def start_program(root: str, arguments: List[str], out: Optional[int] = None, *held: int) -> "subprocess.Popen[bytes]":
    """Start the device's Python; it holds these descriptors, and the locks on them, for as long as it lives."""
    command = [_python(root)] + arguments
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=out, start_new_session=True, pass_fds=held)


def hand_over(process: "subprocess.Popen[bytes]", job: str) -> None:
    """Write a program's job; its standard input stays open, and its end tells the program to leave."""
    assert process.stdin is not None
    try:
        process.stdin.write(job.encode("utf-8"))
        process.stdin.flush()
    except OSError:
        pass


def end_program(process: "subprocess.Popen[bytes]") -> None:
    """End a program and all of its group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except OSError:
            pass
        end = time.monotonic() + ENDING_SECONDS
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)


def execute(root: str, arguments: List[str], job: str, source: IO[bytes]) -> None:
    """Run a program until it ends or the connection does; never returns."""
    process = start_program(root, arguments)

    def watch() -> None:
        while source.read(1 << 16):
            pass
        end_program(process)
        os._exit(3)

    in_background(watch)
    hand_over(process, job)
    code = process.wait()
    end_program(process)
    os._exit(code if code >= 0 else 128 - code)
