"""Take channels out of a trained network, in one shot or step by step, and train it further.

The network of the same shape that is trained from scratch, for as long as the
parent and the pruned one together, is its control: often it is as good (Z. Liu
et al., "Rethinking the value of network pruning", 2019), and then the pruning
found a width, no weights. `structure: unstructured` and `2:4` set weights to
zero instead. No runtime of a CPU gains from that: files keep their size, and
their time (a compressed file is smaller); two of four are for NVIDIA's sparse
tensor cores, by `tensorrt`.
"""

from __future__ import annotations

import copy
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from edgebench import models
from edgebench.data import Dataset
from edgebench.errors import InputError, MissingExtra
from edgebench.files import write_json
from edgebench.recipes import Job, Timing, Work, train
from edgebench.schema import Lineage, Network, Pruned

PARENTS = ("parent",)
"""Models that a profile or `--parent` must give it."""
ROLE = "pruned"
BATCHES = 8
"""Of the training split, whose gradients the Taylor criterion adds up."""
TIMED = "timed.json"
"""What a latency target came to, beside what an interrupted training goes on from: timed again, it could come out otherwise."""


class Options(train.Training):
    """What can be set beside the options of a training, whose epochs are dealt out to the steps."""

    learning_rate: float = Field(1e-3, gt=0, description="peak of the schedule")
    structure: Literal["channels", "unstructured", "2:4"] = Field(
        "channels", description="the other two set weights to zero: no smaller file, and no faster on a CPU"
    )
    ratio: float = Field(0.5, ge=0, lt=1, description="share of channels (or weights) taken out; MACs fall with its square")
    macs: float | None = Field(None, gt=0, lt=1, description="share of the parent's MACs that may remain; chooses the ratio")
    latency: float | None = Field(None, gt=0, lt=1, description="share of the parent's p50 that may remain; chooses the ratio")
    p50_ms: float | None = Field(None, gt=0, description="likewise, in milliseconds, with one thread")
    format: str = Field("onnx", description="latency, p50_ms: of the file that is timed")
    precision: str = Field("fp32", description="likewise")
    target: str = Field("cpu", description="likewise: where; a target of the profile, or one that needs no address")
    strategy: Literal["one-shot", "iterative"] = "one-shot"
    steps: int = Field(5, ge=2, description="of iterative pruning, on a cubic schedule")
    criterion: Literal["l1", "l2", "taylor", "random"] = "l1"
    scope: Literal["layer", "global"] = Field("layer", description="global: layers are compared with each other")
    round_to: int = Field(8, ge=1, description="channels stay a multiple of it, as kernels like them")
    alpha: float = Field(0.0, ge=0, le=1, description="share of what the parent says in the loss; the labels have the rest")
    temperature: float = Field(4.0, gt=0, description="of the parent's part")
    control: bool = Field(True, description="train the same shape from scratch too, and show its metric")
    control_epochs: int | None = Field(None, ge=1, description="null: as many as the parent and the pruned model together")

    @model_validator(mode="after")
    def _go_together(self) -> Options:
        if self.times > self.epochs:
            raise ValueError(f"{self.times} steps want an epoch each, {self.epochs} are given")
        wanted = [name for name in ("macs", "latency", "p50_ms") if getattr(self, name) is not None]
        if self.structure != "channels" and wanted:
            raise ValueError(f"{wanted[0]}: structure {self.structure} takes none out; give a ratio")
        if len(wanted) > 1:
            raise ValueError(f"{' and '.join(wanted)} each choose the ratio; give one of them")
        if self.structure == "2:4" and (self.strategy, self.ratio) != ("one-shot", 0.5):
            raise ValueError("structure 2:4 has the ratio 0.5, in one shot")
        return self

    @model_serializer(mode="wrap")
    def _without_what_says_nothing(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what belongs to a target of latency where there is none: keys of before stay."""
        idle = () if self.timed else ("latency", "p50_ms", "format", "precision", "target")
        return {name: value for name, value in handler(self).items() if name not in idle}

    @property
    def timed(self) -> bool:
        """Return whether the ratio is the least that is fast enough."""
        return self.latency is not None or self.p50_ms is not None

    def allows(self, timing: Timing) -> bool:
        """Return whether a network is fast enough."""
        if self.p50_ms is not None:
            return timing.median_ns <= 1e6 * self.p50_ms
        return self.latency is not None and timing.ratio <= self.latency

    @property
    def times(self) -> int:
        """Return how often it is pruned."""
        return 1 if self.strategy == "one-shot" else self.steps


def work(options: Options, dataset: Dataset) -> Work:
    """Count what all epochs take, the control's as far as they are known here."""
    own, control = train.work(options, dataset), _control_epochs(options, {})
    both = train.work(options.model_copy(update={"epochs": options.epochs + control}), dataset)
    return replace(both, taught=own.learned + own.judged if options.alpha else 0)


def _control_epochs(options: Options, before: Mapping[str, Any]) -> int:
    """Return for how many epochs the control is trained; before: the options that the parent was made with."""
    if not options.control:
        return 0
    return options.control_epochs or options.epochs + int(before.get("epochs", 0))


def shaped(options: Options, network: Network) -> Any:
    """Prune a copy of a network and train nothing.

    Where layers are not compared with each other, its shape is that of the trained one: it depends on no weight.
    """
    _require()
    from edgebench.recipes import _pruning

    module, [example] = copy.deepcopy(network.module), network.example()
    alone = options.model_copy(update={"criterion": "l1"} if options.criterion == "taylor" else {})
    pruner = _pruning.pruner(module, example, alone, lambda _: None, lambda each: _macs(network, each))
    for _ in range(options.times):
        pruner.step()
    pruner.finish()
    return module


def _require() -> None:
    if importlib.util.find_spec("torch_pruning") is None:
        raise MissingExtra("the recipe prune", "prune", "torch_pruning")


def make(job: Job, options: Options, lineage: Lineage, folder: Path) -> None:
    """Prune and train in turn, train the control, and write the model folder."""
    _require()
    from edgebench.models import shapes
    from edgebench.recipes import _classifier, _pruning

    parent = _classifier.parent_of(job)
    spec, training = parent.model.preprocessing, _classifier.training_folder(folder)
    if spec.volume is not None:
        raise InputError(
            f"{job.name}: sees volumes, and torch-pruning takes no channels out of such networks here; leave prune out"
        )
    network, [example] = copy.deepcopy(parent.module), parent.example()
    hard = loss = _classifier.label_loss(job.dataset, options)
    if options.alpha:
        loss = _classifier.soft_and_hard(job.dataset, parent.module, options.temperature, options.alpha, hard)
    with _classifier.quietly(options, training):
        backward = _classifier.gradients(job, hard, spec, options.batch_size, BATCHES)
        options, timed = _fast_enough(job, options, parent, backward, training)
        pruner = _pruning.pruner(network, example, options, backward, lambda module: _macs(parent, module))
        for step, epochs in enumerate(dealt(options.epochs, options.times), start=1):
            pruner.step()
            if options.structure == "channels":
                _check_reload(parent, network)
            due = options.model_copy(update={"epochs": epochs})
            _classifier.seed(options)
            found = _classifier.learn(job, due, network, loss, spec, training / f"step-{step}")
        pruner.finish()
        control = _control(job, options, parent, pruner, network, training)
        judged = {f"parent_{_classifier.metric_name(job)}": _classifier.judge(job, parent.module, spec)}
    counted = {
        "macs": float(_macs(parent, network)),
        "parent_macs": float(_macs(parent, parent.module)),
        "parent_parameters": float(parent.model.parameters),
        **_share(options, parent, network),
        **timed,
    }
    found = replace(found, metrics={**found.metrics, **judged, **control, **counted})
    _classifier.write(job, network, spec, lineage, folder, found, Pruned(heads=shapes.heads(network)))


def _fast_enough(job: Job, options: Options, parent: Network, backward: Any, training: Path) -> tuple[Options, dict[str, float]]:
    """Find the least ratio whose network is fast enough before it is trained; returns it in the options, and what was timed."""
    if not options.timed:
        return options, {}
    from edgebench.recipes import _pruning

    path = training / TIMED
    if path.is_file():
        kept: dict[str, float] = json.loads(path.read_text())
    else:
        if job.timer is None:
            raise InputError(f"{job.name}: nothing here can time a network; give macs or ratio in place of latency and p50_ms")
        found, timing = _pruning.fast_enough(parent, options, backward, job.timer)
        kept = {"ratio": found, "p50_ms": timing.median_ns / 1e6, "parent_p50_ms": timing.parent_median_ns / 1e6}
        kept["p50_share"] = timing.ratio
        write_json(path, kept)
    ratio = kept.pop("ratio")
    return options.model_copy(update={"ratio": ratio}), {name: round(value, 6) for name, value in kept.items()}


def dealt(epochs: int, steps: int) -> list[int]:
    """Deal epochs out to steps; what is left over goes to the last."""
    return [*[epochs // steps] * (steps - 1), epochs // steps + epochs % steps]


def _share(options: Options, parent: Network, network: Any) -> dict[str, float]:
    """Return how much was taken out, which rounding makes another ratio than was asked for."""
    from edgebench.recipes import _pruning

    if options.structure != "channels":
        return {"zeros": _pruning.zeros(network)}
    return {"ratio": round(1 - _pruning.width(network) / _pruning.width(parent.module), 4)}


def _macs(parent: Network, module: Any) -> int:
    return models.count_macs(replace(parent, module=module)) or 0


def _check_reload(parent: Network, pruned: Any) -> None:
    """Refuse, before it is trained, a network that computes otherwise once it is read back from its weights."""
    import torch

    from edgebench.models import outputs, shapes

    model = parent.model.model_copy(update={"pruned": Pruned(heads=shapes.heads(pruned))})
    image = torch.rand(parent.example()[0].shape, generator=torch.Generator().manual_seed(0))
    try:
        again = models.load_network(model, pruned.state_dict(), model.name).module
        with torch.no_grad():
            same = torch.equal(again(image), pruned.eval()(image))
    except outputs.FAILURES as error:
        raise InputError(
            f"{model.name}: computes with numbers of channels that are not its weights' ({error}), and cannot be pruned; "
            "choose structure: unstructured, or another architecture"
        ) from error
    if not same:
        raise InputError(f"{model.name}: pruned, it is not what its weights say; choose another architecture")


def _control(job: Job, options: Options, parent: Network, pruner: Any, network: Any, training: Path) -> dict[str, float]:
    """Train the same shape from scratch, as fast as the parent was; returns its metric and its epochs."""
    from edgebench.recipes import _classifier, _pruning

    before = parent.model.lineage.options
    epochs = _control_epochs(options, before)
    if not epochs:
        return {}
    _classifier.seed(options)
    made = _pruning.from_scratch(network)
    pruner.hold(made)
    due = options.model_copy(update={"epochs": epochs, "learning_rate": before.get("learning_rate", options.learning_rate)})
    loss = _classifier.label_loss(job.dataset, options)
    found = _classifier.learn(job, due, made, loss, parent.model.preprocessing, training / "control")
    name = _classifier.metric_name(job)
    return {f"control_{name}": found.metrics[name], "control_epochs": float(epochs)}
