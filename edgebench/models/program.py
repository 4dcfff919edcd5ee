"""A user's exported program, as a network that can be exported again."""

from __future__ import annotations

from typing import Any

import torch


class Program(torch.nn.Module):
    """Always in the mode that it was exported in: a program refuses to change it."""

    def __init__(self, program: torch.nn.Module) -> None:
        super().__init__()
        self.program = program

    def forward(self, images: torch.Tensor) -> Any:
        """Return the program's output."""
        return self.program(images)

    def train(self, mode: bool = True) -> Program:
        """Stay as it is."""
        return self
