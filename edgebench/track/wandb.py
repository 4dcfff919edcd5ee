"""Weights & Biases: a run for each record and each model, grouped by model; offline where its own settings say so."""

from __future__ import annotations

import contextlib
import io
import netrc
import os
import re
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgebench.errors import InputError
from edgebench.recipes._loggers import PROJECT
from edgebench.schema.tracking import TrackedRun

REQUIRES = (("wandb", "wandb"),)
NAME = re.compile(r"[\w.-]{1,128}")
WHOLE = "edgebench/complete"
"""Stands in a run's summary, and as a file beside one that is kept offline, once all of it is written."""
MARK = "edgebench-complete"
SECONDS = 30
"""To wait for the server."""
PRIVATE = {
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "email": "",
    "host": "",
    "program": "edgebench",
    "save_code": False,
    "username": "",
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_executable": "",
    "x_save_requirements": False,
}
"""What a run would tell of this computer, its user and its folders."""
IMPATIENT = {
    "silent": True,
    "x_graphql_retry_max": 2,
    "x_graphql_retry_wait_max_seconds": 2,
    "x_graphql_timeout_seconds": SECONDS,
    "x_file_stream_retry_max": 2,
    "x_file_stream_retry_wait_max_seconds": 2,
    "x_file_transfer_retry_max": 2,
    "x_file_transfer_retry_wait_max_seconds": 2,
}
"""Instead of hours of trying again, while a command waits: what is missing is made up for later."""


def check(where: str) -> str:
    """Return the project, with its entity where there is one; edgebench where nothing is named."""
    parts = (where or PROJECT).split("/")
    if len(parts) > 2 or not all(map(NAME.fullmatch, parts)):
        raise ValueError("Weights & Biases' address is PROJECT or ENTITY/PROJECT, of letters, digits, - _ and .")
    return "/".join(parts)


class Tracker:
    """The library's runs, one after the other; each has an id that its hash gives it, so that none is there twice."""

    def __init__(self, where: str, folder: Path) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        os.environ.setdefault("WANDB_DATA_DIR", str((folder / "wandb" / "data").absolute()))
        folder.mkdir(parents=True, exist_ok=True)
        with _quiet():
            import wandb

            self._wandb = wandb
            own = wandb.setup(settings=wandb.Settings(**IMPATIENT)).settings
        self._entity, _, self._project = where.rpartition("/")
        self._folder, self._base = folder, str(own.base_url)
        if own.mode == "disabled":
            raise InputError("WANDB_MODE is disabled; set it to online or offline")
        self._offline = own.mode in ("offline", "dryrun")
        if not self._offline and not _has_key(self._base):
            raise InputError(f"no key for {self._base}; `wandb login` asks for one, WANDB_MODE=offline does without")
        if not self._offline:
            _check_answers(self._base)

    def has(self, kind: str, sha256: str) -> bool:
        """Return whether a run is there, and whole: in the folder where it is offline, else on the server."""
        own = _id(kind, sha256)
        if self._offline:
            return any((self._folder / "wandb").glob(f"offline-run-*-{own}/{MARK}"))
        try:
            with _quiet():
                api = self._wandb.Api(timeout=SECONDS)
            found = api.run("/".join(filter(None, (self._entity or api.default_entity, self._project, own))))
        except Exception as error:  # the library has one class for whatever goes wrong
            if "could not find" in str(error).lower():
                return False
            raise
        return bool(found.summary.get(WHOLE))

    def put(self, run: TrackedRun) -> None:
        """Write a run, or go on with one that broke off."""
        settings = self._wandb.Settings(
            **PRIVATE, **IMPATIENT, init_timeout=SECONDS, x_start_time=run.begin_ms / 1000, root_dir=str(self._folder)
        )
        with _quiet():
            opened = self._wandb.init(
                entity=self._entity or None,
                project=self._project,
                id=_id(run.kind, run.sha256),
                name=run.name,
                group=run.group,
                job_type=run.kind,
                config={**run.parameters, **run.tags, "judged_on": ", ".join(run.dataset or ())},
                tags=[label[:64] for label in run.labels if label],
                notes=run.note or None,
                dir=str(self._folder),
                resume=None if self._offline else "allow",
                reinit="finish_previous",
                settings=settings,
            )
            try:
                self._write(opened, run)
                opened.summary[WHOLE] = True
            except BaseException:
                opened.finish(exit_code=1)
                raise
            opened.finish(exit_code=int(run.failed))
        if self._offline:
            Path(opened.settings.sync_dir, MARK).touch()

    def close(self) -> None:
        """Leave nothing open: each run was finished."""

    def _write(self, opened: Any, run: TrackedRun) -> None:
        for step in sorted({step for values in run.metrics.values() if len(values) > 1 for step, _ in values}):
            some = {_name(name): dict(values) for name, values in run.metrics.items() if len(values) > 1}
            opened.log({name: values[step] for name, values in some.items() if step in values}, step=step)
        opened.summary.update({_name(name): values[0][1] for name, values in run.metrics.items() if len(values) == 1})
        for name, (columns, rows) in run.tables.items():
            opened.log({name: self._wandb.Table(columns=list(columns), data=list(rows), allow_mixed_types=True)})
        if run.files:
            artifact = self._wandb.Artifact(f"{run.kind}-{run.sha256[:12]}", run.kind, metadata=dict(run.tags))
            with tempfile.TemporaryDirectory(prefix="edgebench-") as folder:
                for name, content in run.files.items():
                    path = Path(folder, name)
                    path.write_bytes(content)
                    artifact.add_file(str(path), name)
            opened.log_artifact(artifact)


def _id(kind: str, sha256: str) -> str:
    return f"{kind}-{sha256[:24]}"


def _name(name: str) -> str:
    """Write a name as the library groups them."""
    return name.replace(".", "/")


def _has_key(base: str) -> bool:
    """Return whether there is a key for a server, so that nobody is asked for one."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    try:
        known = netrc.netrc(os.environ.get("NETRC") or None)
    except (OSError, netrc.NetrcParseError):
        return False
    return known.authenticators(urllib.parse.urlsplit(base).hostname or "") is not None


def _check_answers(base: str) -> None:
    """Raise `InputError` where nothing answers at an address, for which the library would wait long."""
    try:
        urllib.request.urlopen(base, timeout=SECONDS).close()  # noqa: S310  as the library's own settings name it
    except urllib.error.HTTPError:
        return  # an answer
    except (OSError, ValueError) as error:
        raise InputError(f"{base} does not answer ({error}); see to it, or set WANDB_MODE=offline") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library's advice about its own future to itself, and standard output for what was asked for."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
