"""`edgebench bench-serve`: what it says of servers whose behaviour is known."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers import running

from edgebench import BenchOptions, bench_serve
from edgebench.errors import InputError, MeasureError
from edgebench.serving.bench import ALONE_SECONDS, Level, capacity, knee, summed

Cli = Callable[..., tuple[int, str, str]]
TOLD = {"model_version": "double@1", "input": {"preprocessing": {"height": 8, "width": 8, "channels": 1}}}
LEVEL = Level(10, 700, 70, 10, {}, 1, 2, 3, 4, 5, 0, True)


@contextmanager
def served(answer: Callable[[int], tuple[int, float]]) -> Iterator[str]:
    """Serve on loopback, one request after the other: `answer` says of each its status and the seconds that it takes."""
    ready, ended = threading.Event(), threading.Event()
    place: list[int] = []

    async def run() -> None:
        turn, counted = asyncio.Lock(), iter(range(1 << 30))

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode().lower():
                await reader.readexactly(int(head.partition("content-length:")[2].split("\r\n")[0] or 0))
                async with turn:
                    status, seconds = (200, 0.0) if head.startswith("get") else answer(next(counted))
                    await asyncio.sleep(seconds)
                body = json.dumps(TOLD).encode()
                writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await talk(reader, writer)
            except (asyncio.IncompleteReadError, ConnectionError):
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        place.append(server.sockets[0].getsockname()[1])
        ready.set()
        while not ended.is_set():
            await asyncio.sleep(0.05)
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert ready.wait(10)
    yield f"http://127.0.0.1:{place[0]}"
    ended.set()
    thread.join(10)


def test_latencies_are_those_of_a_queue_with_one_place() -> None:
    """As D. V. Lindley's recursion has them for the same arrivals: what waits, waits from when it was due."""
    service, rate, seconds = 0.02, 30.0, 4.0
    with served(lambda _: (200, service)) as url:
        found = bench_serve(url, options=BenchOptions(rates=(rate,), seconds=seconds, bound_ms=1000, seed=3))
    due = np.cumsum(np.random.default_rng(3).exponential(1 / rate, round(rate * seconds)))
    ends, latencies = 0.0, []
    for arrival in due:
        ends = max(ends, arrival) + service
        latencies.append(1e3 * (ends - arrival))
    [level] = found.levels
    assert level.requests == len(due)
    assert level.errors == {}
    assert level.p50_ms == pytest.approx(np.median(latencies), abs=12)
    assert level.p50_ms is not None and level.p50_ms >= 1e3 * service
    assert found.alone_ms == pytest.approx(1e3 * service, abs=5)
    assert found.model["model_version"] == "double@1"


def test_a_stall_is_charged_to_all_that_were_due_in_it() -> None:
    began: list[float] = []
    stalled: list[int] = []

    def answer(number: int) -> tuple[int, float]:
        began.append(time.monotonic())
        if not stalled and began[-1] - began[0] > ALONE_SECONDS + 0.4:
            stalled.append(number)
            return 200, 1.0
        return 200, 0.0005

    with served(answer) as url:
        [level] = bench_serve(url, options=BenchOptions(rates=(60.0,), seconds=2.0, bound_ms=100)).levels
    assert level.max_ms is not None and level.max_ms > 900
    assert level.p90_ms is not None and level.p90_ms > 400  # half of them were due meanwhile; a client that waits sees one
    assert level.p50_ms is not None and level.p50_ms < 800


def test_what_is_refused_is_counted_and_not_timed() -> None:
    with served(lambda number: (503 if number % 2 else 200, 0.0)) as url:
        found = bench_serve(url, options=BenchOptions(rates=(100.0,), seconds=1.0))
    [level] = found.levels
    assert level.errors == {"503": 50}
    assert level.holds is False
    assert found.capacity is None
    assert level.answered_rate == pytest.approx(50, rel=0.4)


def test_few_answers_have_no_p99() -> None:
    few = summed(10, 100, 10, [0.001] * 100, [0.0] * 100, {}, 50)
    assert (few.p99_ms, few.holds, "too few for p99" in few.note) == (None, None, True)
    many = summed(10, 700, 70, [0.001] * 693 + [0.06] * 7, [0.0] * 700, {}, 50)
    assert (many.p99_ms, many.holds, many.max_ms) == (1.0, True, 60.0)
    assert summed(10, 700, 70, [0.001] * 692 + [0.06] * 8, [0.0] * 700, {}, 50).holds is False
    late = summed(10, 700, 70, [0.001] * 700, [0.02] * 700, {}, 50)
    assert "late itself by 20.0 ms" in late.note


def test_the_capacity_is_the_last_rate_before_one_that_is_not_held() -> None:
    levels = [
        replace(LEVEL, rate=rate, holds=holds) for rate, holds in ((10, True), (20, None), (30, True), (40, False), (50, True))
    ]
    assert capacity(levels) == 30
    assert capacity(levels[3:]) is None
    bent = [replace(LEVEL, rate=rate, p99_ms=p99) for rate, p99 in ((10, 4.0), (20, None), (30, 12.0), (40, 12.1), (50, 4.0))]
    assert knee(bent) == 30
    assert knee([replace(LEVEL, p99_ms=None)]) is None


def test_the_command_measures_a_real_server(tiny_bundles: dict[tuple[str, str], Path], cli: Cli, tmp_path: Path) -> None:
    with running(tiny_bundles["onnx", "fp32"]) as client:
        url = f"http://127.0.0.1:{client.port}"
        code, out, _ = cli(
            "bench-serve", url, "--rates", "40", "--seconds", "1", "--max-p99", "1s", "--json", "--out", tmp_path / "a.json"
        )
        found: dict[str, Any] = json.loads(out)
        assert (code, found) == (0, json.loads((tmp_path / "a.json").read_text()))
        [level] = found["levels"]
        assert (level["requests"], level["errors"], level["p99_ms"]) == (40, {}, None)
        assert 0 < level["p50_ms"] <= level["max_ms"]
        code, out, errors = cli("bench-serve", url, "--rates", "40", "--seconds", "0.5")
        assert (code, "40.0" in out, "too few for p99" in errors) == (0, True, True)


def test_what_cannot_be_measured_is_said_at_once() -> None:
    for url in ("127.0.0.1:8000", "ftp://127.0.0.1", "http://127.0.0.1:99999", "http://[", "http://127.0.0.1/predict"):
        with pytest.raises(InputError, match="no server's address"):
            bench_serve(url)
    with pytest.raises(MeasureError, match="look whether"):
        bench_serve("http://127.0.0.1:9")
    with pytest.raises(InputError, match="more than 0"):
        bench_serve("http://127.0.0.1:9", options=BenchOptions(rates=(0,)))
