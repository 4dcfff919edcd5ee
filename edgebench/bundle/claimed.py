"""The gate of a claimed metric: a checkpoint that is not as good as where it was trained was read otherwise than it was made."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from edgebench.analysis import metrics
from edgebench.bundle.doubts import of_scores
from edgebench.bundle.parity import outputs_of
from edgebench.bundle.samples import given
from edgebench.data import Dataset
from edgebench.errors import CheckpointError, InputError
from edgebench.schema import Network

ROUNDED = 0.05
"""By how many points a claim of one decimal may be off without being wrong."""


def claimed(network: Callable[[], Network], data: Dataset | None, percent: float | None) -> Callable[[], Network]:
    """Return what builds a network, once it was checked against what is claimed of it, where something is."""
    if percent is None:
        return network
    built = cache(network)
    check_accuracy(built(), data, percent)
    return built


def check_accuracy(network: Network, data: Dataset | None, percent: float) -> float:
    """Measure a torch network's accuracy in percent on the test split; `CheckpointError` where it is not the claimed one.

    Allowed are half a unit of the first decimal and one sample, either way.
    """
    if not 1 < percent <= 100:
        raise InputError(f"--expect-accuracy {percent:g}: is in percent, above 1 and up to 100; for instance 94.5")
    if data is None:
        raise InputError("--expect-accuracy: is judged on a data set's test split; give --dataset")
    test = data.read("test")
    scores = next(iter(outputs_of(network, given(network.model.inputs, network.folder, test, str(data.ref))).values()))
    found = 100 * metrics.evaluate(network.model.task, test.labels, scores, network.model.head)["accuracy"]
    if abs(found - percent) > ROUNDED + 100 / len(test):
        order = [each.text for each in of_scores(network.model, test.labels, scores) if each.kind == "class-order"]
        if order:
            raise CheckpointError(f"{network.model.name}: {percent:g} % is claimed; {order[0]}")
        raise CheckpointError(
            f"{network.model.name}: accuracy {found:.1f} % on {len(test)} test samples, {percent:g} % is claimed; "
            "compare --mean and --std, --size, the order of classes, and the architecture's stem with its training"
        )
    return found
