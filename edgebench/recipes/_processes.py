"""The processes of a training that several devices share: each runs the same recipe, and the first one writes.

They are those that `torchrun` started, or this starts them itself: each one then gets the job as a file, so that nothing that
led to it (a command line, a script, a notebook) is run again.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from edgebench import errors
from edgebench.errors import EdgebenchError, ExportError, InputError

if TYPE_CHECKING:
    from edgebench.recipes import Job

RANK, COUNT = "LOCAL_RANK", "WORLD_SIZE"
"""What torchrun, Lightning and this call the number of a process and how many there are."""
POLL_SECONDS = 0.1
END_SECONDS = 10.0
"""How long the others have to end by themselves once one has failed, and once they were told to."""


@functools.cache
def place() -> tuple[int, int]:
    """Return this process's number and how many were started for one training; asked once, since Lightning forgets it."""
    if RANK not in os.environ:
        return 0, 1
    return int(os.environ[RANK]), int(os.environ.get(COUNT, "1"))


def started() -> bool:
    """Return whether this process is one of several that were started for one training."""
    return place()[1] > 1


def is_first() -> bool:
    """Return whether this process writes and prints: the only one, or the first of several."""
    return not started() or place()[0] == 0


def check(name: str, devices: int) -> None:
    """Refuse a training among processes that are more or fewer than its devices."""
    if started() and place()[1] != devices:
        raise InputError(
            f"{name}: {place()[1]} processes were started for it (torchrun's --nproc-per-node), and devices is {devices}; "
            "give both the same number"
        )


def start(recipe: str, job: Job, root: Path, devices: int) -> None:
    """Make a model in so many processes; passes their progress on, and raises what the first that fails raised."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "job.json"
        path.write_text(json.dumps(_written(recipe, job, root)), encoding="utf-8")
        logs = [Path(folder) / f"{rank}.log" for rank in range(devices)]
        with contextlib.ExitStack() as stack:
            streams = [stack.enter_context(log.open("wb")) for log in logs]
            group = stack.enter_context(_group(path, streams))
            _watch(job, group, logs, path.with_suffix(".progress"))


def _written(recipe: str, job: Job, root: Path) -> dict[str, Any]:
    return {
        "recipe": recipe,
        "root": str(root),
        "name": job.name,
        "architecture": job.architecture,
        "role": job.role,
        "dataset": job.dataset.ref.model_dump(mode="json"),
        "input": job.input.model_dump(mode="json"),
        "options": dict(job.options),
        "teacher": None if job.teacher is None else str(job.teacher),
        "parent": None if job.parent is None else str(job.parent),
        "trust": job.trust,
    }


@contextlib.contextmanager
def _group(path: Path, streams: Sequence[IO[bytes]]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start the processes; none of them is left at the end."""
    shared = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "NODE_RANK": "0",
        COUNT: str(len(streams)),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // len(streams)))),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    command = [sys.executable, "-m", "edgebench.recipes._worker", str(path)]
    group: list[subprocess.Popen[bytes]] = []
    try:
        for rank, stream in enumerate(streams):
            own = {**shared, RANK: str(rank)}
            group.append(subprocess.Popen(command, env=own, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT))
        yield group
    finally:
        for process in group:
            process.terminate()
        for process in group:
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _watch(job: Job, group: Sequence[subprocess.Popen[bytes]], logs: Sequence[Path], progress: Path) -> None:
    """Wait until all have ended; where one fails, the others, which wait for it, get no more than a moment."""
    progress.touch()
    until = None
    with progress.open("rb") as stream:
        while any(process.poll() is None for process in group):
            time.sleep(POLL_SECONDS)
            _report(job, stream)
            if until is None and any(process.returncode for process in group):
                until = time.monotonic() + END_SECONDS
            if until is not None and time.monotonic() > until:
                break
        _report(job, stream)
    failed = {rank: process.returncode for rank, process in enumerate(group) if process.returncode}
    if failed:
        raise _reason(job, failed, logs)


def _report(job: Job, stream: IO[bytes]) -> None:
    """Pass on the latest of what came since: it says all."""
    come = stream.read()
    lines, _, begun = come.rpartition(b"\n")
    stream.seek(-len(begun), os.SEEK_CUR)
    if lines:
        what, done, total = json.loads(lines.splitlines()[-1])
        job.progress(what, done, total)


def _reason(job: Job, failed: Mapping[int, int], logs: Sequence[Path]) -> EdgebenchError:
    """Say why: what one raised on purpose, else how the first that broke off ended, with the last line that it wrote."""
    lines = {rank: logs[rank].read_text(encoding="utf-8", errors="replace").splitlines() for rank in failed}
    for line in (line for own in lines.values() for line in reversed(own) if line.startswith("{")):
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
            said = json.loads(line)
            error: EdgebenchError = EdgebenchError.__new__(getattr(errors, said["error"]))
            Exception.__init__(error, said["text"])
            return error
    rank, code = next(iter(failed.items()))
    last = next((line for line in reversed(lines[rank]) if line.strip()), "it said nothing")
    return ExportError(f"{job.name}: process {rank} of {len(logs)} ended with {code}: {last.strip()[:300]}")
