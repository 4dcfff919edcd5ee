"""What could never be exported and how long training takes, found on untrained networks before the long work."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgebench import models, tasks
from edgebench.bundle.export import accepted, exporter, limits_of
from edgebench.data import Dataset
from edgebench.errors import MissingExtra
from edgebench.models.normalization import sides
from edgebench.recipes import Work, begun
from edgebench.schema import ExportRequest, InputPlan, Lineage, Model, ModelPlan, Network, PlannedCell, Preprocessing, image_input


def check_slot(network: Network, slot: PlannedCell, dynamic_batch: bool) -> None:
    """Check what a slot's model will have to become; the export raises the same, but after the training."""
    limits = limits_of(accepted(slot.target, slot.format, slot.precision), slot.precision)
    likely = tasks.part(network.model.task, "PROBABILITIES") or ""
    request = ExportRequest(network, slot.precision, limits, None, dynamic_batch, probabilities=likely)
    exporter(slot.format, slot.precision).preflight(request)


def untrained(plan: ModelPlan, data: Dataset, inputs: InputPlan) -> Network | None:
    """Build the network that a recipe would train, with weights that mean nothing; None where it does not build.

    That is left to the recipe to say. `InputError` where the plan is wrong.
    """
    depth, height, width = sides(data, inputs)
    none, one = (0.0,) * inputs.channels, (1.0,) * inputs.channels
    spec = Preprocessing(depth=depth, height=height, width=width, channels=inputs.channels, mean=none, std=one)
    try:
        module = models.build(plan.architecture, len(data.classes), inputs.channels, inputs.size, volume=spec.volume).eval()
    except (MissingExtra, RuntimeError, ValueError, TypeError):
        return None
    model = Model(
        name=plan.name,
        architecture=plan.architecture,
        role=plan.role,
        task=data.task,
        classes=data.classes,
        inputs=(image_input(spec),),
        sha256=f"untrained {uuid.uuid4().hex}",
        parameters=models.count_parameters(module),
        lineage=Lineage(recipe="untrained"),
    )
    network = Network(model, module, None)
    return network if plan.recipe is None else begun(plan.recipe, plan.options, network)


# ---------------------------------------------------------------- how long training takes

FEW, MORE = 2, 8
"""Images in the batches that are tried."""
SLOW_SECONDS = 0.5
"""Where a few images take as long, more are not tried."""
FORWARD = 1 / 3
"""There alone, of there and back: a backward pass computes about twice as much."""
MARGIN = 1.5
"""For what is not tried: the optimizer, the images, and whatever else the computer does."""
BEGIN_SECONDS, STEP_SECONDS = 4.0, 0.01
"""What a training and a step take beside the network: loading libraries, augmenting, keeping count."""


@dataclass(frozen=True)
class Pace:
    """Seconds that a network trains: so many a step whatever its batch, and so many for each image."""

    step: float
    image: float


def pace(network: Network) -> Pace | None:
    """Try training steps of a network on what it would be trained on; None where it cannot be trained.

    A CPU is tried with one thread, since several on cores that others use can
    take a hundred times as long to wait for each other; all its threads are
    taken to be as fast as the square root of their number.
    """
    import torch

    threads = torch.get_num_threads()
    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    images, *beside = network.example(MORE)
    images = torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    torch.set_num_threads(1)
    try:
        found = _tried(network.module.to(device).train(), [each.to(device) for each in (images, *beside)])
    except Exception:  # it is a user's own code, and the training will say what is wrong
        return None
    finally:
        torch.set_num_threads(threads)
        network.module.zero_grad(set_to_none=True)
        network.module.to("cpu").eval()
    together = threads**0.5 if device == "cpu" else 1.0
    return Pace(found.step / together, found.image / together)


def _tried(module: Any, inputs: Sequence[Any]) -> Pace:
    """Time two batches; the second time each, when memory and kernels are there."""
    fewer = [each[:FEW] for each in inputs]
    few = _seconds(module, fewer)
    if few < SLOW_SECONDS:
        few = _seconds(module, fewer)
    if few >= SLOW_SECONDS:
        return Pace(0.0, few / FEW)
    more = min(_seconds(module, inputs), _seconds(module, inputs))
    image = max(more - few, more / 4) / (MORE - FEW)
    return Pace(max(few - FEW * image, 0.0), image)


def _seconds(module: Any, inputs: Sequence[Any]) -> float:
    started = time.perf_counter()
    module(*inputs).square().mean().backward()
    float(next(module.parameters()).grad.sum())  # waits for an accelerator
    return time.perf_counter() - started


def training_seconds(work: Work, own: Pace, teacher: Pace | None) -> float:
    """Estimate a training from what a recipe computes."""
    taught = teacher or own
    steps = own.step + STEP_SECONDS + (FORWARD * taught.step if work.taught else 0.0)
    images = work.learned * own.image + FORWARD * (work.judged * own.image + work.taught * taught.image)
    return BEGIN_SECONDS + MARGIN * (work.steps * steps + images)
