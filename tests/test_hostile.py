"""Names from outside that would do harm if they were run or followed: refused in one line, or handled, and never executed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import verbs
import yaml
from conftest import Cli, Devices
from PIL import Image
from remote import connected, counting, numbers, pushed
from test_ssh import Bundles

from edgebench import files
from edgebench.config import read_target
from edgebench.device import deploy
from edgebench.errors import InputError, ProfileError, TransportError
from edgebench.schema import NAME, Cache, split_host
from edgebench.store import records
from edgebench.targets.transports import _channel

CANARY = "canary"
HOSTILE = (
    f"a b;touch {CANARY}",
    f"$(touch {CANARY})",
    f"`touch {CANARY}`",
    "../../x",
    f"-oProxyCommand=touch {CANARY}",
    f"x\ntouch {CANARY}\n",
    "x\0y",
    "\u00e4" * 127 + "x",
    "\U0001f525",
    "%h%%x",
    "a'b\"c",
    "",
)
IDS = ("command", "substitution", "backquotes", "up", "option", "newlines", "nul", "long", "emoji", "percent", "quotes", "empty")


@pytest.fixture(autouse=True)
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing that a test does may make the file, here or in a device's home."""
    monkeypatch.chdir(tmp_path)
    yield
    places = [tmp_path, *tmp_path.parent.glob("devices*/*/home")]
    assert not [path for place in places for path in place.rglob(CANARY)]


def one_line(errors: str) -> bool:
    """A refusal is one line, and nothing of the name can write to the terminal as it likes."""
    lines = errors.strip().splitlines()
    return len(lines) == 1 and lines[0].startswith("edgebench: ") and lines[0].isprintable()


# ---------------------------------------------------------------- the command line and files


@pytest.mark.parametrize("form", ["{}", "{}@board", "user@{}", "ssh://{}@board:22", "ssh://board:{}", "board:{}", "[{}]"])
@pytest.mark.parametrize("name", HOSTILE, ids=IDS)
def test_a_hostile_address_is_refused(cli: Cli, tiny_bundles: Bundles, name: str, form: str) -> None:
    code, _, errors = cli("run", tiny_bundles["onnx", "fp32"], "--target", "linux-ssh", "--host", form.format(name))
    assert code == 2, errors
    assert one_line(errors), errors
    with pytest.raises(ValueError, match="is not user@host"):
        split_host(form.format(name))


@pytest.mark.parametrize("key", ["host", "python", "name", "transport"])
@pytest.mark.parametrize("name", [name for name in HOSTILE if name != "../../x"], ids=[each for each in IDS if each != "up"])
def test_a_hostile_target_file_is_refused(cli: Cli, tiny_bundles: Bundles, name: str, key: str) -> None:
    given = {"name": "board", "description": "d", "transport": "ssh", "host": "board", "accepts": [], key: name}
    Path("board.yaml").write_text(yaml.safe_dump(given))
    code, _, errors = cli("run", tiny_bundles["onnx", "fp32"], "--target", "board.yaml")
    assert code == 2, errors
    assert one_line(errors), errors


@pytest.mark.parametrize("path", [*HOSTILE, "/", "~", "~/../x", "/x/../../etc", "/a\nb", "~root/x"], ids=repr)
def test_a_hostile_cache_folder_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="not an absolute path or one below"):
        Cache(path=path)


@pytest.mark.parametrize(
    "name", [f"$(touch {CANARY})", "../../x", HOSTILE[IDS.index("long")]], ids=["substitution", "up", "long"]
)
def test_a_hostile_model_name_becomes_a_plain_one(cli: Cli, here: Path, name: str) -> None:
    code, out, _ = cli(
        "export", "tinynet:net", "--format", "onnx", "--size", 16, "--channels", 1, "--classes", 10, f"--name={name}"
    )
    assert code == 0, out
    [folder] = Path("bundles").iterdir()
    assert re.fullmatch(NAME, folder.name)
    assert not Path("../../x.onnx.fp32").exists()


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "a/../../x", "x\0y", "..", "\\..\\x"], ids=repr)
def test_a_bundle_that_names_files_elsewhere_is_refused(cli: Cli, tiny_bundles: Bundles, name: str) -> None:
    folder = renamed(tiny_bundles["onnx", "fp32"], Path("bundle"), name, move=False)
    Path("linux.yaml").write_text("extends: linux-ssh\nhost: board\n")
    code, _, errors = cli("run", folder, "--target", "sleeper.yaml")
    assert code == 2, errors
    assert one_line(errors), errors


def renamed(source: Path, folder: Path, name: str, move: bool = True) -> Path:
    """Copy a bundle, its model file under another name, with a seal that is right."""
    folder.mkdir()
    manifest = json.loads((source / "bundle.json").read_text())
    for file in manifest["files"]:
        there = name if file == manifest["entry"] and move else file
        (folder / there).write_bytes((source / file).read_bytes())
    manifest["files"] = {name if file == manifest["entry"] else file: entry for file, entry in manifest["files"].items()}
    (folder / "bundle.json").write_text(json.dumps(files.seal({**manifest, "entry": name})))
    return folder


# ---------------------------------------------------------------- what must work


def test_odd_folders_labels_and_file_names_work_over_ssh(here: Path, sshd: Devices, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = [name for name in HOSTILE if name and "/" not in name and "\0" not in name]
    for index, label in enumerate(labels):
        for split in ("train", "val", "test"):
            (here / "images" / split / label).mkdir(parents=True)
            for number in range(3):
                pixels = np.full((16, 16), 20 * index + number, dtype=np.uint8)
                Image.fromarray(pixels).save(here / "images" / split / label / f"{number}.png")
    options: dict[str, Any] = {"format": "onnx", "dataset": "image-folder:images", "size": 16, "channels": 1, "name": "tiny"}
    folder = verbs.export("tinynet:net", **options, out=here / "out").folder
    odd = renamed(folder, here / f"a b;touch {CANARY}", f"$(touch {CANARY});'\"\u00e4 -oX.onnx")
    device = sshd()
    given = yaml.safe_load(Path("sleeper.yaml").read_text()) | {"transport": "ssh", "host": device.host}
    given |= {"name": "board", "cache": {"path": f"~/it's $(touch {CANARY}); `touch {CANARY}` \U0001f525"}}
    Path("board.yaml").write_text(yaml.safe_dump(given))
    results, work = Path(f"-oProxyCommand=touch {CANARY}"), Path(f"$(touch {CANARY})")
    brief = {"half_width": 0.5, "warmup_seconds": 0}
    [record] = verbs.run(bundle=[odd], target=["board.yaml"], scenario=brief, results=results, work=work).records
    assert record.failure is None, record.failure
    assert record.accuracy is not None
    [(_, found)] = records.read_all(results)
    assert found.key == record.key
    assert len(list(device.home.glob("it's*/bundles/*/*.onnx"))) == 1


def test_an_interpreter_below_home_may_have_a_plain_name_only(sshd: Devices) -> None:
    device = sshd()
    (device.home / "my+python-3.11").symlink_to(sys.executable)
    with connected(device, python="~/my+python-3.11") as transport:
        assert list(numbers(counting(transport, lines=2).lines(10))) == [0, 1]


def test_hostile_arguments_and_jobs_reach_the_program_as_they_are(sshd: Devices) -> None:
    device = sshd()
    with connected(device) as transport:
        echo = transport.push(
            b"import json, sys\nprint(json.dumps([sys.argv[1:], sys.stdin.readline()]))",
            "agents/echo.py",
            deploy.no_upload_progress,
        )
        words = [name for name in HOSTILE if "\0" not in name]
        stream = transport.run([echo, *words], "'; $(touch canary) \u00e4\n")
        told = [json.loads(line) for line in stream.lines(10) if line.startswith("[")]
        assert told == [[words, "'; $(touch canary) \u00e4\n"]]
        stream.stop()


# ---------------------------------------------------------------- the device's end


def asked(home: Path, *requests: Mapping[str, Any] | bytes, python: str = sys.executable) -> list[dict[str, Any]]:
    """Run the device's end here and send it requests; returns what it answers."""
    sent = b"".join(item if isinstance(item, bytes) else json.dumps(item).encode() + b"\n" for item in requests)
    done = subprocess.run(
        [python, "-c", _channel.LOADER],
        input=_channel._program() + sent,
        capture_output=True,
        timeout=30,
        check=False,
        env={"HOME": str(home), "TMPDIR": str(home), "PATH": os.environ["PATH"]},
    )
    assert b"Traceback" not in done.stderr, done.stderr
    return [message for line in done.stdout.splitlines() if line and (message := json.loads(line))]


SERVE = {"mode": "serve", "root": "~/cache"}
SHA = "ab" * 32
NAMES: Sequence[Any] = (
    "../x",
    "sets/../../x",
    "/etc/passwd",
    "sets//x",
    "sets/.",
    "",
    "sets",
    "runs/ab",
    "x\0y",
    "sets/x\0y",
    3,
    None,
    ["sets"],
)


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_the_device_refuses_names_that_lead_elsewhere(tmp_path: Path, name: Any) -> None:
    push = {"do": "push", "name": name, "size": 1, "sha256": SHA, "limit": 1 << 30, "needed": []}
    _, look, pushing = asked(tmp_path, SERVE, {"do": "look", "name": name, "size": 1}, push)
    assert (look["kind"], pushing["kind"]) == ("failed", "failed")
    needed = {**push, "name": "sets/x", "needed": [name]}
    assert asked(tmp_path, SERVE, needed)[1]["kind"] == "failed"
    assert not list(tmp_path.rglob("x")) and not list(tmp_path.rglob("passwd"))


@pytest.mark.parametrize(
    "change", [{"size": -1}, {"size": "1"}, {"size": None}, {"sha256": "../../x"}, {"sha256": SHA + "\n"}, {"sha256": 3}]
)
def test_the_device_refuses_what_is_no_size_and_no_hash(tmp_path: Path, change: Mapping[str, Any]) -> None:
    push = {"do": "push", "name": "sets/x", "size": 1, "sha256": SHA, "limit": 1 << 30, "needed": [], **change}
    assert asked(tmp_path, SERVE, push)[1]["kind"] == "failed"


def test_the_device_follows_no_link_out_of_its_cache(tmp_path: Path) -> None:
    outside, cache = tmp_path / "outside", tmp_path / "cache"
    outside.mkdir()
    (cache / "partial").mkdir(parents=True)
    (outside / "x").write_bytes(b"1")
    (cache / "sets").symlink_to(outside)
    (cache / "bundles").mkdir()
    (cache / "bundles" / "x").symlink_to(outside / "x")
    (cache / "partial" / SHA).symlink_to(outside / "x")
    push = {"do": "push", "size": 1, "sha256": SHA, "limit": 1 << 30, "needed": []}
    answers = asked(
        tmp_path,
        SERVE,
        {"do": "look", "name": "sets/x", "size": 1},
        {"do": "look", "name": "bundles/x", "size": 1},
        {**push, "name": "sets/y"},
        {**push, "name": "agents/y"},
    )
    assert [answer.get("kind") for answer in answers[1:]] == ["failed"] * 4
    assert [path.name for path in outside.iterdir()] == ["x"] and (outside / "x").read_bytes() == b"1"


@pytest.mark.parametrize("name", ["../../x", "ab/../../x", "$(id)", "AB" * 8, "ab" * 8 + "\n", "", 3, None], ids=repr)
def test_the_device_refuses_run_names_that_are_no_hashes(tmp_path: Path, name: Any) -> None:
    keep = {"mode": "keep", "root": "~/cache", "arguments": ["-c", "print(1)"], "stdin": "", "offset": 0, "resume": False}
    for request in ({"name": name, "token": "ab" * 8}, {"name": "ab" * 8, "token": name}):
        [answer] = asked(tmp_path, {**keep, **request})
        assert answer["kind"] == "failed"
    assert not (tmp_path / "cache" / "runs").exists()


@pytest.mark.parametrize("root", ["cache", "../x", "~/../x", "/tmp/../etc", "~/x\0y", 3, None], ids=repr)
def test_the_device_refuses_roots_that_are_no_folders_of_their_own(tmp_path: Path, root: Any) -> None:
    [answer] = asked(tmp_path, {"mode": "serve", "root": root})
    assert answer["kind"] == "failed"


@pytest.mark.parametrize(
    "request_", [{}, {"root": "~/c"}, {"root": "~/c", "mode": "rm"}, {"mode": "keep", "root": "~/c"}, b"[]\n", b"\xff{\n", b"\n"]
)
def test_the_device_answers_nonsense_with_a_refusal(tmp_path: Path, request_: Any) -> None:
    [answer] = asked(tmp_path, request_)
    assert answer["kind"] == "failed"
    assert [answer["kind"] for answer in asked(tmp_path, SERVE, {"do": "rm"}, {"do": ["x"]})[1:]] == ["failed", "failed"]


def test_a_device_that_lies_is_an_error_and_no_crash(sshd: Devices) -> None:
    device = sshd()
    lying = device.folder / "bin" / "python3"
    said = ['{"edgebench": 1}', '{"there": true}', '{"path": 3}', '{"error": ["no"], "kind": {}}']
    for count in range(1, len(said) + 1):
        lying.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in said[:count]) + "sleep 1\n")
        lying.chmod(0o755)
        with connected(device, reconnect_seconds=0) as transport, pytest.raises((TransportError, InputError)):
            pushed(transport)


def test_a_target_with_a_nul_in_its_name_is_refused() -> None:
    with pytest.raises(ProfileError, match="no file has such a name"):
        read_target("x\0y")


def test_a_hostile_target_name_is_no_path(here: Path) -> None:
    for name in HOSTILE:
        if "\0" not in name:  # no command line holds one
            with pytest.raises(InputError):
                read_target(name)
