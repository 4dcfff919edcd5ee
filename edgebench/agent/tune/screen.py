"""Keep a phone's screen on while it measures, and put its settings back, whoever dies in between.

What was set before is in a file of the cache before it is changed. Each
agent that measures holds a lock. A watcher in a session of its own waits
until nobody has held it for a while (one cell follows the other), and puts
everything back: after the last cell, and also after an interrupt or a kill.
If the watcher died too (a reboot, adbd restarted), whoever comes to the
phone next does it. Meanwhile the watcher moves the screen's timeout on in
steps, so that the longest that may be left behind is half an hour more than
the run had lasted.
"""

import fcntl
import os
import signal
import subprocess
import sys
import time
from typing import List, Optional

from .. import android
from .knobs import Knob, ProgramError, Values
from .tuning import Before, DamagedState, set_values

FILE = "screen.json"
TIMEOUT = "system/screen_off_timeout"
PLUGGED = "global/stay_on_while_plugged_in"
EVERY_CHARGER = "7"
"""Bits for AC, USB and wireless, as `svc power stayon true` sets them."""
AHEAD_SECONDS = 1800.0
AGAIN_SECONDS = 600.0
GRACE_SECONDS = 30.0
"""So long after the last cell the screen stays on: the next one may be on its way."""
GIVE_UP_SECONDS = 600.0
POLL_SECONDS = 2.0


def state_file(program: str) -> str:
    """Name the file with the values before: beside `agents/` in the cache, where the agent lies."""
    return os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(program))), FILE)


def knob(root: str) -> Knob:
    """Read and write the two settings by which Android switches the screen off."""

    def now() -> Values:
        return {key: _settings(root, "get", *key.split("/")).strip() for key in (TIMEOUT, PLUGGED)}

    def write(key: str, value: str) -> None:
        if value == "null":  # it was never set
            _settings(root, "delete", *key.split("/"))
        else:
            _settings(root, "put", *(key.split("/") + [value]))

    keys = TIMEOUT + "|" + PLUGGED
    return Knob(name="screen", goal=None, keys=keys, read=now, write=write, writable=bool, persists=True)


def _settings(root: str, *words: str) -> str:
    try:
        return android.ask(root, "settings", *words)
    except android.Unread as error:
        raise ProgramError(str(error))


class Lock(object):
    """A file that is held; a holder that dies lets go of it. Programs that are started from here do not inherit it."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    def take(self, alone: bool) -> bool:
        """Take it for oneself alone, or with others; returns whether that was possible."""
        try:
            fcntl.flock(self._descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def wait(self) -> None:
        """Take it with others once nobody has it alone."""
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def free(self) -> None:
        """Let go of it."""
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go of it, and of the file."""
        os.close(self._descriptor)


def keep_on(root: str, path: str, grace: float = GRACE_SECONDS) -> Optional[str]:
    """Keep the screen on for as long as this process lives; returns why it is not kept on, None where it is."""
    try:
        held, screen = Lock(path + ".held"), knob(root)
        held.wait()  # somebody who puts the values back does so to the end
    except OSError as error:
        return "%s: %s" % (path, error.strerror)
    _held.append(held)
    try:
        before = _before(path, screen)
        before.add(screen, screen.read())
        _start_watcher(root, path, grace)
        failures = _put_on(screen, AHEAD_SECONDS)
    except (OSError, ProgramError) as error:
        return str(error)
    return "; ".join(sorted(set(failures))) or None


_held: List[Lock] = []
"""Open until this process ends."""


def _before(path: str, screen: Knob) -> Before:
    """Read the values before; a file that is damaged tells none, and what is set now counts."""
    try:
        return Before(path, None, [screen])
    except DamagedState:
        os.unlink(path)
        return Before(path, None, [screen])


def _put_on(screen: Knob, seconds: float) -> List[str]:
    """Set both; a timeout that is longer stays. Returns why one could not be set."""
    now = screen.read()
    wanted = {TIMEOUT: "%d" % (1000 * seconds), PLUGGED: EVERY_CHARGER}
    if now[TIMEOUT].isdigit() and int(now[TIMEOUT]) >= 1000 * seconds:
        del wanted[TIMEOUT]
    return list(set_values(screen, now, wanted)[1].values())


def _start_watcher(root: str, path: str, grace: float) -> None:
    null = subprocess.DEVNULL
    words = [sys.executable, os.path.abspath(sys.argv[0]), "watch-screen", root, path, str(grace)]
    subprocess.Popen(words, stdin=null, stdout=null, stderr=null, start_new_session=True, cwd="/")


def watch(root: str, path: str, grace: float) -> int:
    """Put the settings back when nobody has measured for a while; one watcher is enough."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    watching = Lock(path + ".watched")
    if not watching.take(alone=True):
        return 0
    held, screen = Lock(path + ".held"), knob(root)
    before = _before(path, screen)
    begin = last = time.monotonic()
    since = begin  # when somebody was seen measuring
    while True:
        time.sleep(min(POLL_SECONDS, grace / 3))
        now = time.monotonic()
        if not held.take(alone=True):
            since = now
            if now - last >= AGAIN_SECONDS:
                last = now
                _quietly_put_on(screen, now - begin + AHEAD_SECONDS)
        elif now - since < grace:
            held.free()
        elif _put_back(before, screen) or now - since > GIVE_UP_SECONDS:
            watching.close()
            return 0  # until then it is held alone: who begins meanwhile waits


def _quietly_put_on(screen: Knob, seconds: float) -> None:
    try:
        _put_on(screen, seconds)
    except (OSError, ProgramError):
        pass  # the verdict tells of a screen that went off


def _put_back(before: Before, screen: Knob) -> bool:
    """Set what was before, and forget it; returns whether nothing is left to put back."""
    values = before.values.get(screen.name, {})
    try:
        _, left = set_values(screen, screen.read(), values)
    except (OSError, ProgramError):
        return False
    before.values[screen.name] = {key: value for key, value in values.items() if key in left}
    if os.path.isdir(os.path.dirname(before.path)):
        before.write()
    return not before.values[screen.name]


def put_back(root: str, path: str) -> None:
    """Put back what a run that is gone left, unless its watcher still will; called by whoever comes to a phone."""
    if not os.path.exists(path) or not android.here(root):
        return
    watching, held = Lock(path + ".watched"), Lock(path + ".held")
    if watching.take(alone=True) and held.take(alone=True):
        screen = knob(root)
        _put_back(_before(path, screen), screen)
    watching.close()
    held.close()
