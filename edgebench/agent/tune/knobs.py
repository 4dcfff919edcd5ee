"""What can be set on a device to make timings steady: each knob, how it is read and how it is written."""

import glob
import os
import re
import shutil
import stat
import subprocess
import tempfile
import time
from typing import Any, Callable, Dict, NamedTuple, Optional

from ..facts import read

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
    message = (text.strip().splitlines() or ["it said nothing"])[-1].strip()[:200]
    name = " ".join([os.path.basename(command[0])] + list(command[1:]))
    if process.returncode == -9:
        raise ProgramError("%s: killed, or no end after %d s: %s" % (name, PROGRAM_SECONDS, message))
    if "eboot required" in text:
        raise ProgramError("%s: wants a reboot; run it by hand, let it reboot, and apply again" % name)
    if code and "-q" not in command:  # the query fails for users other than root, after its answer
        raise ProgramError("%s: exit code %d: %s" % (name, code, message))
    return text


def _program(name: str) -> str:
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin")
    if path is None:
        raise Absent("no program %s here" % name)
    return path


def _privileged(root: str) -> bool:
    """Return whether the clock limits, which these programs write, may be written."""
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
        found = re.findall(r"^(cpu\d+|GPU|gpu-gpc-\d+)\b(.*?)MinFreq=(\d+) +MaxFreq=(\d+) +CurrentFreq=(\d+)", text, re.M)
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
        sync(store + ".new")
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


def sync(path: str) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
