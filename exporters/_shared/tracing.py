"""A network's operators, each with the layer of the user's model that calls it."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import sysconfig
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from edgebench import errors
from edgebench.errors import ExportError
from edgebench.schema import ExportRequest, Limits, Network

REPLACE = "replace the layer, or choose another format"
JIT_FRAME = re.compile(r"^(?P<file>.+)\((?P<line>\d+)\): \w+", re.M)
EXPORT_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in \w+')


@dataclass(frozen=True)
class Place:
    """A layer of the user's model, and the line of source that was reached in it."""

    layer: str
    kind: str
    line: str = ""

    def __str__(self) -> str:
        """Write it as `features.3.block.1 (Hardsigmoid), net.py:12`."""
        layer = f"{self.layer} ({self.kind})" if self.layer else self.kind
        return f"{layer}, {self.line}" if self.line else layer


@dataclass(frozen=True)
class Call:
    """One operator that a network calls."""

    operator: str
    """As torch writes it, without overload and the mark of working in place: `aten::hardswish`."""
    place: Place


class Cached:
    """A network that compares by its model and its source, so that it is traced once for all formats and precisions."""

    def __init__(self, network: Network) -> None:
        self.network = network

    def __hash__(self) -> int:
        return hash(self.network.model.sha256)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Cached):
            return False
        return (other.network.model, other.network.source) == (self.network.model, self.network.source)


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Keep the screen clean of what tracers and converters print, and what their native code prints."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept, nowhere = (os.dup(1), os.dup(2)), os.open(os.devnull, os.O_WRONLY)
    level = logging.root.manager.disable
    try:
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        logging.disable(logging.CRITICAL)
        with (
            warnings.catch_warnings(),
            open(os.devnull, "w") as away,
            contextlib.redirect_stdout(away),
            contextlib.redirect_stderr(away),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        for number, saved in enumerate(kept, start=1):
            os.dup2(saved, number)
            os.close(saved)
        os.close(nowhere)


# ---------------------------------------------------------------- two tracers


@lru_cache(maxsize=2)
def exported(cached: Cached, dynamic_batch: bool = False) -> Any:
    """Export with `torch.export`; raises whatever that raises."""
    import torch

    network = cached.network
    batch = torch.export.Dim("batch", min=1)
    sizes = tuple({0: batch} if each.shape else None for each in network.model.inputs) if dynamic_batch else None
    with silent():
        return torch.export.export(network.module, network.example(2 if dynamic_batch else 1), dynamic_shapes=sizes)


@lru_cache(maxsize=1)
def traced(cached: Cached, batch: int = 1) -> Any:
    """Trace with the older tracer, as the ONNX exporter does; raises whatever the network raises."""
    import torch

    with silent():
        trace: Any = torch.jit.trace
        return trace(cached.network.module, cached.network.example(batch), check_trace=False)


def exported_calls(program: Any) -> Iterator[tuple[Call, Any]]:
    """List the operators of an exported program, each with its node."""
    for node in program.graph.nodes:
        if node.op == "call_function" and hasattr(node.target, "_schema"):
            yield Call(_plain(node.target._schema.name), _export_place(node)), node


def traced_calls(network: Network, batch: int = 1) -> Iterator[tuple[Call, Any]]:
    """List the operators that the older tracer sees, each with its node."""
    kinds = {name: type(layer).__name__ for name, layer in network.module.named_modules()}
    for node in _all_nodes(traced(Cached(network), batch).inlined_graph):
        if "::" in node.kind() and not node.kind().startswith("prim::"):
            layer = node.scopeName().rpartition("/")[2].removeprefix("__module").removeprefix(".")
            known = layer if layer in kinds else ""
            yield (
                Call(_plain(node.kind()), Place(known, kinds[known], _own_line(JIT_FRAME, node.sourceRange(), first=True))),
                node,
            )


def _all_nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _all_nodes(inner)


def _plain(name: str) -> str:
    """Leave out the mark of working in place: relu_ is relu, but __and__ is itself."""
    return name.removesuffix("_") if not name.endswith("__") else name


def _export_place(node: Any) -> Place:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    layer, kind = stack[-1] if stack else ("", "")
    kind = kind if isinstance(kind, str) else kind.__name__
    return Place(_path(layer), kind.rpartition(".")[2], _own_line(EXPORT_FRAME, node.meta.get("stack_trace") or ""))


def _path(name: str) -> str:
    """Leave out what torch.export puts before and after a layer's name."""
    return name.removeprefix("L['self']").removeprefix(".").partition("@")[0]


# ---------------------------------------------------------------- where it happened


def place_of(error: BaseException, network: Network) -> Place:
    """Find the innermost layer that an error came through; the whole model where it came through none."""
    names = {id(layer): name for name, layer in network.module.named_modules()}
    found = Place("", type(network.module).__name__)
    for cause in (error, error.__cause__, error.__context__):
        inside = False
        for frame, number in traceback.walk_tb(cause.__traceback__ if cause else None):
            owner = frame.f_locals.get("self")
            if id(owner) in names:
                inside, found = True, Place(names[id(owner)], type(owner).__name__, found.line)
            file = frame.f_code.co_filename
            if inside and is_own(file):
                found = Place(found.layer, found.kind, f"{Path(file).name}:{number}")
        if inside:
            break
    return found


def _own_line(pattern: re.Pattern[str], stack: str, first: bool = False) -> str:
    """Find the innermost line of a stack that is the user's; torch writes the innermost first or last."""
    lines = [f"{Path(frame['file']).name}:{frame['line']}" for frame in pattern.finditer(stack) if is_own(frame["file"])]
    return (lines[0] if first else lines[-1]) if lines else ""


@lru_cache(maxsize=1)
def _foreign_folders() -> tuple[str, ...]:
    """List where source lies that no user wrote: torch, edgebench itself and its exporters."""
    import torch

    folders = (Path(torch.__file__).parent, Path(errors.__file__).parent, Path(__file__).parents[1])
    return tuple(f"{folder}{os.sep}" for folder in folders)


@lru_cache(maxsize=1024)
def is_own(file: str) -> bool:
    """Return whether source is the user's (or torchvision's), not torch's, Python's or edgebench's, and a file at all."""
    if not file.endswith(".py") or file.startswith(_foreign_folders()):
        return False
    python = sysconfig.get_paths()["stdlib"] + os.sep
    return not file.startswith(python) or "site-packages" in file


def refusal(request: ExportRequest[Limits], place: Place, what: str, remedy: str = REPLACE) -> ExportError:
    """Word a refusal: model, layer, source line, what is wrong, what to do."""
    return ExportError(f"{request.network.model.name}: {place}: {what}; {remedy}")


def reason(error: BaseException) -> str:
    """Return an error's first line, without torch's advice to its developers."""
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    line = re.split(r" Please |  ?\[Caused| For more information", line)[0]
    line = re.sub(r"^Unsupported: ONNX export of operator \w+, ", "", line)
    return line.rstrip(" .")


def spec_text(request: ExportRequest[Limits]) -> str:
    """Write the inputs without their batch, one as `3 × 32 × 32`."""
    return " and ".join(" × ".join(map(str, each.shape[1:])) or "one number" for each in request.network.model.inputs)
