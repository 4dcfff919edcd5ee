"""What is kept of a training's epochs: files beside the model, other loggers, and what a report draws."""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import verbs
from factory import make_cell, make_record
from few import few_digits

from edgebench import models
from edgebench.errors import InputError, MissingExtra
from edgebench.recipes import _history, _loggers
from edgebench.report import figures
from edgebench.report.charts import training
from edgebench.report.detail import gather
from edgebench.schema import Curves, Model
from edgebench.store import records

FAST = {"epochs": 3, "batch_size": 64, "learning_rate": 0.01, "augment": "none", "threads": 1}


def train(here: Path, **options: Any) -> Path:
    return verbs.train("tinynet:net", dataset=few_digits(here, 60), size=16, name="tiny", options={**FAST, **options})


@pytest.fixture(scope="module")
def model(trained: Path) -> Model:
    return models.read_model(trained)


def test_every_epoch_stands_beside_the_model_and_in_it(trained: Path, model: Model) -> None:
    history = json.loads((trained / "history.json").read_text())
    with (trained / "history.csv").open(newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert rows == history
    assert model.curves is not None
    assert (model.curves.metric, model.curves.epoch) == ("accuracy", (0, 1, 2))
    for name in ("loss", "val_loss", "val_metric"):
        assert getattr(model.curves, name) == pytest.approx([entry[name] for entry in history], rel=1e-4)


def test_a_long_training_is_thinned_to_its_ends_and_its_best_epoch() -> None:
    history = [{"epoch": n, "loss": 1 / (n + 1), "val_loss": 0.123456789, "val_metric": n / 1000} for n in range(1000)]
    found = _history.curves(history, "accuracy", 437)
    assert found is not None
    assert len(found.epoch) <= _history.MOST
    assert {0, 437, 999} <= set(found.epoch)
    assert max(b - a for a, b in zip(found.epoch, found.epoch[1:], strict=False)) <= 18
    assert found.val_loss == (0.12346,) * len(found.epoch)
    assert found.val_metric == tuple(n / 1000 for n in found.epoch)
    assert len(json.dumps(found.model_dump(mode="json"), indent=1)) < 5000
    whole = _history.curves(history[:60], "accuracy", 3)
    assert whole is not None
    assert whole.epoch == tuple(range(60))


def test_epochs_without_a_finite_value_are_not_drawn() -> None:
    history = [{"epoch": 0, "loss": math.nan, "val_loss": 1.0, "val_metric": 0.5}, {"epoch": 1, "loss": 1.0, "val_loss": 1.0}]
    assert _history.curves(history, "accuracy", 0) is None
    with pytest.raises(ValueError, match="one value for each epoch"):
        Curves(metric="accuracy", epoch=(0, 1), loss=(1.0,), val_loss=(1.0, 1.0), val_metric=(1.0, 1.0))


def test_no_key_depends_on_a_models_curves(model: Model) -> None:
    assert model.keyed() == model.model_copy(update={"curves": None}).keyed()
    assert "curves" not in model.model_copy(update={"curves": None}).model_dump(mode="json")


# ---------------------------------------------------------------- loggers


def test_tensorboard_holds_what_the_history_holds_and_changes_nothing(here: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    plain = models.read_model(train(here))
    shutil.move(".edgebench", "plain")
    folder = train(here, loggers="tensorboard")
    assert models.read_model(folder) == plain
    events = EventAccumulator(str(Path(".edgebench/logs/tensorboard") / folder.name))
    events.Reload()
    history = json.loads((folder / "history.json").read_text())
    for name in ("loss", "val_loss", "val_metric", "learning_rate"):
        written = [event.value for event in events.Scalars(name)]
        assert written == pytest.approx([entry[name] for entry in history], rel=1e-6)
    assert [event.step for event in events.Scalars("learning_rate")] == [1, 2, 3]  # a batch each


@pytest.mark.slow  # MLflow makes its database first
@pytest.mark.filterwarnings("ignore")  # of MLflow about the library of its database
def test_mlflow_holds_what_the_history_holds(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = train(here, loggers="mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{here / '.edgebench/logs/mlflow.db'}")
    experiment = client.get_experiment_by_name("edgebench")
    [run] = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == (folder.name, "FINISHED")
    assert (run.data.params["epochs"], run.data.params["augment"]) == ("3", "none")
    history = json.loads((folder / "history.json").read_text())
    for name in ("loss", "val_loss", "val_metric", "learning_rate"):
        written = [metric.value for metric in client.get_metric_history(run.info.run_id, name)]
        assert written == pytest.approx([entry[name] for entry in history], rel=1e-6)


def test_a_logger_that_is_not_there_or_unknown_is_refused_before_the_training(
    here: Path, monkeypatch: pytest.MonkeyPatch, cli: Any
) -> None:
    given = ("train", "tinynet:net", "--size", "16", "--dataset", few_digits(here, 60), "--option")
    code, _, err = cli(*given, "loggers=tensorbord")
    assert code == 2
    assert "Input should be 'tensorboard', 'mlflow' or 'wandb'" in err
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "wandb" else real(name, *more))
    code, _, err = cli(*given, "loggers=wandb")
    assert code == 2
    assert "logging to wandb needs 'wandb', which is not installed; run: pip install 'edgebench[wandb]'" in err
    assert not list(Path(".edgebench").rglob("*.ckpt"))
    with pytest.raises(MissingExtra):
        _loggers.check(["wandb"])


def test_a_logger_that_does_not_begin_says_so_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(logs: Path, run: str) -> Any:
        raise RuntimeError(f"no server\nfor {run}")

    monkeypatch.setitem(_loggers.OPEN, "mlflow", broken)
    with pytest.raises(InputError, match=r"cannot begin \(RuntimeError: no server for cnn-1-step-2\); set it up"):
        _loggers.opened(["mlflow"], tmp_path / ".training-cnn-1" / "step-2", {})


def test_a_model_that_was_there_is_not_logged_and_that_is_said(here: Path) -> None:
    said: list[str] = []
    folder = train(here)
    options = {**FAST, "loggers": ["tensorboard"]}
    again = verbs.train(
        "tinynet:net",
        dataset=f"medmnist:{here / 'few.npz'}",
        size=16,
        name="tiny",
        options=options,
        progress=lambda what, *_: said.append(what),
    )
    assert again == folder
    assert any("is logged nowhere now" in what and "history.json" in what for what in said)


# ---------------------------------------------------------------- in a report


def test_a_record_tells_how_its_model_was_trained(tmp_path: Path, model: Model) -> None:
    record = make_record(model=model)
    found = gather(tmp_path / "r.json", record, None).values()
    assert found["trials"] is None
    assert "training" not in found["reasons"]
    lines = {line["what"]: line for line in found["training"]}
    assert model.curves is not None
    assert lines["training loss"]["value"] == list(model.curves.loss)
    assert lines["validation accuracy"]["value"] == list(model.curves.val_metric)
    kept = lines["the epoch that was kept"]
    assert kept["value"] == [max(model.curves.val_metric)]
    assert kept["epoch"] == [model.metrics["best_epoch"]]
    bare = gather(tmp_path / "r.json", make_record(model=model.model_copy(update={"curves": None})), None).values()
    assert (bare["training"], bare["reasons"]["training"]) == (None, "the record holds no history of its training")


def test_a_record_with_the_longest_curves_stays_small(tmp_path: Path, model: Model) -> None:
    history = [{"epoch": n, "loss": 1 / (n + 3), "val_loss": 1 / (n + 7), "val_metric": n / 1003} for n in range(1000)]
    record = make_record(model=model.model_copy(update={"curves": _history.curves(history, "accuracy", 5)}))
    records.save(tmp_path, record, None)
    [path] = tmp_path.rglob("*.json")
    assert path.stat().st_size < 12_000


def test_figures_draw_each_models_curves_once(model: Model) -> None:
    from test_charts import a_table

    other = model.model_copy(update={"sha256": "0" * 64})
    third = model.model_copy(update={"sha256": "1" * 64, "curves": None})
    kinds = [("m", model, "onnx"), ("m", model, "tflite"), ("m", other, "onnx"), ("bare", third, "onnx")]
    made = {f"{n}.json": make_record(cell=make_cell(name, format=kind), model=of) for n, (name, of, kind) in enumerate(kinds)}
    behind = {path: {"training": training.values(record.model) or None} for path, record in made.items()}
    specs = {figure.name: figure.spec for figure in figures.figures([a_table(made)], behind)}
    lines = specs["digits-cpu-quick-learning-curves"]["datasets"]["training"]
    assert {line["model"] for line in lines} == {f"m, {model.sha256[:10]}", "m, 0000000000"}
    assert [line["what"] for line in lines] == ["training loss", "validation loss", "validation accuracy"] * 2
    assert not any("learning" in figure.name for figure in figures.figures([a_table({"a.json": made["3.json"]})], {}))


def test_the_chart_draws_every_epoch(model: Model) -> None:
    from test_charts import drawn

    lines = training.values(model)
    root = drawn(training.curves(), training=lines)
    told = [item.get("aria-label", "") for item in root.iter() if item.get("aria-roledescription") in ("point", "circle")]
    found = [dict(part.split(": ", 1) for part in label.split("; ")) for label in told]
    wanted = [(line["what"], *point) for line in lines for point in zip(line["epoch"], line["value"], strict=True)]
    assert sorted((each["what"], int(each["epoch"])) for each in found) == sorted(each[:2] for each in wanted)
    values = {each[:2]: each[2] for each in wanted}
    for each in found:
        assert float(each["value"]) == pytest.approx(values[each["what"], int(each["epoch"])], rel=1e-4)
