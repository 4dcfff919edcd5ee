"""What the adb client says, in the words of real ones, and what becomes of it: no phone, no adb."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import DOUBLES, Cli

from edgebench.config import read_target
from edgebench.errors import ProfileError, TransportError
from edgebench.schema import Link
from edgebench.targets.transports import adb
from edgebench.targets.transports._channel import Lost, Unreachable
from edgebench.targets.transports._userland.packages import LOADERS, userland

Says = Callable[..., Path]
SERIAL = "R5CT123ABCD"
NETWORK = "192.0.2.5:5555"
LISTED = """\
* daemon not running; starting now at tcp:5037
* daemon started successfully
List of devices attached
R5CT123ABCD            device usb:1-1 product:r0qxxx model:SM_S901B device:r0q transport_id:1
0123456789ABCDEF       unauthorized usb:1-2 transport_id:2
192.0.2.5:5555         offline transport_id:3
HT7A1A00000            no permissions (user in plugdev group; are your udev rules wrong?); see [x] usb:1-3 transport_id:4
adb-ABC123-x1Yz2w._adb-tls-connect._tcp device product:oriole model:Pixel_6 device:oriole transport_id:5

"""


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Says:
    """Let the client answer a word of its command line."""
    folder = tmp_path / "adb"
    folder.mkdir()
    monkeypatch.setenv("EDGEBENCH_ADB", shlex.join([sys.executable, "-I", "-S", str(DOUBLES / "adb.py"), str(folder)]))
    monkeypatch.setattr(adb, "RETURN_SECONDS", 0.0)

    def say(word: str, **answer: Any) -> Path:
        (folder / word).write_text(json.dumps(answer))
        return folder

    return say


def asked(folder: Path) -> list[list[str]]:
    return [json.loads(line) for line in (folder / "asked").read_text().splitlines()]


def refusal(serial: str) -> TransportError:
    """Try to reach a phone; returns why that cannot be."""
    with pytest.raises(TransportError) as caught:
        adb.AdbClient(serial, Link(Path("unused"))).arguments(first=True)
    assert "\n" not in str(caught.value)
    assert serial not in str(caught.value)
    return caught.value


UNAUTHORIZED = """\
error: device unauthorized.
This adb server's $ADB_VENDOR_KEYS is not set
Try 'adb kill-server' if that seems wrong.
Otherwise check for a confirmation dialog on your device.
"""


@pytest.mark.parametrize(
    ("err", "kind", "word"),
    [
        (UNAUTHORIZED, Unreachable, "accept its key on the phone's screen"),
        (UNAUTHORIZED.replace("error:", "adb:"), Unreachable, "accept its key on the phone's screen"),
        ("error: device still authorizing", Unreachable, "accept its key"),
        ("error: device offline", Lost, "the phone is offline"),
        ("adb: device offline", Lost, "the phone is offline"),
        (f"error: device '{SERIAL}' not found", Lost, "adb does not know the phone"),
        (f"adb: device '{SERIAL}' not found", Lost, "adb does not know the phone"),
        ("error: insufficient permissions for device: user in plugdev group; are your udev rules wrong?", Unreachable, "udev"),
        ("* failed to start daemon\nadb: cannot connect to daemon", Lost, "the adb server does not answer"),
        ("error: closed", Lost, "the connection to the phone broke (error: closed)"),
        ("", Lost, "the connection to the phone broke"),
    ],
)
def test_what_adb_says_of_a_phone_is_explained(says: Says, err: str, kind: type[TransportError], word: str) -> None:
    says("shell", err=err, code=1)
    found = refusal(SERIAL)
    assert word in str(found)
    assert type(found) is kind


@pytest.mark.parametrize(
    ("out", "kind", "word"),
    [
        (f"failed to connect to '{NETWORK}': Connection refused\n", Lost, "does not answer at that address"),
        (f"failed to connect to {NETWORK}\n", Lost, "does not answer at that address"),
        (f"cannot connect to {NETWORK}: No route to host (113)\n", Lost, "does not answer at that address"),
        (f"failed to authenticate to {NETWORK}\n", Unreachable, "adb pair"),
        ("failed to resolve host: 'phone': Name or service not known\n", Lost, "not known to the network"),
    ],
)
def test_what_adb_connect_says_counts_and_not_its_exit_code(says: Says, out: str, kind: type[TransportError], word: str) -> None:
    says("shell", err=f"error: device '{NETWORK}' not found", code=1)
    folder = says("connect", out=out, code=0)
    found = refusal(NETWORK)
    assert word in str(found)
    assert type(found) is kind
    assert ["connect", NETWORK] in asked(folder)


@pytest.mark.parametrize("code", [0, 1, 255])
def test_no_exit_code_is_taken_for_an_answer(says: Says, code: int) -> None:
    says("shell", out="abi64=arm64-v8a\nmachine=aarch64\n", code=code)
    assert "the connection to the phone broke" in str(refusal(SERIAL))


@pytest.mark.parametrize("code", [0, 255, -9, None])
def test_an_end_without_a_word_is_a_lost_connection(code: int | None) -> None:
    client = adb.AdbClient(SERIAL, Link(Path("unused")))
    assert type(client.explain(code, "", answered=True)) is Lost
    assert type(client.explain(code, "", answered=False)) is Lost


def test_what_a_phone_said_while_it_ran_is_no_refusal_for_ever() -> None:
    client = adb.AdbClient(SERIAL, Link(Path("unused")))
    assert type(client.explain(1, UNAUTHORIZED, answered=True)) is Lost


def test_no_reason_names_a_phone() -> None:
    for serial in (SERIAL, NETWORK, "adb-ABC123-x1Yz2w._adb-tls-connect._tcp"):
        client = adb.AdbClient(serial, Link(Path("unused")))
        for said in (f"adb: something of {serial} is strange", f"error: device '{serial}' is odd", f"{serial}: x"):
            assert serial not in str(client.explain(255, said, answered=True))


def test_a_client_that_hangs_is_given_up(says: Says, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEBENCH_ADB", shlex.join([sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"]))
    with pytest.raises(Lost, match=r"does not answer for 0\.5 s"):
        adb.ask(["-s", SERIAL, "shell", "-T", "true"], 0.5)


def test_a_connection_that_hangs_is_made_anew(says: Says, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adb, "ASK_SECONDS", 0.5)
    says("shell", seconds=10)
    folder = says("connect", out=f"connected to {NETWORK}\n")
    assert "does not answer for 0.5 s" in str(refusal(NETWORK))
    assert asked(folder)[1:3] == [["disconnect", NETWORK], ["connect", NETWORK]]


def test_without_a_client_there_is_the_line_that_brings_one(here: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    monkeypatch.delenv("EDGEBENCH_ADB", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("ANDROID_HOME", raising=False)
    code, _, errors = cli("targets", "probe", "--target", "android", "--host", SERIAL)
    assert code != 0
    assert "apt install adb" in errors and "EDGEBENCH_ADB" in errors
    assert SERIAL not in errors


def test_the_client_of_an_sdk_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "platform-tools" / "adb"
    program.parent.mkdir()
    program.touch(0o755)
    monkeypatch.delenv("EDGEBENCH_ADB", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("ANDROID_HOME", str(tmp_path))
    assert adb.client() == [str(program)]
    monkeypatch.setenv("EDGEBENCH_ADB", "other/adb -P 5038")
    assert adb.client() == ["other/adb", "-P", "5038"]


def test_attached_phones_are_listed_with_what_each_needs(says: Says, cli: Cli, here: Path) -> None:
    says("devices", out=LISTED)
    found = {each.host: (each.what, each.remedy) for each in adb.attached()}
    assert list(found) == [
        SERIAL,
        "0123456789ABCDEF",
        NETWORK,
        "HT7A1A00000",
        "adb-ABC123-x1Yz2w._adb-tls-connect._tcp",
    ]
    assert found[SERIAL] == ("SM S901B", "")
    assert "accept" in found["0123456789ABCDEF"][1]
    assert "adb connect" in found[NETWORK][1]
    assert "udev" in found["HT7A1A00000"][1]
    code, output, errors = cli("targets", "add", "mine.yaml", "--target", "android")
    assert (code, SERIAL in output, "name one of them by --host" in errors) == (2, True, True)
    assert not Path("mine.yaml").exists()
    assert cli("targets", "add", "mine.yaml", "--target", "android", "--host", SERIAL)[0] == 0
    assert read_target("mine.yaml").host == SERIAL
    assert SERIAL not in cli("targets", "show", "mine.yaml")[1]


def test_another_target_wants_an_address(here: Path, cli: Cli) -> None:
    code, _, errors = cli("targets", "add", "mine.yaml", "--target", "linux-ssh")
    assert (code, "give its address by --host" in errors) == (2, True)


PHONES = (SERIAL, NETWORK, "emulator-5554", "phone.lan:37099", "[fe80::1%eth0]:5555", "adb-ABC123-x1Yz2w._adb-tls-connect._tcp")
NO_PHONES = ("me@phone", "ssh://phone:22", "-s", "a b", "phone;id", "$(id)", "phone:x", "a/b", "x" * 300, "::1")


@pytest.mark.parametrize("host", PHONES)
def test_a_phone_is_named_as_adb_names_it(host: str) -> None:
    assert read_target("android", host).host == host


@pytest.mark.parametrize("host", NO_PHONES)
def test_nothing_else_reaches_adb(host: str) -> None:
    with pytest.raises(ProfileError, match="host: "):
        read_target("android", host)


def test_a_serial_is_always_named_and_no_terminal_is_asked_for(says: Says) -> None:
    names = "whole=" + "\nwhole=".join(userland(each).name for each in LOADERS)
    folder = says("shell", out=f"abi64=arm64-v8a\nabi=arm64-v8a\n{names}\n{adb.END}\n")
    arguments = adb.AdbClient(SERIAL, Link(Path("unused"))).arguments(first=True)
    [look] = asked(folder)
    for command in (look, arguments[arguments.index("-s") :]):
        assert command[:4] == ["-s", SERIAL, "shell", "-T"]
    assert f"/python/{userland('arm64').name}/bin/python3 -c" in arguments[-1]
    assert os.environ["EDGEBENCH_ADB"].endswith(str(folder))
