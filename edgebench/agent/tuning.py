"""Set what makes timings steady, and put it back, also after a crash.

The values before are on the disk before the first one is changed, and stay there
until each is back; only then the file that holds them is removed.
"""

import glob
import json
import os
import re
import shutil
import stat
import subprocess
import tempfile
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

from .events import Events
from .facts import read

CPUS = "sys/devices/system/cpu"
TURBO = {CPUS + "/intel_pstate/no_turbo": {"0": "on", "1": "off"}, CPUS + "/cpufreq/boost": {"1": "on", "0": "off"}}
HIDDEN = "only root may read it"
PROGRAM_SECONDS = 20.0
STORE = ".clocks"

Values = Dict[str, str]
"""What a knob is set to, by key: a file below the root, or the one word of a program."""


class Absent(Exception):
    """The device has no such knob."""


class ProgramError(Exception):
    """A program failed, hung, or said something else than documented."""


class DamagedState(Exception):
    """The file with the values before cannot be used."""


class Unprivileged(Exception):
    """Only root may do it."""


class Knob(NamedTuple):
    """One thing that can be set."""

    name: str
    goal: Optional[str]  # None: it is shown, and left as it is
    keys: str  # what a key looks like: nothing else is written, whatever the state file says
    read: Callable[[], Values]  # raises Absent, ProgramError
    write: Callable[[str, str], None]  # raises OSError, ProgramError
    writable: Callable[[str], bool]
    exists: Callable[[str], bool] = bool
    same: Callable[[str, str], bool] = lambda one, other: one == other
    describe: Callable[[Values], str] = lambda values: ", ".join(sorted(set(values.values())))
    prepare: Callable[[], None] = lambda: None  # called before the values are saved
    persists: bool = False  # survives a reboot
    note: Optional[str] = None  # said where nothing else is to say
    may_refuse: Optional[str] = None  # what to say of keys that stay as they are; None: that is an error


# ---------------------------------------------------------------- files


def _put(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)  # never makes a file
    try:
        os.write(descriptor, text.encode() + b"\n")
    finally:
        os.close(descriptor)


def _in_files(root: str, **fields: Any) -> Knob:
    """Make a knob whose keys are files."""
    given: Dict[str, Any] = dict(
        write=lambda key, value: _put(os.path.join(root, key), value),
        writable=lambda key: os.access(os.path.join(root, key), os.W_OK),
        exists=lambda key: os.path.exists(os.path.join(root, key)),
    )
    given.update(fields)
    return Knob(**given)


def governor(root: str) -> Knob:
    """Keep the clock at its highest."""

    def now() -> Values:
        found = {}
        for path in sorted(glob.glob(os.path.join(root, CPUS, "cpu[0-9]*/cpufreq/scaling_governor"))):
            value = read(path)  # None where the core is off
            offered = read(os.path.join(os.path.dirname(path), "scaling_available_governors")) or ""
            if value is not None and "performance" in offered.split():
                found[os.path.relpath(path, root)] = value
        if not found:
            raise Absent("no governor 'performance' here")
        return found

    return _in_files(root, name="governor", goal="performance", keys=CPUS + r"/cpu\d+/cpufreq/scaling_governor", read=now)


def turbo(root: str) -> Knob:
    """Switch off the clock that lasts only while the chip is cool."""

    def now() -> Values:
        for key, words in TURBO.items():
            value = words.get(read(os.path.join(root, key)) or "")
            if value is not None:
                return {key: value}
        raise Absent("no switch for turbo here")

    def write(key: str, value: str) -> None:
        _put(os.path.join(root, key), next(raw for raw, word in TURBO[key].items() if word == value))

    return _in_files(root, name="turbo", goal="off", keys="|".join(map(re.escape, TURBO)), read=now, write=write)


def irq_affinity(root: str) -> Knob:
    """Let core 0 answer interrupts, so that the others are left alone."""
    ranges = [part.split("-") for part in (read(os.path.join(root, CPUS, "online")) or "0").split(",")]
    cores = sum(int(part[-1]) - int(part[0]) + 1 for part in ranges)

    def now() -> Values:
        if cores <= 2:
            raise Absent("%d cores: none to spare for interrupts" % cores)
        found = {}
        for name in ["default_smp_affinity"] + sorted(glob.glob(os.path.join(root, "proc/irq/[0-9]*/smp_affinity"))):
            path = os.path.join(root, "proc/irq", name)
            value = read(path) or ""
            if re.match(r"[0-9a-fA-F,]+$", value) and os.stat(path).st_mode & stat.S_IWUSR:
                found[os.path.relpath(path, root)] = value
        if not found:
            raise Absent("no interrupts to move here")
        return found

    def same(one: str, other: str) -> bool:
        return int(one.replace(",", ""), 16) == int(other.replace(",", ""), 16)

    def describe(values: Values) -> str:
        return "%d of %d on core 0" % (sum(same(value, "1") for value in values.values()), len(values))

    return _in_files(
        root,
        name="irq-affinity",
        goal="1",
        keys=r"proc/irq/(default_|\d+/)smp_affinity",
        read=now,
        same=same,
        describe=describe,
        note="measure with --affinity 1-%s" % ranges[-1][-1],
        may_refuse="stay where they are",
    )


# ---------------------------------------------------------------- programs


def run(*command: str) -> str:
    """Run a program that may take its time, and return what it printed."""
    with tempfile.TemporaryFile() as out:  # a pipe would wait for whatever the program leaves behind
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
        except OSError as error:
            raise ProgramError("%s: cannot be started: %s" % (command[0], error))
        try:
            code = process.wait(PROGRAM_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        out.seek(0)
        text = out.read(1 << 20).decode("utf-8", "replace")
    said = (text.strip().splitlines() or ["it said nothing"])[-1].strip()[:200]
    name = " ".join([os.path.basename(command[0])] + list(command[1:]))
    if process.returncode == -9:
        raise ProgramError("%s: killed, or no end after %d s: %s" % (name, PROGRAM_SECONDS, said))
    if "eboot required" in text:
        raise ProgramError("%s: wants a reboot; run it by hand, let it reboot, and apply again" % name)
    if code and "-q" not in command:  # the query fails for users other than root, after its answer
        raise ProgramError("%s: exit code %d: %s" % (name, code, said))
    return text


def _program(name: str) -> str:
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin")
    if path is None:
        raise Absent("no program %s here" % name)
    return path


def _privileged(root: str) -> bool:
    """Say whether the clock limits, which these programs write, may be written."""
    limit = os.path.join(root, CPUS, "cpu0/cpufreq/scaling_min_freq")
    return os.access(limit, os.W_OK) if os.path.exists(limit) else os.geteuid() == 0


def nvpmodel(root: str, mode: Optional[int]) -> Knob:
    """Choose a Jetson's power mode; it is kept over a reboot."""

    def now() -> Values:
        text = run(_program("nvpmodel"), "-q")
        found = re.search(r"NV Power Mode: *(\S+)\s*\n\s*(\d+)\s*$", text, re.M)
        if found is None:
            raise ProgramError("nvpmodel -q: not understood: %r" % text[:100])
        return {"mode": "%s %s" % (found.group(2), found.group(1))}

    def write(key: str, value: str) -> None:
        run(_program("nvpmodel"), "-m", str(int(value.split()[0])))

    return Knob(
        name="nvpmodel",
        goal=None if mode is None else str(mode),
        keys="mode",
        read=now,
        write=write,
        writable=lambda _: _privileged(root),
        same=lambda one, other: one.split()[0] == other.split()[0],
        persists=True,
    )


def jetson_clocks(root: str, store: str) -> Knob:
    """Lock a Jetson's clocks at the highest of its power mode; `store` is where the program keeps what was before."""

    def now() -> Values:
        program = _program("jetson_clocks")
        if not _privileged(root):
            return {"clocks": HIDDEN}
        text = run(program, "--show")
        found = re.findall(r"^(cpu\d+|GPU)\b(.*?)MinFreq=(\d+) +MaxFreq=(\d+) +CurrentFreq=(\d+)", text, re.M)
        used = [frequencies for _, online, *frequencies in found if "Online=0" not in online]
        if not used:
            raise ProgramError("jetson_clocks --show: not understood: %r" % text[:100])
        return {"clocks": "locked" if all(len(set(frequencies)) == 1 for frequencies in used) else "free"}

    def write(key: str, value: str) -> None:
        run(_program("jetson_clocks"), *([] if value == "locked" else ["--restore", store]))
        for _ in range(4):  # the current clock follows a moment later
            if now()["clocks"] == value:
                return
            time.sleep(0.25)

    def prepare() -> None:
        if os.path.exists(store + ".new"):
            os.unlink(store + ".new")  # the program asks before it overwrites
        run(_program("jetson_clocks"), "--store", store + ".new")
        _sync(store + ".new")
        os.replace(store + ".new", store)

    return Knob(
        name="jetson-clocks",
        goal="locked",
        keys="clocks",
        read=now,
        write=write,
        writable=lambda _: _privileged(root),
        prepare=prepare,
    )


# ---------------------------------------------------------------- the state before


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
            _sync(folder)
            return
        for path in (self.path, self.path + STORE):
            if os.path.exists(path):
                os.unlink(path)
                _sync(folder)

    def writable(self) -> bool:
        """Say whether the file can be written, and its folder be made."""
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
