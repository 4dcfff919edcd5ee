"""What could never be exported and how long training takes, found on untrained networks before the long work."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from edgebench import models
from edgebench.build import accepted, exporter
from edgebench.data import Dataset
from edgebench.errors import MissingExtra
from edgebench.plan import Slot
from edgebench.recipes import Work
from edgebench.schema import ExportRequest, InputPlan, Lineage, Model, ModelPlan, Network, Preprocessing


def foresee(network: Network, slot: Slot, dynamic_batch: bool) -> None:
    """Check what a slot's model will have to become; the export raises the same, but after the training."""
    limits = accepted(slot.target, slot.format, slot.precision).limits
    request = ExportRequest(network, slot.precision, limits, None, dynamic_batch)
    exporter(slot.format, slot.precision).preflight(request)


def untrained(plan: ModelPlan, data: Dataset, inputs: InputPlan) -> Network | None:
    """Build the network that a recipe would train, with weights that mean nothing; None where it does not build.

    That is left to the recipe to say. `InputError` where the plan is wrong.
    """
    try:
        module = models.build(plan.architecture, len(data.classes), inputs.channels, inputs.size).eval()
    except (MissingExtra, RuntimeError, ValueError, TypeError):
        return None
    none, one = (0.0,) * inputs.channels, (1.0,) * inputs.channels
    spec = Preprocessing(height=inputs.size, width=inputs.size, channels=inputs.channels, mean=none, std=one)
    model = Model(
        name=plan.name,
        architecture=plan.architecture,
        role=plan.role,
        task=data.task,
        classes=data.classes,
        preprocessing=spec,
        sha256=f"untrained {id(module)}",
        parameters=models.count_parameters(module),
        lineage=Lineage(recipe="untrained"),
    )
    return Network(model, module, None)


# ---------------------------------------------------------------- how long training takes

TRIED_SECONDS = 0.2
"""A batch of which a four times larger one would take longer tells enough."""
LARGEST = 64
MARGIN = 1.5
"""For what is not tried: the optimizer, the images, and whatever else the computer does."""
BEGIN_SECONDS, STEP_SECONDS = 4.0, 0.01
"""What a training and a step take beside the network: loading libraries, augmenting, keeping count."""


@dataclass(frozen=True)
class Pace:
    """Seconds that an image takes through a network: there and back, and there alone."""

    learning: float
    judging: float


def pace(network: Network) -> Pace | None:
    """Try a network with batches of zeros, on what it would be trained on; None where it cannot be tried."""
    import torch

    spec = network.model.preprocessing
    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        module = network.module.to(device).train()
        images = torch.zeros(LARGEST, spec.channels, spec.height, spec.width, device=device)
        _learn(module, images[:2])
        found = Pace(_tried(lambda some: _learn(module, some), images), _tried(lambda some: _judge(module, some), images))
    except Exception:  # it is a user's own code, and the training will say what is wrong
        return None
    finally:
        network.module.zero_grad(set_to_none=True)
        network.module.to("cpu").eval()
    return found


def _tried(compute: Any, images: Any) -> float:
    """Return the seconds an image takes in the largest batch that takes no longer than it may, at least 2."""
    count = 2
    while True:
        started = time.perf_counter()
        compute(images[:count])
        spent = time.perf_counter() - started
        if count == len(images) or 4 * spent > TRIED_SECONDS:
            return spent / count
        count = min(4 * count, len(images))


def _learn(module: Any, images: Any) -> None:
    module(images).square().mean().backward()
    float(next(module.parameters()).grad.sum())  # waits for an accelerator


def _judge(module: Any, images: Any) -> None:
    import torch

    with torch.no_grad():
        float(module(images).sum())


def training_seconds(work: Work, own: Pace, teacher: Pace | None) -> float:
    """Estimate a training from what a recipe computes."""
    images = work.learned * own.learning + work.judged * own.judging + work.taught * (teacher.judging if teacher else own.judging)
    return BEGIN_SECONDS + MARGIN * (images + work.steps * STEP_SECONDS)
