"""Parity: what an exported file computes beside the torch network, and the gate that judges it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgebench.agent import facts
from edgebench.agent.runtimes import preprocess
from edgebench.analysis import chance, metrics, processor
from edgebench.analysis.heads import head_of
from edgebench.bundle.samples import Array, digest, given, made
from edgebench.data._dealing import subset
from edgebench.data._mapped import release
from edgebench.device.job import counted
from edgebench.errors import ExportError, ModelWarning
from edgebench.schema import AsRun, Input, Model, Network, Parity

if TYPE_CHECKING:
    from edgebench.data import Dataset

PARITY_SAMPLES, SYNTHETIC_SAMPLES = 256, 64
MIN_AGREEMENT = 0.995
TOGETHER = 64
"""So many samples of a mapped file are in memory at once."""
FLOATS = ("fp32", "fp16")
RELATED = 0.5
"""Least correlation of an output's values in any precision: unrelated ones have none."""


def parity_samples(
    model: Model, dataset: Dataset | None, wanted: int | None = None, folder: Path = Path()
) -> tuple[tuple[Array, ...], Array | None, tuple[int, ...], str]:
    """Choose samples of the test split for each input, or make some where there is no data set (and say so).

    `wanted`: so many, each class in its share. `folder` holds the tokenizer of a network that reads text.
    """
    if dataset is None:
        return made(model.inputs, folder, SYNTHETIC_SAMPLES), None, (), "synthetic"
    test = dataset.read("test")
    if wanted is not None:
        chosen = subset(test.labels, wanted, 0)
    else:
        chosen = np.sort(np.random.default_rng(0).choice(len(test), min(PARITY_SAMPLES, len(test)), replace=False))
    shown = test.some(chosen)
    samples = given(model.inputs, folder, shown, str(dataset.ref))
    return samples, shown.labels, tuple(int(index) for index in chosen), "test"


_last_reference: dict[tuple[str, str], dict[str, Array]] = {}


def torch_outputs(network: Network, samples: Sequence[Array]) -> dict[str, Array]:
    """Run the torch network itself; returns each of its outputs by name, float32 [n, …].

    samples: for each of the model's inputs [n, …], or [1, …] where it is the same in each. The last network's outputs
    are kept: a model is exported in several precisions in a row.
    """
    key = (network.model.model_dump_json() + network.source, digest(samples))
    if key not in _last_reference:
        _last_reference.clear()
        _last_reference[key] = outputs_of(network, samples)
    return _last_reference[key]


def outputs_of(network: Network, samples: Sequence[Array], dtype: Any = None) -> dict[str, Array]:
    """Run a network on samples one by one, as `torch_outputs` does; real inputs in a dtype of torch's where one is given."""
    found: dict[str, list[Array]] = {}
    for index in range(counted(samples)):
        feed = [tensor(each, array, index) for each, array in zip(network.model.inputs, samples, strict=True)]
        feed = [each.to(dtype) if dtype is not None and each.is_floating_point() else each for each in feed]
        if index % TOGETHER == 0:
            for array in samples:
                release(array)
        for name, value in network.run(*feed).items():
            found.setdefault(name, []).append(value.float().numpy())
    return {name: np.stack([row[0] if row.shape[:1] == (1,) else row for row in rows]) for name, rows in found.items()}


def tensor(each: Input, samples: Array, index: int) -> Any:
    """Make the torch tensor of one sample of an input; samples [n, …], or [1, …] where it is the same in each."""
    import torch

    one = samples[index if len(samples) > 1 else 0]
    if each.preprocessing is None:
        return torch.from_numpy(one.reshape(each.shape).copy())
    spec = each.preprocessing.model_dump()
    images = one.reshape(-1, *one.shape[-preprocess.rank(spec) :])
    return torch.from_numpy(preprocess.apply(images, spec))


def compare(model: Model, reference: Sequence[Array], outputs: Sequence[Array], labels: Array | None, source: str) -> Parity:
    """Compare a file's outputs [n, …] with the torch network's on the same samples; the first are the scores, if any."""
    if len(reference) != len(outputs):
        raise ExportError(f"{model.name}: the exported file has {len(outputs)} outputs, the torch model {len(reference)}")
    for before, after in zip(reference, outputs, strict=True):
        _check_form(model, before, after)
    decided = bool(metrics.headline(model.task))
    metric = drop = commonest = None
    if labels is not None and decided:
        headline, commonest = metrics.headline(model.task), chance.commonest(model.task, labels)
        say_head(model, reference[0])
        both = [metrics.evaluate(model.task, labels, scores[0], model.head) for scores in (reference, outputs)]
        first, then = (each.get(headline) for each in both)
        metric = then
        drop = first - then if first is not None and then is not None else None
    return Parity(
        samples=len(reference[0]),
        source=source,
        max_abs=max(float(np.abs(before - after).max(initial=0)) for before, after in zip(reference, outputs, strict=True)),
        cosine=min(_cosine(before, after) for before, after in zip(reference, outputs, strict=True)),
        top1_agreement=metrics.agreement(model.task, reference[0], outputs[0], model.head) if decided else None,
        near_ties=metrics.near_ties(model.task, reference[0], outputs[0], model.head) if decided else None,
        metric=metric,
        metric_drop=drop,
        commonest=commonest,
    )


def say_head(model: Model, scores: Array) -> None:
    """Warn that scores are read as probabilities, where nobody said so and they look it."""
    seen = head_of(model.task, scores) if model.head is None else "logits"
    if seen != "logits":
        what = f"{model.name}: its outputs are probabilities ({seen}), and are judged as such; if they are not: --head logits"
        warnings.warn(what, ModelWarning, stacklevel=2)


def _check_form(model: Model, reference: Array, outputs: Array) -> None:
    if outputs.shape != reference.shape or not np.isfinite(outputs).all():
        what = "values that are not finite" if outputs.shape == reference.shape else f"shape {list(outputs.shape)}"
        raise ExportError(f"{model.name}: the exported file returns {what}; the torch model returns {list(reference.shape)}")


def _cosine(reference: Array, outputs: Array) -> float:
    """Return the smallest cosine of any sample's values."""
    before, after = (each.reshape(len(each), -1) for each in (reference, outputs))
    norms = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    return float(((before * after).sum(axis=1) / np.maximum(norms, 1e-30)).min())


def compare_run(
    model: Model, reference: Sequence[Array], written: Sequence[Array], run: Sequence[Array], labels: Array | None
) -> AsRun:
    """Compare what the runtime makes of a file with what the file says, and with the labels; outputs [n, …]."""
    compared = compare(model, reference, run, labels, "")
    return AsRun(
        top1_agreement=metrics.agreement(model.task, written[0], run[0], model.head) if metrics.headline(model.task) else None,
        max_abs=max(float(np.abs(before - after).max(initial=0)) for before, after in zip(written, run, strict=True)),
        metric=compared.metric,
        metric_drop=compared.metric_drop,
        saturates=processor.saturates(facts.environment()),
    )


def gate(model: Model, parity: Parity) -> float:
    """Return the agreement that the gate judges: top-1, and for random weights near-ties count as agreement; else the cosine.

    Random weights decide by chance, often between scores that any rounding
    swaps; whether the file computes the same still shows in all other samples.
    """
    if parity.top1_agreement is None:
        return parity.cosine
    forgiven = (parity.near_ties or 0) if model.lineage.recipe == "random-weights" else 0
    return parity.top1_agreement + forgiven / parity.samples


def check_agreement(name: str, model: Model, parity: Parity, precision: str) -> None:
    """Refuse a file whose values are not the torch model's as far as its precision goes, or, of floats, its decisions."""
    numbers = f"max |Δ| {parity.max_abs:.3g}, cosine {parity.cosine:.5f}"
    other, off, allowed = "computes otherwise than the torch model", parity.unexplained_error, parity.allowed_error
    if off is not None and allowed is not None and off > allowed:
        raise ExportError(
            f"{name}: parity gate: {other}: values differ by {_percent(off)} of their span, "
            f"{_percent(allowed)} are allowed in {precision} ({numbers}); {_remedy(precision)}"
        )
    if parity.correlation is not None and parity.correlation < RELATED:
        raise ExportError(
            f"{name}: parity gate: {other}: the correlation of their values is "
            f"{parity.correlation:.2f}, {RELATED} is wanted in {precision} ({numbers}); {_remedy(precision)}"
        )
    if precision not in FLOATS or gate(model, parity) >= MIN_AGREEMENT - 1e-9:
        return
    if off is not None and model.lineage.recipe == "random-weights":
        return  # rounding alone swaps what random weights decide, and the values are those that rounding gives
    if parity.top1_agreement is None:
        raise ExportError(f"{name}: parity gate: {other} ({numbers}); use a wider precision")
    raise ExportError(
        f"{name}: parity gate: decides {100 * (1 - parity.top1_agreement):.1f} % of {parity.samples} samples otherwise than "
        f"the torch model ({100 * (1 - MIN_AGREEMENT):.1f} % are allowed; {numbers}); use a wider precision"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def _remedy(precision: str) -> str:
    if precision == "fp32":
        return "look for what the converter changed, or choose another format"
    return "use a wider precision"
