"""Which parameters learn, how fast, and from when on: groups that are made before the training, and never change.

A group that waits has `requires_grad` off, so that the optimizer passes it by, weight decay included, and its batch norms
keep their statistics. The schedule knows all groups from its first step, each with its own peak, and what an epoch trains
follows from the epoch's number: a training that goes on needs nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from edgebench.recipes.train import Training


@dataclass(frozen=True)
class Group:
    """Parameters that learn at one rate, from one epoch on."""

    parameters: tuple[nn.Parameter, ...]
    norms: tuple[nn.Module, ...] = ()
    """Batch norms whose statistics stand still while it waits."""
    rate: float = 1.0
    """Share of the learning rate."""
    begins: int | None = 0
    """The epoch, from 0, in which it begins to learn; None: it never does."""

    def learns(self, epoch: int) -> bool:
        """Return whether it learns in an epoch."""
        return self.begins is not None and self.begins <= epoch

    def enter(self, epoch: int) -> None:
        """Let it learn, or wait, as the epoch has it; to be called once the network is in training mode."""
        learns = self.learns(epoch)
        for parameter in self.parameters:
            parameter.requires_grad_(learns)
        for norm in self.norms:
            norm.train(learns)


def whole(network: nn.Module) -> tuple[Group, ...]:
    """Let all of a network learn at one rate from the beginning."""
    return (Group(tuple(network.parameters())),)


def optimizer(groups: Sequence[Group], options: Training, steps: int) -> Any:
    """Make AdamW over the groups that ever learn, and the schedule of the options over so many steps, as Lightning takes them.

    Each group's peak is its share of `learning_rate`; `schedule` shapes all alike.
    """
    learning = [group for group in groups if group.begins is not None and group.parameters]
    peaks = [options.learning_rate * group.rate for group in learning]
    made = torch.optim.AdamW(
        [{"params": list(group.parameters), "lr": peak} for group, peak in zip(learning, peaks, strict=True)],
        lr=options.learning_rate,
        weight_decay=options.weight_decay,
    )
    if options.schedule == "constant":
        return made
    if options.schedule == "one-cycle":
        schedule: Any = torch.optim.lr_scheduler.OneCycleLR(made, peaks, total_steps=steps + 1)
    else:
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(made, steps)
    return {"optimizer": made, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
