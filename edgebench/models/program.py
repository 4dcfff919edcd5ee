"""A user's exported program, as a network that can be exported again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from edgebench.errors import CheckpointError
from edgebench.schema import Input


class Program(torch.nn.Module):
    """Always in the mode that it was exported in: a program refuses to change it."""

    def __init__(self, program: torch.nn.Module) -> None:
        super().__init__()
        self.program = program

    def forward(self, *inputs: torch.Tensor) -> Any:
        """Return what the program returns."""
        return self.program(*inputs)

    def train(self, mode: bool = True) -> Program:
        """Stay as it is."""
        return self


def taken(program: Any) -> list[tuple[str, Any]]:
    """List a program's inputs: names, and values of their shapes and types."""
    names = program.graph_signature.user_inputs
    return [(node.name, node.meta["val"]) for node in program.graph.nodes if node.op == "placeholder" and node.name in names]


def is_classifier(program: Any) -> bool:
    """Return whether a program takes one image and returns one row of scores."""
    returned = next(node for node in program.graph.nodes if node.op == "output").args[0]
    ranks = [value.meta["val"].dim() for value in returned if hasattr(value, "meta")]
    shapes = [tuple(value.shape) for _, value in taken(program) if hasattr(value, "shape")]
    return ranks == [2] and len(shapes) == 1 and len(shapes[0]) == 4 and shapes[0][1] in (1, 3)


def tensors(program: Any, path: Path) -> tuple[Input, ...]:
    """Describe a program's inputs as plain tensors, by its own names; `CheckpointError` where one is no tensor of fixed size."""
    found = []
    for name, value in taken(program):
        sizes = [str(size) for size in getattr(value, "shape", ("?",))]
        if not all(size.isdecimal() for size in sizes):
            what = f"its input {name} is [{', '.join(sizes)}]"
            raise CheckpointError(f"{path}: {what}; export the program with tensors of fixed sizes alone")
        dtype = str(value.dtype).partition(".")[2]
        found.append(Input(name=name, shape=tuple(map(int, sizes)), dtype=dtype, scale=None, zero_point=None))
    if not found:
        raise CheckpointError(f"{path}: takes no tensors; export a program with inputs")
    return tuple(found)
