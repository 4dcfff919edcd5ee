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
AREAS = ("deletion", "insertion", "random_deletion", "random_insertion")
BESIDE = 64
"""Whole images that are scored beside the chosen ones, for what scores look like."""


@dataclass(frozen=True)
class Study:
    """What all files and methods of one comparison share."""

    choice: Choice
    images: Images
    """Of the chosen samples [n, h, w, c]."""
    cells: Cells


@dataclass(frozen=True)
class Found:
    """Maps, made twice, and the scores of whole images."""

    subject: Subject
    """Knows what its scores are."""
    whole: Scores
    """Of the chosen samples [n, columns]."""
    maps: Maps
    """[n, rows, columns]."""
    again: Maps
    """Likewise of some samples, by another seed or in another run."""
    seconds_per_image: float
    inferences: int


@dataclass(frozen=True)
class Made:
    """What came out; arrays by the names that they are kept under."""

    found: Found
    repeated: tuple[int, ...]
    """The samples whose maps were made again."""
    curves: Curves
    infidelity: float | None
    lines: Mapping[str, NDArray[np.float64]]
    """Deletion and insertion, by the map and by a random order, [n, points]: how likely the class is held."""

    @property
    def own(self) -> Agreement:
        """Return how alike both sets of maps are."""
        return saliency.compare(self.found.maps[list(self.repeated)], self.found.again).agreement()

    def arrays(self) -> dict[str, Any]:
        """Return what is kept."""
        return {"maps": self.found.maps, "again": self.found.again, "repeated": np.array(self.repeated, np.int64), **self.lines}


def make(subject: Subject, study: Study, plugin: Any, settings: Mapping[str, Any], label: str) -> Made:
    """Make maps twice, and judge them on the random samples."""
    figures = study.choice.random
    repeated = figures if plugin.SEEDED else figures[:REPEATED]
    way = _by_gradients if plugin.NEEDS == "gradients" else _by_scores
    found = way(subject, study, plugin, settings, repeated, f"{label}: maps")
    lines, infidelity = _judged(found, study, int(settings["seed"]), f"{label}: curves")
    areas = {name: float(np.mean([saliency.area(line) for line in each])) for name, each in lines.items()}
    return Made(found, tuple(repeated), Curves(**areas), infidelity, lines)


# ---------------------------------------------------------------- by scores


Item = tuple[Images, NDArray[np.bool_]]
"""An image [h, w, c], and masks [m, cells] that it is covered by."""


def asked(subject: Subject, cells: Cells, items: Sequence[Item], label: str) -> list[Scores]:
    """Score covered images: [m, columns] for each item, in as few jobs as their bytes allow."""
    found: list[Scores] = []
    sizes = [masks.shape[0] * image.size for image, masks in items]
    for part in batches(sizes, TOGETHER_BYTES):
        images = np.concatenate([cells.covered(*item) for item in items[part]])
        scores = subject.ask(images, label, Part(part.start, part.stop - part.start, len(items)))
        found += np.split(scores, np.cumsum([len(masks) for _, masks in items[part]])[:-1])
    return found


def whole(images: Images, cells: Cells) -> list[Item]:
    """Show images as they are."""
    return [(image, np.ones((1, cells.count), bool)) for image in images]


def _by_scores(
    subject: Subject, study: Study, plugin: Any, settings: Mapping[str, Any], repeated: Sequence[int], label: str
) -> Found:
    """Ask for all at once: the maps, those of another seed, and whole images, which the first mask of each is too."""
    cells, seed, count = study.cells, int(settings["seed"]), len(study.images)
    masks = [plugin.masks(cells.count, settings["evaluations"], np.random.default_rng(each)) for each in (seed, seed + 1)]
    shown = [np.concatenate([np.ones((1, cells.count), bool), each]) for each in masks]
    items = [(image, shown[0]) for image in study.images]
    items += [(study.images[place], shown[1]) for place in repeated]
    items += whole(subject.data.read("test").images[:BESIDE], cells)
    begin = time.monotonic()
    scores = asked(subject, cells, items, label)
    share = count * len(shown[0]) / sum(map(len, scores))
    seconds = (time.monotonic() - begin) * share / count
    subject = subject.looked_at(np.concatenate([each[:1] for each in scores]))
    places = [*range(count), *repeated]
    maps = []
    for index, (place, answer) in enumerate(zip(places, scores[: len(places)], strict=True)):
        values = subject.of_classes(answer, np.full(len(answer), study.choice.classes[place]))
        maps.append(plugin.attribute(masks[index >= count], values[None, 1:], values[None, 0])[0].reshape(cells.grid))
    made, shown_whole = np.asarray(maps, np.float64), np.concatenate([each[:1] for each in scores[:count]])
    return Found(subject, shown_whole, made[:count], made[count:], seconds, len(shown[0]))


# ---------------------------------------------------------------- by gradients


def _by_gradients(
    subject: Subject, study: Study, plugin: Any, settings: Mapping[str, Any], repeated: Sequence[int], label: str
) -> Found:
    spec, size, count = subject.spec, study.images.shape[1:3], len(study.images)
    if spec.resize not in (None, "stretch") and size != (spec.height, spec.width):
        raise InputError(
            f"{subject.file.name}: its input is cut or padded out of {size[0]} × {size[1]} images, so a layer's map does not lie "
            f"over them; give the data set size={spec.height}x{spec.width}, or use --method occlusion"
        )
    begin = time.monotonic()
    maps = _maps_by_gradients(subject, study, plugin, settings, range(count), label)
    seconds = (time.monotonic() - begin) / count
    again = _maps_by_gradients(subject, study, plugin, settings, repeated, f"{label} again")
    items = whole(np.concatenate([study.images, subject.data.read("test").images[:BESIDE]]), study.cells)
    scores = np.concatenate(asked(subject, study.cells, items, label))
    return Found(subject.looked_at(scores), scores[:count], maps, again, seconds, plugin.STEPS)


def _maps_by_gradients(
    subject: Subject, study: Study, plugin: Any, settings: Mapping[str, Any], places: Sequence[int], label: str
) -> Maps:
    maps = []
    for index, place in enumerate(places):
        subject.report(label, index, len(places))
        inputs = tensor(study.images[place : place + 1], subject.spec)
        found = plugin.explain(subject.network, inputs, [study.choice.classes[place]], settings)
        maps.append(study.cells.of_map(found[0]))
    return np.stack(maps)


def layer_of(subject: Subject, study: Study, layer: str | None) -> str:
    """Name the layer that is looked at in all images: the one that suits the first."""
    assert subject.network is not None
    inputs = tensor(study.images[:1], subject.spec)
    return take(subject.network.module, inputs, study.choice.classes[0], layer).layer


# ---------------------------------------------------------------- how far maps can be relied on


def _judged(found: Found, study: Study, seed: int, label: str) -> tuple[dict[str, NDArray[np.float64]], float | None]:
    """Cover and show cells in the order of the maps and in a random one, and hide random sets of them."""
    places, cells, random = study.choice.random, study.cells.count, np.random.default_rng(seed)
    subject, maps = found.subject, found.maps[list(places)]
    by_map = np.stack([saliency.order(each) for each in maps])
    by_chance = np.stack([random.permutation(cells) for _ in places])
    hidden = random.random((HIDDEN, cells)) < 0.5
    fewer = [saliency.steps(orders, STEPS) for orders in (by_map, by_chance)]
    curves = [fewer[0], ~fewer[0], fewer[1], ~fewer[1]]
    shown = np.concatenate([*curves, np.broadcast_to(~hidden, (len(places), *hidden.shape))], axis=1)
    scores = asked(subject, study.cells, list(zip(study.images[list(places)], shown, strict=True)), label)
    classes = [study.choice.classes[place] for place in places]
    likely = np.stack([subject.likely(each)[:, wanted] for each, wanted in zip(scores, classes, strict=True)])
    values = np.stack(
        [subject.of_classes(each, np.full(len(each), wanted)) for each, wanted in zip(scores, classes, strict=True)]
    )
    lines = dict(zip(AREAS, np.split(likely[:, : 4 * (STEPS + 1)], 4, axis=1), strict=True))
    drops = values[:, :1] - values[:, 4 * (STEPS + 1) :]
    return lines, saliency.infidelity(maps.reshape(len(maps), -1), hidden, drops)
