"""What a choice's network and file will be like, counted before anything is trained: shapes are known, weights are not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgebench import models
from edgebench.bundle.export import Order, exported_size, order_key
from edgebench.errors import EdgebenchError, InputError, MissingExtra
from edgebench.files import sha256_json, write_json
from edgebench.recipes import shape_of
from edgebench.schema import Accepts, CalibrationPlan, Model, Network, Pruned
from edgebench.search.space import SAME, Choice, File, Source

if TYPE_CHECKING:
    from edgebench.data import Dataset

CALIBRATED = 8
"""Samples that ranges are chosen from where only the file's size is wanted."""


WHOLE = Choice(SAME, 0.0, 0.0, File("", ""))
"""The network that was given, whatever it is written as."""


@dataclass(frozen=True)
class Counts:
    """What can be counted of a network."""

    macs: int | None
    """Multiply-accumulates of one inference; None: torch cannot count them."""
    parameters: int


@dataclass
class Shapes:
    """Builds the networks that choices are about, untrained, and counts; what was counted is kept in a file."""

    source: Source
    base: Callable[[], Network]
    """Loads the network that was given."""
    data: Dataset
    journal: Path
    _networks: dict[tuple[str, float], Network] = field(default_factory=dict)
    _sizes: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take up what was counted before."""
        if self.journal.is_file():
            try:
                self._sizes = {str(key): int(value) for key, value in json.loads(self.journal.read_text()).items()}
            except (ValueError, TypeError, AttributeError):
                self._sizes = {}

    def network(self, choice: Choice) -> Network:
        """Build a choice's network, whose weights may mean nothing; `InputError` where it cannot be."""
        if choice.network not in self._networks:
            given = self._student(choice.student) if choice.student != SAME else self.base()
            self._networks[choice.network] = self._pruned(given, choice) if choice.ratio else given
        return self._networks[choice.network]

    def counts(self, choice: Choice) -> Counts:
        """Count by torch's own counter, as records have it."""
        network = self.network(choice)
        return Counts(network.macs, network.model.parameters)

    def size(self, choice: Choice, accepts: Accepts) -> int | None:
        """Export the untrained network, and return the bytes of the file; None: what is in it is chosen by measuring.

        `ExportError` where the format cannot express it.
        """
        if choice.file.precision == "mixed":
            return None
        network, file = self.network(choice), choice.file
        few = CalibrationPlan(samples=CALIBRATED)
        order = Order(network.model, lambda: network, file.format, file.precision, accepts, self.data, few)
        key = order_key(order)
        if key not in self._sizes:
            self._sizes[key] = exported_size(order)
            write_json(self.journal, self._sizes)
        return self._sizes[key]

    def _student(self, architecture: str) -> Network:
        spec, data = self.source.model.preprocessing, self.data
        try:
            module = models.build(architecture, len(data.classes), spec.channels, spec.height).eval()
        except (RuntimeError, ValueError, TypeError) as error:
            raise InputError(f"{architecture}: cannot be built for {spec.height} × {spec.width} pixels: {error}") from error
        model = self.source.model.model_copy(update={"architecture": architecture, "pruned": None, "ranges": None})
        return _described(model, module)

    def _pruned(self, network: Network, choice: Choice) -> Network:
        from edgebench.models import shapes

        options = {"ratio": choice.ratio, "control": False, **self.source.options.get("prune", {})}
        module = shape_of("prune", options, network).eval()
        model = network.model.model_copy(update={"pruned": Pruned(heads=shapes.heads(module)), "ranges": None})
        return _described(model, module)

    def smaller(self, architectures: tuple[str, ...]) -> tuple[str, ...]:
        """Keep those that can be built, and compute less than the network that was given."""
        found = []
        whole = self.counts(WHOLE).macs
        for architecture in architectures:
            if architecture == self.source.model.architecture:
                continue
            try:
                macs = self._student(architecture).macs
            except (InputError, MissingExtra):
                continue
            if macs is not None and whole is not None and macs < whole:
                found.append(architecture)
        return tuple(found)

    def why_unpruned(self, ratio: float) -> str:
        """Say why no channels can be taken out of the given network; empty where they can."""
        try:
            self._pruned(self.base(), replace(WHOLE, ratio=ratio))
        except EdgebenchError as error:
            return str(error)
        return ""


def _described(model: Model, module: Any) -> Network:
    """Describe an untrained network; the hash is of its shapes, so that no converter takes one for another."""
    written = {name: list(value.shape) for name, value in module.state_dict().items()}
    digest = sha256_json([model.architecture, written, "untrained"])
    parameters = models.count_parameters(module)
    model = model.model_copy(update={"sha256": digest, "parameters": parameters})
    network = Network(model, module, None)
    return replace(network, macs=models.count_macs(network))


def predicted(counts: Counts, size: int | None, latency: dict[str, float]) -> dict[str, Any]:
    """Write predictions down as plain JSON values."""
    return {**asdict(counts), "size_bytes": size, "latency_ns": latency}
