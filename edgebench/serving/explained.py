"""A heat map of one picture, by covering parts of it and asking the deployed file again."""

from __future__ import annotations

import asyncio
import functools
import io
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench.agent.runtimes import preprocess
from edgebench.analysis import heads
from edgebench.errors import InputError, UnknownName
from edgebench.explain import load, methods
from edgebench.explain._cells import BASELINES, Cells, divided
from edgebench.explain._sheet import over
from edgebench.serving.model import Decision, Inferred, Served

Array = NDArray[Any]
TOGETHER = 8
"""Covered pictures that are made and asked at once: predictions of others come between."""
MOST_CELLS, MOST_EVALUATIONS = 32, 2000
SIDE = 448
"""Pixels of a shown picture's longer side."""


@dataclass(frozen=True)
class Asked:
    """What somebody wants to see."""

    method: str = "occlusion"
    of_class: str | None = None
    """None: the class that is decided for."""
    cells: int = 8
    baseline: str = "mean"
    evaluations: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class HeatMap:
    """What the score depends on."""

    method: str
    of_class: str
    decision: Decision
    values: NDArray[np.float64]
    """[rows, columns]: above 0 it speaks for the class, below against it."""
    seen: bytes
    """The picture as the network sees it, PNG."""
    heat: bytes
    """The map over it, PNG."""
    inferences: int
    seconds: float


class Explainer:
    """Makes heat maps of what a bundle says."""

    def __init__(self, model: Served, ask: Callable[[Array], Awaitable[Inferred]], thread: ThreadPoolExecutor) -> None:
        self._model, self._ask, self._thread = model, ask, thread

    async def make(self, content: bytes, asked: Asked) -> HeatMap:
        """Cover cells of the picture and read the scores back; `InputError` for what cannot be explained."""
        began, plugin = time.perf_counter(), checked(asked, self._model)
        image = await self._aside(lambda: self._image(content))
        cells = divided(image.shape, self._model.spec, asked.cells, asked.baseline)
        masks = plugin.masks(cells.count, _evaluations(plugin, asked), np.random.default_rng(asked.seed))
        shown = np.concatenate([np.ones((1, cells.count), bool), masks])
        outputs = await self._outputs(image, cells, shown)
        scores = np.concatenate([self._model.scores(each) for each in outputs])
        decision, classes = self._model.decision(outputs[0]), self._model.bundle.model.classes
        wanted = _class(asked, decision, classes)
        place = np.full(len(scores), classes.index(wanted))
        values = heads.of_classes(self._model.bundle.model.task, scores, place, self._model.head)
        found = plugin.attribute(masks, values[None, 1:], values[None, 0])[0].reshape(cells.grid)
        seen, heat = await self._aside(lambda: _drawn(image, found))
        return HeatMap(asked.method, wanted, decision, found, seen, heat, len(shown), time.perf_counter() - began)

    def _image(self, content: bytes) -> NDArray[np.uint8]:
        """Read a picture; a larger one than the network sees as the network sees it, which is what a map lies over."""
        image, spec = self._model.pixels(content), self._model.spec
        resized = spec.resize not in (None, "stretch")
        if not resized and image.shape[0] <= spec.height and image.shape[1] <= spec.width:
            return image
        whole: NDArray[np.uint8] = preprocess.whole(image[None], spec.model_dump(mode="json"))[0]
        return whole

    async def _outputs(self, image: NDArray[np.uint8], cells: Cells, shown: NDArray[np.bool_]) -> list[dict[str, Array]]:
        found: list[dict[str, Array]] = []
        for first in range(0, len(shown), TOGETHER):
            part = shown[first : first + TOGETHER]
            tensors = await self._aside(functools.partial(self._covered, image, cells, part))
            answers = await asyncio.gather(*(self._ask(tensors[row : row + 1]) for row in range(len(part))))
            found += [each.outputs for each in answers]
        return found

    def _covered(self, image: NDArray[np.uint8], cells: Cells, shown: NDArray[np.bool_]) -> Array:
        return self._model.tensor(cells.covered(image, shown))

    async def _aside(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def checked(asked: Asked, model: Served) -> Any:
    """Return the method's plugin; `InputError` for what cannot be explained."""
    usable = by_scores()
    if asked.method not in usable:
        raise UnknownName("method that asks a deployed file", asked.method, usable)
    if asked.of_class is not None and asked.of_class not in model.bundle.model.classes:
        raise UnknownName("class", asked.of_class, model.bundle.model.classes)
    if not 2 <= asked.cells <= MOST_CELLS or asked.baseline not in BASELINES:
        raise InputError(f"cells is from 2 to {MOST_CELLS}, baseline one of {', '.join(BASELINES)}")
    if asked.evaluations is not None and not 16 <= asked.evaluations <= MOST_EVALUATIONS:
        raise InputError(f"evaluations is from 16 to {MOST_EVALUATIONS}")
    return load(asked.method)


def by_scores() -> tuple[str, ...]:
    """List the methods that need scores alone."""
    return tuple(name for name in methods() if load(name, here=False).NEEDS == "scores")


def _evaluations(plugin: Any, asked: Asked) -> int:
    return (asked.evaluations or plugin.EVALUATIONS) if plugin.EVALUATIONS else 0


def _class(asked: Asked, decision: Decision, classes: tuple[str, ...]) -> str:
    """Name the class that is explained: the one that was asked for, else the decided one, or the likeliest label."""
    if asked.of_class is not None:
        return asked.of_class
    if isinstance(decision.prediction, str):
        return decision.prediction
    return max(classes, key=lambda name: decision.probabilities[name])


def _drawn(image: NDArray[np.uint8], values: NDArray[np.float64]) -> tuple[bytes, bytes]:
    """Draw the picture and the map over it, enlarged to be seen."""
    from PIL import Image

    picture = Image.fromarray(image if image.shape[-1] == 3 else image[..., 0]).convert("RGB")
    scale = SIDE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    picture = picture.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BILINEAR)
    return _png(picture), _png(over(picture, values))


def _png(picture: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()
