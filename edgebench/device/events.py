"""What an agent answers: events, a line each, and the measurements that they add up to."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgebench.device.job import PROTOCOL
from edgebench.errors import TransportError
from edgebench.schema import (
    Failure,
    Keep,
    Measurement,
    Power,
    PowerTrace,
    Predictions,
    Step,
    Stream,
    Transport,
    Trial,
    Window,
)

SILENCE_SECONDS = 60.0
"""The agent speaks once a second; after so long without a word it is given up."""
Event = dict[str, Any]
Take = Callable[[Event], bool]
OnEvent = Callable[[Mapping[str, Any]], None]


class NotStarted(TransportError):
    """The agent could not be started at all."""


def ask(transport: Transport, arguments: Sequence[str], job: str, take: Take, keep: Keep | None = None) -> str | None:
    """Start the agent with a job and give each of its events to `take`, until that returns True or the agent ends.

    Returns None where `take` has what it waited for, else the last line of the agent's standard error, in brackets.
    Raises `NotStarted`, and `TransportError` after a silence of `SILENCE_SECONDS`. The agent is gone when this ends,
    however it ends, unless it is kept and its device was lost.
    """
    try:
        stream = transport.run(arguments, job, keep)
    except TransportError as error:
        raise NotStarted(str(error)) from error
    try:
        if any(take(event) for event in events(stream)):
            return None
    finally:
        stream.stop()
    return last_words(stream)


def events(stream: Stream) -> Iterator[dict[str, Any]]:
    """Parse lines; whatever is no event is not ours and is passed over."""
    for line in stream.lines(SILENCE_SECONDS):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            yield event


def last_words(stream: Stream) -> str:
    """Quote the last line of the agent's standard error."""
    lines = stream.stderr().splitlines()
    return f" ({lines[-1][:300]})" if lines else ""


@dataclass
class _Open:
    """A trial that is still running."""

    samples: list[int] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    loaded: dict[str, Any] = field(default_factory=dict)
    warm: dict[str, Any] = field(default_factory=dict)
    precise: bool | None = None
    rate: float | None = None
    stages: dict[str, list[int]] = field(default_factory=dict)
    complete: bool = False

    def close(self, index: int) -> Trial:
        """Freeze what has arrived."""
        return Trial(
            index=index,
            load_ns=self.loaded.get("load_ns", 0),
            first_ns=self.loaded.get("first_ns", 0),
            warmup_ns=self.warm.get("warmup_ns", ()),
            settled=self.warm.get("settled", False),
            calls_per_sample=self.warm.get("calls_per_sample", 1),
            batch=self.warm.get("batch", 1),
            samples_ns=self.samples,
            prepare_ns=self.loaded.get("prepare_ns", ()),
            scores_ns=self.loaded.get("scores_ns", ()),
            complete=self.complete,
            precise=self.precise,
            windows=self.windows,
            steps=self.steps,
            rate=self.rate,
            stages=self.stages,
        )


@dataclass
class _Cell:
    """What has arrived of one cell."""

    trials: list[_Open] = field(default_factory=list)
    memory: dict[str, Any] = field(default_factory=dict)
    conditions: list[dict[str, Any]] = field(default_factory=list)
    values: list[bytes] = field(default_factory=list)
    rows: int = 0
    threads: int | None = None
    affinity: list[int] | None = None
    loadgen: dict[str, Any] | None = None
    finish: dict[str, Any] | None = None
    profile: list[dict[str, Any]] | None = None

    def predictions(self) -> Predictions | None:
        """Join the chunks."""
        values = b"".join(self.values)
        return Predictions(self.rows, len(values) // 4 // self.rows, values) if self.rows else None


@dataclass
class _Trace:
    """One rail of a meter."""

    meter: str
    channel: Mapping[str, Any]
    t_ns: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    note: str = ""

    def close(self) -> PowerTrace:
        """Freeze what has arrived."""
        return PowerTrace(
            meter=self.meter,
            rail=str(self.channel["rail"]),
            provenance=self.channel["provenance"],
            counter=bool(self.channel["counter"]),
            own_clock=bool(self.channel["own_clock"]),
            t_ns=self.t_ns,
            values=self.values,
            note=self.note,
        )


class Collected:
    """Gathers events into measurements, one for each cell of a job."""

    def __init__(self, cells: int) -> None:
        self.stage = "start"
        self.done = False
        self.failure: Failure | None = None
        self._hello: dict[str, Any] = {}
        self._cells = [_Cell() for _ in range(cells)]
        self._traces: dict[tuple[int, int], _Trace] = {}
        self._absent: dict[str, str] = {}
        self._idle: list[tuple[int, int]] = []
        self._marks: list[tuple[int, int]] = []

    def take(self, event: Mapping[str, Any]) -> None:
        """Take one event; unknown ones are of a newer agent and are passed over."""
        handler = getattr(self, f"_on_{event['event']}", None)
        if handler is None:
            return
        try:
            handler(event)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            self.failure = Failure(self.stage, f"the agent sent a malformed {event['event']!r} event ({error!r})")

    def _cell(self, event: Mapping[str, Any]) -> _Cell:
        return self._cells[int(event["cell"])]

    def _trial(self, event: Mapping[str, Any]) -> _Open:
        if event["name"] != "trial":
            raise ValueError(f"in the pass {event['name']}")
        return self._cell(event).trials[-1]

    def _on_hello(self, event: Mapping[str, Any]) -> None:
        if event["protocol"] != PROTOCOL:
            raise ValueError(f"protocol {event['protocol']}, {PROTOCOL} is spoken here")
        self._hello = {key: event[key] for key in ("environment", "clock")}

    def _on_started(self, event: Mapping[str, Any]) -> None:
        self.stage = f"trial {event['trial']}" if event["name"] == "trial" else str(event["name"])
        if event["name"] == "trial":
            self._cell(event).trials.append(_Open())

    def _on_loaded(self, event: Mapping[str, Any]) -> None:
        self._trial(event).loaded = {key: event[key] for key in ("load_ns", "first_ns", "prepare_ns", "scores_ns")}

    def _on_warm(self, event: Mapping[str, Any]) -> None:
        self._trial(event).warm = {key: event[key] for key in ("warmup_ns", "settled", "calls_per_sample", "batch")}

    def _on_samples(self, event: Mapping[str, Any]) -> None:
        trial = self._trial(event)
        trial.samples.extend(event["ns"])
        index = len(self._cell(event).trials) - 1
        trial.windows.append(Window(index, int(event["begin_ns"]), int(event["end_ns"]), int(event["inferences"])))

    def _on_stopped(self, event: Mapping[str, Any]) -> None:
        self._trial(event).precise = bool(event["precise"])

    def _on_step(self, event: Mapping[str, Any]) -> None:
        step = Step(float(event["rate"]), int(event["queries"]), float(event["p99_ns"]), bool(event["held"]))
        self._trial(event).steps.append(step)

    def _on_rate(self, event: Mapping[str, Any]) -> None:
        self._trial(event).rate = None if event["rate"] is None else float(event["rate"])

    def _on_conditions(self, event: Mapping[str, Any]) -> None:
        if event["name"] == "trial":
            cell = self._cell(event)
            fields = {key: value for key, value in event.items() if key not in ("event", "name", "cell")}
            cell.conditions.append({**fields, "trial": len(cell.trials) - 1})

    def _on_memory(self, event: Mapping[str, Any]) -> None:
        names = ("baseline_bytes", "loaded_bytes", "peak_bytes", "device_bytes", "method", "reason")
        self._cell(event).memory = {key: event[key] for key in names}

    def _on_finish(self, event: Mapping[str, Any]) -> None:
        self._cell(event).finish = dict(event["facts"])

    def _on_stages(self, event: Mapping[str, Any]) -> None:
        self._trial(event).stages = {str(name): [int(value) for value in values] for name, values in event["stages"].items()}

    def _on_profile(self, event: Mapping[str, Any]) -> None:
        cell = self._cell(event)
        cell.profile = [*(cell.profile or ()), *(dict(node) for node in event["nodes"])]

    def _on_predictions(self, event: Mapping[str, Any]) -> None:
        cell = self._cell(event)
        if event["first"] != cell.rows:
            raise ValueError(f"predictions of sample {event['first']} where {cell.rows} was due")
        values = base64.b64decode(event["values"], validate=True)
        if len(values) % (4 * event["rows"]):
            raise ValueError("predictions are cut short")
        cell.values.append(values)
        cell.rows += event["rows"]

    def _on_loadgen(self, event: Mapping[str, Any]) -> None:
        self._cell(event).loadgen = {key: value for key, value in event.items() if key not in ("event", "name", "trial", "cell")}

    def _on_meter(self, event: Mapping[str, Any]) -> None:
        name, reason, channels = str(event["name"]), event["reason"], event["channels"]
        if reason and not channels:
            self._absent[name] = str(reason)
        for index, channel in enumerate(channels):
            trace = self._traces.setdefault((int(event["meter"]), index), _Trace(name, channel))
            trace.note = str(reason or channel["note"])

    def _on_power(self, event: Mapping[str, Any]) -> None:
        trace = self._traces[int(event["meter"]), int(event["channel"])]
        if len(event["t_ns"]) != len(event["values"]):
            raise ValueError("times and values differ in number")
        trace.t_ns.extend(int(value) for value in event["t_ns"])
        trace.values.extend(float(value) for value in event["values"])

    def _on_idle(self, event: Mapping[str, Any]) -> None:
        self._idle.append((int(event["begin_ns"]), int(event["end_ns"])))

    def _on_mark(self, event: Mapping[str, Any]) -> None:
        self._marks.append((int(event["begin_ns"]), int(event["end_ns"])))

    def _on_finished(self, event: Mapping[str, Any]) -> None:
        cell = self._cell(event)
        cell.threads, cell.affinity = int(event["threads"]), event.get("affinity")
        if event["name"] == "trial":
            self._trial(event).complete = True

    def _on_failed(self, event: Mapping[str, Any]) -> None:
        self.failure = Failure(str(event["stage"]), str(event["reason"]), "run again: only this cell is measured anew")

    def _on_done(self, event: Mapping[str, Any]) -> None:
        self.done = True

    def measurements(self) -> list[Measurement]:
        """Return what has been gathered; trials are numbered in the order in which they ran."""
        power = Power([trace.close() for trace in self._traces.values()], self._idle, self._marks, self._absent)
        return [self._measurement(cell, power) for cell in self._cells]

    def _measurement(self, cell: _Cell, power: Power) -> Measurement:
        ran = {"threads": cell.threads, "affinity": cell.affinity}
        return Measurement(
            environment={**self._hello.get("environment", {}), **ran},
            clock=self._hello.get("clock", {}),
            trials=[trial.close(index) for index, trial in enumerate(cell.trials)],
            memory=cell.memory,
            predictions=cell.predictions(),
            conditions=cell.conditions,
            failure=self.failure,
            power=power,
            loadgen=cell.loadgen,
            finish=cell.finish,
            profile=cell.profile,
        )
