"""Coarser and coarser quantization is caught by its maps no later than by accuracy on 40 samples.

A plain CNN, trained on digits, is quantized ever more coarsely in two ways: INT8 whose activations are clipped at ever
lower percentiles, and weights rounded to ever fewer bits for each output channel. Maps catch a step where their median
rank correlation with FP32's is below 0.8 (16 samples, occlusion); accuracy does where McNemar's exact test against FP32
on the same samples has p < 0.05. Accuracy on the whole test split stands beside it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cells import arguments, progress, workplace
from figures import state

from edgebench import ExplainOptions, ExportOptions, RunOptions, SourceOptions, api
from edgebench.analysis import stats
from edgebench.bundle.manifest import read_bundle
from edgebench.bundle.predict import predict
from edgebench.bundle.samples import samples
from edgebench.config import read_dataset, read_target
from edgebench.data import open_images
from edgebench.errors import ExportError

DEPENDS = (
    "edgebench/explain/",
    "edgebench/analysis/saliency.py",
    "exporters/onnx.py",
    "exporters/_onnx/",
    "exporters/_shared/",
    "tests/benchmarks/cells.py",
)
PERCENTILES = (99.99, 99, 97, 95, 92, 90, 87, 85, 80, 75, 70, 60)
BITS = (8, 6, 5, 4, 3, 2)
FEW, LEAST, LIKELY = 40, 0.8, 0.05


@dataclass(frozen=True)
class Step:
    """One quantized file: what was found of it."""

    name: str
    correlation: float
    overlap: float
    few: float
    """p of McNemar's test on the few samples."""
    whole: float
    few_accuracy: float
    accuracy: float


def hits(folder: Path) -> Any:
    """Say of each test sample whether a bundle decides it rightly."""
    bundle, data = read_bundle(folder), open_images(read_dataset("digits"))
    [scores] = predict(folder, bundle, samples(bundle.inputs, folder, data), read_target("cpu"))
    return scores.argmax(axis=1) == data.read("test").labels


def clipped(folder: Path, model: Path) -> Iterator[tuple[str, Path]]:
    """Export INT8 with activations clipped at ever lower percentiles."""
    for percentile in PERCENTILES:
        out = ExportOptions(folder / f"p{percentile}", {"method": "percentile", "percentile": percentile})
        yield f"{percentile:g} %", api.export(model, format="onnx", precision="int8", dataset="digits", options=out).folder


def rounded(folder: Path, model: Path) -> Iterator[tuple[str, Path]]:
    """Export networks whose weights are rounded to ever fewer bits."""
    weights = torch.load(model / "checkpoint.pt", weights_only=True)
    for bits in BITS:
        path = folder / f"w{bits}.pt"
        torch.save({name: coarse(value, bits) if value.dim() > 1 else value for name, value in weights.items()}, path)
        source = SourceOptions(str(path), architecture="cnn", size=16, channels=1)
        yield f"{bits} bits", api.export(source, format="onnx", dataset="digits", options=ExportOptions(folder / "bits")).folder


def coarse(value: Any, bits: int) -> Any:
    """Round weights [out, …] symmetrically to so many bits, with a scale for each output channel."""
    most = 2 ** (bits - 1) - 1
    scale = value.abs().flatten(1).amax(dim=1).clamp(min=1e-12).reshape(-1, *(1,) * (value.dim() - 1)) / most
    return (value / scale).round().clamp(-most, most) * scale


def steps(folder: Path, reference: Path, files: Iterator[tuple[str, Path]]) -> Iterator[Step]:
    """Compare files with the reference until one cannot be exported any more."""
    right, data = hits(reference), open_images(read_dataset("digits"))
    some = data.sampled(FEW, 0).indices
    run = RunOptions(folder / "results", folder / "work")
    while True:
        try:
            name, place = next(files)
        except StopIteration:
            return
        except ExportError as error:
            print(f"  the next one is refused by the parity gate: {error}")
            return
        progress(name)
        own = hits(place)
        found = api.explain([reference, place], options=ExplainOptions(worst=0), run=run)
        drift = found.found[1].explanation.drift
        assert drift is not None and drift.found.correlation is not None and drift.found.overlap is not None
        few, whole = (stats.paired_difference(right[index], own[index]) for index in (some, slice(None)))
        agreement = (drift.found.correlation, drift.found.overlap)
        yield Step(name, *agreement, few.mcnemar_p, whole.mcnemar_p, float(np.mean(own[some])), float(np.mean(own)))


def main() -> int:
    """Quantize, compare, and state which saw it first."""
    arguments(__doc__).parse_args()
    code = 0
    with workplace() as folder:
        options = {"epochs": 8, "augment": "none"}
        model = api.train(SourceOptions("cnn", name="net", size=16, channels=1), options=options, work=folder / "work")
        reference = api.export(model, format="onnx", dataset="digits", options=ExportOptions(folder / "fp32")).folder
        right = hits(reference)
        print(f"\nFP32: accuracy {100 * right.mean():.1f} %")
        for what, make in (("INT8, activations clipped", clipped), ("weights rounded", rounded)):
            print(f"\n{what}:\n  step      map ρ  top tenth  accuracy of {FEW} (p)  of all (p)")
            found = []
            for step in steps(folder, reference, make(folder, model)):
                found.append(step)
                print(
                    f"  {step.name:8}  {step.correlation:.2f}   {step.overlap:.2f}       {100 * step.few_accuracy:5.1f} % "
                    f"({step.few:.2g})       {100 * step.accuracy:5.1f} % ({step.whole:.2g})",
                    flush=True,
                )
            code |= said(what, found)
    return code


def said(what: str, found: list[Step]) -> int:
    """State at which step each saw it."""
    maps = first([each.correlation < LEAST for each in found])
    few = first([each.few < LIKELY for each in found])
    whole = first([each.whole < LIKELY for each in found])
    names = [*(each.name for each in found), "no step"]
    figure = f"{what}: maps at {names[maps]}, {FEW} samples' accuracy at {names[few]}, all samples' at {names[whole]}"
    return state(maps <= few, figure, f"maps no later than the accuracy of {FEW}")


def first(seen: list[bool]) -> int:
    """Return the place of the first that is true, or one beyond the end."""
    return seen.index(True) if True in seen else len(seen)


if __name__ == "__main__":
    sys.exit(main())
