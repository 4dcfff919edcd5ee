"""MLflow: an experiment called edgebench, a run for each record below the run of its model, and that below its teacher's."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgebench.recipes._loggers import PROJECT
from edgebench.schema.tracking import TrackedRun

REQUIRES = (("mlflow", "mlflow"),)
SCHEMES = ("http://", "https://", "sqlite:///", "postgresql", "mysql", "mssql", "file:", "databricks", "/", "./", "../")
QUICK = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""Settings of MLflow where the user has none: a server that is down is told of within seconds, and nothing calls home."""
KIND, SHA256, WHOLE, PARENTS = "edgebench.kind", "edgebench.sha256", "edgebench.complete", "edgebench.parents"
PARENT, NOTE, TABLES = "mlflow.parentRunId", "mlflow.note.content", "mlflow.loggedArtifacts"
LONGEST = {"param": 6000, "tag": 5000}
"""Characters of a value that every server takes."""
BATCH = 100
"""So many parameters, tags or metrics go at once."""


def check(where: str) -> str:
    """Return the address of the server, or of what `MLFLOW_TRACKING_URI` names where none is given."""
    found = where or os.environ.get("MLFLOW_TRACKING_URI", "")
    if not found.startswith(SCHEMES):
        raise ValueError("MLflow's address is http://HOST:PORT, sqlite:///FILE, or that of MLFLOW_TRACKING_URI; give one of them")
    return found


class Tracker:
    """MLflow's client, which adds nothing of this computer or its user to a run."""

    def __init__(self, where: str, folder: Path) -> None:
        for name, value in QUICK.items():
            os.environ.setdefault(name, value)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from mlflow import MlflowClient

            for name in ("urllib3", "mlflow", "alembic"):  # what they tell of retries and tables is not the user's affair
                logging.getLogger(name).setLevel(logging.ERROR)
            self._client = MlflowClient(tracking_uri=where)
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
            known = self._client.get_experiment_by_name(name)
            self._experiment = known.experiment_id if known else self._client.create_experiment(name)

    def has(self, kind: str, sha256: str) -> bool:
        """Return whether a run is there, and whole."""
        return any(run.data.tags.get(WHOLE) == "true" for run in self._found(kind, sha256))

    def put(self, run: TrackedRun) -> None:
        """Write a run, or go on with one that broke off: MLflow keeps equal parameters and points once."""
        tags = {KIND: run.kind, SHA256: run.sha256, PARENTS: ", ".join(run.parents)}
        known = self._found(run.kind, run.sha256)
        own = known[0] if known else self._client.create_run(self._experiment, run.begin_ms, tags, run.name)
        run_id = own.info.run_id
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            self._write(run_id, run)
            self._client.set_tag(run_id, WHOLE, "true")
            self._client.set_terminated(run_id, "FAILED" if run.failed else "FINISHED", run.end_ms)
        if run.kind == "model":
            self._adopt(run_id, run.sha256)

    def close(self) -> None:
        """Leave nothing open: each request was one of its own."""

    def _found(self, kind: str, sha256: str) -> list[Any]:
        return list(self._search(f"tags.`{SHA256}` = '{sha256}' and tags.`{KIND}` = '{kind}'"))

    def _search(self, text: str) -> Iterator[Any]:
        token = None
        while True:
            page = self._client.search_runs([self._experiment], text, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _write(self, run_id: str, run: TrackedRun) -> None:
        from mlflow.entities import Metric, Param, RunTag

        named = {**run.tags, **({NOTE: run.note} if run.note else {}), **self._parent(run)}
        if run.tables:
            named[TABLES] = json.dumps([{"path": f"{name}.table.json", "type": "table"} for name in run.tables])
        points = [(name, step, value) for name, values in run.metrics.items() for step, value in values]
        client = self._client
        for some in _parts([Param(_name(name), _cut(value, "param")) for name, value in run.parameters.items()]):
            client.log_batch(run_id, params=some)
        for some in _parts([Metric(_name(name), value, run.begin_ms, step) for name, step, value in points]):
            client.log_batch(run_id, metrics=some)
        for some in _parts([RunTag(_name(name), _cut(value, "tag")) for name, value in named.items()]):
            client.log_batch(run_id, tags=some)
        self._log_dataset(run_id, run)
        self._log_files(run_id, run)

    def _parent(self, run: TrackedRun) -> dict[str, str]:
        """Find the run that this one stands below."""
        for sha256 in run.parents:
            for found in self._found("model", sha256):
                return {PARENT: found.info.run_id}
        return {}

    def _adopt(self, run_id: str, sha256: str) -> None:
        """Put below a model what was made from it and came here before it."""
        for each in self._search(f"tags.`{PARENTS}` LIKE '%{sha256}%'"):
            if PARENT not in each.data.tags and each.info.run_id != run_id:
                self._client.set_tag(each.info.run_id, PARENT, run_id)

    def _log_dataset(self, run_id: str, run: TrackedRun) -> None:
        if run.dataset is None:
            return
        from mlflow.entities import Dataset, DatasetInput, InputTag

        name, sha256 = run.dataset
        source = json.dumps({"name": name, "sha256": sha256})
        what = Dataset(name=name[:500], digest=sha256[:36], source_type="edgebench", source=source)
        context = "training" if run.kind == "model" else "evaluation"
        self._client.log_inputs(run_id, [DatasetInput(what, [InputTag("mlflow.data.context", context)])])

    def _log_files(self, run_id: str, run: TrackedRun) -> None:
        made = {
            f"{name}.table.json": json.dumps({"columns": list(columns), "data": list(rows)}).encode()
            for name, (columns, rows) in run.tables.items()
        }
        with tempfile.TemporaryDirectory(prefix="edgebench-") as folder:
            for name, content in {**run.files, **made}.items():
                path = Path(folder, name)
                path.write_bytes(content)
                self._client.log_artifact(run_id, str(path))


def _parts(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))


def _name(name: str) -> str:
    """Write a name in the characters that MLflow takes."""
    return re.sub(r"[^\w.\- /]", "_", name)[:250]


def _cut(text: str, kind: str) -> str:
    return text if len(text) <= LONGEST[kind] else f"{text[: LONGEST[kind] - 1]}…"
