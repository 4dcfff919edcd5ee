"""What is injected into a connection, a device and its programs, and how each of it ends."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from conftest import Devices
from remote import AS_ROOT, cache, connected, counting, fill, numbers, pushed, runs, starts
from sshd import Sshd

from edgebench.device import deploy
from edgebench.errors import TransportError
from edgebench.schema import Link
from edgebench.targets.transports._channel import Channel
from edgebench.targets.transports._remote import BLOCK
from edgebench.targets.transports.ssh import SshClient, explain

ROOT = Path(__file__).parent.parent
PYENV = Path.home() / ".pyenv" / "versions"


@pytest.fixture
def impatient(sshd: Devices, monkeypatch: pytest.MonkeyPatch) -> Devices:
    """Make devices whose client notices a dead connection after 3 s in place of 15 s."""
    monkeypatch.setenv("EDGEBENCH_SSH", os.environ["EDGEBENCH_SSH"] + " -o ServerAliveInterval=1")
    return sshd


# ---------------------------------------------------------------- a push


def content(mebibytes: int) -> bytes:
    return random.Random(mebibytes).randbytes(mebibytes << 20)


class Sent:
    """Counts what is sent, and does something once so much has been."""

    def __init__(self, after: int = sys.maxsize, action: Callable[[], object] = bool) -> None:
        self.total = 0
        self.after, self.action = after, action

    def __call__(self, done: int, total: int) -> None:
        self.total += BLOCK
        if done > self.after:
            self.after = sys.maxsize
            self.action()


def test_a_push_goes_on_where_a_killed_session_left_off(sshd: Devices) -> None:
    device, whole = sshd(), content(32)
    sent = Sent(12 << 20, device.kill_sessions)
    with connected(device) as transport:
        there = transport.push(whole, "sets/big", sent)
        assert Path(there).read_bytes() == whole
    assert len(whole) <= sent.total < len(whole) + (8 << 20)  # what the client and the server held, and nothing more
    assert not list((device.home / ".edgebench" / "partial").iterdir())


def test_what_a_client_on_its_way_out_does_not_take_is_not_counted_as_sent() -> None:
    """A client closes its input before it is gone; until then there is no exit code to tell."""
    client = SshClient("board", "python3", Link(Path("unused")))
    channel = Channel(["sh", "-c", "exec 0<&-; sleep 30"], client)
    try:
        until = time.monotonic() + 10
        while not channel.ended and time.monotonic() < until:
            channel.write(b"block")
        assert channel.ended
        assert channel._program.code is None
    finally:
        channel.stop()
        client.close()


def test_a_push_arrives_over_a_transport_that_drops_again_and_again(sshd: Devices) -> None:
    device, whole, sent = sshd(), content(8), Sent()
    with connected(device) as transport:
        pushed(transport)
        device.cut(2_000_000, "up", times=5)
        device.kill_sessions()
        assert Path(transport.push(whole, "sets/big", sent)).read_bytes() == whole
    assert device.cuts() >= 3


def test_a_later_command_goes_on_with_a_push_that_was_given_up(sshd: Devices) -> None:
    device, whole, sent = sshd(), content(32), Sent()
    with connected(device, reconnect_seconds=0) as transport, pytest.raises(TransportError, match="connection was lost"):
        transport.push(whole, "sets/big", Sent(16 << 20, device.kill_sessions))
    device.strays(within_seconds=5)
    with connected(device) as transport:
        assert Path(transport.push(whole, "sets/big", sent)).read_bytes() == whole
    assert sent.total < 26 << 20


def test_a_partial_file_that_was_spoilt_on_the_device_is_sent_anew(sshd: Devices) -> None:
    device, whole = sshd(), content(32)
    with connected(device, reconnect_seconds=0) as transport, pytest.raises(TransportError):
        transport.push(whole, "sets/big", Sent(16 << 20, device.kill_sessions))
    device.strays(within_seconds=5)
    [partial] = (device.home / ".edgebench" / "partial").iterdir()
    with partial.open("r+b") as stream:
        stream.write(b"spoilt")
    with connected(device) as transport:
        assert Path(transport.push(whole, "sets/big", deploy.no_upload_progress)).read_bytes() == whole


def test_a_frozen_push_is_noticed_and_goes_on(impatient: Devices) -> None:
    device, whole, sent = impatient(), content(8), Sent()
    with connected(device) as transport:
        pushed(transport)
        device.cut(3_000_000, "up", how="freeze")
        device.kill_sessions()
        assert Path(transport.push(whole, "sets/big", sent)).read_bytes() == whole
    assert device.cuts() == 1


# ---------------------------------------------------------------- a run


def test_an_undisturbed_run_is_told_once_and_forgotten(sshd: Devices) -> None:
    device = sshd()
    with connected(device) as transport:
        stream = counting(transport)
        assert list(numbers(stream.lines(10))) == list(range(100))
        assert stream.stderr().endswith("that was all")
        stream.stop()
        assert runs(device) == []


def test_a_run_survives_that_its_sessions_are_killed_again_and_again(sshd: Devices) -> None:
    device, heard = sshd(), []
    with connected(device) as transport:
        stream = counting(transport, lines=300, pause=0.02)
        for number in numbers(stream.lines(10)):
            heard.append(number)
            if number in (0, 50, 51, 120, 290):
                device.kill_sessions()
        stream.stop()
    assert heard == list(range(300))
    assert starts(device) == 1
    assert runs(device) == []


@pytest.mark.parametrize(("direction", "after"), [("down", 3_600), ("down", 40_000), ("up", 6_000), ("up", 14_500)])
def test_a_run_survives_a_transport_that_drops(sshd: Devices, direction: Literal["up", "down"], after: int) -> None:
    device = sshd()
    with connected(device) as transport:
        pushed(transport)
        device.cut(after, direction, times=3)
        device.kill_sessions()
        stream = counting(transport, lines=400, pause=0.004, width=1000)
        assert list(numbers(stream.lines(10))) == list(range(400))
        stream.stop()
    assert device.cuts() == 3
    assert starts(device) == 1
    assert runs(device) == []


def test_a_run_whose_connection_ends_with_it_is_told_to_its_end(sshd: Devices) -> None:
    device = sshd()
    with connected(device) as transport:
        stream = counting(transport, lines=20)
        lines = numbers(stream.lines(10))
        assert next(lines) == 0
        device.stop()
        device.kill_sessions()
        threading.Timer(1.5, device.start).start()  # it has ended when the device is back
        assert list(lines) == list(range(1, 20))
        assert stream.stderr().endswith("that was all")
        device.kill_sessions()
        stream.stop()
    assert runs(device) == []


def test_a_frozen_run_is_noticed_and_found_again(impatient: Devices) -> None:
    device = impatient()
    with connected(device) as transport:
        pushed(transport)
        device.cut(25_000, "down", how="freeze")
        device.kill_sessions()
        stream = counting(transport, lines=300, pause=0.01, width=300)
        begin = time.monotonic()
        assert list(numbers(stream.lines(30))) == list(range(300))
        assert time.monotonic() - begin < 15
        stream.stop()
    assert device.cuts() == 1


def test_a_device_that_stays_away_is_given_up_and_its_run_taken_up_later(sshd: Devices) -> None:
    device = sshd()
    with connected(device, reconnect_seconds=1) as transport:
        stream = counting(transport, lines=700)
        with pytest.raises(TransportError, match=r"refuses connections.*--resume"):
            for number in numbers(stream.lines(10)):
                if number == 20:
                    device.stop()
                    device.kill_sessions()
        stream.stop()
    assert len(device.strays()) >= 1  # it goes on
    device.start()
    with connected(device) as transport, pytest.raises(TransportError, match=r"still at work on just this.*--resume"):
        counting(transport, lines=700)
    with connected(device) as transport:
        stream = counting(transport, resume=True, lines=700)
        first, *lines = stream.lines(10)
        assert json.loads(first)["event"] == "resumed"
        assert 1 < json.loads(first)["age_seconds"] < 60
        assert list(numbers(iter(lines))) == list(range(700))
        stream.stop()
    assert starts(device) == 1


def test_a_run_that_ended_while_nobody_listened_is_taken_up(sshd: Devices) -> None:
    device = sshd()
    with connected(device, reconnect_seconds=0) as transport:
        stream = counting(transport, lines=50)
        lines = stream.lines(10)
        next(lines)
        device.kill_sessions()
        with pytest.raises(TransportError, match="--resume"):
            list(lines)
        stream.stop()
    assert device.strays(within_seconds=5) == []
    time.sleep(1)
    with connected(device) as transport:
        stream = counting(transport, resume=True, lines=50)
        first, *lines_ = stream.lines(10)
        times = json.loads(first)
        assert 0.9 < times["idle_seconds"] < times["age_seconds"]
        assert list(numbers(iter(lines_))) == list(range(50))
        stream.stop()
    assert (starts(device), runs(device)) == (1, [])


def test_there_may_be_nothing_to_take_up(sshd: Devices) -> None:
    device = sshd()
    with connected(device) as transport:
        stream = counting(transport, resume=True, lines=5)
        assert json.loads(next(line for line in stream.lines(10) if line.strip()))["event"] == "count"
        stream.stop()


def test_a_restart_of_the_device_ends_its_run_with_that_reason(sshd: Devices) -> None:
    device = sshd()
    with connected(device) as transport:
        stream = counting(transport, lines=3000)
        lines = numbers(stream.lines(10))
        assert next(lines) == 0
        [record] = (device.home / ".edgebench" / "runs").glob("*/started")
        device.power_off()
        record.write_text(json.dumps({**json.loads(record.read_text()), "boot": "another"}))
        device.start()
        told = list(lines)
        assert told == list(range(1, len(told) + 1))
        assert stream.stderr() == "the device was restarted"
        stream.stop()
        again = counting(transport, lines=10)
        assert list(numbers(again.lines(10))) == list(range(10))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_keeper_that_is_killed_takes_its_program_with_it(sshd: Devices, number: int) -> None:
    device = sshd()
    with connected(device) as transport:
        stream = counting(transport, lines=3000)
        lines = numbers(stream.lines(10))
        next(lines)
        [record] = (device.home / ".edgebench" / "runs").glob("*/started")
        os.kill(json.loads(record.read_text())["keeper"], number)
        assert len(list(lines)) < 2998
        assert stream.stderr() == "the agent was killed on the device"
        assert not any("counting" in line for line in device.strays())
        stream.stop()


def test_megabytes_of_noise_and_a_flood_of_errors_leave_the_events_whole(sshd: Devices) -> None:
    device = sshd()
    with connected(device) as transport:
        stream = counting(transport, noise_mebibytes=40, stderr_mebibytes=120)
        assert list(numbers(stream.lines(30))) == list(range(100))
        assert stream.stderr().endswith("that was all")
        assert len(stream.stderr()) <= 16 << 10
        stream.stop()


def interrupted_after(seconds: float) -> contextlib.AbstractContextManager[None]:
    @contextlib.contextmanager
    def block() -> Iterator[None]:
        before = signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    return block()


def test_whenever_a_run_is_interrupted_nothing_is_left_on_the_device(sshd: Devices) -> None:
    device = sshd()
    with connected(device) as transport:
        pushed(transport)
    for step in range(10):
        with pytest.raises(KeyboardInterrupt), interrupted_after(0.05 + 0.08 * step), connected(device) as transport:
            list(counting(transport, lines=3000).lines(10))
        assert device.strays(within_seconds=5) == [], step
        assert runs(device) == [], step


# ---------------------------------------------------------------- one run at a time


def test_two_hosts_never_run_at_once(sshd: Devices) -> None:
    one = sshd("one")
    other = sshd("other", environment={"TMPDIR": str(one.tmp)})  # another user of the same computer
    with connected(one) as first, connected(other) as second:
        stream = counting(first, lines=600)
        lines = numbers(stream.lines(10))
        next(lines)
        begin = time.monotonic()
        with pytest.raises(TransportError, match=r"another run is measuring on this device \(process \d+ there, for 0 minutes\)"):
            counting(second)
        assert time.monotonic() - begin < 8
        assert (other.home / "starts").exists() is False
        stream.stop()
        assert list(numbers(counting(second).lines(10))) == list(range(100))


def test_a_lock_outlives_its_holders_file_but_not_its_holder(sshd: Devices) -> None:
    device = sshd()
    (device.tmp / "edgebench.lock").write_text('{"keeper": 1, "boot": "long ago", "monotonic": 0}')
    with connected(device) as transport:
        assert len(list(numbers(counting(transport).lines(10)))) == 100
        with (device.tmp / "edgebench.lock").open("rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            with pytest.raises(TransportError, match="another run is measuring on this device"):
                counting(transport, name="d0" * 16)
        assert len(list(numbers(counting(transport, name="e0" * 16).lines(10)))) == 100


# ---------------------------------------------------------------- disks


@AS_ROOT
def test_a_push_that_cannot_fit_is_refused_before_it_begins(sshd: Devices) -> None:
    device, sent = sshd(), Sent()
    device.mount_home(40)
    with connected(device) as transport:
        pushed(transport)
        with pytest.raises(
            TransportError, match=r"needs 46\.0 MiB more, and the device has 40\.0 MiB free; free some space there"
        ):
            transport.push(content(30), "sets/big", sent)
    assert sent.total == 0


@AS_ROOT
def test_a_disk_that_fills_up_in_a_push_says_so_and_keeps_nothing(sshd: Devices) -> None:
    device, whole = sshd(), content(8)
    device.mount_home(40)
    with connected(device) as transport:
        with pytest.raises(TransportError, match="the device's disk is full; free some space there"):
            transport.push(whole, "sets/big", Sent(1 << 20, lambda: fill(device.home)))
        assert not list((device.home / ".edgebench" / "partial").iterdir())
        (device.home / "filler").unlink()
        assert Path(transport.push(whole, "sets/big", deploy.no_upload_progress)).read_bytes() == whole


@AS_ROOT
def test_a_disk_that_fills_up_in_a_run_ends_it_with_that_reason(sshd: Devices) -> None:
    device = sshd()
    device.mount_home(40)
    with connected(device) as transport:
        stream = counting(transport, lines=30_000, width=2000, pause=0.001)
        heard = []
        for number in numbers(stream.lines(10)):
            heard.append(number)
            if number == 100:
                fill(device.home)
        assert stream.stderr().splitlines()[-1] == "the device's disk is full"
        assert heard == list(range(len(heard)))
        stream.stop()
        assert runs(device) == []


@AS_ROOT
def test_a_home_that_is_read_only_is_named(sshd: Devices) -> None:
    device = sshd()
    device.mount_home(40, read_only=True)
    with (
        connected(device) as transport,
        pytest.raises(TransportError, match=r"file system is read-only; name a folder .* `cache:`"),
    ):
        pushed(transport)
    with connected(device, cache={"path": str(device.tmp / "elsewhere")}) as transport:
        assert pushed(transport).startswith(str(device.tmp))


def test_the_least_recently_used_goes_and_what_a_run_needs_stays(sshd: Devices) -> None:
    device, size = sshd(), 400 << 10
    sets = device.home / ".edgebench" / "sets"

    def there() -> set[str]:
        return {path.name for path in sets.iterdir()}

    with connected(device, cache=cache(1)) as transport:
        for name in "ab":
            transport.push(name.encode() * size, f"sets/{name}", deploy.no_upload_progress)
        with pytest.raises(TransportError, match=r"may have 1\.0 MiB, and 1\.2 MiB are needed at once; allow more with `cache:`"):
            transport.push(b"c" * size, "sets/c", deploy.no_upload_progress)
        device.kill_sessions()
        with pytest.raises(TransportError, match="are needed at once"):
            transport.push(b"c" * size, "sets/c", deploy.no_upload_progress)
        assert there() == {"a", "b"}
    with connected(device, cache=cache(1)) as transport:
        stream = counting(transport, lines=1)  # what is pushed from here on is for another run
        list(stream.lines(10))
        stream.stop()
        transport.push(b"a" * size, "sets/a", deploy.no_upload_progress)
        transport.push(b"c" * size, "sets/c", deploy.no_upload_progress)
        assert there() == {"a", "c"}


# ---------------------------------------------------------------- keys and addresses


def refusal(device: Sshd, **options: Any) -> str:
    with connected(device, **options) as transport, pytest.raises(TransportError) as caught:
        pushed(transport)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_unknown_key_is_refused_unless_it_may_be_accepted(sshd: Devices) -> None:
    device = sshd()
    device.known_hosts.write_text("")
    assert "host key is not known" in refusal(device) and "--accept-new-host-key" in refusal(device)
    with connected(device, accept_new_host_key=True) as transport:
        pushed(transport)
    with connected(device) as transport:
        pushed(transport)


def test_a_changed_key_is_always_refused(sshd: Devices) -> None:
    device = sshd()
    device.change_key()
    assert "ssh-keygen -R" in refusal(device)
    assert "ssh-keygen -R" in refusal(device, accept_new_host_key=True)


def test_a_login_that_is_refused_names_the_remedy(sshd: Devices) -> None:
    device = sshd()
    (device.folder / "authorized_keys").write_text("")
    assert "ssh-copy-id" in refusal(device)


def test_a_device_that_never_answered_is_not_waited_for(sshd: Devices) -> None:
    device = sshd()
    device.stop()
    begin = time.monotonic()
    assert "refuses connections" in refusal(device)
    device.config.write_text(device.config.read_text().replace("HostName 127.0.0.1", "HostName nowhere.invalid"))
    assert "not known to the network" in refusal(device)
    assert time.monotonic() - begin < 15


def test_a_device_that_accepts_and_never_speaks_is_given_up(sshd: Devices, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEBENCH_SSH", os.environ["EDGEBENCH_SSH"] + " -o ConnectTimeout=1")
    device = sshd()
    device.stop()
    with socket.create_server(("127.0.0.1", device.port)):
        assert "does not answer: is it on and connected?" in refusal(device)


# ---------------------------------------------------------------- shells and Pythons


def test_a_login_shell_that_prints_disturbs_nothing(sshd: Devices) -> None:
    device = sshd()
    script = "echo Welcome; echo '{\"not\": [\"ours\"'; nosuchcommand; printf 'no end of line'; printf 'nor here' >&2\n"
    (device.home / ".bashrc").write_text(script)
    with connected(device) as transport:
        assert list(numbers(counting(transport).lines(10))) == list(range(100))
        stream = transport.run([pushed(transport)], '{"lines": 3}\n')
        assert list(numbers(stream.lines(10))) == [0, 1, 2]
        stream.stop()


@pytest.mark.parametrize("code", [0, 3])
def test_a_login_shell_that_exits_is_named(sshd: Devices, code: int) -> None:
    device = sshd()
    (device.home / ".bashrc").write_text(f"echo this device is closed >&2; exit {code}\n")
    told = refusal(device)
    assert f"login shell ended with exit code {code} before Python ran (this device is closed)" in told
    assert "~/.bashrc" in told


def test_a_device_without_python_or_with_an_old_one_is_refused(sshd: Devices) -> None:
    bare = sshd("bare", environment={"PATH": "/nowhere"})
    assert "no such Python" in refusal(bare)
    assert "no such Python" in refusal(sshd("other"), python="~/venv/bin/python")
    for old in PYENV.glob("2.7*/bin/python2.7"):
        assert "too old" in refusal(sshd("old", python=old))
    assert "too old" in str(explain(1, "SyntaxError: invalid syntax", False))


def test_the_devices_end_runs_on_python_3_6(sshd: Devices) -> None:
    found = [*ROOT.glob("build/twins/py36/bin/python"), *PYENV.glob("3.6*/bin/python3.6")]
    if not found:
        pytest.skip("no Python 3.6 here (make twins)")
    device = sshd(python=found[0])
    with connected(device) as transport:
        stream = counting(transport, lines=100, pause=0.02)
        heard = []
        for number in numbers(stream.lines(10)):
            heard.append(number)
            if number == 30:
                device.kill_sessions()
        stream.stop()
        assert heard == list(range(100))


def test_no_reason_carries_an_address(sshd: Devices) -> None:
    said = [
        "kex_exchange_identification: Connection closed by remote host\nConnection closed by 192.168.7.31 port 22",
        "ssh: connect to host nano.lab.example port 22: Connection reset by peer",
        "Shared connection to nano.lab.example closed.",
        "nano@nano.lab.example: Something new (password).",
        "Connection to fe80::1%eth0 closed by remote host.",
    ]
    for line in said:
        told = str(explain(255, line, False))
        assert not any(part in told for part in ("nano", "192.168", "fe80", "lab.example")), told
        assert told.startswith("the connection broke")
