"""What the events of a job add up to: measurements, one for each of its cells."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel

from edgebench.device import messages
from edgebench.device.bounds import BadEvent, one_line, read
from edgebench.device.budget import columns
from edgebench.device.job import PROTOCOL, inferred
from edgebench.device.open import OpenCell, OpenTrace, OpenTrial
from edgebench.schema import Answer, Failure, Measurement, Power, Step, Window

LONGER = 1.01
"""Samples may be so many times as long as the window that they were taken in: clocks are rounded."""
NEEDS = {
    "finish": ("finish",),
    "outputs": ("outputs",),
    "memory": ("memory",),
    "trial": ("loaded", "warm", "samples"),
    "turns": ("loaded", "warm", "samples"),
    "loadgen": ("loadgen",),
}
"""What a pass has sent when it is finished."""
_SAMPLED = ("rate", "stopped", "stages", "program")
AFTER = {"warm": "loaded", "samples": "warm", "answers": "warm", "step": "warm", **dict.fromkeys(_SAMPLED, "samples")}
"""What goes before within a trial."""
ONCE = {"loaded", "warm", "rate", "stopped", "stages", "memory", "finish", "loadgen", "timing", "outputs", "program"}
SAMPLED = ("trial", "turns")
"""Passes that take samples."""
PASSES = {
    "trial": {"loaded", "timing", "alive", "warm", "samples", "answers", "step", "rate", "stopped", "stages", "program"},
    "turns": {"loaded", "warm", "samples"},
    "accuracy": {"predictions", "unpredicted"},
    "outputs": {"outputs"},
    "memory": {"memory", "alive"},
    "finish": {"progress", "finish"},
    "profile": {"profile"},
    "loadgen": {"loadgen"},
}
"""What belongs to which pass; conditions and its end belong to each."""


class Collected:
    """Gathers events into measurements, one for each cell of a job."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self.stage = "start"
        self.done = False
        self.failure: Failure | None = None
        self.current: Mapping[str, Any] | None = None
        """The pass that goes on."""
        self._sent: dict[int, set[str]] = {}
        """What each of the cells has sent that are at work in it."""
        self._over: set[int] = set()
        """Those of its cells that are done."""
        self._job = job
        self._passes: list[Mapping[str, Any]] = list(job["passes"])
        self._begun = 0
        self._environment: dict[str, Any] | None = None
        self._clock: dict[str, Any] = {}
        self._cells = [OpenCell() for _ in job["cells"]]
        self._traces: dict[tuple[int, int], OpenTrace] = {}
        self._channels: dict[int, int] = {}
        self._absent: dict[str, str] = {}
        self._idle: list[tuple[int, int]] = []
        self._marks: list[tuple[int, int]] = []
        self._resumed = False

    def take(self, event: Mapping[str, Any]) -> BaseModel | None:
        """Take one event and return what was read of it; None for one that a newer agent added.

        Raises `BadEvent` where it is not what it must be, or not due.
        """
        kind = event["event"]
        if kind not in messages.KINDS:
            if event.get("essential"):
                raise BadEvent(f"{one_line(kind, 40)!r}, which must be understood and is not known here; update edgebench")
            return None
        if kind == "hello" and event.get("protocol") != PROTOCOL:
            raise BadEvent(f"protocol {one_line(repr(event.get('protocol')), 40)}, {PROTOCOL} is spoken here")
        message = read(messages.KINDS[kind], event)
        self._check_order(kind, message)
        handler: Callable[[Any], None] | None = getattr(self, f"_on_{kind}", None)
        if handler is not None:
            handler(message)
        if isinstance(message, messages.Pass) and message.cell in self._sent and kind != "conditions":
            self._sent[message.cell].add(kind)
        return message

    # ------------------------------------------------------------ what is due

    def _check_order(self, kind: str, message: BaseModel) -> None:
        if kind not in ("hello", "resumed", "failed") and self._environment is None:
            raise BadEvent(f"{kind!r} before 'hello'")
        if kind == "started" or not isinstance(message, messages.Pass):
            return
        place = _place(message)
        if kind == "conditions":  # read beside the passes: the last of one may come late
            if not any(place in _places(each) for each in self._passes[: self._begun]):
                raise BadEvent(f"{kind!r} of {_called(place)}, which has not begun")
            return
        if self.current is None or place not in _places(self.current) or message.cell not in self._sent:
            raise BadEvent(f"{kind!r} of {_called(place)} where {self._due()} was due")
        if kind != "finished" and kind not in PASSES.get(message.name, ()):
            raise BadEvent(f"{kind!r} in the pass {message.name}")
        sent = self._sent[message.cell]
        if kind in AFTER and AFTER[kind] not in sent:
            raise BadEvent(f"{kind!r} before {AFTER[kind]!r}")
        if kind in ONCE and kind in sent:
            raise BadEvent(f"{kind!r} twice in one pass")

    def _due(self) -> str:
        """Name what comes next."""
        if self.current is not None:
            return _called(_places(self.current)[0])
        return f"the start of {_called(_places(self._passes[self._begun])[0])}" if self._begun < len(self._passes) else "the end"

    def _cell(self, message: messages.Pass) -> OpenCell:
        return self._cells[message.cell]

    def _trial(self, message: messages.Pass) -> OpenTrial:
        return self._cells[message.cell].trials[-1]

    # ------------------------------------------------------------ events

    def _on_resumed(self, _: messages.Resumed) -> None:
        if self._resumed or self._environment is not None:
            raise BadEvent("'resumed' after something else")
        self._resumed = True

    def _on_hello(self, message: messages.Start) -> None:
        if self._environment is not None:
            raise BadEvent("'hello' twice")
        self._environment, self._clock = message.environment.values(), message.clock.values()

    def _on_started(self, message: messages.Pass) -> None:
        place, wanted = _place(message), self.current
        if wanted is None and self._begun < len(self._passes) and place in _places(self._passes[self._begun]):
            self.current = self._passes[self._begun]
            self._begun += 1
            self._over = set()
        elif wanted is None:
            raise BadEvent(f"the start of {_called(place)} where {self._due()} was due")
        elif place not in _places(wanted) or message.cell in (*self._sent, *self._over):
            raise BadEvent(f"the start of {_called(place)} before the end of {self._due()}")
        self._sent[message.cell] = set()
        self.stage = f"{message.name} {message.trial}" if message.name in SAMPLED else message.name
        if message.name in SAMPLED:
            self._cell(message).trials.append(OpenTrial(turns=self._begun - 1 if message.name == "turns" else None))

    def _on_timing(self, message: messages.Pass) -> None:
        self._trial(message).timed = True

    def _on_loaded(self, message: messages.Loaded) -> None:
        self._trial(message).loaded = messages.fields(message)

    def _on_warm(self, message: messages.Warm) -> None:
        assert self.current is not None
        if message.batch != self.current["batch"]:
            raise BadEvent(f"'warm' with a batch of {message.batch} where {self.current['batch']} was asked for")
        self._trial(message).warm = messages.fields(message)

    def _on_samples(self, message: messages.Samples) -> None:
        trial, kind = self._trial(message), self._job["cells"][message.cell]["scenario"]["kind"]
        calls = trial.warm["calls_per_sample"] * trial.warm["batch"]
        if message.inferences != len(message.ns) * calls:
            raise BadEvent(f"{message.inferences} inferences where {len(message.ns)} samples of {calls} fit")
        total, length = sum(message.ns) * trial.warm["calls_per_sample"], message.end_ns - message.begin_ns
        if not trial.timed and kind != "server" and total > LONGER * length + 1000:  # those two overlap
            raise BadEvent(f"samples of {total} ns in a window of {length} ns")
        trial.samples.extend(message.ns)
        index = len(self._cell(message).trials) - 1
        waited = message.waited_ns, message.waited_cpu_ns
        trial.windows.append(Window(index, message.begin_ns, message.end_ns, message.inferences, *waited))

    def _on_answers(self, message: messages.Answers) -> None:
        asked = self._job["cells"][message.cell].get("prompts")
        if asked is None:
            raise BadEvent("answers where nothing was asked")
        for index, each in enumerate(message.answers):
            answer = Answer(**dict(each))
            if answer.prompt != index % asked["count"] or not 1 <= answer.new_tokens <= asked["max_new_tokens"]:
                raise BadEvent(f"an answer of {answer.new_tokens} tokens to prompt {answer.prompt}, which is not due or too long")
            self._trial(message).answers.append(answer)

    def _on_stopped(self, message: messages.Stopped) -> None:
        self._trial(message).precise = message.precise

    def _on_step(self, message: messages.Step) -> None:
        self._trial(message).steps.append(Step(message.rate, message.queries, message.p99_ns, message.held))

    def _on_rate(self, message: messages.Rate) -> None:
        self._trial(message).rate = message.rate

    def _on_stages(self, message: messages.Stages) -> None:
        self._trial(message).stages = message.stages

    def _on_conditions(self, message: messages.Conditions) -> None:
        if message.name in SAMPLED and self._cell(message).trials:
            cell = self._cell(message)
            found = {name: value for name, value in message.values().items() if name not in ("name", "cell")}
            cell.conditions.append({**found, "trial": len(cell.trials) - 1})

    def _on_memory(self, message: messages.MemoryBytes) -> None:
        self._cell(message).memory = messages.fields(message)

    def _on_finish(self, message: messages.Finish) -> None:
        self._cell(message).finish = message.facts.values()

    def _on_profile(self, message: messages.Profile) -> None:
        cell = self._cell(message)
        cell.profile = [*(cell.profile or ()), *(node.values() for node in message.nodes)]

    def _on_program(self, message: messages.Program) -> None:
        self._cell(message).programs.append(message.facts.values())

    def _on_outputs(self, message: messages.Outputs) -> None:
        known = [each["name"] for each in self._job["cells"][message.cell]["outputs"]]
        if known and [each.output for each in message.outputs] != known[: len(message.outputs)]:
            raise BadEvent("outputs with other names than were asked for")
        self._cell(message).outputs = [dict(each) for each in message.outputs]

    def _on_predictions(self, message: messages.Predictions) -> None:
        cell, asked = self._cell(message), self._job["cells"][message.cell]
        if message.first != cell.rows:
            raise BadEvent(f"predictions of sample {message.first} where {cell.rows} was due")
        count, width = inferred(asked), columns(asked)
        if cell.rows + message.rows > count:
            raise BadEvent(f"predictions of {cell.rows + message.rows} samples where there are {count}")
        try:
            values = base64.b64decode(message.values, validate=True)
        except (binascii.Error, ValueError) as error:
            raise BadEvent(f"predictions that are no base64 ({error})") from error
        if len(values) != 4 * message.rows * width:
            due = f"{message.rows} × {width} × 4"
            raise BadEvent(f"{len(values)} bytes of predictions where {due} are due: they are cut short, or too many")
        cell.values.append(values)
        cell.rows += message.rows

    def _on_unpredicted(self, message: messages.Unpredicted) -> None:
        if not self._job["cells"][message.cell].get("chosen"):
            raise BadEvent("no predictions where the whole split was asked for")
        self._cell(message).unpredicted = message.reason

    def _on_loadgen(self, message: messages.LoadGenSaid) -> None:
        self._cell(message).loadgen = messages.fields(message)

    def _on_meter(self, message: messages.Meter) -> None:
        asked = self._job["meters"]
        if message.meter >= len(asked) or message.name != asked[message.meter]["name"]:
            raise BadEvent(f"meter {message.meter}, {message.name}, which was not asked for")
        if self._channels.setdefault(message.meter, len(message.channels)) != len(message.channels):
            raise BadEvent(f"other rails of {message.name} than before")
        if message.reason and not message.channels:
            self._absent[message.name] = message.reason
        for index, channel in enumerate(message.channels):
            trace = self._traces.setdefault((message.meter, index), OpenTrace(message.name, channel))
            trace.note = message.reason or channel.note

    def _on_power(self, message: messages.Readings) -> None:
        trace = self._traces.get((message.meter, message.channel))
        if trace is None:
            raise BadEvent(f"readings of meter {message.meter}, rail {message.channel}, which is not known")
        trace.t_ns.extend(message.t_ns)
        trace.values.extend(message.values)

    def _on_idle(self, message: messages.Stretch) -> None:
        self._idle.append((message.begin_ns, message.end_ns))

    def _on_mark(self, message: messages.Stretch) -> None:
        self._marks.append((message.begin_ns, message.end_ns))

    def _on_finished(self, message: messages.Finished) -> None:
        missing = [kind for kind in NEEDS.get(message.name, ()) if kind not in self._sent[message.cell]]
        if missing:
            raise BadEvent(f"the end of {_called(_place(message))} without {missing[0]!r}")
        cell, count = self._cell(message), inferred(self._job["cells"][message.cell])
        if message.name == "accuracy" and cell.rows != count and not (cell.unpredicted and cell.rows == 0):
            raise BadEvent(f"predictions of {cell.rows} of {count} samples")
        cell.threads, cell.affinity = message.threads, message.affinity
        if message.name in SAMPLED:
            self._trial(message).complete = True
            self._check_answers(message)
        del self._sent[message.cell]
        self._over.add(message.cell)
        assert self.current is not None
        if len(self._over) == len(_places(self.current)):
            self.current = None

    def _check_answers(self, message: messages.Pass) -> None:
        """Refuse a trial of a language model that has other answers than it was timed for."""
        trial = self._trial(message)
        timed, expected = len(trial.answers), sum(window.inferences for window in trial.windows)
        asks = self._job["cells"][message.cell].get("prompts") is not None and message.name == "trial"
        if asks and timed != expected:
            raise BadEvent(f"{timed} answers where {expected} were timed")

    def _on_failed(self, message: messages.Failed) -> None:
        self.failure = Failure(message.stage, message.reason, "run again: only this cell is measured anew")

    def _on_done(self, _: messages.Done) -> None:
        if self.current is not None or self._begun < len(self._passes):
            raise BadEvent(f"'done' where {self._due()} was due")
        self.done = True

    # ------------------------------------------------------------ what it adds up to

    def measurements(self) -> list[Measurement]:
        """Return what has been gathered; trials are numbered in the order in which they ran."""
        power = Power([trace.close() for trace in self._traces.values()], self._idle, self._marks, self._absent)
        return [self._measurement(cell, power) for cell in self._cells]

    def _measurement(self, cell: OpenCell, power: Power) -> Measurement:
        ran = {"threads": cell.threads, "affinity": cell.affinity}
        return Measurement(
            environment={**(self._environment or {}), **ran},
            clock=self._clock,
            trials=[trial.close(index) for index, trial in enumerate(cell.trials)],
            memory=cell.memory,
            predictions=cell.predictions(),
            conditions=cell.conditions,
            failure=self.failure,
            power=power,
            loadgen=cell.loadgen,
            finish=cell.finish,
            outputs=cell.outputs,
            profile=cell.profile,
            programs=cell.programs,
            unpredicted=cell.unpredicted,
        )


Place = tuple[str, int, int]
"""A pass's name, its trial and its cell."""


def _place(message: messages.Pass) -> Place:
    return message.name, message.trial, message.cell


def _places(wanted: Mapping[str, Any]) -> list[Place]:
    """Return the places of a pass: one, or that of each cell that takes turns."""
    return [(wanted["name"], wanted["trial"], cell) for cell in wanted.get("cells") or (wanted["cell"],)]


def _called(place: Place) -> str:
    name, trial, cell = place
    return f"{name}{f' {trial}' if name in SAMPLED else ''}{f' of cell {cell}' if cell else ''}"
