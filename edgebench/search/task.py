"""One model to make, as something that can be sent to another process, here or on another computer."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgebench.errors import EdgebenchError
from edgebench.schema import Profile, Progress, no_progress


@dataclass(frozen=True)
class Task:
    """A model of a profile, and where models lie; whoever makes it needs edgebench, the data set and that folder."""

    profile: Profile
    model: str
    work: Path
    trust: bool = False
    needs: tuple[str, ...] = ()
    """Models that are missing, and must be made before."""


@dataclass(frozen=True)
class Made:
    """What became of a task."""

    model: str
    folder: Path | None
    """None where it could not be made."""
    reason: str = ""
    """Why."""


def make(task: Task, progress: Progress = no_progress) -> Made:
    """Make a model, and whatever it is made of first; what was made before is found.

    Errors come back as a reason: not every error survives the way between processes.
    """
    from edgebench.data import open_images
    from edgebench.run.options import MeasureOptions, RunOptions
    from edgebench.run.prepare import Maker
    from edgebench.run.session import Session

    try:
        session = Session(MeasureOptions(), RunOptions(work=task.work, trust=task.trust), progress)
        return Made(task.model, Maker(task.profile, open_images(task.profile.dataset), session).folder(task.model))
    except (EdgebenchError, RuntimeError, ValueError) as error:
        return Made(task.model, None, str(error) or type(error).__name__)


def make_here(tasks: Sequence[Task], progress: Progress) -> list[Made]:
    """Make models one after the other, in this process; one whose parent could not be made is not tried."""
    found: dict[str, Made] = {}
    for task in tasks:
        found[task.model] = _unmade(task, found) or make(task, progress)
    return list(found.values())


def make_all(tasks: Sequence[Task], executor: Executor, progress: Progress = no_progress) -> list[Made]:
    """Make models by an executor, side by side: each once those that it needs are made; the others may come in any order."""
    found: dict[str, Made] = {}
    waiting, running = list(tasks), dict[Future[Made], Task]()
    while waiting or running:
        for task in [task for task in waiting if {need for need in task.needs if need in _names(tasks)} <= found.keys()]:
            waiting.remove(task)
            unmade = _unmade(task, found)
            if unmade is not None:
                found[task.model] = unmade
            else:
                running[executor.submit(make, task)] = task
        progress(f"train {len(tasks)} models side by side", len(found), len(tasks))
        done, _ = wait(running, return_when=FIRST_COMPLETED) if running else (set(), set())
        for future in done:
            task = running.pop(future)
            found[task.model] = _result(task, future)
    return [found[task.model] for task in tasks]


def _names(tasks: Sequence[Task]) -> set[str]:
    return {task.model for task in tasks}


def _unmade(task: Task, found: Mapping[str, Made]) -> Made | None:
    lost = next((found[need] for need in task.needs if need in found and found[need].folder is None), None)
    return None if lost is None else Made(task.model, None, f"{lost.model} could not be made: {lost.reason}")


def _result(task: Task, future: Future[Made]) -> Made:
    try:
        return future.result()
    except Exception as error:  # the process died, or its executor is another's
        return Made(task.model, None, f"its process ended: {error or type(error).__name__}")


# ---------------------------------------------------------------- processes here


@contextmanager
def processes(jobs: int) -> Iterator[Executor]:
    """Keep so many processes, each with its share of the cores; an interruption ends them, and so does the death of this one."""
    before = set(multiprocessing.active_children())
    threads = max(1, (os.cpu_count() or 1) // jobs)
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _begin, (threads,))
    try:
        yield pool
    except BaseException:
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def _begin(threads: int) -> None:
    """Set a new process up: libraries read the number of threads when they are imported, and Ctrl-C is its parent's to hear."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, str(threads))
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    """End this process with the one that started it, whose work it would go on doing beside its successor."""
    parent.join()
    os._exit(1)
