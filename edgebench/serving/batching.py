"""Pictures of several requests inferred together, within a bound on how long one waits, and no more of them than can be done."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from edgebench.serving.model import Inferred

Array = NDArray[Any]


class Busy(Exception):
    """More is asked for than can be done now."""


class Gate:
    """Counts pictures that are being worked on, and lets in no more than a number of them."""

    def __init__(self, most: int, changed: Callable[[int], None] = lambda _: None) -> None:
        self.most, self.inside, self._changed = most, 0, changed

    @property
    def full(self) -> bool:
        """Return whether nothing more is let in."""
        return self.inside >= self.most

    @contextlib.contextmanager
    def take(self, count: int = 1) -> Iterator[None]:
        """Hold places for so many pictures; `Busy` where there are not as many."""
        if self.inside + count > self.most:
            raise Busy(f"{self.inside} pictures are being worked on, and {self.most} may be")
        self.inside += count
        self._changed(self.inside)
        try:
            yield
        finally:
            self.inside -= count
            self._changed(self.inside)


@dataclass(frozen=True)
class _Waiting:
    tensor: Array
    answer: asyncio.Future[Inferred]
    since: float = field(default_factory=time.monotonic)


class Batcher:
    """One thread that infers, and a queue before it; `ask` from the event loop that `start` was called in."""

    def __init__(
        self,
        infer: Callable[[Sequence[Array]], list[Inferred]],
        most: int,
        wait_seconds: float,
        timeout_seconds: float,
        gate: Gate,
        thread: ThreadPoolExecutor,
        seen: Callable[[int, float], None] = lambda *_: None,
    ) -> None:
        self._infer, self._most, self._wait, self._timeout = infer, most, wait_seconds, timeout_seconds
        self._gate, self._thread, self._seen = gate, thread, seen
        self._queue: collections.deque[_Waiting] = collections.deque()
        self._news = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._begun: float | None = None
        self.failures = 0
        """Inferences that failed since one succeeded."""

    def start(self) -> None:
        """Begin to work on what is asked."""
        self._worker = asyncio.get_running_loop().create_task(self._work())

    async def stop(self) -> None:
        """Work on nothing more."""
        if self._worker is not None:
            self._worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._worker

    @property
    def stuck(self) -> bool:
        """Return whether an inference has been going on for longer than it may take."""
        return self._begun is not None and time.monotonic() - self._begun > self._timeout

    async def ask(self, tensor: Array) -> Inferred:
        """Infer one preprocessed picture [1, …]; `Busy` where that is not done in time."""
        waiting = _Waiting(tensor, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._news.set()
        try:
            return await asyncio.wait_for(waiting.answer, self._timeout)
        except asyncio.TimeoutError:
            raise Busy(f"not inferred within {self._timeout:g} s") from None

    async def _work(self) -> None:
        while True:
            while not self._queue:
                self._news.clear()
                await self._news.wait()
            await self._gather()
            batch: list[_Waiting] = []
            while self._queue and len(batch) < self._most:
                waiting = self._queue.popleft()
                if not waiting.answer.done():  # whoever asked has left, or was told that it takes too long
                    batch.append(waiting)
            if batch:
                await self._run(batch)

    async def _gather(self) -> None:
        """Wait for more to infer together, while there is more on its way and the first one has not waited long enough."""
        until = self._queue[0].since + self._wait
        while len(self._queue) < min(self._most, self._gate.inside):
            left = until - time.monotonic()
            if left <= 0:
                return
            self._news.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._news.wait(), left)

    async def _run(self, batch: Sequence[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        self._begun = time.monotonic()
        try:
            found = await loop.run_in_executor(self._thread, self._infer, [each.tensor for each in batch])
        except Exception as error:  # whoever asked is told
            self.failures += 1
            for each in batch:
                if not each.answer.done():
                    each.answer.set_exception(error)
            return
        finally:
            self._begun = None
        self.failures = 0
        self._seen(len(batch), found[0].seconds)
        for each, answer in zip(batch, found, strict=True):
            if not each.answer.done():
                each.answer.set_result(answer)
