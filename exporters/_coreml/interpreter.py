"""Executes a Core ML package without Apple's runtime: its MIL program, operation by operation, in torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edgebench.errors import ExportError
from edgebench.exporters._coreml.ops import OPERATIONS
from edgebench.exporters._coreml.package import Package

CHUNK = 64
"""So many samples are executed at once."""
DEFINITIONS = ("const", "classify")
"""Operations that are read, not executed."""


@dataclass(frozen=True)
class Step:
    """One operation, ready to run: names of tensors stay names, everything else is a value."""

    name: str
    run: Callable[..., Any]
    variables: Mapping[str, Any]
    values: Mapping[str, Any]
    results: tuple[tuple[str, bool], ...]
    """Name of each result, and whether it is stored as float16."""


class Interpreter:
    """A package's main function as a callable.

    Computes in float32, and rounds to float16 whatever the program stores as
    float16. Raises `ExportError` for an operation that it does not know.
    """

    def __init__(self, package: Package) -> None:
        self.package = package.folder.name
        self.steps = list(_steps(package))
        [self.input] = package.program.functions["main"].inputs

    def __call__(self, pixels: Any, output: str) -> Any:
        """Run on a float32 tensor [n, c, …]; returns the named output, float32 [n, …]."""
        import torch

        def one(image: Any) -> Any:
            return self._run(image[None])[output][0]

        with torch.no_grad():
            return torch.func.vmap(one, chunk_size=CHUNK)(pixels)

    def _run(self, image: Any) -> dict[str, Any]:
        """Execute one sample: the program's shapes are those of batch 1."""
        tensors = {self.input: image}
        for step in self.steps:
            given = {key: _looked_up(value, tensors) for key, value in step.variables.items()}
            try:
                made = step.run(**given, **step.values)
            except (RuntimeError, NotImplementedError, TypeError, ValueError, KeyError) as error:
                raise ExportError(
                    f"{self.package}: {step.name}: the MIL interpreter cannot execute it: {str(error).splitlines()[0]}"
                ) from error
            for (name, half), tensor in zip(step.results, made if isinstance(made, tuple) else (made,), strict=True):
                tensors[name] = tensor.half().float() if half else tensor
        return tensors


def _looked_up(value: Any, tensors: Mapping[str, Any]) -> Any:
    if isinstance(value, list):
        return [_looked_up(each, tensors) for each in value]
    return tensors[value] if isinstance(value, str) else value


def _steps(package: Package) -> Iterator[Step]:
    from coremltools.converters.mil.mil import types

    for op in package.operations:
        if op.op_type in DEFINITIONS or op.op_type.startswith("constexpr_"):
            continue
        if op.op_type not in OPERATIONS:
            raise ExportError(
                f"{package.folder.name}: operation {op.op_type} ({op.name}) is not known to the MIL interpreter that checks "
                "Core ML files here; add it to exporters/_mil_ops.py"
            )
        given = {key: _argument(value) for key, value in op.inputs.items() if value is not None}
        variables = {key: value.names for key, value in given.items() if isinstance(value, Names)}
        values = {key: value for key, value in given.items() if not isinstance(value, Names)}
        results = tuple((var.name, var.dtype == types.fp16) for var in op.outputs)
        yield Step(op.name, OPERATIONS[op.op_type], variables, values, results)


@dataclass(frozen=True)
class Names:
    """An argument that is computed: one tensor's name, or a list of names (and of constants)."""

    names: Any


def _argument(var: Any) -> Any:
    """Resolve an argument: a constant's value, or the names of what is computed."""
    if isinstance(var, list | tuple):
        parts = [_argument(each) for each in var]
        return Names([part.names if isinstance(part, Names) else part for part in parts])
    if var.val is not None:
        return _constant(var.val)
    if var.op is not None and var.op.op_type.startswith("constexpr_"):
        return _constant(var.op.materialized_val_inference())
    return Names(var.name)


def _constant(value: Any) -> Any:
    """Turn a constant into a float32 or integer tensor, or leave it a word, a number or a list of numbers."""
    import numpy as np
    import torch

    array = np.asarray(value)
    if array.dtype.kind in "US":
        return str(value)
    if array.dtype.kind == "f":
        return torch.from_numpy(np.ascontiguousarray(array, np.float32))
    if array.ndim <= 1:
        return array.tolist()
    return torch.from_numpy(np.ascontiguousarray(array, np.int64))
