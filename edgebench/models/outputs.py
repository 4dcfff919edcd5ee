"""Which of the tensors that a network returns holds the scores, found in its first run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgebench.errors import InputError
from edgebench.schema.protocols import named_tensors

ONLY = ""
"""Name of the output of a network that returns one tensor."""
FAILURES = (RuntimeError, ValueError, TypeError, LookupError, AssertionError, NotImplementedError, AttributeError)
"""What a network may raise that is given an input which does not fit it."""


class Pick:
    """A forward hook by which a network returns one of its tensors; one that returns a tensor alone is left as it is.

    A hook and not a module around it: layers and weights keep their names.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, module: Any, inputs: Any, outputs: Any) -> Any:
        """Return the output of that name; where there is none, as in training mode, `logits` or the first."""
        found = flat(outputs)
        for name in (self.name, "logits"):
            if name in found:
                return found[name]
        return next(iter(found.values()))


def flat(outputs: Any) -> dict[str, Any]:
    """Name all tensors in what a network returned, as `Network.run` does; one alone is `ONLY`."""
    return {ONLY: outputs} if hasattr(outputs, "detach") else dict(named_tensors(outputs))


def fit(module: Any, example: tuple[Any, ...], classes: int | None, wanted: str | None, where: str) -> int:
    """Run a network once, and let it return its scores alone; returns how many it gives for a sample.

    `classes`: how many there must be, None: as many as there are. `InputError`
    where no output is [n, classes] (or, of two classes, [n, 1]), or several are and none is `wanted`.
    Whatever the network itself raises is raised.
    """
    found = flat(_run(module, example))
    if wanted is not None:
        name = _named(found, wanted, where)
    else:
        name = _only(found, classes, where)
    shape = list(found[name].shape)
    of = f" (output {name})" if name else ""
    if len(shape) != 2:
        raise InputError(f"{where}: returns {shape} for one image{of}; a classifier returns [1, classes]")
    if classes not in (None, shape[1]) and (classes, shape[1]) != (2, 1):
        raise InputError(
            f"{where}: has {shape[1]} classes{of}, {classes} are wanted; give the network its class count, "
            "or choose another data set, --classes or --output"
        )
    if name != ONLY:
        module.register_forward_hook(Pick(name))
    return int(shape[1])


def pick(module: Any, example: tuple[Any, ...], wanted: str, where: str) -> None:
    """Let a network return one of its tensors alone, whatever its shape; raises as `fit` does."""
    name = _named(flat(_run(module, example)), wanted, where)
    if name != ONLY:
        module.register_forward_hook(Pick(name))


def may_hold_scores(module: Any, example: tuple[Any, ...]) -> bool:
    """Return whether any output is [n, classes]; True too of a network that does not run or returns no tensor."""
    try:
        found = flat(_run(module, example))
    except FAILURES:  # the check before an export names the layer
        return True
    return not found or any(value.dim() == 2 for value in found.values())


def _run(module: Any, example: tuple[Any, ...]) -> Any:
    import torch

    training = [layer for layer in module.modules() if layer.training]
    module.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=()):
            return module(*example)
    finally:
        for layer in training:
            layer.training = True


def _named(found: Mapping[str, Any], wanted: str, where: str) -> str:
    names = list(found)
    if wanted in found:
        return wanted
    if wanted.isdigit() and int(wanted) < len(names):
        return names[int(wanted)]
    raise InputError(f"{where}: has no output {wanted!r}; it returns {_listed(found)}")


def _only(found: Mapping[str, Any], classes: int | None, where: str) -> str:
    """Choose the output that is meant where that is clear: the only one, or the only one of the wanted width."""
    if not found:
        raise InputError(f"{where}: returns no tensor; a classifier returns scores [n, classes]")
    if len(found) == 1:
        return next(iter(found))
    fitting = [name for name, value in found.items() if value.dim() == 2 and classes in (None, value.shape[1])]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise InputError(f"{where}: returns {_listed(found)}; none is [1, {classes or 'classes'}], as a classifier's scores are")
    raise InputError(f"{where}: returns {_listed(found)}; say which holds the scores: --output {fitting[0]}")


def _listed(found: Mapping[str, Any]) -> str:
    return ", ".join(f"{name or 'one tensor'} {list(value.shape)}" for name, value in found.items())
