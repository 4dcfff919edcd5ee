"""Set what makes timings steady, and put it back, also after a crash.

The values before are on the disk before the first one is changed, and stay there
until each is back; only then the file that holds them is removed.
"""

import json
import os
import re
from typing import Any, Dict, List, Optional, Sequence, Set, Tuple

from ..events import Events
from ..facts import read
from .knobs import (
    HIDDEN,
    STORE,
    Absent,
    Knob,
    ProgramError,
    Unprivileged,
    Values,
    governor,
    irq_affinity,
    jetson_clocks,
    nvpmodel,
    sync,
    turbo,
)


class DamagedState(Exception):
    """The file with the values before cannot be used."""


# ---------------------------------------------------------------- the state before


class Before(object):
    """The values before, by knob, as they are on the disk."""

    def __init__(self, path: str, boot: Optional[str], knobs: Sequence[Knob]) -> None:
        self.path = path
        self._boot = boot
        self.values: Dict[str, Values] = {}
        self.forgotten: Set[str] = set()
        if not os.path.exists(path):
            return
        try:
            with open(path, encoding="utf-8") as stream:
                content = json.load(stream)
            for knob in knobs:
                values = {str(key): str(value) for key, value in content["knobs"].get(knob.name, {}).items()}
                if knob.persists or content["boot"] == boot:
                    self.values.update({knob.name: values} if values else {})
                elif values:
                    self.forgotten.add(knob.name)  # a reboot undoes it, and numbers the interrupts anew
                if not all(re.fullmatch(knob.keys, key) for key in values):
                    raise ValueError("%s has no such key" % knob.name)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedState("%s is damaged (%s); a reboot resets all but nvpmodel; then remove it" % (path, error))

    def add(self, knob: Knob, values: Values) -> None:
        """Note values, except where older ones are known, and write them down."""
        known = self.values.get(knob.name, {})
        if set(values) - set(known):
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            knob.prepare()
            self.values[knob.name] = dict(values, **known)
            self.write()

    def write(self) -> None:
        """Replace the file, or remove it where nothing is left."""
        folder = os.path.dirname(self.path)
        if any(self.values.values()):
            with open(self.path + ".new", "w", encoding="utf-8") as stream:
                json.dump({"boot": self._boot, "knobs": self.values}, stream, indent=1, sort_keys=True)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(self.path + ".new", self.path)
            sync(folder)
            return
        for path in (self.path, self.path + STORE):
            if os.path.exists(path):
                os.unlink(path)
                sync(folder)

    def writable(self) -> bool:
        """Return whether the file can be written, and its folder be made."""
        folder = os.path.dirname(self.path)
        while not os.path.exists(folder):
            folder = os.path.dirname(folder)
        return os.access(folder, os.W_OK)


# ---------------------------------------------------------------- what is done


def known(root: str, state: str, mode: Optional[int]) -> List[Knob]:
    """List the knobs in the order of applying: the power mode decides which cores there are."""
    clocks = jetson_clocks(root, state + STORE)
    return [nvpmodel(root, mode), governor(root), turbo(root), irq_affinity(root), clocks]


def due(knob: Knob, now: Values, wanted: Values) -> Values:
    """Return what there is now where something else is wanted."""
    return {key: now[key] for key, value in wanted.items() if key in now and not knob.same(now[key], value)}


def goals(knob: Knob, now: Values) -> Values:
    """Return what each key should be."""
    return {} if knob.goal is None else dict.fromkeys(now, knob.goal)


def look(knob: Knob, before: Before) -> Tuple[Dict[str, Any], Values]:
    """Describe a knob, and return what applying would change; its `changed` is null where that is hidden."""
    saved = before.values.get(knob.name)
    found = dict(name=knob.name, available=True, reason=knob.note, now=None, wanted=knob.goal, changed=False, error=None)
    found["before"] = knob.describe(saved) if saved else None
    todo: Values = {}
    try:
        now = knob.read()
        todo = due(knob, now, goals(knob, now))
        found.update(now=knob.describe(now), changed=None if HIDDEN in todo.values() else bool(todo))
        if os.geteuid() == 0 and not all(map(knob.writable, todo)):
            found.update(available=False, changed=False, reason="read-only here, even for root")
            todo = {}
    except Absent as absent:
        found.update(available=False, reason=str(absent))
    except ProgramError as error:
        found["error"] = str(error)
    return found, todo


def set_values(knob: Knob, now: Values, values: Values) -> Tuple[bool, Dict[str, str]]:
    """Set what differs and read it back; returns whether something changed, and why each other key did not."""
    failures = {}
    todo = due(knob, now, values)
    for key in todo:
        try:
            knob.write(key, values[key])
        except (OSError, ProgramError, ValueError) as error:
            failures[key] = str(error)
    now = knob.read() if todo else now
    left = {key: failures.get(key, "%s: did not change" % key) for key in due(knob, now, values)}
    left.update({key: "%s: cannot be read" % key for key in values if key not in now and knob.exists(key)})
    return any(key not in left for key in todo), left


def show(knobs: List[Knob], before: Before, events: Events) -> List[Dict[str, Any]]:
    """Say what is, and what applying would change."""
    return [look(knob, before)[0] for knob in knobs]


def apply(knobs: List[Knob], before: Before, events: Events) -> List[Dict[str, Any]]:
    """Save what is, then set each knob to its goal."""
    todo = {knob: found for knob, found in ((knob, look(knob, before)[1]) for knob in knobs) if found}
    refused = [knob.name for knob, now in todo.items() if not all(map(knob.writable, now))]
    if todo and (refused or not before.writable()):
        raise Unprivileged(", ".join(refused) or before.path)
    outcome: Dict[str, Dict[str, Any]] = {}
    for last in (False, True):  # all are saved before the first is changed
        for knob in todo:
            if knob.name in outcome:
                continue
            events.emit("tuning", name=knob.name)
            try:
                now = knob.read() if last else todo[knob]  # a power mode may have brought cores
                before.add(knob, due(knob, now, goals(knob, now)))
                if last:
                    outcome[knob.name] = _outcome(knob, set_values(knob, now, goals(knob, now)), knob.may_refuse)
            except (Absent, ProgramError) as error:
                outcome[knob.name] = {"error": str(error), "changed": False}
    return _rows(knobs, before, outcome)


def restore(knobs: List[Knob], before: Before, events: Events) -> List[Dict[str, Any]]:
    """Put back what was before; what cannot be put back stays written down."""
    todo = [knob for knob in knobs[-1:] + knobs[:-1] if knob.name in before.values]  # the clocks first, then the mode
    saved = [(knob, key) for knob in todo for key in before.values[knob.name]]
    refused = {knob.name for knob, key in saved if knob.exists(key) and not knob.writable(key)}
    if os.geteuid() and (refused or (os.path.exists(before.path) and not before.writable())):
        raise Unprivileged(", ".join(sorted(refused)) or before.path)
    outcome: Dict[str, Dict[str, Any]] = {}
    for knob in todo:
        events.emit("tuning", name=knob.name)
        values = before.values[knob.name]
        try:
            found = set_values(knob, knob.read(), values)
        except (Absent, ProgramError) as error:
            found = False, dict.fromkeys(values, str(error))
        outcome[knob.name] = _outcome(knob, found, None)
        before.values[knob.name] = {key: value for key, value in values.items() if key in found[1]}
        before.write()
    before.write()
    return _rows(knobs, before, outcome)


def _rows(knobs: List[Knob], before: Before, outcome: Dict[str, Dict[str, Any]]) -> List[Dict[str, Any]]:
    return [dict(look(knob, before)[0], **outcome.get(knob.name, {"changed": False})) for knob in knobs]


def _outcome(knob: Knob, found: Tuple[bool, Dict[str, str]], may_refuse: Optional[str]) -> Dict[str, Any]:
    changed, left = found
    if left and may_refuse:
        return {"changed": changed, "reason": "%s; %d %s: %s" % (knob.note, len(left), may_refuse, ", ".join(sorted(left)))}
    return {"changed": changed, "error": "; ".join(sorted(set(left.values())))[:600] or None}


def tune(job: Dict[str, Any], events: Events) -> int:
    """Do what the job's `action` says; the last events are `tuned` with a row for each knob, and `done` or `failed`."""
    root, state = job.get("root", "/"), os.path.abspath(job["state"])
    try:
        knobs = known(root, state, job.get("wanted", {}).get("mode"))
        before = Before(state, read(os.path.join(root, "proc/sys/kernel/random/boot_id")), knobs)
        rows = {"show": show, "apply": apply, "restore": restore}[job["action"]](knobs, before, events)
    except Unprivileged as error:
        events.emit("failed", stage="tune", reason="only root may change %s; nothing was changed" % error, privilege=True)
        return 1
    except (DamagedState, OSError) as error:
        events.emit("failed", stage="tune", reason=str(error))
        return 1
    for each in rows:
        if each["name"] in before.forgotten and each["available"]:
            each["reason"] = "a reboot has undone it"
    events.emit("tuned", knobs=rows)
    errors = ["%s: %s" % (each["name"], each["error"]) for each in rows if each["error"]]
    events.emit("failed", stage="tune", reason="; ".join(errors)) if errors else events.emit("done")
    return 1 if errors else 0
