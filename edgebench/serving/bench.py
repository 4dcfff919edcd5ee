"""A server measured from outside: requests come when they come, whether it keeps up or not, at one rate after the other.

Arrivals are Poisson's and do not wait for answers (an open loop): a latency is the time from when a request was due, so
that a server that stalls does not hide what it would have been asked meanwhile.
"""

from __future__ import annotations

import asyncio
import collections
import io
import json
import selectors
import ssl
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgebench.analysis.stats import eligible, quantile
from edgebench.errors import InputError, MeasureError
from edgebench.schema import Progress, no_progress
from edgebench.serving.client import Line, Server, form, server_at

QUANTILES = {"p50_ms": 0.5, "p90_ms": 0.9, "p95_ms": 0.95, "p99_ms": 0.99}
SHARES = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1)
"""Of what it answers where the next request waits for an answer: the rates that are tried unless given."""
ALONE_SECONDS, CLOSED_SECONDS, CLOSED_LINES = 1.0, 3.0, 16
REQUESTS, MOST_SECONDS = 700, 60.0
"""Each rate has so many requests at least, as p99 asks for, unless that takes longer."""
USUAL_SECONDS = 10.0
TIMEOUT_SECONDS = 30.0
ERRORS = 0.001
"""Share of requests that may fail where a rate is held."""
KNEE = 3.0
"""p99 of the knee, over that of the lowest rate."""
LAG = 0.1
"""Share of a latency bound by which this client may be late itself."""


@dataclass(frozen=True)
class BenchOptions:
    """How a server is measured."""

    rates: Sequence[float] = ()
    """Requests per second; chosen by how fast it answers unless given."""
    seconds: float | None = None
    """Of each rate; ten, or as many as p99 asks for, at most a minute, unless given."""
    bound_ms: float | None = None
    """What p99 must stay under where a rate is held; ten times the median of one request at a time unless given."""
    lines: int = 256
    """Connections at most."""
    pictures: Sequence[Path] = ()
    """What is sent, in turn; noise of the network's own size unless given."""
    key: str | None = None
    authority: Path | None = None
    """Certificates that a server's is checked by."""
    seed: int = 0


@dataclass(frozen=True)
class Level:
    """What became of one rate."""

    rate: float
    """Requests per second that were wanted."""
    requests: int
    seconds: float
    """From the first one's being due to the last answer."""
    answered_rate: float
    """Answers per second that were what they should be."""
    errors: dict[str, int]
    """By status, or what else went wrong."""
    p50_ms: float | None
    p90_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    """Null: of too few answers."""
    max_ms: float | None
    client_lag_ms: float
    """By how much this client sent too late, 99 of 100 requests at most."""
    holds: bool | None
    """Whether p99 is within the bound and hardly any request failed; null: cannot be told."""
    note: str = ""


@dataclass(frozen=True)
class Bench:
    """What was found."""

    url: str
    model: dict[str, Any]
    """What the server tells of itself."""
    alone_ms: float
    """Median of one request at a time."""
    closed_rate: float | None
    """Answers per second to sixteen clients, each of which waits for its answer; null: the rates were given."""
    bound_ms: float
    levels: Sequence[Level]
    capacity: float | None
    """The highest rate that is held, with all that are lower; null: none is."""
    knee: float | None
    """The highest rate whose p99 is at most three times that of the lowest; null: cannot be told."""
    seed: int

    def values(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return asdict(self)


def bench(url: str, options: BenchOptions = BenchOptions(), progress: Progress = no_progress) -> Bench:
    """Measure a server; `MeasureError` where it does not answer, `InputError` where it refuses what it is sent."""
    if (options.seconds is not None and options.seconds <= 0) or any(rate <= 0 for rate in options.rates):
        raise InputError("--seconds and --rates: are more than 0")
    server = server_at(url, options.key, options.authority)
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())  # which sleeps to the microsecond; epoll to the millisecond
    try:
        return loop.run_until_complete(_bench(url, server, options, progress))
    except (OSError, EOFError, asyncio.TimeoutError, ssl.SSLError, ValueError) as error:
        told = str(error) or type(error).__name__
        raise MeasureError("bench-serve", f"{url}: {told}", "look whether `edgebench serve` answers there") from error
    finally:
        loop.close()


async def _bench(url: str, server: Server, options: BenchOptions, progress: Progress) -> Bench:
    model = await _told(server)
    requests = [server.request("POST", "/predict", *form(content)) for content in _pictures(options, model)]
    progress("one request at a time", 0, 1)
    alone_ms = 1e3 * float(np.median(await _closed(server, requests, 1, ALONE_SECONDS)))
    closed_rate, rates = None, sorted(options.rates)
    if not rates:
        progress(f"{CLOSED_LINES} clients that wait for their answers", 0, 1)
        closed_rate = len(await _closed(server, requests, CLOSED_LINES, CLOSED_SECONDS)) / CLOSED_SECONDS
        rates = [closed_rate * share for share in SHARES]
    bound = options.bound_ms or 10 * alone_ms
    random, levels = np.random.default_rng(options.seed), []
    for index, rate in enumerate(rates):
        progress(f"{rate:.1f} requests/s", index, len(rates))
        levels.append(await _level(server, requests, rate, options, bound, random))
    return Bench(url, model, alone_ms, closed_rate, bound, levels, capacity(levels), knee(levels), options.seed)


async def _told(server: Server) -> dict[str, Any]:
    line = Line(server)
    status, body = await asyncio.wait_for(line.ask(server.request("GET", "/model/info")), TIMEOUT_SECONDS)
    await line.close()
    if status != 200:
        raise InputError(f"{server.host}:{server.port}: answers {status} to /model/info; give its key, and an `edgebench serve`")
    content = json.loads(body)
    if not isinstance(content, dict) or "model_version" not in content:
        raise InputError(f"{server.host}:{server.port}: is no `edgebench serve`")
    return content


def _pictures(options: BenchOptions, model: dict[str, Any]) -> list[bytes]:
    """Read what is sent; else make noise as large as the network's input."""
    if options.pictures:
        try:
            return [path.read_bytes() for path in options.pictures]
        except OSError as error:
            raise InputError(f"--picture {error.filename}: cannot be read ({error.strerror})") from error
    from PIL import Image

    spec = model["input"]["preprocessing"]
    random, found = np.random.default_rng(options.seed), []
    for _ in range(8):
        pixels = random.integers(0, 256, (spec["height"], spec["width"], 3), np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels if spec["channels"] == 3 else pixels[:, :, 0]).save(stream, "PNG")
        found.append(stream.getvalue())
    return found


async def _closed(server: Server, requests: Sequence[bytes], lines: int, seconds: float) -> list[float]:
    """Let some clients ask, each again once it has its answer; returns the seconds that each answer took."""
    until = time.perf_counter() + seconds
    found: list[float] = []

    async def client(number: int) -> None:
        line, place = Line(server), number
        while (began := time.perf_counter()) < until:
            status, body = await asyncio.wait_for(line.ask(requests[place % len(requests)]), TIMEOUT_SECONDS)
            if status == 200:
                found.append(time.perf_counter() - began)
            elif status not in (429, 503):
                raise InputError(
                    f"{server.host}:{server.port}: answers {status} to /predict: {body[:200].decode(errors='replace')}"
                )
            place += lines
        await line.close()

    await asyncio.gather(*(client(number) for number in range(lines)))
    if not found:
        raise InputError(f"{server.host}:{server.port}: is busy all the time; try again when nobody else asks")
    return found


async def _level(
    server: Server, requests: Sequence[bytes], rate: float, options: BenchOptions, bound: float, random: np.random.Generator
) -> Level:
    """Ask at one rate."""
    usual = max(round(rate * USUAL_SECONDS), min(REQUESTS, round(rate * MOST_SECONDS)))
    count = max(1, usual if options.seconds is None else round(rate * options.seconds))
    due = np.cumsum(random.exponential(1 / rate, count))
    asking = _Asking(server, options.lines)
    began = time.perf_counter()
    tasks: set[asyncio.Task[None]] = set()
    for number, after in enumerate(due):
        wait = began + after - time.perf_counter()
        await asyncio.sleep(max(wait, 0))
        task = asyncio.ensure_future(asking.ask(requests[number % len(requests)], began + after))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    seconds = time.perf_counter() - began - due[0]
    await asking.close()
    return summed(rate, count, float(seconds), asking.latencies, asking.lags, dict(asking.errors), bound)


class _Asking:
    """Connections that are free, and what came of those that were not."""

    def __init__(self, server: Server, most: int) -> None:
        self._free = [Line(server) for _ in range(most)]
        self._places = asyncio.Semaphore(most)
        self.latencies: list[float] = []
        self.lags: list[float] = []
        self.errors: collections.Counter[str] = collections.Counter()

    async def ask(self, request: bytes, due: float) -> None:
        """Ask once; a latency counts from when it was due."""
        async with self._places:
            line = self._free.pop()
            self.lags.append(time.perf_counter() - due)
            try:
                status, _ = await asyncio.wait_for(line.ask(request), TIMEOUT_SECONDS)
            except Exception as error:  # whatever a server does is counted
                self.errors[type(error).__name__] += 1
                await line.close()
            else:
                if status == 200:
                    self.latencies.append(time.perf_counter() - due)
                else:
                    self.errors[str(status)] += 1
            self._free.append(line)

    async def close(self) -> None:
        """Close the connections."""
        for line in self._free:
            await line.close()


def summed(
    rate: float,
    count: int,
    seconds: float,
    latencies: Sequence[float],
    lags: Sequence[float],
    errors: dict[str, int],
    bound: float,
) -> Level:
    """Say what became of a rate, from the seconds of its answers."""
    taken = np.asarray(latencies, np.float64) * 1e3
    found = {name: quantile(taken, q) if len(taken) and eligible(len(taken), q) else None for name, q in QUANTILES.items()}
    lag = quantile(np.asarray(lags, np.float64) * 1e3, 0.99)
    failed, p99 = sum(errors.values()), found["p99_ms"]
    holds, notes = None, []
    if failed > ERRORS * count:
        holds = False
    elif p99 is None:
        notes.append(f"{len(taken)} answers are too few for p99; give more --seconds")
    else:
        holds = p99 <= bound
    if lag > LAG * bound:
        notes.append(f"this client was late itself by {lag:.1f} ms; measure from another computer, or with more --connections")
    largest = float(taken.max()) if len(taken) else None
    return Level(
        rate,
        count,
        seconds,
        len(taken) / seconds,
        errors,
        **found,
        max_ms=largest,
        client_lag_ms=lag,
        holds=holds,
        note="; ".join(notes),
    )


def capacity(levels: Sequence[Level]) -> float | None:
    """Return the highest rate that is held with all lower ones that could be told."""
    found = None
    for level in levels:
        if level.holds is False:
            break
        found = level.rate if level.holds else found
    return found


def knee(levels: Sequence[Level]) -> float | None:
    """Return the highest rate whose p99 is at most KNEE times that of the lowest, with all in between."""
    first = next((level.p99_ms for level in levels if level.p99_ms is not None), None)
    found = None
    for level in levels:
        if first is None or level.p99_ms is None:
            continue
        if level.p99_ms > KNEE * first or sum(level.errors.values()) > ERRORS * level.requests:
            break
        found = level.rate
    return found
