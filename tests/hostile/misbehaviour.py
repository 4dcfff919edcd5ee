"""A device that plays the agent's protocol badly: what it does, by name, and what the host says of it.

It stands in place of the device's Python. The cells that it is told to spoil it plays itself, as changes of what a real
agent once said (`recording.json`, which it writes while the first cell runs); the others it hands to the real agent.
Standard library alone: it is a program of the device's.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

Event = dict[str, Any]
Item = Event | bytes | float
"""An event, raw bytes, or seconds of silence."""
Play = Callable[[list[Event]], Iterable[Item]]
HUGE = 10**18
MIB = b"x" * (1 << 20)


class Behaviour(NamedTuple):
    """What a device does, and a regular expression for the failure of its cell; empty: it is measured."""

    play: Play
    expected: str


# ---------------------------------------------------------------- changes of what an honest agent says


def nth(events: list[Event], kind: str, number: int = 0) -> int:
    """Find an event of a kind."""
    return [index for index, event in enumerate(events) if event["event"] == kind][number]


def first(kind: str, **fields: Any) -> Play:
    """Change fields of the first event of a kind; None: leave it out."""

    def play(events: list[Event]) -> Iterable[Item]:
        found = events[nth(events, kind)]
        for name, value in fields.items():
            found[name] = value
        return events

    return play


def lacking(kind: str, field: str) -> Play:
    """Leave a field of the first event of a kind out."""

    def play(events: list[Event]) -> Iterable[Item]:
        del events[nth(events, kind)][field]
        return events

    return play


def without(kind: str) -> Play:
    """Leave all events of a kind out."""
    return lambda events: [event for event in events if event["event"] != kind]


def twice(kind: str) -> Play:
    """Repeat the first event of a kind."""

    def play(events: list[Event]) -> Iterable[Item]:
        at = nth(events, kind)
        return [*events[: at + 1], *events[at:]]

    return play


def before(kind: str, *items: Any) -> Play:
    """Say something before the first event of a kind; fields of an event that are missing are those of its pass."""

    def play(events: list[Event]) -> Iterable[Item]:
        at = nth(events, kind)
        place = {name: events[at][name] for name in ("name", "trial", "cell") if name in events[at]}
        return [*events[:at], *({**place, **item} if isinstance(item, dict) else item for item in items), *events[at:]]

    return play


def instead(kind: str, *items: Any) -> Play:
    """Say something in place of the first event of a kind."""

    def play(events: list[Event]) -> Iterable[Item]:
        at = nth(events, kind)
        return [*list(before(kind, *items)(events))[: at + len(items)], *events[at + 1 :]]

    return play


def until(kind: str, *then: Item) -> Play:
    """Say all that comes before the first event of a kind, then something else, and end."""
    return lambda events: [*events[: nth(events, kind)], *then]


def spelled(kind: str, field: str, text: str) -> Play:
    """Write a field of the first event of a kind as text that JSON's writer would not write."""

    def play(events: list[Event]) -> Iterable[Item]:
        at = nth(events, kind)
        line = json.dumps({**events[at], field: "HERE"}).replace('"HERE"', text)
        return [*events[:at], line.encode("ascii") + b"\n", *events[at + 1 :]]

    return play


def within(kind: str, outer: str, **fields: Any) -> Play:
    """Change an object within the first event of a kind."""

    def play(events: list[Event]) -> Iterable[Item]:
        events[nth(events, kind)][outer].update(fields)
        return events

    return play


def for_ever(kind: str, *items: Item) -> Play:
    """Repeat something for ever in place of the first event of a kind and all that follows."""

    def play(events: list[Event]) -> Iterator[Item]:
        at = nth(events, kind)
        yield from events[:at]
        while True:
            yield from items

    return play


def window(events: list[Event]) -> Iterator[Item]:
    """Say the first window of samples for ever."""
    at = nth(events, "samples")
    yield from events[: at + 1]
    while True:
        yield events[at]


def extreme(ns: int, most: int) -> Play:
    """Say samples of one length, and all other numbers as large as they may be; counters go up to the most and back."""

    def play(events: list[Event]) -> Iterator[Item]:
        for number, event in enumerate(events):
            count = most * (number % 2)
            if event["event"] == "samples":
                length = len(event["ns"])
                yield {**event, "ns": [ns] * length, "begin_ns": 0, "end_ns": ns * length}
            elif event["event"] == "loaded":
                yield {**event, "load_ns": 10**15, "first_ns": 10**15, "prepare_ns": [10**15], "scores_ns": [0]}
            elif event["event"] == "memory":
                yield {**event, "peak_bytes": 2**63 - 1, "baseline_bytes": 0, "loaded_bytes": 0}
            elif event["event"] == "conditions":
                counters = dict.fromkeys(("t_ns", "swapped_pages", "cpu_jiffies", "worker_wait_ns", "cpu_pressure_us"), count)
                yield {**event, **counters, "khz_real": 1e18, "celsius": -1e18, "new": True, "text": "t"}
            else:
                yield event

    return play


def deep(value: Any, levels: int) -> Any:
    """Nest a value."""
    for _ in range(levels):
        value = [value]
    return value


def deaf(events: list[Event]) -> Iterator[Item]:
    """Hear no request to end."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    yield from events[:1]
    yield 60.0


def closed(events: list[Event]) -> Iterator[Item]:
    """Close the output and live on."""
    yield from events[:2]
    os.close(1)
    os.close(2)
    time.sleep(60)


def complaining(events: list[Event]) -> Iterator[Item]:
    """Write to standard error for ever."""
    yield from events[:1]
    while True:
        os.write(2, MIB)


CONDITION: Event = {"event": "conditions", "name": "accuracy", "trial": 0, "cell": 0, "t_ns": 1, "sampling": False}
FREE: Event = {"event": "from the future"}

NUMBERS = {
    "samples are text": Behaviour(first("samples", ns=["1"]), r"'samples' whose ns\.0 should be a valid integer \('1'\)"),
    "samples are negative": Behaviour(first("samples", ns=[-1]), r"whose ns\.0 should be greater than or equal to 0 \(-1\)"),
    "samples are fractions": Behaviour(first("samples", ns=[1.5]), r"whose ns\.0 should be a valid integer \(1\.5\)"),
    "samples are truths": Behaviour(first("samples", ns=[True]), r"whose ns\.0 should be a valid integer \(True\)"),
    "samples are null": Behaviour(first("samples", ns=[None]), r"whose ns\.0 should be a valid integer \(None\)"),
    "samples are lists": Behaviour(first("samples", ns=[[1]]), r"whose ns\.0 should be a valid integer \(1 values\)"),
    "samples are an object": Behaviour(first("samples", ns={"0": 1}), r"whose ns should be a valid list"),
    "no samples": Behaviour(first("samples", ns=[]), r"whose ns should have at least 1 item"),
    "a sample of 64 bits": Behaviour(first("samples", ns=[2**63]), r"whose ns\.0 should be less than .*\(64 bits\)"),
    "a sample of a thousand digits": Behaviour(spelled("samples", "ns", "[" + "9" * 1000 + "]"), r"\(3322 bits\)"),
    "a sample of a million digits": Behaviour(spelled("samples", "ns", "[" + "9" * 10**6 + "]"), r"a line that is no JSON"),
    "NaN": Behaviour(spelled("samples", "ns", "[NaN]"), r"the device sent NaN, which is no number"),
    "infinity": Behaviour(spelled("samples", "ns", "[-Infinity]"), r"the device sent -Infinity, which is no number"),
    "too large a number": Behaviour(spelled("samples", "ns", "[1e999]"), r"1e999, which is too large a number"),
    "inferences that do not fit": Behaviour(first("samples", inferences=7), r"7 inferences where \d+ samples of 1 fit"),
    "a window that ends before it begins": Behaviour(first("samples", end_ns=0), r"it ends \d+ ns before it begins"),
    "samples longer than their window": Behaviour(
        first("samples", ns=[10**15], inferences=1), r"samples of 10{15} ns in a window"
    ),
    "no calls in a sample": Behaviour(first("warm", calls_per_sample=0), r"whose calls_per_sample should be greater"),
    "too many calls in a sample": Behaviour(first("warm", calls_per_sample=2**40), r"whose calls_per_sample should be less"),
    "another batch": Behaviour(first("warm", batch=4), r"'warm' with a batch of 4 where 1 was asked for"),
    "settled is a word": Behaviour(first("warm", settled="yes"), r"whose settled should be a valid boolean \('yes'\)"),
    "a negative load": Behaviour(first("loaded", load_ns=-5), r"'loaded' whose load_ns should be greater"),
    "a load of years": Behaviour(first("loaded", load_ns=HUGE), r"'loaded' whose load_ns should be less"),
    "nothing was prepared": Behaviour(first("loaded", prepare_ns=[]), r"'loaded' whose prepare_ns"),
    "half of an event": Behaviour(lacking("loaded", "first_ns"), r"'loaded' without first_ns"),
    "negative memory": Behaviour(first("memory", peak_bytes=-1), r"'memory' whose peak_bytes should be greater"),
    "memory in words": Behaviour(first("memory", loaded_bytes="much"), r"'memory' whose loaded_bytes should be a valid integer"),
    "half a character": Behaviour(first("memory", method="\ud800"), r"'memory' whose method should be a valid string"),
    "no threads": Behaviour(first("finished", threads=0), r"'finished' whose threads should be greater"),
    "a trillion threads": Behaviour(first("finished", threads=10**12), r"'finished' whose threads should be less"),
    "a million cores": Behaviour(first("finished", affinity=[0] * 10**5), r"'finished' whose affinity"),
    "no such core": Behaviour(first("finished", affinity=[-1]), r"'finished' whose affinity\.0 should be greater"),
    "a time that is no number": Behaviour(first("conditions", t_ns="now"), r"'conditions' whose t_ns should be a valid integer"),
    "pages in words": Behaviour(first("conditions", swapped_pages="many"), r"'conditions' whose swapped_pages should be"),
    "a governor without end": Behaviour(
        first("conditions", governor="x" * 20_000), r"'conditions' whose governor should have at most"
    ),
    "a column that is a list": Behaviour(first("conditions", celsius_new=[1]), r"'celsius_new' is no column with one value"),
    "a column that is a path": Behaviour(first("conditions", **{"../../x": 1}), r"'\.\./\.\./x' is no column with one value"),
    "a column of half a character": Behaviour(
        first("conditions", new="\udc00"), r"'conditions' with a wrong content: .*surrogates"
    ),
}
"""What is wrong with a number or a text."""

ORDER = {
    "another protocol": Behaviour(first("hello", protocol=99), r"protocol 99, 3 is spoken here"),
    "a protocol in words": Behaviour(first("hello", protocol="2"), r"protocol '2', 3 is spoken here"),
    "no hello": Behaviour(without("hello"), r"'\w+' before 'hello'"),
    "hello twice": Behaviour(twice("hello"), r"'hello' twice"),
    "an environment that is a list": Behaviour(first("hello", environment=[1]), r"'hello' whose environment should be"),
    "a billion cores": Behaviour(within("hello", "environment", cores=10**9), r"'hello' whose environment\.cores should be less"),
    "no core": Behaviour(within("hello", "environment", cores=0), r"'hello' whose environment\.cores should be greater"),
    "a deep fact": Behaviour(within("hello", "environment", new=deep(1, 50)), r"'hello' with a wrong environment: nested deeper"),
    "a large fact": Behaviour(within("hello", "environment", new=[0] * 50_000), r"'hello' with a wrong environment: more than"),
    "a clock that runs backwards": Behaviour(within("hello", "clock", cost_ns=-1.0), r"'hello' whose clock\.cost_ns should be"),
    "an unknown pass": Behaviour(first("started", name="heist"), r"the start of heist where the start of accuracy was due"),
    "a pass left out": Behaviour(
        lambda events: [event for event in events if event.get("name") != "accuracy"],
        r"the start of memory where the start of accuracy was due",
    ),
    "a pass begun twice": Behaviour(twice("started"), r"the start of accuracy before the end of accuracy"),
    "a cell that is not there": Behaviour(first("started", cell=7), r"the start of accuracy of cell 7 where"),
    "a negative cell": Behaviour(first("started", cell=-1), r"'started' whose cell should be greater"),
    "a cell in words": Behaviour(first("samples", cell="0"), r"'samples' whose cell should be a valid integer"),
    "another trial": Behaviour(first("samples", trial=99), r"'samples' of trial 99 where trial 0 was due"),
    "warm twice": Behaviour(twice("warm"), r"'warm' twice in one pass"),
    "memory twice": Behaviour(twice("memory"), r"'memory' twice in one pass"),
    "samples before the warm-up": Behaviour(without("warm"), r"'samples' before 'warm'"),
    "a warm-up before the load": Behaviour(without("loaded"), r"'warm' before 'loaded'"),
    "a trial without samples": Behaviour(without("samples"), r"before 'samples'|the end of trial 0 without 'samples'"),
    "no memory": Behaviour(without("memory"), r"the end of memory without 'memory'"),
    "samples of the accuracy": Behaviour(
        before("predictions", {"event": "stopped", "precise": True}), r"'stopped' in the pass accuracy"
    ),
    "progress of nothing": Behaviour(
        before("predictions", {"event": "progress", "what": "x", "seconds": 1}), r"'progress' in the pass"
    ),
    "conditions of what has not begun": Behaviour(
        before("predictions", {**CONDITION, "name": "trial"}), r"'conditions' of trial 0, which has not begun"
    ),
    "other samples first": Behaviour(first("predictions", first=5), r"predictions of sample 5 where 0 was due"),
    "predictions cut short": Behaviour(first("predictions", values="AAAA"), r"3 bytes of predictions .*cut short"),
    "predictions that are no base64": Behaviour(first("predictions", values="%%%"), r"predictions that are no base64"),
    "predictions of nothing": Behaviour(first("predictions", rows=0), r"'predictions' whose rows should be greater"),
    "predictions of too many": Behaviour(first("predictions", rows=10**6), r"predictions of 1000000 samples where there are 360"),
    "predictions that are a number": Behaviour(
        first("predictions", values=3), r"'predictions' whose values should be a valid string"
    ),
    "predictions that are left out": Behaviour(without("predictions"), r"predictions of 0 of 360 samples"),
    "predictions that are not finite": Behaviour(
        first("predictions", values=base64.b64encode(b"\x00\x00\xc0\x7f" * 640).decode()),
        r"640 scores are not finite",
    ),
    "a meter that was not asked for": Behaviour(
        before("started", {"event": "meter", "meter": 0, "name": "watts", "channels": [], "reason": None}),
        r"meter 0, watts, which was not",
    ),
    "readings of no meter": Behaviour(
        before("started", {"event": "power", "meter": 0, "channel": 0, "t_ns": [1], "values": [1.0]}),
        r"readings of meter 0, rail 0",
    ),
    "times without values": Behaviour(
        before("started", {"event": "power", "meter": 0, "channel": 0, "t_ns": [1], "values": []}),
        r"times and values differ in number",
    ),
    "a stage that is a path": Behaviour(
        before("finished", {"event": "stages", "stages": {"../x": [1]}}), r"'stages' (whose stages\.\.\./x|in the pass accuracy)"
    ),
    "resumed from nowhere": Behaviour(
        before("started", {"event": "resumed", "age_seconds": 1.0, "idle_seconds": 0.0}), r"'resumed' after something else"
    ),
    "older than the world": Behaviour(
        before("hello", {"event": "resumed", "age_seconds": 1e300, "idle_seconds": 0.0}),
        r"'resumed' whose age_seconds should be less",
    ),
    "done at once": Behaviour(until("started", {"event": "done"}), r"'done' where the start of accuracy was due"),
    "done within a pass": Behaviour(until("predictions", {"event": "done"}), r"'done' where accuracy was due"),
    "an end in the middle": Behaviour(until("samples"), r"the agent ended before it was done"),
    "not a word": Behaviour(lambda _: [], r"the agent ended before it was done"),
    "what must be understood": Behaviour(
        before("started", {**FREE, "essential": True}), r"'from the future', which must be understood"
    ),
    "a reason that steers the terminal": Behaviour(
        until("started", {"event": "failed", "stage": "x\x1b[2J\ny", "reason": "a\x1b]0;b\x07\nc\r" + "d" * 5000}),
        r"^a.\]0;b. c.d{100}",
    ),
    "a failure without a reason": Behaviour(until("started", {"event": "failed", "stage": "x"}), r"'failed' without reason"),
    "fields and events of a newer agent": Behaviour(
        lambda events: [item for event in events for item in ({**event, "new": 1}, {**FREE, "new": {}}, b"\n", b"noise\n")], ""
    ),
}
"""What comes at the wrong time, or not at all."""

SIZE = {
    "a line without an end": Behaviour(for_ever("started", MIB), r"the device sent a line of more than 64 MiB"),
    "an event without an end": Behaviour(
        for_ever("started", b'{"event": "samples", "ns": [' + b"1," * 500_000), r"the device sent a line of more than 64 MiB"
    ),
    "too many numbers": Behaviour(spelled("samples", "ns", "[" + "1," * (5 << 20) + "1]"), r"a line of 52428\d\d values"),
    "too many objects": Behaviour(spelled("samples", "ns", "[" + "{}," * 100_000 + "1]"), r"in 10000\d lists and objects"),
    "too deep a list": Behaviour(spelled("samples", "ns", "[" * 50_000 + "]" * 50_000), r"nested too deep"),
    "an event that is cut": Behaviour(
        before("started", b'{"event": "started", "name"\n'), r"a line that is no JSON: .* in {\"event\""
    ),
    "megabytes of samples": Behaviour(window, r"more than \d+ (MiB|lines) and not the end of trial 0"),
    "conditions without end": Behaviour(for_ever("predictions", CONDITION), r"more than \d+ lines and not the end of accuracy"),
    "events of the future without end": Behaviour(for_ever("started", FREE), r"more than \d+ lines and not the start of a pass"),
    "empty lines without end": Behaviour(for_ever("hello", b"\n" * 1000), r"more than \d+ lines and not the start of a pass"),
    "noise without end": Behaviour(
        for_ever("started", bytes(range(256)) * 100), r"more than \d+ (MiB|lines) and not the start of a pass"
    ),
    "long lines without end": Behaviour(for_ever("started", MIB, b"\n"), r"more than \d+ MiB and not the start of a pass"),
    "complaints without end": Behaviour(complaining, r"the agent said nothing for"),
}
"""What is too much."""

TIME = {
    "silence": Behaviour(until("predictions", 60.0), r"the agent said nothing for"),
    "silence of one who hears no request to end": Behaviour(deaf, r"the agent said nothing for"),
    "an output that is closed": Behaviour(closed, r"the agent ended before it was done"),
    "a byte now and then": Behaviour(for_ever("predictions", b"x", 0.1), r"the agent said nothing for"),
    "signs of life of a pass": Behaviour(
        for_ever("predictions", CONDITION, 0.05), r"signs of life for \d+ s and not the end of accuracy"
    ),
    "signs of life before any pass": Behaviour(
        for_ever("started", FREE, 0.05), r"signs of life for \d+ s and not the start of a pass"
    ),
    "signs of life of samples": Behaviour(
        for_ever("samples", {**CONDITION, "name": "trial"}, 0.05), r"signs of life for \d+ s and not the end of trial 0"
    ),
}
"""What never comes."""
EXTREME = {
    "samples of nothing": Behaviour(extreme(0, 0), r"."),
    "numbers as large as they may be": Behaviour(extreme(10**15, 2**63 - 1), ""),
    "scores as large as they may be": Behaviour(
        first("predictions", values=base64.b64encode(b"\xff\xff\x7f\x7f" * 320 + b"\xff\xff\x7f\xff" * 320).decode()), ""
    ),
}
"""What is odd, and yet may be."""
BEHAVIOURS = {**NUMBERS, **ORDER, **SIZE, **TIME, **EXTREME}


# ---------------------------------------------------------------- the program


def install(folder: Path, cells: dict[str, str], answers: dict[str, Any] | None = None) -> None:
    """Put it in place of a device's Python; cells: what to do, by bundle, `honest` included; answers: a line by command."""
    place = folder / "env" / "current" / "bin"
    place.mkdir(parents=True, exist_ok=True)
    (place / "plan.json").write_text(json.dumps({"cells": cells, "answers": answers or {}}))
    lines = (
        f"#!{sys.executable} -S",
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})",
        f"import misbehaviour; misbehaviour.main({str(place)!r}, {sys.executable!r})",
    )
    (place / "python").write_text("\n".join(lines) + "\n")
    (place / "python").chmod(0o755)


def main(place: str, python: str) -> None:
    """Do as the plan says, or as the real agent does."""
    agent, command = sys.argv[1:3]
    plan = json.loads(Path(place, "plan.json").read_text())
    if command in plan["answers"]:
        say(plan["answers"][command].encode("ascii"))
        return
    if command != "cell":
        os.execv(python, [python, *sys.argv[1:]])
    line = b""
    while not line.endswith(b"\n"):
        line += os.read(0, 1 << 16)
    name = plan["cells"].get(json.loads(line)["cells"][0]["bundle"])
    recording = Path(place, "recording.json")
    if name is None or not recording.exists():
        forward([python, agent, "cell"], line, recording)
        return
    events = json.loads(recording.read_text())
    for item in events if name == "honest" else BEHAVIOURS[name].play(events):
        if isinstance(item, float):
            time.sleep(item)
        else:
            say(item if isinstance(item, bytes) else json.dumps(item).encode("ascii") + b"\n")


def say(content: bytes) -> None:
    """Write to the host."""
    while content:
        content = content[os.write(1, content) :]


def forward(command: list[str], line: bytes, recording: Path) -> None:
    """Let the real agent do the job, and write down what it says."""
    said = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as real:
        assert real.stdin is not None and real.stdout is not None
        real.stdin.write(line)
        real.stdin.flush()
        for answer in real.stdout:
            said.append(json.loads(answer))
            if said[-1]["event"] == "done":  # the host waits for nothing more
                recording.write_text(json.dumps(said))
            say(answer)
