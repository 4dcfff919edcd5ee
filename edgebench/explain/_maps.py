"""One method's maps of the chosen samples by one file, and how far they can be relied on."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench.analysis import saliency
from edgebench.errors import InputError
from edgebench.explain._cells import Cells, batches
from edgebench.explain._choice import Choice
from edgebench.explain._layers import take
from edgebench.explain._subjects import Images, Scores, Subject, tensor
from edgebench.run.interleave import Part
from edgebench.schema.explanation import Agreement, Curves

Maps = NDArray[np.float64]
TOGETHER_BYTES = 32 << 20
"""Covered images that go to a device at once; of one sample all, if they are more."""
STEPS = 16
"""Points of a deletion curve, after its first."""
HIDDEN = 32
"""Sets of cells by which infidelity is judged."""
REPEATED = 4
"""So many samples' maps are made again where a method has no seed: what a device answers twice is the same, or is not."""
BESIDE = 64
"""Whole images that are scored beside the chosen ones, for what scores look like."""


@dataclass(frozen=True)
class Study:
    """What all files and methods of one comparison share."""

    choice: Choice
    images: Images
    """Of the chosen samples [n, h, w, c]."""
    cells: Cells

    def stack(self, places: Sequence[int], shown: NDArray[np.bool_]) -> Images:
        """Cover some samples by masks [k, m, cells] or [1, m, cells]: uint8 [k × m, h, w, c]."""
        return np.concatenate(
            [self.cells.covered(self.images[place], shown[index if len(shown) > 1 else 0]) for index, place in enumerate(places)]
        )


@dataclass(frozen=True)
class Made:
    """What came out; arrays by the names that they are kept under."""

    maps: Maps
    """[n, rows, columns]."""
    again: Maps
    """Likewise of the samples `repeated`, by another seed or in another run."""
    repeated: tuple[int, ...]
    seconds_per_image: float
    inferences: int
    curves: Curves
    infidelity: float | None
    lines: Mapping[str, NDArray[np.float64]]
    """Deletion and insertion, by the map and by a random order, [n, points]: how likely the class is held."""

    @property
    def own(self) -> Agreement:
        """Return how alike both sets of maps are."""
        return saliency.compare(self.maps[list(self.repeated)], self.again).agreement()

    def arrays(self) -> dict[str, Any]:
        """Return what is kept."""
        return {"maps": self.maps, "again": self.again, "repeated": np.array(self.repeated, np.int64), **self.lines}


def make(subject: Subject, study: Study, plugin: Any, settings: Mapping[str, Any], label: str) -> Made:
    """Make maps twice, and judge them on the random samples."""
    every, figures, seed = range(len(study.images)), study.choice.random, int(settings["seed"])
    begin = time.monotonic()
    maps, inferences = _maps(subject, study, plugin, settings, seed, every, f"{label}: maps")
    seconds = (time.monotonic() - begin) / len(maps)
    repeated = figures if plugin.SEEDED else figures[:REPEATED]
    again, _ = _maps(subject, study, plugin, settings, seed + 1, repeated, f"{label}: maps again")
    lines, infidelity = _judged(subject, study, maps, seed, label)
    areas = {name: float(np.mean([saliency.area(line) for line in found])) for name, found in lines.items()}
    return Made(maps, again, tuple(repeated), seconds, inferences, Curves(**areas), infidelity, lines)


def _maps(
    subject: Subject, study: Study, plugin: Any, settings: Mapping[str, Any], seed: int, places: Sequence[int], label: str
) -> tuple[Maps, int]:
    """Return maps [k, rows, columns] of some samples, and how many inferences one took."""
    classes = [study.choice.classes[place] for place in places]
    if plugin.NEEDS == "gradients":
        return _by_gradients(subject, study, plugin, settings, places, label), plugin.STEPS
    cells = study.cells
    masks = plugin.masks(cells.count, settings["evaluations"], np.random.default_rng(seed))
    shown = np.concatenate([np.ones((1, cells.count), bool), masks])
    scores = asked(subject, study, places, shown[None], label)
    values = _of_classes(subject, scores, classes)
    found = plugin.attribute(masks, values[:, 1:], values[:, 0])
    return np.asarray(found, np.float64).reshape(-1, *cells.grid), len(shown)


def _by_gradients(
    subject: Subject, study: Study, plugin: Any, settings: Mapping[str, Any], places: Sequence[int], label: str
) -> Maps:
    assert subject.network is not None
    spec, size = subject.spec, study.images.shape[1:3]
    if spec.resize not in (None, "stretch") and size != (spec.height, spec.width):
        raise InputError(
            f"{subject.file.name}: its input is cut or padded out of {size[0]} × {size[1]} images, so a layer's map does not lie "
            f"over them; give the data set size={spec.height}x{spec.width}, or use --method occlusion"
        )
    maps = []
    for index, place in enumerate(places):
        subject.report(label, index, len(places))
        inputs = tensor(study.images[place : place + 1], spec)
        found = plugin.explain(subject.network, inputs, [study.choice.classes[place]], settings)
        maps.append(study.cells.of_map(found[0]))
    return np.stack(maps)


def layer_of(subject: Subject, study: Study, layer: str | None) -> str:
    """Name the layer that is looked at in all images: the one that suits the first."""
    assert subject.network is not None
    inputs = tensor(study.images[:1], subject.spec)
    return take(subject.network.module, inputs, study.choice.classes[0], layer).layer


def asked(subject: Subject, study: Study, places: Sequence[int], shown: NDArray[np.bool_], label: str) -> Scores:
    """Score covered samples [k, m, columns]; shown: [k, m, cells], or [1, m, cells] for all."""
    each = shown.shape[1] * int(np.prod(study.images.shape[1:]))
    found = []
    for part in batches(len(places), each, TOGETHER_BYTES):
        masks = shown[part] if len(shown) > 1 else shown
        images = study.stack(places[part], masks)
        scores = subject.ask(images, label, Part(part.start, part.stop - part.start, len(places)))
        found.append(scores.reshape(part.stop - part.start, shown.shape[1], -1))
    return np.concatenate(found)


def plain(subject: Subject, study: Study, label: str) -> tuple[Subject, Scores]:
    """Score the whole samples [n, columns], and see what the scores are."""
    beside = subject.data.read("test").images[:BESIDE]
    images = np.concatenate([study.images, beside])
    scores = subject.ask(images, label, Part(0, len(images), len(images)))
    return subject.looked_at(scores), scores[: len(study.images)]


def _of_classes(subject: Subject, scores: Scores, classes: Sequence[int]) -> NDArray[np.float64]:
    """Return the logit of each sample's class: scores [k, m, columns] → [k, m]."""
    flat = scores.reshape(-1, scores.shape[-1])
    return subject.of_classes(flat, np.repeat(classes, scores.shape[1])).reshape(scores.shape[:2])


def _judged(
    subject: Subject, study: Study, maps: Maps, seed: int, label: str
) -> tuple[dict[str, NDArray[np.float64]], float | None]:
    """Cover and show cells in the order of the maps and in a random one, and hide random sets of them."""
    places, cells, random = study.choice.random, study.cells.count, np.random.default_rng(seed)
    by_map = np.stack([saliency.order(maps[place]) for place in places])
    by_chance = np.stack([random.permutation(cells) for _ in places])
    hidden = random.random((HIDDEN, cells)) < 0.5
    fewer = [saliency.steps(orders, STEPS) for orders in (by_map, by_chance)]
    curves = [fewer[0], ~fewer[0], fewer[1], ~fewer[1]]
    shown = np.concatenate([*curves, np.broadcast_to(~hidden, (len(places), *hidden.shape))], axis=1)
    scores = asked(subject, study, places, shown, f"{label}: curves")
    classes = [study.choice.classes[place] for place in places]
    likely = subject.likely(scores.reshape(-1, scores.shape[-1])).reshape(*scores.shape[:2], -1)
    of_class = np.stack([likely[index, :, wanted] for index, wanted in enumerate(classes)])
    names = ("deletion", "insertion", "random_deletion", "random_insertion")
    lines = {name: of_class[:, index * (STEPS + 1) : (index + 1) * (STEPS + 1)] for index, name in enumerate(names)}
    values = _of_classes(subject, scores, classes)
    drops = values[:, :1] - values[:, 4 * (STEPS + 1) :]
    flat = np.stack([maps[place].ravel() for place in places])
    return lines, saliency.infidelity(flat, hidden, drops)
