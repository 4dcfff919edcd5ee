"""A bundle that is opened once and asked picture by picture: how a file is read, what its scores mean."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench import plugins, tasks
from edgebench.agent import facts
from edgebench.analysis import heads
from edgebench.bundle.manifest import read_bundle
from edgebench.bundle.predict import Predictor, ready
from edgebench.bundle.samples import made
from edgebench.data import Geometry
from edgebench.data._geometry import place_arrays
from edgebench.data._images import Reading, decode
from edgebench.errors import ExportError, InputError
from edgebench.schema import Bundle, Preprocessing
from edgebench.serving.options import ServeOptions
from edgebench.trust import check_bundle, is_own

Array = NDArray[Any]
LOOKED_AT = 32
"""Pictures of noise that are inferred before anything is served: what scores are is seen in them, and the runtime is warm."""
LARGE = 1 << 20
"""Pixels of a picture that Pillow, whose filters the device's code follows, brings to its size: that code takes seconds."""
DECODE_SECONDS = 2.0
"""Of the processor, for one picture."""


@dataclass(frozen=True)
class Inferred:
    """What a file made of one picture."""

    outputs: dict[str, Array]
    """float32, without a first dimension for the batch."""
    seconds: float
    """That the inference took, with all that were in it."""
    together: int
    """Pictures that were inferred with it, itself among them."""


@dataclass(frozen=True)
class Decision:
    """What scores mean."""

    prediction: str | list[str]
    """The class, or the labels that are held to be there."""
    confidence: float
    """How likely it is held; of labels, the decision that is least sure."""
    probabilities: dict[str, float]


class Served:
    """An open bundle. `infer` is called by one thread at a time, the same that called `open`; the rest by any."""

    def __init__(self, folder: Path, options: ServeOptions) -> None:
        self.bundle, self.options = read_bundle(folder), options
        check_served(folder, self.bundle)
        check_bundle(folder, self.bundle, self.bundle.runtime, options.trust)
        self.folder = folder
        self._reading, self._placed = reading_of(self.bundle, options.max_pixels)
        self._predictor = Predictor(
            folder,
            self.bundle,
            options.runtime,
            known=options.trust or is_own(folder, self.bundle, self.bundle.runtime),
            batch=self.most,
            threads=options.threads or max(1, facts.cores() // options.workers),
        )
        self._head = options.head or self.bundle.model.head

    @property
    def most(self) -> int:
        """Return how many pictures can be inferred together."""
        single = len(self.bundle.inputs) == len(self.bundle.outputs) == 1
        return self.options.batch if self.bundle.dynamic_batch and single else 1

    @property
    def version(self) -> str:
        """Name the very file: its model, format and precision, and the beginning of the bundle's hash."""
        return f"{self.bundle.name}@{self.bundle.sha256[:12]}"

    @property
    def spec(self) -> Preprocessing:
        """Return what becomes of a picture."""
        spec = self.bundle.inputs[0].preprocessing
        assert spec is not None
        return spec

    @property
    def head(self) -> str:
        """Return what the scores are."""
        assert self._head is not None
        return self._head

    def open(self) -> None:
        """Load the file, infer noise, and look at what the scores are."""
        self._predictor.__enter__()
        given = made(self.bundle.inputs, self.folder, LOOKED_AT)
        scores = self._predictor.run(given)[self._place]
        self._head = self._head or heads.head_of(self.bundle.model.task, scores.reshape(len(scores), -1))
        self.decision({str(self.bundle.scored): scores[0]})

    def close(self) -> None:
        """Let go of it."""
        self._predictor.__exit__()

    @property
    def _place(self) -> int:
        return [each.name for each in self.bundle.outputs].index(str(self.bundle.scored))

    def pixels(self, content: bytes) -> NDArray[np.uint8]:
        """Read a picture as the data set that the network was trained on reads files; uint8 [h, w, c].

        Where that reads none, as large as it is, or, of very large ones, as large as the network's input.
        """
        image = decode(content, "picture", self._reading, DECODE_SECONDS, whole=not self._placed)
        small = self._placed or image.shape[0] * image.shape[1] <= LARGE
        return image if small else place_arrays(image[None], self._reading.geometry)[0]

    def tensor(self, images: Array) -> Array:
        """Preprocess pictures [n, h, w, c] by the code of the device."""
        return ready(self.bundle.inputs[0], images)

    def infer(self, tensors: Sequence[Array]) -> list[Inferred]:
        """Infer preprocessed pictures [1, …] together."""
        began = time.perf_counter()
        found = self._predictor.run([np.concatenate(list(tensors))])
        seconds = time.perf_counter() - began
        names = [each.name for each in self.bundle.outputs]
        return [
            Inferred({name: each[row] for name, each in zip(names, found, strict=True)}, seconds, len(tensors))
            for row in range(len(tensors))
        ]

    def scores(self, outputs: dict[str, Array]) -> Array:
        """Return one picture's scores [1, columns]; `ExportError` where one is no finite number."""
        scores = outputs[str(self.bundle.scored)].reshape(1, -1)
        if not np.isfinite(scores).all():
            raise ExportError(f"{self.bundle.name}: gave scores that are no finite numbers")
        return scores

    def decision(self, outputs: dict[str, Array]) -> Decision:
        """Say what one picture's scores mean, by the model's task; a temperature that the bundle carries is applied."""
        model, task = self.bundle.model, tasks.load(self.bundle.model.task)
        logits = heads.logits(model.task, self.scores(outputs), self.head)
        decided = np.asarray(task.decisions(logits))[0]
        scaled = logits if self.bundle.temperature is None else logits / self.bundle.temperature.value
        likely = np.asarray(tasks.part(model.task, "probabilities")(scaled), np.float64)[0]
        if len(likely) != len(model.classes):
            raise ExportError(f"{self.bundle.name}: gives {len(likely)} scores for {len(model.classes)} classes")
        named = dict(zip(model.classes, map(float, likely), strict=True))
        if decided.ndim == 0:
            return Decision(model.classes[int(decided)], float(likely[int(decided)]), named)
        there = [name for name, found in zip(model.classes, decided, strict=True) if found]
        return Decision(there, float(np.where(decided > 0, likely, 1 - likely).min()), named)


def check_served(folder: Path, bundle: Bundle) -> None:
    """Raise `InputError` unless a bundle is a classifier of single pictures that this computer's runtimes know."""
    model, inputs = bundle.model, bundle.inputs
    if bundle.scored is None or not model.classes or tasks.part(model.task, "probabilities") is None:
        raise InputError(f"{folder}: is no classifier (task {model.task}); scores of classes are what is served")
    if len(inputs) != 1 or not inputs[0].is_image or inputs[0].is_volume:
        what = ", ".join(f"{each.name} {list(each.shape)}" for each in inputs)
        raise InputError(f"{folder}: takes {what}; a bundle that takes one picture is what is served")
    if inputs[0].shape and inputs[0].shape[0] > 1:
        raise InputError(f"{folder}: takes {inputs[0].shape[0]} pictures at once; export it for one, or with --dynamic-batch")
    if bundle.runtime not in plugins.on_device("runtimes"):
        raise InputError(f"{folder}: runs in {bundle.runtime}, a runtime of your own; those of edgebench are what is served")


def reading_of(bundle: Bundle, max_pixels: int) -> tuple[Reading, bool]:
    """Say how files become pixels, and whether they are brought to a size by that: as the network's data set does with its own.

    The bundle knows how images came to the input's size where the data set was told how; else the data set's options do.
    """
    spec, ref = bundle.inputs[0].preprocessing, bundle.model.lineage.dataset
    assert spec is not None
    known = spec.resize is not None
    geometry = Geometry(spec.height, spec.width, spec.resize or "stretch", spec.interpolation or "bilinear", spec.antialias)
    if ref is not None and ref.name in plugins.names("edgebench.data"):
        own = plugins.declared(plugins.load("edgebench.data", ref.name, "data set"), "reading", None)
        if own is not None:
            found: Reading = own({**ref.options, "max_pixels": max_pixels}, geometry if known else None)
            return found, True
    return Reading(geometry, 3, max_pixels), known
