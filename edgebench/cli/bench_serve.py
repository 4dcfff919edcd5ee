"""`edgebench bench-serve`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgebench.cli import console
from edgebench.errors import InputError

if TYPE_CHECKING:
    from edgebench.serving.bench import Bench, Level


def command(
    url: Annotated[str, typer.Argument(help="Where `edgebench serve` answers, for instance http://127.0.0.1:8000.")],
    rates: Annotated[
        str | None, typer.Option(help="Requests per second, for instance 10,50,100; by how fast it answers unless given.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(help="Of each rate; ten, or as many as p99 asks for, at most a minute, unless given.")
    ] = None,
    max_p99: Annotated[
        str | None, typer.Option(help="What p99 must stay under, for instance 50ms; ten times the median alone unless given.")
    ] = None,
    connections: Annotated[int, typer.Option(help="At most.", min=1, max=1000)] = 256,
    picture: Annotated[list[Path] | None, typer.Option(help="What is sent; noise unless given; repeatable.")] = None,
    api_key_file: Annotated[Path | None, typer.Option(help="Holds the key; or set EDGEBENCH_API_KEY.")] = None,
    ca: Annotated[Path | None, typer.Option(help="Certificates that the server's is checked by, PEM.")] = None,
    seed: Annotated[int, typer.Option(help="Of the arrivals.", min=0)] = 0,
    out: Annotated[Path | None, typer.Option(help="Write everything there, as JSON.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure a server from outside: latencies at one rate after the other, where it bends, and what it can hold.

    Requests come at random (Poisson) and wait for no answer; a latency counts from when its request was due.
    """
    from edgebench import api
    from edgebench.cli.serve import read_key
    from edgebench.files import write_json
    from edgebench.serving.bench import BenchOptions

    wanted = BenchOptions(
        rates=_rates(rates),
        seconds=seconds,
        bound_ms=_milliseconds(max_p99),
        lines=connections,
        pictures=tuple(picture or ()),
        key=read_key(api_key_file),
        authority=ca,
        seed=seed,
    )
    with console.progress() as progress:
        found = api.bench_serve(url, options=wanted, progress=progress)
    if out is not None:
        write_json(out, found.values())
    if json:
        console.print_json(found.values())
    else:
        _print(found)


def _rates(text: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(each) for each in text.split(",")) if text else ()
    except ValueError as error:
        raise InputError(f"--rates {text}: wants numbers, for instance 10,50,100") from error


def _milliseconds(text: str | None) -> float | None:
    from edgebench.report.limits import TIMES, amount

    return None if text is None else amount("--max-p99", text, TIMES, "50ms") / TIMES["ms"]


def _print(found: Bench) -> None:
    right = ("requests/s", "answered/s", "p50 ms", "p90 ms", "p95 ms", "p99 ms", "max ms")
    console.print_table(f"{found.model['model_version']} at {found.url}", [_row(each) for each in found.levels], right)
    closed = "" if found.closed_rate is None else f"; 16 clients that wait: {found.closed_rate:.1f} answers/s"
    console.say(f"One request at a time: median {found.alone_ms:.2f} ms{closed}")
    held = "none of these rates is held" if found.capacity is None else f"held up to {found.capacity:.1f} requests/s"
    bend = "" if found.knee is None else f"; p99 stays within three times the lowest rate's up to {found.knee:.1f}"
    console.say(f"p99 within {found.bound_ms:.1f} ms and at most 1 of 1000 failed: {held}{bend}")
    for level in found.levels:
        if level.note:
            console.complain(f"{level.rate:.1f} requests/s: {level.note}")


def _row(level: Level) -> dict[str, Any]:
    times = {name: getattr(level, f"{name[:-3]}_ms") for name in ("p50 ms", "p90 ms", "p95 ms", "p99 ms", "max ms")}
    return {
        "requests/s": f"{level.rate:.1f}",
        "answered/s": f"{level.answered_rate:.1f}",
        **{name: None if value is None else f"{value:.2f}" for name, value in times.items()},
        "failed": ", ".join(f"{count} × {what}" for what, count in sorted(level.errors.items())),
        "held": {True: "yes", False: "no", None: "?"}[level.holds],
    }
