"""What could never be exported, found on untrained networks before the long work."""

from __future__ import annotations

from edgebench import models
from edgebench.build import accepted, exporter
from edgebench.data import Dataset
from edgebench.errors import MissingExtra
from edgebench.plan import Slot
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
