"""Records against their own raw samples, and records of older schemas."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import verbs
from conftest import Cli
from factory import make_measurement, make_record, replace_samples
from test_measure import Bundles

from edgebench import api, files
from edgebench.analysis import metrics
from edgebench.schema import RECORD_SCHEMA, ModeSpec, Power, PowerTrace, Step, cell
from edgebench.store import records, samples

BRIEF = ModeSpec(trials=2, min_samples=20, min_seconds=0.2, cap_seconds=0.5, window_seconds=0.05)
OLD = Path(__file__).parent / "golden" / "results-1"


@pytest.fixture(scope="module")
def once(tiny_bundles: Bundles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Measure one cell, briefly; returns its results folder."""
    folder = tmp_path_factory.mktemp("measured")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(cell.MODES, "quick", BRIEF)
        found = verbs.run(
            bundle=[tiny_bundles["onnx", "fp32"]], scenario={"threads": 1}, results=folder / "results", work=folder / "work"
        )
    assert found.records[0].failure is None
    return folder / "results"


@pytest.fixture
def measured(once: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the measured cell's results; returns its record's path."""
    monkeypatch.setitem(cell.MODES, "quick", BRIEF)
    shutil.copytree(once, "results")
    return next(Path("results/records").rglob("*.json"))


def rewrite(path: Path, **changes: Any) -> None:
    """Change a record and seal it again, as someone would who knows how."""
    content = json.loads(path.read_text())
    del content["sha256"]
    for place, value in changes.items():
        inner, keys = content, place.split("__")
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
    path.write_text(json.dumps(files.seal(content)))


def test_a_measured_record_holds(measured: Path, cli: Cli) -> None:
    [checked] = api.verify(Path("results"))
    assert checked.wrong == ()
    assert checked.numbers > 25
    code, out, _ = cli("verify", "results")
    assert (code, "1 of 1 records hold" in out) == (0, True)


def test_a_metric_that_came_later_is_missed_in_no_record(measured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = metrics.evaluate
    monkeypatch.setattr(metrics, "evaluate", lambda *given: {**real(*given), "auroc_classes": 9.0})
    assert api.verify(Path("results"))[0].wrong == ()
    monkeypatch.setattr(metrics, "evaluate", lambda *given: {**real(*given), "another": 9.0})
    assert any("another" in wrong for wrong in api.verify(Path("results"))[0].wrong)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"latency__median_ns__value": 1.0}, "latency.median_ns.value: 1.0 is written"),
        ({"latency__p90_ns": 5.0}, "latency.p90_ns"),
        ({"accuracy__metrics__accuracy": 1.0}, "accuracy.accuracy"),
        ({"verdict__word": "VALID", "verdict__reasons": []}, "verdict"),
        ({"latency__trial_medians_ns": [1.0]}, "trial_medians_ns"),
    ],
)
def test_a_number_that_its_samples_do_not_give_is_named(measured: Path, cli: Cli, change: dict[str, Any], named: str) -> None:
    if "verdict__word" in change:
        word = json.loads(measured.read_text())["verdict"]["word"]
        change = {"verdict__word": "INVALID" if word == "VALID" else "VALID"}
    rewrite(measured, **change)
    code, out, _ = cli("verify", "results")
    assert code == 1
    assert named in out
    assert "0 of 1 records hold" in out


def test_one_damaged_record_does_not_stop_the_others(measured: Path, cli: Cli) -> None:
    shutil.copytree(OLD / "records", "results/records", dirs_exist_ok=True)
    measured.write_text(measured.read_text()[:100])
    code, out, _ = cli("verify", "results", "--json")
    found = {Path(each["record"]).name.split(".")[0]: each["wrong"] for each in json.loads(out)}
    assert code == 1
    assert found["resnet18"] == []
    assert "not a readable record" in found["tiny"][0]


def bomb(size: int) -> bytes:
    """Pack zeros to a thousandth of their size."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("labels.npy", "w") as stream:
        for _ in range(size >> 20):
            stream.write(bytes(1 << 20))
    return packed.getvalue()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (lambda: bomb(samples.MOST_BYTES + (1 << 20)), "they unpack to 513 MiB, more than any measurement's"),
        (lambda: b"PK", "File is not a zip file"),
        (lambda: samples.pack(make_measurement())[:-9], "File is not a zip file"),
    ],
)
def test_samples_made_to_do_harm_are_named(measured: Path, cli: Cli, content: Callable[[], bytes], named: str) -> None:
    replace_samples(measured, content())
    code, out, _ = cli("verify", "results")
    assert code == 1
    assert f"{measured}: its samples cannot be read" in out
    assert named in out
    code, _, err = cli("compare", measured, measured)
    assert (code, named in err) == (2, True), err


@pytest.mark.parametrize("schema", [1, 2, 3])
def test_a_record_of_an_earlier_schema_is_read_and_holds(schema: int) -> None:
    folder = OLD.with_name(f"results-{schema}")
    [(path, record)] = records.read_all(folder)
    assert json.loads(path.read_text())["schema"] == schema
    assert record.schema_version == RECORD_SCHEMA
    assert record.energy.joules is None
    assert record.latency is not None
    assert (record.latency.batch, record.latency.stages_ns, record.finish) == (1, {}, None)
    [checked] = api.verify(folder)
    assert checked.wrong == ()
    assert checked.numbers > 15


def test_a_schema_1_record_with_another_median_is_found(tmp_path: Path) -> None:
    shutil.copytree(OLD, tmp_path / "old")
    path = next((tmp_path / "old").rglob("*.json"))
    rewrite(path, latency__mad_ns=1.0)
    [checked] = api.verify(tmp_path / "old")
    assert "latency.mad_ns" in checked.wrong[0]


def test_a_measurement_survives_its_sidecar(tmp_path: Path) -> None:
    plain = make_measurement()
    trial = dataclasses.replace(
        plain.trials[0],
        precise=True,
        stages={"compute": [7, 8]},
        batch=4,
        rate=12.5,
        steps=[Step(10.0, 700, 5e6, True), Step(20.0, 700, 9e6, False)],
    )
    trace = PowerTrace("rapl", "package-0", "soc", True, False, [1, 2, 3], [0.0, 0.5, 1.25], "a note")
    rows: list[dict[str, Any]] = [
        {"trial": 0, "t_ns": 5, "sampling": True, "governor": "performance", "celsius.cpu": 41.5, "khz": None},
        {"trial": 0, "t_ns": 6, "sampling": False, "governor": None, "celsius.cpu": None, "khz": 1.0},
    ]
    power = Power([trace], [(1, 2)], [(3, 4), (5, 6)])
    before = dataclasses.replace(plain, trials=[trial], conditions=rows, power=power)
    record = records.save(tmp_path, make_record(), before, np.array([1, 0]))
    after, labels = records.read_measurement(next(tmp_path.rglob("*.json")), record)
    assert labels is not None
    assert labels.tolist() == [1, 0]
    assert after.trials == before.trials
    assert after.conditions == rows
    assert after.power == power
    assert after.predictions == before.predictions
