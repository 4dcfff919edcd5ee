"""What `edgebench explain` wrote is merged, cleaned up and verified; TFLite files and transformers are explained end to end."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import verbs
from conftest import Cli
from scipy.stats import spearmanr

from edgebench import api
from edgebench.config import read_dataset
from edgebench.data import open_images
from edgebench.explain._subjects import tensor
from edgebench.explain._work import Result
from edgebench.files import seal
from edgebench.report import leaderboard
from edgebench.run.options import ExplainOptions, RunOptions
from edgebench.store import explanations as store
from edgebench.store import records
from edgebench.store.key import cell_key

Make = Callable[..., Path]
FEW: dict[str, Any] = {"samples": 3, "worst": 1, "cells": 4}


def explain(sources: list[Any], folder: Path, **given: Any) -> Result:
    run = RunOptions(folder / "results", folder / "work")
    dataset = given.pop("dataset", None)
    return api.explain(sources, dataset=dataset, options=ExplainOptions(**{**FEW, **given}), run=run)


@pytest.fixture(scope="module")
def explained(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Measure and explain FP32 and INT8, once; the folder holds results and bundles."""
    folder = tmp_path_factory.mktemp("explained")
    given: dict[str, Any] = {"format": "onnx", "dataset": "digits", "out": folder / "bundles"}
    bundles = [verbs.export(trained, precision=precision, **given).folder for precision in ("fp32", "int8")]
    verbs.run(bundle=bundles, results=folder / "results", work=folder / "work", scenario={"half_width": 0.5})
    explain([*bundles], folder)
    return folder


@pytest.fixture
def results(explained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy all that was written, to be changed, and work beside it."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(explained / "results", tmp_path / "results"))


def of(results: Path, precision: str) -> Path:
    [path] = [path for path in store.paths(results) if f".{precision}." in path.name]
    return path


def files(results: Path) -> dict[str, bytes]:
    return {path.relative_to(results).as_posix(): path.read_bytes() for path in results.rglob("*") if path.is_file()}


def changed(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change an explanation and seal it again, as a forger would."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(seal(content)))


def aged(folder: Path) -> None:
    for path in folder.rglob("*"):
        os.utime(path, (1e9, 1e9))


# ---------------------------------------------------------------- verify


def test_every_number_that_maps_decide_is_computed_again(results: Path, cli: Cli) -> None:
    code, out, _ = cli("verify", results, "--json")
    rows = [each for each in json.loads(out) if "explanation" in each]
    assert code == 0 and len(rows) == 2 and all(each["wrong"] == [] for each in rows)
    assert {tuple(each["as_written"]) for each in rows} == {("likely", "predicted", "infidelity", "seconds_per_image")}
    assert [each["numbers"] for each in rows] == [8, 28]  # own and curves; four correlations and drift besides
    code, out, _ = cli("verify", results)
    assert "2 of 2 records hold" in out and "2 of 2 explanations hold; 36 numbers were computed again from their maps" in out
    code, out, _ = cli("verify", of(results, "int8"))
    assert code == 0 and "1 of 1 explanations hold" in out and "records hold" not in out


def test_a_forged_drift_is_found_by_the_maps(results: Path, cli: Cli) -> None:
    path = of(results, "int8")
    right = store.read(path)
    maps = [store.arrays(results, store.read(of(results, precision)))["maps"][:3] for precision in ("fp32", "int8")]
    value = float(np.median([spearmanr(one.ravel(), other.ravel()).statistic for one, other in zip(*maps, strict=True)]))
    changed(path, lambda content: content["drift"]["found"].update(correlation=0.875))
    code, out, _ = cli("verify", results)
    found = re.search(r"drift\.found\.correlation: 0\.875 is written, the maps give (\S+)", out)
    assert code == 1 and found is not None
    assert float(found[1]) == pytest.approx(value) == pytest.approx(right.drift and right.drift.found.correlation)
    changed(path, lambda content: content["curves"].update(deletion=0.5))
    assert "curves.deletion: 0.5 is written" in cli("verify", results)[1]


def test_maps_and_pictures_that_were_changed_are_named(results: Path, cli: Cli) -> None:
    [maps] = results.glob("explanations/cpu/*.int8.*.maps.npz")
    [sheet] = results.glob("explanations/cpu/*.fp32.*.sheet.png")
    maps.write_bytes(maps.read_bytes()[:-3])
    sheet.unlink()
    code, out, _ = cli("verify", results)
    assert code == 1 and "2 of 2 records hold" in out and "0 of 2 explanations hold" in out
    assert f"{maps}: changed since it was written" in out and f"{sheet.name}' cannot be read" in out


def test_a_drift_from_what_is_not_here_stays_as_written(results: Path, cli: Cli) -> None:
    of(results, "fp32").unlink()
    code, out, _ = cli("verify", results)
    assert code == 0 and "1 of 1 explanations hold; 8 numbers" in out
    assert re.search("nothing here to confirm it: .*drift", out)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": {"seed": 7}}, "its key is not that of its file and samples"),
        ({"maps": {"file": "../../records/x.maps.npz", "sha256": "0" * 64, "bytes": 3}}, "which is not its own"),
        ({"method": "../x"}, "method: String should match pattern"),
    ],
)
def test_an_explanation_that_is_not_what_it_says_is_refused(
    results: Path, cli: Cli, change: dict[str, Any], message: str
) -> None:
    changed(of(results, "int8"), lambda content: content.update(change))
    code, out, _ = cli("verify", results)
    assert code == 1 and message in out
    code, out, _ = cli("results", "merge", results, "--into", "all")
    assert code == 1 and message in out and "3 files taken; 1 refused" in out
    assert not list(Path("all").glob("explanations/*/*.int8.*"))


# ---------------------------------------------------------------- merge


def test_a_merge_carries_explanations_with_their_maps_and_pictures(results: Path, cli: Cli) -> None:
    code, out, _ = cli("results", "merge", results, "--into", "all")
    assert code == 0 and "4 files taken" in out
    taken = {name for name in files(Path("all")) if name.startswith("explanations/")}
    assert taken == {name for name in files(results) if name.startswith("explanations/")} and len(taken) == 6
    assert "2 of 2 explanations hold" in cli("verify", "all")[1]
    assert "map ρ" in leaderboard.leaderboard(Path("all"))
    assert "4 were there already" in cli("results", "merge", results, "--into", "all")[1]


def test_of_two_explanations_the_newer_stays_and_then_the_compared_one(results: Path, cli: Cli) -> None:
    cli("results", "merge", results, "--into", "all")
    path = of(results, "int8")
    content = json.loads(path.read_text())
    changed(path, lambda found: found.update(drift=None, correlations=[], sheet=None))  # as it is before it is compared
    found = leaderboard.merge([results], Path("all"))
    assert (found.counts["older"], found.counts["same"]) == (1, 3)
    found = leaderboard.merge([results], Path("other"))
    path.write_text(json.dumps(content))
    assert leaderboard.merge([results], Path("other")).counts["newer"] == 1
    changed(path, lambda found: found.update(started_at="2999-01-01T00:00:00Z", sheet=None))
    assert leaderboard.merge([results], Path("all")).counts["newer"] == 1
    assert not list(Path("all").glob("explanations/cpu/*.int8.*.png"))  # what it names no more


def test_maps_that_do_not_fit_their_hash_are_not_merged(results: Path) -> None:
    [maps] = results.glob("explanations/cpu/*.int8.*.maps.npz")
    elsewhere = shutil.move(maps, maps.with_suffix(".elsewhere"))
    damages: list[tuple[Callable[[], None], str]]
    damages = [(lambda: maps.symlink_to(elsewhere), "its maps are a link"), (maps.touch, "changed since")]
    for damage, message in damages:
        damage()
        found = leaderboard.merge([results], Path("all"))
        assert found.counts["refused"] == 1 and message in found.of("refused")[0].reason
        maps.unlink()
    assert not list(Path("all").glob("explanations/cpu/*.int8.*"))


# ---------------------------------------------------------------- clean


def clean(results: Path, **given: Any) -> set[str]:
    found = leaderboard.clean(results, yes=True, **given)
    return {each.why for each in found.going}


def test_explanations_of_what_is_measured_stay(results: Path) -> None:
    aged(results)
    before = files(results)
    assert clean(results) == set()
    assert files(results) == before


def test_maps_of_no_explanation_go_once_they_are_old(results: Path, cli: Cli) -> None:
    of(results, "int8").unlink()
    assert clean(results) == set()  # somebody may be about to name them
    aged(results)
    code, out, _ = cli("results", "clean", results)
    assert code == 0 and out.count("maps or pictures of no explanation, ") == 2
    assert clean(results) == {"maps"}
    assert not list(results.glob("explanations/cpu/*.int8.*")) and len(list(results.glob("explanations/cpu/*.fp32.*"))) == 3


def test_damaged_explanations_stay_with_their_maps(results: Path, cli: Cli) -> None:
    path = of(results, "int8")
    path.write_text(path.read_text().replace('"deletion"', '"deletiom"'))
    aged(results)
    code, _, err = cli("results", "clean", results, "--yes")
    assert code == 0 and "stays: " in err and "its hash differs" in err
    assert len(list(results.glob("explanations/cpu/*"))) == 6


def measured_anew(results: Path, precision: str) -> None:
    """Put a newer record of another bundle by the same name beside one."""
    [path] = [path for path in records.record_paths(results) if f".{precision}." in path.name]
    record = records.read_record(path)
    measurement, labels = records.read_measurement(path, record)
    cell = record.cell.model_copy(update={"bundle_sha256": "0" * 64})
    key = cell_key(cell)
    records.save(
        results, record.model_copy(update={"cell": cell, "key": key, "started_at": "2999-01-01T00:00:00Z"}), measurement, labels
    )


def test_an_explanation_goes_with_its_files_last_record(results: Path) -> None:
    measured_anew(results, "int8")
    assert clean(results) == {"superseded", "explanation"}
    assert not list(results.glob("explanations/cpu/*.int8.*")) and len(list(results.glob("explanations/cpu/*.fp32.*"))) == 3


def test_what_a_kept_explanation_was_compared_with_stays(results: Path) -> None:
    measured_anew(results, "fp32")
    assert "explanation" not in clean(results)
    assert len(list(results.glob("explanations/cpu/*"))) == 6


def test_what_was_explained_and_never_measured_stays(results: Path) -> None:
    shutil.rmtree(results / "records")
    (results / "records").mkdir()
    aged(results)
    assert clean(results) == set()
    assert len(list(results.glob("explanations/cpu/*"))) == 6


# ---------------------------------------------------------------- TFLite files and transformers


def test_a_tflite_file_is_explained_as_its_onnx_twin(explained: Path, trained: Path, tmp_path: Path) -> None:
    onnx = next((explained / "bundles").glob("*onnx.fp32*"))
    tflite = verbs.export(trained, format="tflite", precision="fp32", dataset="digits", out=tmp_path / "bundles").folder
    found = explain([onnx, tflite], tmp_path, methods=["occlusion", "lime"], evaluations=48).found
    by_name = {(each.explanation.file.format, each.explanation.method): each for each in found}
    for method in ("occlusion", "lime"):
        first, other = by_name["onnx", method], by_name["tflite", method]
        assert other.explanation.file.runtime == "tflite"
        assert np.abs(first.maps - other.maps).max() < 1e-3 * np.abs(first.maps).max()
        drift = other.explanation.drift
        assert drift is not None and drift.decided_alike == 1 and (drift.found.correlation or 0) > 0.99


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a transformer of two layers with 8 × 8 patches and a class token."""
    import transformers

    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=16,
        patch_size=2,
        num_channels=1,
        id2label={index: str(index) for index in range(10)},
        label2id={str(index): index for index in range(10)},
    )
    folder: Path = tmp_path_factory.mktemp("vit")
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": 16, "do_normalize": False}))
    return folder


def test_a_transformer_is_explained_as_a_network_and_as_its_file(vit: Path, tmp_path: Path) -> None:
    exported = verbs.export(f"hf:{vit}", format="onnx", precision="fp32", dataset="digits", out=tmp_path / "bundles")
    bundle, spec = exported.folder, exported.bundle.model.preprocessing
    found = explain([f"hf:{vit}", bundle], tmp_path, methods=["grad-cam", "occlusion"], dataset="digits").found
    names = [(each.explanation.file.format, each.explanation.method) for each in found]
    assert names == [("network", "grad-cam"), ("network", "occlusion"), ("onnx", "occlusion")]
    gradients, network, file = found
    assert np.abs(network.maps - file.maps).max() < 1e-3 * np.abs(network.maps).max()
    assert "layer" in gradients.explanation.settings["layer"]
    for place, sample in enumerate(gradients.explanation.samples):
        image = tensor(open_images(read_dataset("digits")).read("test").images[sample : sample + 1], spec)
        wanted = by_hand(vit, gradients.explanation.settings["layer"], image, gradients.explanation.classes[place])
        assert gradients.maps[place] == pytest.approx(wanted, rel=1e-3, abs=1e-3 * wanted.max())
    assert all(not each.wrong for each in api.verify(tmp_path / "results"))


def by_hand(folder: Path, layer: str, image: Any, wanted: int) -> Any:
    """Compute Grad-CAM of a transformer's layer with torch alone: tokens after the class token are 8 × 8 places."""
    import transformers

    network: Any = transformers.ViTForImageClassification.from_pretrained(folder).eval()
    kept: list[Any] = []
    [module] = [each for name, each in network.named_modules() if name and (layer == name or layer.endswith(f".{name}"))][:1]
    module.register_forward_hook(lambda _, __, value: kept.append(value[0] if isinstance(value, tuple) else value))
    score = network(image).logits[0, wanted]
    [gradient] = torch.autograd.grad(score, kept)
    tokens, weights = kept[0][0, 1:], gradient[0, 1:].mean(dim=0)
    found = (tokens @ weights).clamp(min=0).reshape(8, 8).detach()
    return torch.nn.functional.avg_pool2d(found[None], 2)[0].double().numpy()
