"""Some of a test split's samples: which ones, and what a record of them says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import verbs
from conftest import Cli
from scipy.stats import binomtest
from sklearn.model_selection import train_test_split

from edgebench import files
from edgebench.config import read_dataset, read_profile
from edgebench.data import open_images
from edgebench.data._dealing import subset
from edgebench.errors import DataError
from edgebench.store.verify import check

Bundles = dict[tuple[str, str], Path]


@pytest.mark.parametrize("count", [40, 100, 333, 800])
def test_each_class_has_the_share_that_scikit_learn_gives_it(count: int) -> None:
    shares = (0.31, 0.23, 0.17, 0.13, 0.09, 0.07)
    labels = np.random.default_rng(3).choice(6, 997, p=shares)
    right, _ = train_test_split(labels, train_size=count, stratify=labels, random_state=0)
    chosen = subset(labels, count, 0)
    assert len(set(chosen)) == len(chosen) == count and (np.diff(chosen) > 0).all()
    assert np.bincount(labels[chosen], minlength=6).tolist() == np.bincount(right, minlength=6).tolist()


def test_a_rare_class_has_one_sample_at_least() -> None:
    labels = np.array([0] * 990 + [1] * 9 + [2])
    assert np.bincount(labels[subset(labels, 20, 0)]).tolist() == [18, 1, 1]
    with pytest.raises(DataError, match="2 samples of 3 classes"):
        subset(labels, 2, 0)


def test_a_seed_gives_the_same_samples_and_another_gives_others() -> None:
    labels = np.arange(1000) % 5
    assert subset(labels, 100, 7).tolist() == subset(labels, 100, 7).tolist() != subset(labels, 100, 8).tolist()
    assert set(subset(labels, 50, 7)) < set(subset(labels, 100, 7))
    assert subset(labels, 2000, 7).tolist() == list(range(1000))
    several = np.zeros((1000, 4), np.int64)
    assert len(subset(several, 100, 7)) == 100 != len(set(subset(several, 100, 7)) & set(subset(several, 100, 8)))


def test_a_subset_is_of_the_test_split_alone() -> None:
    data = open_images(read_dataset("digits"))
    some = data.sampled(60, 1)
    assert len(some.read("test")) == 60 and some.read("train") is data.read("train")
    assert some.indices is not None
    assert np.array_equal(some.read("test").images, data.read("test").images[some.indices])
    assert data.sampled(360, 1) is data


def test_a_record_says_which_samples_were_judged(tmp_path: Path, tiny_bundles: Bundles, here: Path, cli: Cli) -> None:
    bundle, results = tiny_bundles["onnx", "fp32"], tmp_path / "results"
    ask = ["run", bundle, "--target", "sleeper.yaml", "--results", results, "--json"]
    answers = []
    for options in (
        ["--samples", 360],
        [],
        ["--samples", 60],
        ["--samples", 60],
        ["--samples", 60, "--samples-seed", 1, "--dry-run"],
    ):
        code, out, err = cli(*ask, *options)
        assert code == 0, err
        answers.append(json.loads(out))
    assert [answer["cells"][0]["state"] for answer in answers] == ["done", "cached", "done", "cached", "to do"]
    whole, some = (answers[index]["records"][0] for index in (0, 2))
    assert "subset" not in whole["cell"] and whole["accuracy"]["interval"] is None
    assert some["cell"]["subset"] == {"samples": 60, "seed": 0}
    assert some["cell"]["evaluation_sha256"] == open_images(read_dataset("digits")).sampled(60, 0).read("test").sha256
    assert some["cell"]["evaluation_sha256"] != whole["cell"]["evaluation_sha256"]
    accuracy = some["accuracy"]
    right = binomtest(round(accuracy["metrics"]["accuracy"] * 60), 60).proportion_ci(0.95, "wilson")
    assert accuracy["samples"] == 60 and accuracy["interval"]["low"] == pytest.approx(right.low, abs=1e-5)
    assert accuracy["interval"]["high"] == pytest.approx(right.high, abs=1e-5)
    assert accuracy["host_agreement"] is not None
    paths = sorted((results / "records").rglob("*.json"))
    assert len(paths) == 2 and all(not check(path).wrong for path in paths)
    edited = next(path for path in paths if json.loads(path.read_text())["accuracy"]["interval"])
    kept = edited.read_text()
    content = json.loads(kept)
    del content["sha256"]
    content["accuracy"]["interval"]["low"] += 0.01
    edited.write_text(json.dumps(files.seal(content)))
    assert [wrong.split(":")[0] for wrong in check(edited).wrong] == ["accuracy_interval.low"]
    edited.write_text(kept)
    code, out, _ = cli("leaderboard", results, "--json")
    assert code == 0
    assert {table["group"]["dataset"] for table in json.loads(out)} == {"digits", "digits (60 samples, seed 0)"}
    code, out, _ = cli("results", "show", next(path for path in paths if '"subset"' in path.read_text().replace(" ", "")))
    assert code == 0 and "60 samples of the test split, each class in its share, seed 0" in out


def test_parity_is_judged_on_so_many_samples_as_are_asked_for(here: Path) -> None:
    given: dict[str, Any] = {"dataset": "digits", "size": 16, "channels": 1, "format": "onnx", "out": here}
    bundle = verbs.export("tinynet:net", samples=50, **given).bundle
    assert bundle.parity is not None and bundle.parity.samples == 50
    labels = open_images(read_dataset("digits")).read("test").labels[list(bundle.parity_samples)]
    assert np.bincount(labels).tolist() == [5] * 10
    again = verbs.export("tinynet:net", samples=50, **given)
    assert again.cached and not verbs.export("tinynet:net", **given).cached


def test_a_profile_says_which_samples_are_judged(here: Path) -> None:
    text = "name: p\ndataset: {name: digits}\ninput: {size: 16}\nevaluation: {samples: 50, seed: 3}\n"
    text += "models: [{name: m, architecture: resnet18, recipe: train}]\nvariants: [{format: onnx, precisions: [fp32]}]\n"
    (here / "p.yaml").write_text(text)
    evaluation = read_profile("p.yaml").evaluation
    assert evaluation is not None and (evaluation.samples, evaluation.seed) == (50, 3)
