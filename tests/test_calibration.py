"""How INT8 ranges are chosen, from what samples, and what a file must hold to count."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import verbs
from conftest import Cli

from edgebench import config
from edgebench.agent.runtimes import preprocess
from edgebench.bundle import export
from edgebench.bundle.export import Order, calibration_of
from edgebench.bundle.goals import check_goals
from edgebench.bundle.manifest import read_bundle
from edgebench.bundle.parity import torch_outputs
from edgebench.data import Dataset, Split, open_images
from edgebench.errors import ExportError, InputError
from edgebench.exporters._shared import calibration
from edgebench.models.source import SourceOptions, open_source
from edgebench.schema import Bundle, CalibrationPlan, DatasetRef, Goals

Bundles = dict[tuple[str, str], Path]
METHODS = ("min-max", "entropy", "percentile")


def ranges(method: str, *values: Any, percentile: float = 99.0) -> tuple[float, float]:
    samples = [{"x": np.asarray(part, np.float32)} for part in values]
    return calibration.choose(method, percentile, lambda: samples)["x"]


# ---------------------------------------------------------------- methods


def test_min_max_takes_the_extremes_of_all_samples() -> None:
    assert ranges("min-max", [0.0, 2.0], [-1.0, 1.0], []) == (-1.0, 2.0)


def test_percentile_cuts_the_same_share_off_both_ends() -> None:
    low, high = ranges("percentile", np.linspace(-1, 1, 100_001), percentile=90.0)
    assert (low, high) == pytest.approx((-0.9, 0.9), abs=0.002)


def test_percentile_100_is_min_max() -> None:
    values = np.random.default_rng(0).standard_normal(5000)
    assert ranges("percentile", values, percentile=100.0) == pytest.approx(ranges("min-max", values))


def test_percentile_leaves_the_end_alone_where_most_values_are() -> None:
    values = np.maximum(np.random.default_rng(0).standard_normal(10_000), 0)
    low, high = ranges("percentile", values, percentile=99.0)
    assert low == 0.0
    assert high < values.max()


def test_entropy_clips_a_lone_outlier() -> None:
    values = np.append(np.random.default_rng(0).standard_normal(100_000), 40.0)
    low, high = ranges("entropy", values)
    assert 2.5 < high < 20
    assert low == pytest.approx(values.min())


def test_entropy_keeps_what_is_spread_evenly() -> None:
    values = np.random.default_rng(0).uniform(-3, 3, 100_000)
    assert ranges("entropy", values) == pytest.approx((values.min(), values.max()), rel=0.01)


def test_entropy_gives_values_of_one_sign_all_levels() -> None:
    values = np.abs(np.random.default_rng(0).standard_normal(100_000))
    both = np.append(values, -values)
    assert ranges("entropy", values)[1] <= ranges("entropy", both)[1]
    assert ranges("entropy", values)[0] == pytest.approx(values.min())


@pytest.mark.parametrize("method", METHODS)
def test_a_constant_tensor_has_its_range(method: str) -> None:
    low, high = ranges(method, np.full(100, 2.0))
    assert 0 <= low <= 2.0 <= high <= 3.0


@pytest.mark.parametrize("method", METHODS)
def test_memory_does_not_grow_with_the_samples(method: str) -> None:
    def runs() -> Iterator[dict[str, Any]]:
        for seed in range(40):
            yield {"x": np.random.default_rng(seed).standard_normal(250_000).astype(np.float32)}

    tracemalloc.start()
    calibration.choose(method, 99.9, runs)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12e6  # one sample is 1 MB, and numpy's histogram works on copies of it


# ---------------------------------------------------------------- in files


def exported(format: str, method: str, folder: Path, **more: Any) -> Bundle:
    plan = {"samples": 32, "method": method, "percentile": 90.0, **more}
    made = verbs.export(
        "tinynet:net",
        format=format,
        precision="int8",
        dataset="digits",
        size=16,
        channels=1,
        name="tiny",
        calibration=plan,
        out=folder / method,
    )
    return made.bundle


def onnx_ranges(folder: Path) -> dict[str, float]:
    """Read the width of each activation's range back from a file."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(folder / "model.onnx").graph
    values = {value.name: numpy_helper.to_array(value) for value in graph.initializer}
    return {n.input[0]: 255 * float(values[n.input[1]]) for n in graph.node if n.op_type == "QuantizeLinear"}


def test_each_method_makes_its_own_onnx_file_and_is_written_down(here: Path) -> None:
    made = {method: exported("onnx", method, here) for method in METHODS}
    assert len({bundle.sha256 for bundle in made.values()}) == 3
    for method, bundle in made.items():
        assert bundle.calibration is not None
        found = bundle.calibration
        assert (found.method, found.samples, found.excluded, found.dataset) == (method, 32, 0, "digits")
        assert found.percentile == (90.0 if method == "percentile" else None)
    widths = {method: onnx_ranges(here / method / "tiny.onnx.int8") for method in METHODS}
    assert widths["percentile"].keys() == widths["min-max"].keys()
    narrower = [name for name in widths["min-max"] if widths["percentile"][name] < 0.99 * widths["min-max"][name]]
    assert len(narrower) >= len(widths["min-max"]) / 2
    assert all(widths["entropy"][name] <= 1.001 * width for name, width in widths["min-max"].items())


def test_each_method_makes_its_own_tflite_file(here: Path) -> None:
    pytest.importorskip("litert_torch")
    made = {method: exported("tflite", method, here) for method in METHODS}
    assert len({bundle.sha256 for bundle in made.values()}) == 3
    scale = {method: bundle.outputs[0].scale for method, bundle in made.items()}
    assert scale["percentile"] is not None
    assert scale["min-max"] is not None
    assert scale["percentile"] < 0.99 * scale["min-max"]


def test_min_max_of_a_tflite_file_is_the_extremes_of_its_samples(here: Path) -> None:
    pytest.importorskip("litert_torch")
    bundle = exported("tflite", "min-max", here, samples=4)
    data = open_images(DatasetRef(name="digits"))
    drawn = np.sort(export.drawn_samples(len(data.read("train")), 4))
    _, network = open_source(SourceOptions("tinynet:net", name="tiny", size=16, channels=1), data)
    scores = torch_outputs(network(), [data.read("train").images[drawn]])["output"]
    assert bundle.outputs[0].scale == pytest.approx((max(scores.max(), 0) - min(scores.min(), 0)) / 255, rel=0.01)


def test_symmetric_activations_have_zero_points_of_zero(here: Path) -> None:
    import onnx
    from onnx import numpy_helper

    target = "name: even\ndescription: symmetric\ntransport: local\naccepts:\n"
    target += "  - {format: onnx, precisions: [int8], runtime: onnxruntime, limits: {symmetric: true}}\n"
    (here / "even.yaml").write_text(target)
    arguments: dict[str, Any] = {"format": "onnx", "precision": "int8", "dataset": "digits", "size": 16, "channels": 1}
    made = verbs.export("tinynet:net", target="even.yaml", calibration={"samples": 8}, **arguments)
    graph = onnx.load(made.folder / "model.onnx").graph
    values = {value.name: numpy_helper.to_array(value) for value in graph.initializer}
    points = [values[node.input[2]] for node in graph.node if node.op_type == "QuantizeLinear"]
    assert points
    assert all(point.dtype == np.int8 and not point.any() for point in points)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--calibration", "median"), "calibration by median is not offered; by: min-max, entropy, percentile"),
        (("--calibration", "percentile", "--percentile", "40"), "percentile"),
        (("--calibration", "entropy", "--percentile", "99"), "belongs to --calibration percentile"),
    ],
)
def test_a_method_that_is_none_is_refused(here: Path, cli: Cli, arguments: tuple[str, ...], said: str) -> None:
    code, _, err = cli("export", "tinynet:net", "--format", "onnx", "--precision", "int8", "--dataset", "digits", *arguments)
    assert code == 2
    assert said in err
    assert not (here / "bundles").exists()


# ---------------------------------------------------------------- whose samples


def overlapping(shared: int) -> Dataset:
    """Make digits whose training split holds so many images of the test split."""
    whole = open_images(DatasetRef(name="digits"))
    train, test = (whole.read(name) for name in ("train", "test"))
    images = np.concatenate([test.images[:shared], train.images[: 60 - shared]])
    labels = np.concatenate([test.labels[:shared], train.labels[: 60 - shared]])
    mixed = Split(images, labels)
    return replace(whole, read=lambda name: mixed if name == "train" else whole.read(name))


def order(data: Dataset, samples: int = 60) -> Order:
    model, network = open_source(SourceOptions("tinynet:net", name="tiny", size=16, channels=1), data)
    accepts = config.read_target("cpu").accepted("onnx", "int8")
    assert accepts is not None
    return Order(model, network, "onnx", "int8", accepts, data, CalibrationPlan(samples=samples))


def test_no_evaluation_sample_is_in_the_calibration_set(here: Path) -> None:
    data = overlapping(25)
    bundle, _ = export.build_bundle(order(data), config.read_target("cpu"), here / "made", lambda *_: None)
    assert bundle.calibration is not None
    assert (bundle.calibration.samples, bundle.calibration.excluded) == (35, 25)
    wanted = order(data)
    [inputs] = calibration_of(wanted)[0] or ()
    spec = wanted.model.preprocessing.model_dump()
    known = {image.tobytes() for image in preprocess.apply(data.read("test").images, spec)}
    assert preprocess.apply(data.read("train").images[:1], spec)[0].tobytes() in known
    assert inputs is not None
    assert not known & {image.tobytes() for image in inputs}


def test_a_training_split_that_is_the_test_split_calibrates_nothing(here: Path) -> None:
    with pytest.raises(InputError, match="every calibration sample is in the test split too"):
        calibration_of(order(overlapping(60)))


def test_the_provenance_is_in_the_bundle_on_disk(here: Path) -> None:
    made = exported("onnx", "percentile", here)
    content = json.loads((here / "percentile" / "tiny.onnx.int8" / "bundle.json").read_text())["calibration"]
    assert made.calibration is not None
    assert content == made.calibration.model_dump(mode="json")
    assert (content["split"], content["percentile"]) == ("train", 90.0)


# ---------------------------------------------------------------- the accuracy gate


def judged(bundles: Bundles, precision: str, metric: float | None, drop: float | None) -> Bundle:
    bundle = read_bundle(bundles["onnx", precision])
    update = {"metric": metric, "metric_drop": drop, "as_run": None}
    return bundle.model_copy(update={"parity": bundle.parity.model_copy(update=update)})


@pytest.mark.parametrize(
    ("metric", "drop", "goals", "said"),
    [
        (0.95, 0.0, {"threshold": 0.95}, None),
        (0.9499, 0.0, {"threshold": 0.95}, r"accuracy 95.0 %, 95.0 % are wanted \(threshold\)"),
        (0.89, 0.9 - 0.89, {"max_degradation": 0.01}, None),
        (0.89, 0.0101, {"max_degradation": 0.01}, r"loses 1.0 points of accuracy .*, 1.0 are allowed \(max_degradation\)"),
        (0.89, 0.0, {"max_degradation": 0.0}, None),
        (0.89, 0.001, {"max_degradation": 0.0}, "max_degradation"),
        (0.95, -0.02, {"max_degradation": 0.0, "percent_max_degradation": 0.0}, None),
        (0.49, 0.01, {"max_degradation": None, "percent_max_degradation": 2}, None),
        (0.48, 0.02, {"max_degradation": None, "percent_max_degradation": 2}, r"loses 4.0 % .*, 2 are allowed"),
        (0.48, 0.02, {"max_degradation": None}, None),
        (0.9, 0.2, {"max_degradation": 0.3, "percent_max_degradation": 1, "threshold": 0.5}, "percent_max_degradation"),
        (None, None, {"threshold": 0.99, "max_degradation": 0.0}, None),
    ],
)
def test_a_quantized_file_passes_at_its_bound_and_not_beyond(
    tiny_bundles: Bundles, metric: float | None, drop: float | None, goals: dict[str, Any], said: str | None
) -> None:
    bundle, wanted = judged(tiny_bundles, "int8", metric, drop), Goals(**goals)
    if said is None:
        check_goals(bundle, wanted)
    else:
        with pytest.raises(ExportError, match=said):
            check_goals(bundle, wanted)


def test_a_float_file_must_reach_the_threshold_alone(tiny_bundles: Bundles) -> None:
    bundle = judged(tiny_bundles, "fp32", 0.8, 0.1)
    check_goals(bundle, Goals(threshold=0.8, max_degradation=0.0, percent_max_degradation=0.0))
    with pytest.raises(ExportError, match="threshold"):
        check_goals(bundle, Goals(threshold=0.81))


EXPORT = ("export", "tinynet:net", "--format", "onnx", "--precision", "int8", "--dataset", "digits", "--size", "16")


def test_export_gates_accuracy_where_that_is_asked_for(here: Path, cli: Cli) -> None:
    code, _, err = cli(*EXPORT, "--channels", "1", "--calibration-samples", "8")
    assert code == 0, err
    [folder] = (here / "bundles").iterdir()
    metric = read_bundle(folder).parity.metric
    assert metric is not None
    code, _, _ = cli(*EXPORT, "--channels", "1", "--calibration-samples", "8", "--threshold", metric)
    assert code == 0
    code, _, err = cli(*EXPORT, "--channels", "1", "--calibration-samples", "8", "--threshold", "0.999")
    assert code == 1
    assert "99.9 % are wanted (threshold)" in err
    assert "edgebench quantize --search" in err


@pytest.mark.parametrize("option", ["--max-degradation", "--percent-max-degradation"])
def test_a_degradation_below_zero_is_refused(here: Path, cli: Cli, option: str) -> None:
    code, _, err = cli(*EXPORT, option, "-0.1")
    assert code == 2
    assert option in err


@pytest.mark.parametrize("value", ["nan", "95"])
def test_a_threshold_that_is_no_share_is_refused(here: Path, cli: Cli, value: str) -> None:
    code, _, err = cli(*EXPORT, "--threshold", value)
    assert code == 2
    assert "threshold" in err


def test_accuracy_is_not_judged_without_a_data_set(here: Path, cli: Cli) -> None:
    code, _, err = cli("export", "tinynet:net", "--format", "onnx", "--threshold", "0.9")
    assert code == 2
    assert "threshold is judged on a data set; give --dataset" in err


def test_operators_that_onnx_does_not_have_are_refused_before_the_export(here: Path) -> None:
    target = "name: odd\ndescription: a slip\ntransport: local\naccepts:\n"
    target += "  - {format: onnx, precisions: [int8], runtime: onnxruntime, limits: {quantized: [Covn]}}\n"
    (here / "odd.yaml").write_text(target)
    with pytest.raises(ExportError, match="Covn, which is no ONNX operator"):
        verbs.export("tinynet:net", target="odd.yaml", format="onnx", precision="int8", dataset="digits", size=16, channels=1)
