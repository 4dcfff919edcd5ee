"""Known networks with random weights in every format and precision: exported, checked, run; or refused with layer and reason."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coral
import numpy as np
import pytest
import verbs
from few import few_digits
from tensorrt_board import RELEASES, Board, compiled
from test_twins import twin

from edgebench import plugins
from edgebench.analysis import metrics
from edgebench.bundle import export
from edgebench.bundle.export import Order, build_bundle
from edgebench.bundle.parity import gate
from edgebench.config import read_dataset, read_target
from edgebench.data import Dataset, open_images
from edgebench.device import deploy, doctor, measure
from edgebench.device import job as job_
from edgebench.errors import ExportError
from edgebench.models.source import SourceOptions, open_source
from edgebench.schema import MODES, Accepts, Bundle, CalibrationPlan, Expected, Link, Network, Scenario, Target, no_progress

pytestmark = pytest.mark.slow
ZOO = ("vit_b_16", "efficientnet_b0", "mobilenet_v2", "mobilenet_v3_small", "resnet18")  # the longest first
SIZE = 32
FEW = 16
"""Samples of each split: a vision transformer of 86 million parameters takes its time."""


def wanted() -> list[tuple[str, str]]:
    """List what `edgebench formats` says can be exported here."""
    rows = [row for row in doctor.check_formats() if row["works"] == "yes"]
    return [(str(row["format"]), precision) for row in rows for precision in str(row["precisions"]).split("/")]


def target_of(format: str, precision: str) -> tuple[Target, Accepts]:
    """Find a target of the catalogue that takes a variant: this computer, or the first of its kind that a double plays."""
    targets = [read_target(name) for name in plugins.names("edgebench.targets", ".yaml")]
    for target in sorted(targets, key=lambda target: target.name != "cpu"):
        accepts = target.accepted(format, precision)
        if accepts is not None and (format != "tensorrt" or accepts.limits["version"] in RELEASES):
            return target, accepts
    raise AssertionError(f"no target of the catalogue takes {format} {precision}")


@dataclass(frozen=True)
class Outcome:
    """One line of the table."""

    model: str
    format: str
    precision: str
    target: str
    found: str

    def __str__(self) -> str:
        return f"{self.model:20} {self.format:9} {self.precision:15} {self.target:16} {self.found}"


def attempt(network: Network, data: Dataset, variant: tuple[str, str], here: Path, patch: pytest.MonkeyPatch) -> Outcome:
    """Export, check and run one variant, or see that its refusal says what it must."""
    format, precision = variant
    target, accepts = target_of(format, precision)
    plan = CalibrationPlan(samples=8)
    order = Order(network.model, lambda: network, format, precision, accepts, data, plan)
    folder = here / f"{network.model.name}.{format}.{precision}"
    name = (network.model.name, format, precision, target.name)
    try:
        bundle, _ = build_bundle(order, target, folder, no_progress)
    except ExportError as error:
        assert_explains(str(error), network)
        return Outcome(*name, f"refused: {error}")
    parity = bundle.parity
    assert parity.samples == FEW
    assert parity.cosine > 0, "scores of zero agree with anything"
    if precision in ("fp32", "fp16"):
        assert gate(bundle.model, parity) >= 0.995
        assert parity.cosine > {"fp32": 0.999, "fp16": 0.99}[precision]
    where = ran(folder, bundle, target, data, patch)
    size = f"{bundle.size_bytes / 2**20:.1f} MiB"
    return Outcome(*name, f"{size}, agreement {100 * parity.top1_agreement:.0f} %, cosine {parity.cosine:.4f}, {where}")


def assert_explains(message: str, network: Network) -> None:
    """See that a refusal is one line that names the model, a layer or an operator of it, and a reason."""
    assert message.startswith(f"{network.model.name}"), message
    assert "\n" not in message
    layers = [name for name, _ in network.module.named_modules() if name]
    assert any(re.search(rf"\b{re.escape(name)}\b", message) for name in layers) or re.search(
        r"aten::\w+|\b[A-Z0-9_]{4,}\b", message
    ), message
    assert len(message.split(": ", 1)[1]) > 20, message


# ---------------------------------------------------------------- running what the host's runtimes do not


def ran(folder: Path, bundle: Bundle, target: Target, data: Dataset, patch: pytest.MonkeyPatch) -> str:
    """Say what has run the file: the parity gate's agent, or a double that stands in for the device, once more."""
    if bundle.runtime in DEVICES:
        with DEVICES[bundle.runtime](folder.parent, target, patch):
            outputs = scores(folder, bundle, target, data)
        with np.load(folder / "parity.npz") as saved:
            expected = saved["outputs"][: len(outputs)]
        tolerance = 1.01 * (bundle.outputs[0].scale or 1e-4 * float(np.abs(expected).max()))
        assert np.allclose(outputs, expected, atol=tolerance), np.abs(outputs - expected).max()
        return f"run on the double of {bundle.runtime}"
    return f"run by {bundle.parity.runtime or bundle.runtime}"


def scores(folder: Path, bundle: Bundle, target: Target, data: Dataset) -> Any:
    """Run a bundle once through the agent, with what its device does first; float32 scores [n, classes]."""
    device = target.model_copy(update={"transport": "local", "host": None, "python": None, "expects": Expected()})
    accepts = export.accepted(target, bundle.format, bundle.precision)
    images = data.read("test").images[:4]
    transport = deploy.connect(device, Link(folder.parent / "device"))
    deployed = deploy.deploy(device, transport, folder, bundle, [images])
    cell = job_.cell_job(bundle, accepts.runtime, deployed, [images], Scenario(), accepts.options)
    passes = [*job_.first_passes(bundle, 0), job_.Pass("accuracy")]
    job = job_.job([cell], passes, MODES["quick"], Scenario())
    [found] = measure.measure(transport, deployed.agent, job, lambda _: None)
    assert found.failure is None, found.failure
    assert found.predictions is not None
    return metrics.scores_of(found.predictions.values, found.predictions.columns)


@contextmanager
def tensorrt(here: Path, target: Target, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Play a board with the target's version of TensorRT."""
    accepts = next(accepts for accepts in target.accepts if accepts.format == "tensorrt")
    with patch.context() as changed:
        board = Board(here, compiled(here), changed)
        board.has(str(accepts.limits["version"]))
        yield
    assert board.mistakes() == ""


@contextmanager
def edgetpu(here: Path, target: Target, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Play a computer with an Edge TPU, its library and its runtime."""
    with patch.context() as changed:
        site = here / "coral"
        if not site.exists():
            coral.modules(site)
        changed.setenv("PYTHONPATH", str(site))
        changed.setenv("EDGETPU_DOUBLE_STICKS", "1")
        changed.setenv("LD_LIBRARY_PATH", str(coral.library(here / "libedgetpu")))
        yield


DEVICES = {"tensorrt": tensorrt, "edgetpu": edgetpu}


# ---------------------------------------------------------------- the table


@pytest.mark.parametrize("architecture", ZOO)
def test_every_variant_is_made_and_run_or_refused_with_layer_and_reason(
    tmp_path: Path, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    coral.compiler_on_path(tmp_path, monkeypatch)
    data = open_images(read_dataset(few_digits(tmp_path, FEW)))
    _, load = open_source(SourceOptions(architecture, size=SIZE, channels=3), data)
    network = load()
    done = []
    for variant in wanted():
        done.append(attempt(network, data, variant, tmp_path, monkeypatch))
        print(done[-1], flush=True)
    made = {(outcome.format, outcome.precision) for outcome in done if not outcome.found.startswith("refused")}
    always = {
        "torch": ["fp32"],
        "onnx": ["fp32", "fp16", "int8", "int8-dynamic"],
        "tflite": ["fp32", "fp16", "int8", "int8-dynamic"],
    }
    assert {(format, precision) for format, precisions in always.items() for precision in precisions} <= made


@pytest.mark.parametrize("architecture", ["mobilenet_v3_small", "densenet121"])
def test_int8_within_opset_13_and_ir_7_runs_on_python_3_6_and_onnxruntime_1_10(tmp_path: Path, architecture: str) -> None:
    target = twin("onnx", tmp_path)
    given: dict[str, Any] = {"dataset": "digits", "size": SIZE, "channels": 3, "calibration": {"samples": 8}}
    result = verbs.export(architecture, format="onnx", precision="int8", target=target, out=tmp_path, **given)
    assert (result.bundle.details["opset"], result.bundle.details["ir"]) == (13, 7)
    [record] = verbs.run(bundle=[result.folder], target=[target], work=tmp_path, results=tmp_path / "results").records
    assert record.failure is None, record.failure
    assert record.environment["python"].startswith("3.6")
