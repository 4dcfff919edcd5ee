"""Records on a real MLflow server on loopback, and in the run files of Weights & Biases, as their own clients read them."""

from __future__ import annotations

import http.server
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli
from factory import make_cell, make_measurement, make_record
from wandbfiles import records_of

from edgebench.schema import Accuracy, Curves, Interval, Lineage, Model, Paired, Record, image_input
from edgebench.schema.model import Preprocessing
from edgebench.store import records
from edgebench.store.layout import place
from edgebench.track import _runs, addresses, hidden

pytestmark = pytest.mark.filterwarnings("ignore")  # of MLflow and Weights & Biases about their own libraries
TEACHER, STUDENT = "1" * 64, "2" * 64
SPEC = Preprocessing(height=8, width=8, channels=1, mean=(0.5,), std=(0.5,))


def network(name: str, sha256: str, recipe: str, parents: tuple[str, ...] = (), **more: Any) -> Model:
    lineage = Lineage(recipe=recipe, options={"epochs": 2, "temperature": 4.0}, parents=parents, seed=7)
    given = {"architecture": "cnn", "task": "multi-class", "classes": ("a", "b"), "parameters": 10, **more}
    return Model(name=name, inputs=(image_input(SPEC),), sha256=sha256, lineage=lineage, **given)


CURVES = Curves(metric="accuracy", epoch=(0, 1), loss=(2.0, 1.5), val_loss=(2.5, 1.25), val_metric=(0.5, 0.75))
NETWORKS = {
    "net": network("net", TEACHER, "train", role="teacher", metrics={"val_accuracy": 0.75}, curves=CURVES),
    "small": network("small", STUDENT, "distill", (TEACHER,), role="student"),
}


def made(results: Path, model: str, format: str, precision: str, **changes: Any) -> Record:
    """Write a record as a run does; each of another median."""
    cell = make_cell(model=model, format=format, precision=precision, options={"graph": "all"})
    record = make_record(cell=cell, model=NETWORKS[model], role=NETWORKS[model].role, **changes)
    return records.save(results, record, make_measurement() if record.status == "done" else None)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Make records of a teacher, of its student in two precisions, and of a cell that failed."""
    folder = tmp_path / "results"
    teacher = made(folder, "net", "torch", "fp32")
    student = made(folder, "small", "onnx", "fp32", median_ns=700.0)
    lost = Paired(samples=360, difference=Interval(value=-0.25, low=-0.5, high=0.0), gained=1, lost=2, mcnemar_p=0.5)
    accuracy = Accuracy(
        samples=360,
        headline="accuracy",
        metrics={"accuracy": 0.625},
        host_agreement=1.0,
        to_fp32=lost.model_copy(update={"reference": student.key}),
        to_teacher=lost.model_copy(update={"reference": teacher.key}),
    )
    cell = make_cell(model="small", precision="int8", options={"graph": "all"})
    quantized = make_record(cell=cell, model=NETWORKS["small"], role="student", median_ns=300.0)
    records.save(folder, quantized.model_copy(update={"accuracy": accuracy}), make_measurement())
    made(folder, "small", "tflite", "int8", status="failed")
    return folder


def contents(results: Path) -> dict[str, dict[str, Any]]:
    """Read the records' files as they are, by their hashes."""
    found = [json.loads(path.read_text()) for path in (results / "records").rglob("*.json")]
    return {content["sha256"]: content for content in found}


# ---------------------------------------------------------------- MLflow


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class Server:
    """An MLflow server that can be stopped."""

    folder: Path
    port: int

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = ["server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        stores = [
            "--backend-store-uri",
            f"sqlite:///{self.folder}/mlflow.db",
            "--artifacts-destination",
            str(self.folder / "files"),
        ]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", *command, *stores],
                stdout=log,
                stderr=log,
                env=environment,
                cwd=self.folder,
                start_new_session=True,
            )
        deadline = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                    assert answer.status == 200
                    return
            except OSError:
                assert self.process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < deadline, (self.folder / "log").read_text()
                time.sleep(0.3)

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(30)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    server = Server(tmp_path_factory.mktemp("mlflow"), free_port())
    server.start()
    yield server
    server.stop()


@pytest.fixture
def experiment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give each test an experiment of its own on the one server."""
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", request.node.name)
    return str(request.node.name)


def runs_of(server: Server, experiment: str) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(server.uri)
    return list(client.search_runs([client.get_experiment_by_name(experiment).experiment_id]))


def test_mlflow_holds_what_each_record_holds(results: Path, server: Server, experiment: str, cli: Cli, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    code, out, _ = cli("results", "track", results, "--to", f"mlflow:{server.uri}")
    assert (code, out) == (0, f"mlflow:{server.uri}: 4 records tracked\n")
    client, written = MlflowClient(server.uri), contents(results)
    found = {run.data.tags["record_sha256"]: run for run in runs_of(server, experiment) if "record_sha256" in run.data.tags}
    assert found.keys() == written.keys()
    for sha256, record in written.items():
        run, cell = found[sha256], record["cell"]
        asked = {name: run.data.params[name] for name in ("model", "format", "precision", "target", "runtime_version", "mode")}
        assert asked == {name: cell[name] for name in asked}
        assert (run.data.params["scenario.kind"], run.data.params["option.graph"]) == ("single-stream", "all")
        assert run.data.tags["bundle_sha256"] == cell["bundle_sha256"]
        assert run.data.tags["evaluation_sha256"] == cell["evaluation_sha256"]
        assert run.info.start_time == 1767323045000  # 2026-01-02T03:04:05Z
        assert run.info.end_time - run.info.start_time == 1000 * record["seconds"]
        [dataset] = run.inputs.dataset_inputs
        assert (dataset.dataset.name, dataset.dataset.digest) == ("digits", cell["evaluation_sha256"][:36])
        names = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
        if record["status"] == "failed":
            assert (run.info.status, run.data.tags["status"], run.data.tags["failed_stage"]) == ("FAILED", "failed", "trial 1")
            assert not [name for name in run.data.metrics if name.startswith("latency")]
            assert len(names) == 1
            continue
        assert (run.info.status, run.data.tags["verdict"]) == ("FINISHED", "VALID")
        latency, metrics = record["latency"], run.data.metrics
        assert metrics["latency.median_ns"] == latency["median_ns"]["value"]
        assert metrics["latency.median_ns.low"] == latency["median_ns"]["low"]
        assert metrics["latency.p99_ns"] == latency["p99_ns"]
        assert "latency.p999_ns" not in metrics  # there is none
        assert metrics["memory.peak_bytes"] == record["memory"]["peak_bytes"]
        assert metrics["accuracy.metrics.accuracy"] == record["accuracy"]["metrics"]["accuracy"]
        assert not [name for name in metrics if name.startswith("energy")]
        trials = client.get_metric_history(run.info.run_id, "latency.trial_medians_ns")
        assert [(each.step, each.value) for each in trials] == list(enumerate(latency["trial_medians_ns"]))
        file = next(path for path in (results / "records").rglob("*.json") if sha256 in path.read_text())
        assert names == {file.name, record["samples"]["file"]}
        for name in names:
            fetched = client.download_artifacts(run.info.run_id, name, str(tmp_path))
            assert Path(fetched).read_bytes() == file.with_name(name).read_bytes()


def test_mlflow_has_teacher_student_and_files_one_below_the_other(
    results: Path, server: Server, experiment: str, cli: Cli
) -> None:
    from mlflow import MlflowClient

    # The student comes first, and its teacher later: it is put below it then.
    assert cli("results", "track", results, "--to", f"mlflow:{server.uri}", "--where", "model=small")[0] == 0
    before = {run.info.run_name: run for run in runs_of(server, experiment)}
    assert "mlflow.parentRunId" not in before["small"].data.tags
    assert cli("results", "track", results, "--to", f"mlflow:{server.uri}")[0] == 0
    found = {run.info.run_name: run for run in runs_of(server, experiment)}
    parents = {name: run.data.tags.get("mlflow.parentRunId") for name, run in found.items()}
    assert parents["net"] is None
    assert parents["small"] == found["net"].info.run_id
    assert parents["small.onnx.int8 on cpu"] == parents["small.onnx.fp32 on cpu"] == found["small"].info.run_id
    assert found["small.onnx.int8 on cpu"].data.tags["lineage"] == "net → small → onnx int8"
    compared = found["small.onnx.int8 on cpu"].data.tags["compared_with_fp32"]
    assert compared == found["small.onnx.fp32 on cpu"].data.tags["cell_sha256"]
    teacher, client = found["net"], MlflowClient(server.uri)
    assert (teacher.data.params["recipe"], teacher.data.params["recipe.temperature"]) == ("train", "4.0")
    drawn = client.get_metric_history(teacher.info.run_id, "training.val_loss")
    assert [(each.step, each.value) for each in drawn] == [(0, 2.5), (1, 1.25)]


def test_mlflow_has_the_leaderboard_as_a_table(
    results: Path, server: Server, experiment: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)  # MLflow reads tables from there

    assert cli("results", "track", results, "--to", f"mlflow:{server.uri}")[0] == 0
    [board] = [run for run in runs_of(server, experiment) if run.data.tags["edgebench.kind"] == "leaderboard"]
    client = MlflowClient(server.uri)
    read = {
        artifact.path: Path(client.download_artifacts(board.info.run_id, artifact.path, str(tmp_path))).read_text()
        for artifact in client.list_artifacts(board.info.run_id)
    }
    for format, name in (("csv", "leaderboard.csv"), ("json", "leaderboard.json")):
        assert read[name] == cli("leaderboard", results, "--format", format)[1]
    table = client.load_table(client.get_run(board.info.run_id).info.experiment_id, "leaderboard.table.json", [board.info.run_id])
    assert list(table["median_ns"]) == [300.0, 700.0, 1000.0]
    assert list(table["precision"]) == ["int8", "fp32", "fp32"]


def test_the_same_records_again_make_no_run_and_a_torn_one_is_made_whole(
    results: Path, server: Server, experiment: str, cli: Cli
) -> None:
    from mlflow import MlflowClient

    to = ("--to", f"mlflow:{server.uri}")
    assert cli("results", "track", results, *to)[0] == 0
    before = runs_of(server, experiment)
    code, out, _ = cli("results", "track", results, *to, "--json")
    assert code == 0
    assert json.loads(out)["tracked"] == [{"to": to[1], "tracked": 0, "there": 4, "missing": []}]
    assert {run.info.run_id for run in runs_of(server, experiment)} == {run.info.run_id for run in before}
    torn = next(run for run in before if run.data.tags.get("verdict"))
    client = MlflowClient(server.uri)
    client.delete_tag(torn.info.run_id, "edgebench.complete")  # as of a run that broke off behind its numbers
    client.set_terminated(torn.info.run_id, "RUNNING")
    assert json.loads(cli("results", "track", results, *to, "--json")[1])["tracked"][0]["tracked"] == 1
    after = {run.info.run_id: run for run in runs_of(server, experiment)}
    assert len(after) == len(before)
    assert after[torn.info.run_id].info.status == "FINISHED"
    trials = client.get_metric_history(torn.info.run_id, "latency.trial_medians_ns")
    assert [each.step for each in trials] == [0, 1, 2]


def test_nothing_of_this_computer_goes_out_with_a_run(results: Path, server: Server, experiment: str, cli: Cli) -> None:
    assert cli("results", "track", results, "--to", f"mlflow:{server.uri}")[0] == 0
    for run in runs_of(server, experiment):
        told = json.dumps({**run.data.tags, **run.data.params, "user": run.info.user_id})
        assert not [word for word in (str(results.parent), str(Path.home())) if word in told]
        assert not re.search(rf"\b{re.escape(socket.gethostname())}\b", told)
        assert {name for name in run.data.tags if name.startswith("mlflow.")} <= {
            *("mlflow.runName", "mlflow.parentRunId", "mlflow.note.content", "mlflow.loggedArtifacts")
        }
        assert run.info.user_id in ("", "unknown")


def test_a_tracker_that_is_down_is_a_line_and_the_run_goes_on(
    here: Path, tiny_bundles: dict[tuple[str, str], Path], server: Server, experiment: str, cli: Cli
) -> None:
    bundle = tiny_bundles[("onnx", "fp32")]
    down = f"mlflow:http://somebody:secret@127.0.0.1:{free_port()}"
    code, out, err = cli("run", bundle, "--target", "sleeper.yaml", "--track", down, "--json")
    assert code == 0
    [record] = json.loads(out)["records"]
    assert (record["status"], (here / "results" / place(Record.model_validate(record))).is_file()) == ("done", True)
    [line] = [line for line in err.splitlines() if "not tracked" in line]
    assert "edgebench results track results --to mlflow:http://127.0.0.1:" in line
    assert "secret" not in out + err
    assert "Traceback" not in err
    code, out, _ = cli("run", bundle, "--target", "sleeper.yaml", "--track", f"mlflow:{server.uri}")  # found, not measured
    assert code == 0
    assert f"mlflow:{server.uri}: 1 record tracked" in out
    [run] = [run for run in runs_of(server, experiment) if run.data.tags["edgebench.kind"] == "record"]
    assert run.data.metrics["latency.median_ns"] == record["latency"]["median_ns"]["value"]


def test_a_damaged_record_is_named_and_the_others_are_tracked(results: Path, server: Server, experiment: str, cli: Cli) -> None:
    [torn] = results.rglob("net.torch.*.json")
    torn.write_text(torn.read_text().replace('"cores": 2', '"cores": 3'))
    [samples] = results.rglob("small.onnx.fp32.*.npz")
    samples.write_bytes(b"others")
    code, out, err = cli("results", "track", results, "--to", f"mlflow:{server.uri}", "--json")
    assert code == 1
    [found] = json.loads(out)["tracked"]
    missing = {Path(each["what"]).name.split(".quick")[0]: each["reason"] for each in found["missing"]}
    assert found["tracked"] == 2
    assert missing.keys() == {"net.torch.fp32", "small.onnx.fp32"}
    assert "changed since it was measured" in missing["net.torch.fp32"]
    assert "changed since it was measured" in missing["small.onnx.fp32"]
    assert len([line for line in err.splitlines() if "not tracked" in line]) == 1


class Refuses(http.server.BaseHTTPRequestHandler):
    """Answers whatever is asked with 403, as a server does whose key is another."""

    def do_GET(self) -> None:
        self.send_response(403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET  # noqa: N815  the library's own name

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def refusing() -> Iterator[str]:
    """Serve refusals; returns the address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuses)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_server_that_refuses_is_a_line_that_names_all_that_is_missing(results: Path, refusing: str, cli: Cli) -> None:
    code, out, err = cli("results", "track", results, "--to", f"mlflow:{refusing}", "--json")
    assert code == 1
    [found] = json.loads(out)["tracked"]
    assert (found["tracked"], found["there"]) == (0, 0)
    records = {path.relative_to(results).as_posix() for path in results.rglob("*.json")}
    assert {each["what"] for each in found["missing"]} == records | {"model net", "model small", "leaderboard"}
    assert all("403" in each["reason"] for each in found["missing"])
    [line] = [line for line in err.splitlines() if "not tracked" in line]
    assert "and 6 more" in line
    assert "Traceback" not in err


# ---------------------------------------------------------------- Weights & Biases


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """Let the library read its settings anew in each test, and keep its files there."""
    library = pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    library.teardown()
    yield library
    library.teardown()


def test_wandb_offline_holds_what_each_record_holds(
    results: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, wandb: Any
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    code, out, _ = cli("results", "track", results, "--to", "wandb:team/bench", "--work", tmp_path, "--where", "precision=fp32")
    assert (code, out) == (0, "wandb:team/bench: 2 records tracked\n")
    wandb.teardown()  # its service has written the files once it has ended
    files = sorted((tmp_path / "logs/wandb").glob("offline-run-*/run-*.wandb"))
    read = [records_of(path) for path in files]
    runs = {str(each["run"].display_name): each for each in read}
    assert len(files) == 5  # two records, their two models, the leaderboard
    written = {"{model}.{format}.{precision} on cpu".format(**each["cell"]): each for each in contents(results).values()}
    for name in ("net.torch.fp32 on cpu", "small.onnx.fp32 on cpu"):
        found, record = runs[name], written[name]
        assert (found["run"].entity, found["run"].project, found["run"].run_group) == ("team", "bench", record["cell"]["model"])
        assert (found["config"]["record_sha256"], found["config"]["scenario.kind"]) == (record["sha256"], "single-stream")
        assert found["summary"]["latency/median_ns"] == record["latency"]["median_ns"]["value"]
        assert found["summary"]["accuracy/metrics/accuracy"] == record["accuracy"]["metrics"]["accuracy"]
        assert [each["latency/trial_medians_ns"] for each in found["history"]] == record["latency"]["trial_medians_ns"]
        assert {"VALID", "cpu", "fp32"} <= set(found["run"].tags)
        assert record["samples"]["file"] in found["artifacts"]
        assert found["exit"] == 0
    assert runs["small.onnx.fp32 on cpu"]["config"]["lineage"] == "net → small → onnx fp32"
    assert [each["training/loss"] for each in runs["net"]["history"]] == [2.0, 1.5]
    for each in read:
        assert each["run"].host == ""
        assert socket.gethostname() not in str(each["environment"])
        assert str(Path.home()) not in str(each["environment"])
    code, out, _ = cli("results", "track", results, "--to", "wandb:team/bench", "--work", tmp_path, "--where", "precision=fp32")
    assert out == "wandb:team/bench: 0 records tracked, 2 were there already\n"
    assert sorted((tmp_path / "logs/wandb").glob("offline-run-*/run-*.wandb")) == files


def test_wandb_without_a_key_or_a_server_is_a_line(
    results: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, wandb: Any
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    code, out, err = cli("results", "track", results, "--to", "wandb:bench", "--work", tmp_path)
    assert (code, out) == (1, "wandb:bench: 0 records tracked\n")
    assert "no key for http://127.0.0.1" in err
    assert len([line for line in err.splitlines() if "not tracked" in line]) == 1
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    code, _, err = cli("results", "track", results, "--to", "wandb:bench", "--work", tmp_path)
    assert code == 1
    assert "does not answer" in err
    assert not list(tmp_path.rglob("run-*.wandb"))


# ---------------------------------------------------------------- what a tracker is told


def test_an_address_that_is_none_is_refused_before_anything_is_measured(here: Path, cli: Cli) -> None:
    for given, said in (
        ("mlfow:http://127.0.0.1:1", "unknown tracker 'mlfow': did you mean 'mlflow'? known: mlflow, wandb"),
        ("mlflow:127.0.0.1:5000", "mlflow:127.0.0.1:5000: MLflow's address is http://HOST:PORT"),
        ("wandb:a/b/c", "wandb:a/b/c: Weights & Biases' address is PROJECT or ENTITY/PROJECT"),
    ):
        for command in (("run", "digits", "--track"), ("results", "track", "--to")):
            code, out, err = cli(*command, given)
            assert (code, out) == (2, "")
            assert said in err
            assert len(err.splitlines()) == 1
    assert not (here / "results").exists()
    assert cli("results", "track")[0] == 2


def test_an_address_without_a_server_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:word@tracker:5000")
    [found] = addresses(["mlflow"])
    assert (found.where, str(found)) == ("http://me:word@tracker:5000", "mlflow:http://tracker:5000")
    assert hidden("sqlite:///a and https://u:p@h/x") == "sqlite:///a and https://h/x"


def test_lists_and_intervals_are_metrics_by_what_they_are_of() -> None:
    rails = ({"rail": "VDD_CPU", "joules": {"value": 0.25, "low": 0.125, "high": 0.5}, "short": True},)
    points = ({"batch": 8, "per_second": {"value": 800.0}, "median_ns": 1e7},)
    record = Record.model_validate({**make_record().model_dump(by_alias=True), "rails": rails, "throughput": points})
    found = _runs.figures(record)
    assert found["rails.VDD_CPU.joules"] == [(0, 0.25)]
    assert found["rails.VDD_CPU.joules.high"] == [(0, 0.5)]
    assert found["throughput.batch_8.per_second"] == [(0, 800.0)]
    assert not [name for name in found if "short" in name or name.endswith(".value")]


def test_a_ring_of_parents_ends() -> None:
    first, second = network("a", "3" * 64, "qat", ("4" * 64,)), network("b", "4" * 64, "qat", ("3" * 64,))
    assert _runs.chain(first, {each.sha256: (each.name, each.lineage.parents) for each in (first, second)}) == "b → a"
    assert _runs.chain(first, {}) == f"{'4' * 10} → a"
