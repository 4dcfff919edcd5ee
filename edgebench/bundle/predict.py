"""Run a bundle on this computer: in this process, or through the agent as on a device."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from edgebench import plugins
from edgebench.agent import facts
from edgebench.agent.runtimes import preprocess
from edgebench.bundle.samples import Array
from edgebench.bundle.samples import given as given_
from edgebench.data import Split
from edgebench.device import deploy, measure
from edgebench.device import job as job_
from edgebench.errors import ExportError, InputError
from edgebench.schema import MODES, Bundle, Input, Link, Scenario, Target, TensorSpec

NONE: Mapping[str, Any] = MappingProxyType({})


class Predictor:
    """A bundle that was made here, opened: numpy arrays in, numpy arrays out. A context manager.

    With a `target`, and where the runtime is a user's own, a process of the agent runs it; else this one. Whatever the
    runtime raises is an `ExportError` that says at what stage. `known`: whether its programs may be loaded as they are.
    `batch`: how many samples go at once at most, where the file takes any batch. `threads`: all cores unless given.
    """

    def __init__(
        self,
        folder: Path,
        bundle: Bundle,
        options: Mapping[str, Any] = NONE,
        target: Target | None = None,
        *,
        known: bool = True,
        batch: int = 4,
        threads: int | None = None,
    ) -> None:
        self.folder, self.bundle, self.options, self.target = folder, bundle, options, target
        self._known, self._most, self._threads = known, batch, threads
        self._inputs = [each.model_dump(mode="json") for each in bundle.inputs]
        self._runtime: Any = None

    def __enter__(self) -> Predictor:
        """Open the file, where that is done in this process."""
        if self.target is None:
            module = plugins.load_device("runtimes", self.bundle.runtime)
            outputs = [each.model_dump(mode="json") for each in self.bundle.outputs]
            job: dict[str, Any] = {"inputs": self._inputs, "outputs": outputs, "scored": [each["name"] for each in outputs]}
            job |= {"bundle": self.bundle.sha256, "precision": self.bundle.precision, "files": list(self.bundle.files)}
            job |= {"options": job_.options_of(self.bundle, self.options), "known": self._known, "pass": "accuracy"}
            job["finish"] = job_.finish_of(self.bundle, self.options)
            path = str(self.folder / self.bundle.entry)
            with self._stage("load"), undisturbed():
                self._runtime = module.Runtime(job)
                if job["finish"] is not None and "finish" in self._runtime.OFFERS:  # not where a host's stands for the device's
                    self._runtime.finish(path)
                self._runtime.load(path, self._threads or facts.cores())
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of it."""
        self._runtime = None

    def __call__(self, **inputs: Array) -> dict[str, Array]:
        """Return each output by name, float32 [n, …], of inputs by name: uint8 images [n, h, w, c], or tensors ready to be fed.

        Ready ones are [n, …], in the input's own dtype, or real numbers where the file quantizes.
        """
        names = [each.name for each in self.bundle.inputs]
        if sorted(names) != sorted(inputs):
            raise InputError(f"{self.bundle.name}: takes {', '.join(names)}; given: {', '.join(inputs) or 'nothing'}")
        found = self.run([np.asarray(inputs[name]) for name in names])
        return {each.name: array for each, array in zip(self.bundle.outputs, found, strict=True)}

    def pairs(self, images: Array, texts: Sequence[str]) -> dict[str, Array]:
        """Return each output by name of images, uint8 [n, h, w, c], and the text beside each, tokenised here.

        `InputError` where the file reads no text, or there are more of one than of the other.
        """
        if not any(each.tokens for each in self.bundle.inputs):
            raise InputError(f"{self.bundle.name}: reads no text; give its inputs by name")
        if len(images) != len(texts):
            raise InputError(f"{self.bundle.name}: {len(images)} images and {len(texts)} texts; give each image its text")
        split = Split(np.asarray(images), np.zeros(len(images), np.int64), texts=tuple(texts))
        found = self.run(given_(self.bundle.inputs, self.folder, split))
        return {each.name: array for each, array in zip(self.bundle.outputs, found, strict=True)}

    def run(self, samples: Sequence[Array]) -> list[Array]:
        """Return each output of samples [n, …] in the order of the inputs; one [1, …] is the same for all."""
        count = job_.counted(samples)
        rows = self._apart(samples) if self.target is not None else self._here(samples, count)
        return split(np.frombuffer(rows, "<f4").reshape(count, -1), self.bundle.outputs)

    @property
    def _batch(self) -> int:
        """Return how many samples go at once: several, to try it, where the file takes any batch."""
        return self._most if self.bundle.dynamic_batch and len(self.bundle.inputs) == len(self.bundle.outputs) == 1 else 1

    def _here(self, samples: Sequence[Array], count: int) -> bytes:
        for spec, given, array in zip(self._inputs, self.bundle.inputs, samples, strict=True):
            spec.update(_as_given(given, array))
        found, step = [], self._batch
        with self._stage("predictions"), undisturbed():
            for first in range(0, count, step):
                parts = [array[first : first + step] if len(array) > 1 else array for array in samples]
                feed = self._runtime.prepare([np.ascontiguousarray(part).tobytes() for part in parts], min(step, count - first))
                found.append(self._runtime.scores(self._runtime.infer(feed)))
        return b"".join(found)

    @contextlib.contextmanager
    def _stage(self, stage: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # runtimes raise anything
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise ExportError(f"{self.bundle.name}: the exported file does not run: {stage}: {reason[:1000]}") from error

    def _apart(self, samples: Sequence[Array]) -> bytes:
        assert self.target is not None
        host = self.target.model_copy(update={"transport": "local", "host": None, "python": None})
        inputs = tuple(
            each.model_copy(update={"preprocessing": None} if _as_given(each, array)["preprocessing"] is None else {})
            for each, array in zip(self.bundle.inputs, samples, strict=True)
        )
        bundle = self.bundle.model_copy(update={"inputs": inputs})
        with contextlib.ExitStack() as stack:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgebench-")))
            way = stack.enter_context(contextlib.closing(deploy.connect(host, Link(root))))
            deployed = deploy.deploy(host, way, self.folder, bundle, samples)
            given = (bundle, bundle.runtime, deployed, samples, Scenario(), self.options)
            cell = job_.cell_job(*given, known=True, scored=bundle.outputs)
            job = job_.job([cell], [job_.Pass("accuracy", batch=self._batch)], MODES["quick"], Scenario())
            [measured] = measure.measure(way, deployed.agent, job, lambda _: None)
        failure, found = measured.failure, measured.predictions
        if failure is not None or found is None:
            reason = f"{failure.stage}: {failure.reason}" if failure else "no predictions"
            raise ExportError(f"{bundle.name}: the exported file does not run: {reason}")
        return found.values


def ready(given: Input, images: Array) -> Array:
    """Preprocess images [n, h, w, c] as a runtime does, so that those of several sizes can go to a file together.

    Real numbers in the file's layout, which it quantizes where it does; whole levels [n, H, W, c] for a file of pixels.
    """
    assert given.preprocessing is not None
    spec = given.preprocessing.model_dump(mode="json")
    images = np.ascontiguousarray(images)
    return np.asarray(preprocess.whole(images, spec) if given.takes_pixels else preprocess.apply(images, spec))


def _as_given(given: Input, array: Array) -> dict[str, Any]:
    """Describe samples to a runtime: those that are ready for an image's input are not preprocessed."""
    ready = given.preprocessing is None or array.dtype != np.uint8
    spec = None if ready or given.preprocessing is None else given.preprocessing.model_dump(mode="json")
    data = {"count": len(array), "shape": list(array.shape[1:]), "dtype": str(array.dtype)}
    return {"preprocessing": spec, "data": data}


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Keep the screen clean of what runtimes print, and leave torch's threads and gradients as they were."""
    torch = sys.modules.get("torch")
    before = None if torch is None else (torch.is_grad_enabled(), torch.get_num_threads())
    sys.stdout.flush()
    sys.stderr.flush()
    kept, nowhere = (os.dup(1), os.dup(2)), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        with contextlib.nullcontext() if torch is None else torch.no_grad():
            yield
    finally:
        for number, saved in enumerate(kept, start=1):
            os.dup2(saved, number)
            os.close(saved)
        os.close(nowhere)
        if torch is not None and before is not None:
            torch.set_grad_enabled(before[0])
            torch.set_num_threads(before[1])


def predictions(
    folder: Path, bundle: Bundle, samples: Sequence[Array], target: Target, ways: Sequence[Mapping[str, Any]]
) -> list[list[Array]]:
    """Run a bundle that was made here once for each set of runtime options; float32 arrays [n, …], one for each output.

    samples: for each input an array [n, …], as `samples.samples` makes them.
    """
    apart = None if bundle.runtime in plugins.on_device("runtimes") else target
    found = []
    for options in ways:
        with Predictor(folder, bundle, options, apart) as predictor:
            found.append(predictor.run(samples))
    return found


def predict(folder: Path, bundle: Bundle, samples: Sequence[Array], target: Target) -> list[Array]:
    """Run a bundle that was made here; returns an array [n, …] for each of its outputs."""
    [outputs] = predictions(folder, bundle, samples, target, [{}])
    return outputs


def output_specs(folder: Path, bundle: Bundle, samples: Sequence[Array], target: Target) -> tuple[TensorSpec, ...]:
    """Run a bundle once on this computer, and describe what it returned; `ExportError` where it does not run."""
    host = target.model_copy(update={"transport": "local", "host": None, "python": None})
    with tempfile.TemporaryDirectory(prefix="edgebench-") as root:
        transport = deploy.connect(host, Link(Path(root)))
        deployed = deploy.deploy(host, transport, folder, bundle, samples)
        cell = job_.cell_job(bundle, bundle.runtime, deployed, samples, Scenario(), known=True)
        job = job_.job([cell], [job_.Pass("outputs")], MODES["quick"], Scenario())
        [measured] = measure.measure(transport, deployed.agent, job, lambda _: None)
    failure = measured.failure
    if failure is not None or measured.outputs is None:
        reason = f"{failure.stage}: {failure.reason}" if failure else "it said nothing"
        raise ExportError(f"{bundle.name}: the file does not run here: {reason}")
    known = {each.name: each for each in bundle.outputs}
    return tuple(_seen(each, known.get(each["output"])) for each in measured.outputs)


def _seen(found: Mapping[str, Any], known: TensorSpec | None) -> TensorSpec:
    spec = known or TensorSpec(name=found["output"], shape=(), dtype=found["dtype"], scale=None, zero_point=None)
    return spec.model_copy(update={"shape": tuple(found["shape"])})


def split(rows: Array, outputs: Sequence[TensorSpec]) -> list[Array]:
    """Cut samples' values [n, all of them] into an array for each output: [n, …], without a first dimension of 1."""
    ends = np.cumsum([math.prod(each.shape) for each in outputs])[:-1]
    shapes = [each.shape[1:] if each.shape[:1] == (1,) else each.shape for each in outputs]
    return [part.reshape(len(rows), *shape) for part, shape in zip(np.split(rows, ends, axis=1), shapes, strict=True)]
