"""A cell, an agent, and what the agent says: raw readings, and never a mean."""

from __future__ import annotations

import base64
import dataclasses
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgebench.deploy import Deployed
from edgebench.errors import MeasureError, TransportError
from edgebench.plan import WARMUP_SECONDS, ModeSpec
from edgebench.schema import Bundle, Failure, Measurement, Predictions, Scenario, Stream, Transport, Trial

PROTOCOL = 1
SILENCE_SECONDS = 60.0
"""The agent speaks once a second; after so long without a word it is given up."""
BUFFERS = 32

Heard = Callable[[Mapping[str, Any]], None]


def probe(transport: Transport, agent: str) -> dict[str, Any]:
    """Ask a device what it is: environment, runtimes, clock."""
    stream = transport.run([agent, "probe"], "")
    try:
        for event in _events(stream):
            if event["event"] == "hello":
                return {key: value for key, value in event.items() if key != "event"}
        raise MeasureError("probe", "the agent ended without a word" + _last(stream), "check the target's python")
    finally:
        stream.stop()


def job(
    bundle: Bundle,
    runtime: str,
    deployed: Deployed,
    shape: Sequence[int],
    scenario: Scenario,
    mode: ModeSpec,
    passes: Sequence[tuple[str, int]],
) -> dict[str, Any]:
    """Write the job of one cell; shape: [n, h, w, c] of the evaluation images."""
    warmup = WARMUP_SECONDS if scenario.warmup_seconds is None else scenario.warmup_seconds
    return {
        "protocol": PROTOCOL,
        "runtime": runtime,
        "path": deployed.model,
        "files": list(deployed.files),
        "input": bundle.input.model_dump(mode="json"),
        "output": bundle.output.model_dump(mode="json"),
        "preprocessing": bundle.preprocessing.model_dump(mode="json"),
        "evaluation": {"path": deployed.evaluation, "count": shape[0], "shape": list(shape[1:])},
        "buffers": random.Random(0).sample(range(shape[0]), min(BUFFERS, shape[0])),
        "threads": scenario.threads,
        "mode": {**dataclasses.asdict(mode), "warmup_seconds": warmup},
        "passes": list(passes),
    }


def all_passes(mode: ModeSpec) -> list[tuple[str, int]]:
    """List a cell's processes: accuracy, memory, then the trials."""
    return [("accuracy", 0), ("memory", 0), *(("trial", index) for index in range(mode.trials))]


def measure(transport: Transport, agent: str, job: Mapping[str, Any], heard: Heard) -> Measurement:
    """Run a job on a device and collect what it says.

    A stream that ends without `done` is a failure, and what arrived before is
    kept. The agent is gone when this returns, however it returns.
    """
    collected = Collected(job)
    try:
        stream = transport.run([agent, "cell"], json.dumps(job) + "\n")
    except TransportError as error:
        collected.failure = Failure("start", str(error), "check the target and run again")
        return collected.measurement()
    try:
        for event in _events(stream):
            collected.take(event)
            heard(event)
    except TransportError as error:
        collected.failure = Failure(collected.stage, str(error), "the device may hang; look at it and run again")
    finally:
        stream.stop()
    if not collected.done and collected.failure is None:
        reason = "the agent ended before it was done" + _last(stream)
        collected.failure = Failure(collected.stage, reason, "run again: only this cell is measured anew")
    return collected.measurement()


def _events(stream: Stream) -> Iterator[dict[str, Any]]:
    """Parse lines; whatever is no event is not ours and is passed over."""
    for line in stream.lines(SILENCE_SECONDS):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            yield event


def _last(stream: Stream) -> str:
    """Quote the last line of the agent's standard error."""
    lines = stream.stderr().splitlines()
    return f" ({lines[-1][:300]})" if lines else ""


@dataclass
class _Open:
    """A trial that is still running."""

    samples: list[int] = field(default_factory=list)
    loaded: dict[str, Any] = field(default_factory=dict)
    warm: dict[str, Any] = field(default_factory=dict)
    complete: bool = False


class Collected:
    """Gathers events into a measurement."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self.job = job
        self.stage = "start"
        self.done = False
        self.failure: Failure | None = None
        self._hello: dict[str, Any] = {}
        self._memory: dict[str, Any] = {}
        self._conditions: list[dict[str, Any]] = []
        self._trials: dict[int, _Open] = {}
        self._values: list[bytes] = []
        self._rows = 0
        self._threads: int | None = None

    def take(self, event: Mapping[str, Any]) -> None:
        """Take one event; unknown ones are of a newer agent and are passed over."""
        handler = getattr(self, f"_on_{event['event']}", None)
        if handler is None:
            return
        try:
            handler(event)
        except (KeyError, TypeError, ValueError) as error:
            self.failure = Failure(self.stage, f"the agent sent a malformed {event['event']!r} event ({error!r})")

    def _on_hello(self, event: Mapping[str, Any]) -> None:
        if event["protocol"] != PROTOCOL:
            raise ValueError(f"protocol {event['protocol']}, {PROTOCOL} is spoken here")
        self._hello = {key: event[key] for key in ("environment", "clock", "runtime")}

    def _on_started(self, event: Mapping[str, Any]) -> None:
        self.stage = f"trial {event['trial']}" if event["name"] == "trial" else str(event["name"])

    def _trial(self, event: Mapping[str, Any]) -> _Open:
        return self._trials.setdefault(int(event["trial"]), _Open())

    def _on_loaded(self, event: Mapping[str, Any]) -> None:
        self._trial(event).loaded = {key: event[key] for key in ("load_ns", "first_ns", "prepare_ns", "scores_ns")}

    def _on_warm(self, event: Mapping[str, Any]) -> None:
        self._trial(event).warm = {key: event[key] for key in ("warmup_ns", "settled", "calls_per_sample")}

    def _on_samples(self, event: Mapping[str, Any]) -> None:
        self._trial(event).samples.extend(event["ns"])

    def _on_conditions(self, event: Mapping[str, Any]) -> None:
        if event["name"] == "trial":
            self._conditions.append({key: value for key, value in event.items() if key not in ("event", "name")})

    def _on_memory(self, event: Mapping[str, Any]) -> None:
        self._memory = {key: event[key] for key in ("baseline_bytes", "loaded_bytes", "peak_bytes", "reason")}

    def _on_predictions(self, event: Mapping[str, Any]) -> None:
        if event["first"] != self._rows:
            raise ValueError(f"predictions of sample {event['first']} where {self._rows} was due")
        values = base64.b64decode(event["values"], validate=True)
        if len(values) % (4 * event["rows"]):
            raise ValueError("predictions are cut short")
        self._values.append(values)
        self._rows += event["rows"]

    def _on_finished(self, event: Mapping[str, Any]) -> None:
        self._threads = int(event["threads"])
        if event["name"] == "trial":
            self._trial(event).complete = True

    def _on_failed(self, event: Mapping[str, Any]) -> None:
        self.failure = Failure(str(event["stage"]), str(event["reason"]), "run again: only this cell is measured anew")

    def _on_done(self, event: Mapping[str, Any]) -> None:
        self.done = True

    def measurement(self) -> Measurement:
        """Return what has been gathered."""
        values = b"".join(self._values)
        columns = len(values) // 4 // self._rows if self._rows else 0
        return Measurement(
            environment={**self._hello.get("environment", {}), "threads": self._threads},
            clock=self._hello.get("clock", {}),
            trials=[_close(index, self._trials[index]) for index in sorted(self._trials)],
            memory=self._memory,
            predictions=Predictions(self._rows, columns, values) if self._rows else None,
            conditions=self._conditions,
            failure=self.failure,
        )


def _close(index: int, trial: _Open) -> Trial:
    return Trial(
        index=index,
        load_ns=trial.loaded.get("load_ns", 0),
        first_ns=trial.loaded.get("first_ns", 0),
        warmup_ns=trial.warm.get("warmup_ns", ()),
        settled=trial.warm.get("settled", False),
        calls_per_sample=trial.warm.get("calls_per_sample", 1),
        samples_ns=trial.samples,
        prepare_ns=trial.loaded.get("prepare_ns", ()),
        scores_ns=trial.loaded.get("scores_ns", ()),
        complete=trial.complete,
    )
