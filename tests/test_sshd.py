"""The test bed itself: what the SSH tests rely on."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Literal

import pytest
from sshd import Sshd

Devices = Callable[..., Sshd]


def on(device: Sshd, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(device.ssh(command), capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)


def test_each_device_has_its_own_home_tmpdir_and_python(sshd: Devices) -> None:
    first, second = sshd("first", python=sys.executable, environment={"MOOD": "calm and quiet"}), sshd("second")
    told = on(first, 'pwd; echo "$HOME" "$TMPDIR" "$MOOD"; python3 -c "import sys; print(sys.prefix)"')
    assert told.stdout.splitlines() == [str(first.home), f"{first.home} {first.tmp} calm and quiet", sys.prefix], told.stderr
    assert on(second, "pwd").stdout.strip() == str(second.home) != str(first.home)


def test_a_killed_session_ends_the_client_and_leaves_the_command_as_a_stray(sshd: Devices) -> None:
    device = sshd()
    client = subprocess.Popen(device.ssh("echo on; exec sleep 600"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert client.stdout and client.stdout.readline() == b"on\n"
    assert len(device.pids()) >= 1
    device.kill_sessions()
    client.communicate(timeout=10)
    assert client.returncode == 255
    (stray,) = device.strays()
    assert stray.endswith("sleep 600")
    assert device.close() == [stray]
    assert device.strays() == []


def test_a_stopped_listener_keeps_its_connections_and_comes_back_on_the_same_port(sshd: Devices) -> None:
    device = sshd()
    with subprocess.Popen(device.ssh("echo on; read line; echo $line"), stdin=-1, stdout=-1) as client:
        assert client.stdout and client.stdout.readline() == b"on\n"
        device.stop()
        assert on(device, "true").returncode == 255
        assert client.communicate(b"still here\n", timeout=10)[0] == b"still here\n"
    device.start()
    assert on(device, "true").returncode == 0


def test_a_device_without_power_runs_nothing_and_forgets_its_tmpdir(sshd: Devices) -> None:
    device = sshd()
    on(device, 'touch "$TMPDIR/gone" "$HOME/kept"; nohup sleep 600 >/dev/null 2>&1 &')
    assert len(device.strays()) == 1
    device.power_off()
    assert device.strays() == [] and not list(device.tmp.iterdir()) and (device.home / "kept").exists()
    assert on(device, "true").returncode == 255


def test_a_changed_host_key_is_refused(sshd: Devices) -> None:
    device = sshd()
    assert on(device, "true").returncode == 0
    device.change_key()
    refused = on(device, "true")
    assert refused.returncode == 255 and "REMOTE HOST IDENTIFICATION HAS CHANGED" in refused.stderr


@pytest.mark.parametrize(("direction", "command"), [("up", "cat >/dev/null"), ("down", "cat /dev/zero")])
def test_the_first_connections_are_cut_after_so_many_bytes(sshd: Devices, direction: Literal["up", "down"], command: str) -> None:
    device = sshd()
    device.cut(300_000, direction=direction, times=2)
    assert on(device, "true").returncode == 0 and device.cuts() == 0
    for count in (1, 2):
        with open("/dev/zero", "rb") as zeros:
            client = subprocess.run(device.ssh(command), stdin=zeros, capture_output=True, timeout=60, check=False)
        assert client.returncode == 255 and device.cuts() == count
        assert len(client.stdout) <= 300_000
    million = subprocess.run(device.ssh("wc -c"), input=bytes(1_000_000), capture_output=True, timeout=60, check=False)
    assert million.stdout.split() == [b"1000000"] and device.cuts() == 2


def test_a_frozen_connection_stays_open_and_silent(sshd: Devices) -> None:
    device = sshd()
    device.cut(20_000, direction="down", how="freeze")
    client = subprocess.Popen(device.ssh("head -c 1000000 /dev/zero"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 20
    while not device.cuts() and time.monotonic() < deadline:
        time.sleep(0.05)
    with pytest.raises(subprocess.TimeoutExpired):
        client.wait(timeout=1)
    client.kill()
    output, _ = client.communicate(timeout=10)
    assert len(output) < 20_000
    device.mend()
    assert on(device, "true").returncode == 0
