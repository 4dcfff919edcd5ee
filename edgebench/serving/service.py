"""The work behind the endpoints: pictures in, answers out, on two threads beside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgebench.agent import facts
from edgebench.serving.batching import Batcher, Busy, Gate
from edgebench.serving.explained import Asked, Explainer, HeatMap
from edgebench.serving.metrics import Metrics
from edgebench.serving.model import Inferred, Served
from edgebench.serving.options import ServeOptions

Array = NDArray[Any]
FAILURES = 3
"""After so many inferences in a row that failed it is not healthy any more."""


class Service:
    """One process' model: a thread that reads pictures, one that infers, and the queue between."""

    def __init__(self, folder: Path, options: ServeOptions) -> None:
        self.options = options
        self.model = Served(folder, options)
        self.metrics = Metrics(self.model.version)
        self.gate = Gate(options.queue, self.metrics.working.set)
        self.loaded = False
        self._reader, self._inferrer = (ThreadPoolExecutor(1, name) for name in ("reader", "inferrer"))
        self._batcher: Batcher | None = None
        self._explaining = asyncio.Lock()
        here = facts.environment()
        self.device = str(here["board"] or here["cpu"] or here["machine"])
        self.runtime_version = facts.runtimes([self.model.bundle.runtime])[self.model.bundle.runtime]["version"]

    def load(self) -> None:
        """Load the model, on the thread that will infer; `ExportError` where it does not run here."""
        self._inferrer.submit(self.model.open).result()
        self.loaded = True

    async def start(self) -> None:
        """Begin to answer."""
        options = self.options
        self._batcher = Batcher(
            self.model.infer,
            self.model.most,
            options.wait_ms / 1e3,
            options.timeout_seconds,
            self.gate,
            self._inferrer,
            self.metrics.inferred,
        )
        self._batcher.start()

    async def stop(self) -> None:
        """Let go of the model; an inference that is stuck is left behind."""
        self.loaded = False
        if self._batcher is not None:
            await self._batcher.stop()
        self._reader.shutdown(wait=False, cancel_futures=True)
        self._inferrer.shutdown(wait=False, cancel_futures=True)

    @property
    def status(self) -> str:
        """Say how it is: ok, or what is wrong."""
        if self._batcher is None or not self.loaded:
            return "loading"
        if self._batcher.stuck:
            return "stuck"
        return "failing" if self._batcher.failures >= FAILURES else "ok"

    async def predict(self, contents: Sequence[bytes]) -> list[Inferred]:
        """Infer pictures, in their order; `Busy`, `DataError` or `ExportError` where one of them is not."""
        with self.gate.take(len(contents)):
            each = (self._in_time(self._one(content)) for content in contents)
            found = await asyncio.gather(*each, return_exceptions=True)
        for one in found:
            if isinstance(one, BaseException):
                raise one
        return [one for one in found if isinstance(one, Inferred)]

    async def _one(self, content: bytes) -> Inferred:
        assert self._batcher is not None
        loop = asyncio.get_running_loop()
        tensor = await loop.run_in_executor(self._reader, lambda: self.model.tensor(self.model.pixels(content)[None]))
        return await self._batcher.ask(tensor)

    async def _in_time(self, work: Any) -> Inferred:
        try:
            found: Inferred = await asyncio.wait_for(work, self.options.timeout_seconds)
        except asyncio.TimeoutError:
            raise Busy(f"not done within {self.options.timeout_seconds:g} s") from None
        return found

    async def explain(self, content: bytes, asked: Asked) -> HeatMap:
        """Make a heat map, one at a time; `Busy` where that takes too long."""
        assert self._batcher is not None
        explainer = Explainer(self.model, self._batcher.ask, self._reader)
        with self.gate.take():
            try:
                return await asyncio.wait_for(self._alone(explainer, content, asked), self.options.explain_seconds)
            except asyncio.TimeoutError:
                raise Busy(f"not explained within {self.options.explain_seconds:g} s") from None

    async def _alone(self, explainer: Explainer, content: bytes, asked: Asked) -> HeatMap:
        async with self._explaining:
            return await explainer.make(content, asked)

    @property
    def explaining(self) -> bool:
        """Return whether a heat map is being made."""
        return self._explaining.locked()
