"""The study that a search keeps: which choices were tried, what came of them, and what to try next (Optuna's TPE).

It lies in one SQLite file. A process that dies leaves trials that are taken for running: whoever opens the study next
holds the folder's lock, so that these are nobody's, and queues each of them once more before it closes it.
"""

from __future__ import annotations

import fcntl
import importlib.util
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from edgebench.errors import InputError, MissingExtra
from edgebench.files import storage
from edgebench.search.space import SAME, Choice, Space

FILE, LOCK = "study.db", ".lock"
NAME = "compress"
DIRECTIONS = ("maximize", "minimize", "minimize")
"""Metric, median latency, size."""
SEED = 0
LABEL, RESULT, AGAIN, KEY = "label", "result", "again", "key"
"""Attributes of trials: the name of a single recipe, what came of it, which trial it repeats; and the study's own key."""
DONE, SKIPPED, FAILED, REPEATED = "done", "skipped", "failed", "repeated"
"""What comes of a trial: it was measured, not tried since it would break a limit, failed, or was chosen before."""

NOTHING: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True)
class Tried:
    """A trial that is over."""

    number: int
    label: str
    """The single recipe that it is; empty: the search's own."""
    choice: Choice
    result: Mapping[str, Any]
    """What came of it, as plain JSON values; `state` and `reason` always."""

    @property
    def state(self) -> str:
        """Return what came of it."""
        return str(self.result["state"])


@dataclass(frozen=True)
class Begun:
    """A trial that is running."""

    trial: Any
    choice: Choice
    label: str

    @property
    def number(self) -> int:
        """Return its number."""
        return int(self.trial.number)


@dataclass
class Study:
    """An open study; see `open_study`."""

    optuna: Any
    study: Any
    space: Space

    def queue(self, single: Mapping[str, Choice]) -> None:
        """Queue single recipes that were not queued before."""
        known = {trial.user_attrs.get(LABEL) for trial in self._trials()}
        for label, choice in single.items():
            if label not in known:
                self.study.enqueue_trial(self.space.params(choice), user_attrs={LABEL: label})

    def resume(self) -> int:
        """Queue again what a process that died was trying; returns how many these are.

        Not queued again is a choice of the search's own that was still being made, or had just been found tried before.
        """
        running = self.optuna.trial.TrialState.RUNNING
        repeated = {trial.user_attrs.get(AGAIN) for trial in self._trials()}
        known, names = {each.choice for each in self.tried()}, self.space.params(next(self.space.every())).keys()
        orphans = [trial for trial in self._trials() if trial.state == running]
        for trial in orphans:
            params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
            chosen = params.keys() == names and (LABEL in trial.user_attrs or self.space.choice(params) not in known)
            if chosen and trial.number not in repeated:
                attributes = {LABEL: trial.user_attrs.get(LABEL, ""), AGAIN: trial.number}
                self.study.enqueue_trial(params, user_attrs=attributes)
            self.study.tell(trial.number, state=self.optuna.trial.TrialState.FAIL)
        return len(orphans)

    def repeat(self, tried: Tried) -> None:
        """Queue a trial that is over once more, unless it is queued already."""
        if tried.number not in {trial.user_attrs.get(AGAIN) for trial in self._trials()}:
            attributes = {LABEL: tried.label, AGAIN: tried.number}
            self.study.enqueue_trial(self.space.params(tried.choice), user_attrs=attributes)

    def ask(self) -> Begun | None:
        """Begin what is queued, else what promises most; None where everything was tried."""
        while True:
            known = {each.choice for each in self.tried()}
            waiting = any(trial.state == self.optuna.trial.TrialState.WAITING for trial in self._trials())
            left = [choice for choice in self.space.every() if choice not in known]
            if not waiting and not left:
                return None
            self._reseed()
            trial = self.study.ask()
            begun = Begun(trial, self.space.choice(self._suggested(trial)), str(trial.user_attrs.get(LABEL, "")))
            if begun.choice not in known or LABEL in trial.user_attrs:
                return begun
            self.close(begun, {"state": REPEATED, "reason": "tried before"})
            if left:
                drawn = left[int(np.random.default_rng([SEED, begun.number]).integers(len(left)))]
                self.study.enqueue_trial(self.space.params(drawn))

    def close(
        self, begun: Begun, result: Mapping[str, Any], values: Sequence[float] = (), beyond: Mapping[str, float] = NOTHING
    ) -> None:
        """Write down what came of a trial.

        values: of what was measured, in the order of `DIRECTIONS`. beyond: by how much it breaks each limit, as a share of it;
        of one that was not tried, by how much it would.
        """
        states = self.optuna.trial.TrialState
        for name, share in beyond.items():
            begun.trial.set_constraint(name, share)
        begun.trial.set_user_attr(RESULT, dict(result))
        if values:
            self.study.tell(begun.trial, list(values))
        else:
            self.study.tell(begun.trial, state=states.PRUNED if result["state"] == SKIPPED else states.FAIL)

    def tried(self) -> list[Tried]:
        """List the trials that are over, in the order in which they began; of one that was begun again, the last alone."""
        found = []
        for trial in self._trials():
            result = trial.user_attrs.get(RESULT)
            if trial.state.is_finished() and result is not None and result["state"] != REPEATED:
                choice = self.space.choice(trial.params)
                found.append(Tried(trial.number, str(trial.user_attrs.get(LABEL, "")), choice, result))
        last = {(each.label, each.choice): each for each in found}
        return [each for each in found if last[each.label, each.choice] is each]

    def note(self, name: str, value: Any) -> None:
        """Keep something beside the trials."""
        self.study.set_user_attr(name, value)

    def noted(self, name: str) -> Any:
        """Return what was kept; None where nothing was."""
        return self.study.user_attrs.get(name)

    def _trials(self) -> list[Any]:
        return list(self.study.get_trials(deepcopy=False))

    def _suggested(self, trial: Any) -> dict[str, Any]:
        space = self.space
        return {
            "student": trial.suggest_categorical("student", [SAME, *space.students]),
            "ratio": trial.suggest_int("ratio", 0, len(space.ratios) - 1),
            "alpha": trial.suggest_int("alpha", 0, len(space.alphas) - 1),
            "file": trial.suggest_categorical("file", [file.name for file in space.files]),
        }

    def _reseed(self) -> None:
        """Draw by the number of trials, so that a study that is continued does not draw again what it drew at its beginning."""
        self.study.sampler = self.optuna.samplers.TPESampler(seed=SEED + len(self._trials()), multivariate=True)


def require() -> None:
    """Raise `MissingExtra` where Optuna is not installed."""
    if importlib.util.find_spec("optuna") is None:
        raise MissingExtra("searching", "search", "optuna")


@contextmanager
def open_study(folder: Path, key: str, space: Space) -> Iterator[Study]:
    """Open a folder's study, or begin one; its folder is this process's alone while it is open.

    `InputError` where another process has it, or it is of another search.
    """
    require()
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with storage(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        path = folder / FILE
        if not path.exists():
            _begin(optuna, path, key)
        with _opened(optuna, path) as kept:
            study = optuna.load_study(study_name=NAME, storage=kept)
            if study.user_attrs.get(KEY) != key:
                raise InputError(
                    f"{folder}: holds another search (model, data, device, limits or choices differ); give another --out"
                )
            yield Study(optuna, study, space)


def _begin(optuna: Any, path: Path, key: str) -> None:
    """Make the file beside its place, so that one that is there is whole."""
    fresh = path.with_name(f".{path.name}")
    for left in path.parent.glob(f"{fresh.name}*"):
        left.unlink()
    with _opened(optuna, fresh) as kept:
        study = optuna.create_study(study_name=NAME, storage=kept, directions=list(DIRECTIONS))
        study.set_user_attr(KEY, key)
    os.replace(fresh, path)


@contextmanager
def _opened(optuna: Any, path: Path) -> Iterator[Any]:
    from sqlalchemy.engine import URL

    url = URL.create("sqlite", database=str(path.absolute())).render_as_string()
    url = url.replace("{", "{{").replace("}", "}}")  # Optuna fills in what stands in braces
    kept = optuna.storages.RDBStorage(url)
    try:
        yield kept
    finally:
        kept.remove_session()
        kept.engine.dispose()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which ends with the process that holds it, where its file system has locks."""
    handle = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{folder}: another process searches there; wait for it, or give another --out") from error
        except OSError:
            pass  # no locks here
        yield
    finally:
        os.close(handle)
