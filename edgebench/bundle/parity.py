"""Parity: what an exported file computes beside the torch network, and the gate that judges it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from edgebench.agent import facts
from edgebench.agent.runtimes import preprocess
from edgebench.analysis import metrics, processor
from edgebench.bundle.predict import Array
from edgebench.errors import ExportError
from edgebench.schema import AsRun, Model, Network, Parity

if TYPE_CHECKING:
    from edgebench.data import Dataset

PARITY_SAMPLES = 256
MIN_AGREEMENT = 0.995


def parity_samples(model: Model, dataset: Dataset | None) -> tuple[Array, Array | None, tuple[int, ...], str]:
    """Choose samples of the test split, or make noise where there is no data set (and say so)."""
    if dataset is None:
        spec = model.preprocessing
        shape = (64, spec.height, spec.width, spec.channels)
        return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8), None, (), "synthetic"
    test = dataset.read("test")
    count = min(PARITY_SAMPLES, len(test))
    chosen = np.sort(np.random.default_rng(0).choice(len(test), count, replace=False))
    return test.images[chosen], test.labels[chosen], tuple(int(index) for index in chosen), "test"


_last_reference: dict[tuple[str, str], Array] = {}


def torch_outputs(network: Network, images: Array) -> Array:
    """Run the torch network itself; returns float32 logits [n, classes].

    The last network's outputs are kept: a model is exported in several precisions in a row.
    """
    digest = hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest()
    key = (network.model.model_dump_json(), digest)
    if key not in _last_reference:
        _last_reference.clear()
        _last_reference[key] = _torch_outputs(network, images)
    return _last_reference[key]


def _torch_outputs(network: Network, images: Array) -> Array:
    import torch

    spec = network.model.preprocessing.model_dump()
    rows = []
    with torch.no_grad():
        for image in images:
            rows.append(network.module(torch.from_numpy(preprocess.apply(image[None], spec))).float().numpy())
    return np.concatenate(rows)


def compare(model: Model, reference: Array, outputs: Array, labels: Array | None, source: str) -> Parity:
    """Compare a file's scores with the torch network's on the same samples."""
    if outputs.shape != reference.shape or not np.isfinite(outputs).all():
        what = "values that are not finite" if outputs.shape == reference.shape else f"shape {list(outputs.shape)}"
        raise ExportError(f"{model.name}: the exported file returns {what}; the torch model returns {list(reference.shape)}")
    norms = np.linalg.norm(reference, axis=1) * np.linalg.norm(outputs, axis=1)
    cosines = (reference * outputs).sum(axis=1) / np.maximum(norms, 1e-30)
    metric = drop = None
    if labels is not None:
        headline = metrics.headline(model.task)
        before, after = (metrics.evaluate(model.task, labels, scores).get(headline) for scores in (reference, outputs))
        metric = after
        drop = before - after if before is not None and after is not None else None
    return Parity(
        samples=len(reference),
        source=source,
        max_abs=float(np.abs(reference - outputs).max()),
        cosine=float(cosines.min()),
        top1_agreement=metrics.agreement(model.task, reference, outputs),
        near_ties=metrics.near_ties(model.task, reference, outputs),
        metric=metric,
        metric_drop=drop,
    )


def compare_run(model: Model, reference: Array, written: Array, run: Array, labels: Array | None) -> AsRun:
    """Compare what the runtime makes of a file with what the file says, and with the labels; scores [n, classes]."""
    compared = compare(model, reference, run, labels, "")
    return AsRun(
        top1_agreement=metrics.agreement(model.task, written, run),
        max_abs=float(np.abs(written - run).max()),
        metric=compared.metric,
        metric_drop=compared.metric_drop,
        saturates=processor.saturates(facts.environment()),
    )


def gate(model: Model, parity: Parity) -> float:
    """Return the agreement that the gate judges: top-1, and for random weights near-ties count as agreement.

    Random weights decide by chance, often between scores that any rounding
    swaps; whether the file computes the same still shows in all other samples.
    """
    forgiven = (parity.near_ties or 0) if model.lineage.recipe == "random-weights" else 0
    return parity.top1_agreement + forgiven / parity.samples


def check_agreement(name: str, model: Model, parity: Parity) -> None:
    """Refuse a float file that decides otherwise than the torch model."""
    if gate(model, parity) < MIN_AGREEMENT - 1e-9:
        raise ExportError(
            f"{name}: parity gate: decides {100 * (1 - parity.top1_agreement):.1f} % of {parity.samples} samples otherwise than "
            f"the torch model ({100 * (1 - MIN_AGREEMENT):.1f} % are allowed; max |Δ| {parity.max_abs:.3g}, "
            f"cosine {parity.cosine:.5f}); use a wider precision"
        )
