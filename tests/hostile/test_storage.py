"""Kills, full disks, folders that may not be written, streams that take nothing, clocks that go back: nothing half-done stays."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import kills
import pytest
from conftest import Cli, SmallDisk
from factory import make_cell, make_measurement, make_record

from edgebench import files, leftovers, models
from edgebench.bundle.manifest import read_bundle
from edgebench.store import records

GENERATED = Path(__file__).parent.parent.parent / "results"
OTHER = "0123abcd"
"""The digits of another system's start."""


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if leftovers.PATTERN.fullmatch(path.name))


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process look through folders as a new one would."""
    monkeypatch.setattr(leftovers, "_swept", set())


def save(folder: str, name: str) -> None:
    records.save(Path(folder), make_record(cell=make_cell(name), median_ns=1e6), make_measurement())


# ---------------------------------------------------------------- killed


def test_commands_killed_at_any_moment_leave_whole_results_and_nothing_else(here: Path) -> None:
    for number in range(40):
        save("theirs", f"net{number}")
    (here / "aside").mkdir()
    shutil.copytree("theirs", "aside/theirs")
    tiny = ["--size", "16", "--channels", "1", "--name", "net"]
    commands = [
        ["results", "merge", "theirs", "--into", "ours"],
        ["leaderboard", "theirs", "--out", "board/L.md"],
        ["train", "tinynet:net", "--dataset", "digits", *tiny, "--option", "epochs=1", "--option", "batch_size=256"],
        ["export", "tinynet:net", "--dataset", "digits", *tiny, "--format", "onnx"],
    ]
    path = os.pathsep.join([str(here), str(Path(kills.__file__).parent)])
    done = subprocess.run(
        [sys.executable, kills.__file__, json.dumps(commands)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert [codes[:2] for codes in json.loads(done.stdout)] == [[0, 0]] * len(commands), done.stdout
    assert hidden(here) == []
    assert len(records.read_all(Path("ours"))) == 40
    assert sorted(path.name for path in Path("ours").rglob("*.npz")) == sorted(
        path.name for path in Path("theirs").rglob("*.npz")
    )
    assert Path("board/L.md").read_bytes() == Path("aside/board/L.md").read_bytes()
    assert read_bundle(Path("bundles/net.onnx.fp32")).model.name == "net"
    [model] = Path(".edgebench/models").iterdir()
    assert models.read_model(model).name == "net"


WRITER = """
import os, sys, time
from pathlib import Path
from edgebench import files, leftovers
def held(handle):
    print("ready", flush=True)
    time.sleep(60)
if sys.argv[1] == "file":
    files.os.fsync = held
    files.write_atomic(Path("place/x.json"), b"half")
else:
    with files.new_folder(Path("place/bundle"), "bundle.json") as staging:
        (staging / "model").write_bytes(b"half")
        held(0)
"""


@contextmanager
def writer(kind: str) -> Iterator[subprocess.Popen[str]]:
    """Start a process that holds a file or a folder half-written."""
    with subprocess.Popen([sys.executable, "-c", WRITER, kind], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_writer_left_goes_and_what_a_living_one_holds_stays(
    here: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if leftovers.boot() == leftovers.NOT_TOLD:
        pytest.skip("this system does not say when it started")
    with writer(kind) as living, writer(kind) as killed:
        both = hidden(Path("place"))
        assert len(both) == 2
        files.write_atomic(Path("place/y.json"), b"")
        assert hidden(Path("place")) == both
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        files.write_atomic(Path("place/y.json"), b"")
        assert hidden(Path("place")) == both  # a process looks once
        monkeypatch.setattr(leftovers, "_swept", set())
        with files.new_folder(Path("place/z"), "bundle.json") as staging:
            assert len(set(hidden(Path("place"))) - {staging.name}) == 1
        living.kill()
        living.wait()
        monkeypatch.setattr(leftovers, "_swept", set())
        files.write_atomic(Path("place/y.json"), b"")
        assert hidden(Path("place")) == []


def test_what_another_system_may_still_write_stays_for_a_day(tmp_path: Path) -> None:
    young, old = (tmp_path / f".x.{OTHER}-{number:08x}" for number in (1, 2))
    for folder in (young, old):
        (folder / "inner").mkdir(parents=True)
    (young / "inner" / "file").write_text("")
    replaced = tmp_path / f".x.{leftovers.boot()}-00000003.old"
    replaced.mkdir()
    own = [tmp_path / name for name in (".x.settings", ".x.abcdefgh", f"x.{OTHER}-00000001", ".x.0123abcd-short")]
    for path in own:
        path.write_text("the user's")
    link = tmp_path / f".y.{leftovers.boot()}-00000004"
    link.symlink_to(tmp_path / "elsewhere")
    past = time.time() - 2 * leftovers.DAY_SECONDS
    for path in (young, young / "inner", old / "inner", old, *own):
        os.utime(path, (past, past))
    files.write_atomic(tmp_path / "new.json", b"")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {young.name, link.name, "new.json", *(path.name for path in own)}


def test_a_clock_that_goes_back_removes_nothing_and_loses_nothing(here: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    save("results", "net")
    left = Path("results/records/cpu", f".net.{OTHER}-00000001")
    left.write_text("half")
    monkeypatch.setattr(time, "time", lambda: 1e9)  # 2001
    records.save(Path("results"), make_record(cell=make_cell("net"), started_at="2001-09-09T01:46:40Z"), make_measurement(50))
    [(_, record)] = records.read_all(Path("results"))
    assert (record.started_at, record.samples is not None) == ("2001-09-09T01:46:40Z", True)
    assert left.exists()
    code, out, err = cli("results", "clean", "--yes", "--older-than", "1d")
    assert (code, "nothing removed" in out) == (0, True), out + err
    assert len(records.read_all(Path("results"))) == 1
    assert cli("verify")[0] in (0, 1)


# ---------------------------------------------------------------- who may


@pytest.mark.parametrize(("umask", "file", "folder"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700), (0o002, 0o664, 0o775)])
def test_files_and_folders_have_the_permissions_that_the_umask_leaves(tmp_path: Path, umask: int, file: int, folder: int) -> None:
    before = os.umask(umask)
    try:
        files.write_atomic(tmp_path / "a" / "x.json", b"")
        with files.new_folder(tmp_path / "bundle", "bundle.json") as staging:
            (staging / "bundle.json").write_text("{}")
    finally:
        os.umask(before)
    made = [tmp_path / name for name in ("a/x.json", "a", "bundle", "bundle/bundle.json")]
    assert [stat.S_IMODE(path.stat().st_mode) for path in made] == [file, folder, folder, file]


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in a folder that every user may enter, with a folder in it where only its owner may write."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        monkeypatch.chdir(folder)
        save("theirs", "net")
        save("locked", "other")
        (folder / "cache").mkdir()
        (folder / "cache").chmod(0o777)
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield folder
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755)


@contextmanager
def nobody() -> Iterator[None]:
    """Be a user without privileges, where root runs the tests; else take the permission away."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    else:
        for path in (Path("locked"), *Path("locked").rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.parametrize(
    "words",
    [
        ("leaderboard", "theirs", "--out", "locked/L.md"),
        ("results", "merge", "theirs", "--into", "locked"),
        ("targets", "add", "locked/x.yaml", "--target", "linux-ssh", "--host", "me@board"),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_a_folder_that_this_user_may_not_write_is_one_clear_line(shared: Path, cli: Cli, words: tuple[str, ...]) -> None:
    for folder in ("warm", "locked"):  # as root all is loaded that a user may not read
        given = tuple(word.replace("locked", folder) for word in words)
        if folder == "warm":
            assert cli(*given)[0] == 0
            continue
        before = {path: path.read_bytes() for path in Path("locked").rglob("*") if path.is_file()}
        with nobody():
            code, _, err = cli(*given)
        assert (code, err.count("\n"), "permission denied; choose a folder that you may write to" in err) == (2, 1, True), err
        assert {path: path.read_bytes() for path in Path("locked").rglob("*") if path.is_file()} == before


def test_commands_that_only_read_need_no_right_to_write(shared: Path, cli: Cli) -> None:
    for words in (("leaderboard", "theirs"), ("results", "list", "theirs"), ("recommend", "theirs", "--max-p50", "1s")):
        assert cli(*words)[0] == 0
        with nobody():
            code, out, err = cli(*words)
        assert (code, "net" in out, err) == (0, True, "")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
@pytest.mark.parametrize(
    "words",
    [
        ("leaderboard", str(GENERATED), "--out", "disk/L.md"),
        ("export", "tinynet:net", "--dataset", "digits", "--size", "16", "--channels", "1", "--format", "torch", "--out", "disk"),
    ],
    ids=lambda words: words[0],
)
def test_a_full_disk_is_one_clear_line_and_nothing_half_written(
    here: Path, cli: Cli, small_disk: SmallDisk, words: tuple[str, ...]
) -> None:
    disk = small_disk("4k")
    code, _, err = cli(*words)
    assert (code, "the disk is full" in err) == (2, True), err
    assert list(disk.iterdir()) == []


# ---------------------------------------------------------------- nobody listens


RUN = '"$0" -m edgebench '
SHELL = [
    ("leaderboard theirs | head -n 1; exit ${PIPESTATUS[0]}", 0, 0),
    ("results list theirs | true; exit ${PIPESTATUS[0]}", 0, 0),
    ("leaderboard theirs --json >&-", 0, 0),
    ("leaderboard theirs >&- 2>&- <&-", 0, 0),
    ("leaderboard nowhere >&-", 2, 1),
    ("leaderboard nowhere 2>/dev/full", 2, 0),
    ("leaderboard nowhere 2>&-", 2, 0),
    ("leaderboard theirs >/dev/full", 2, 1),
    ("leaderboard damaged >/dev/full", 1, 2),
    ("leaderboard damaged | true; exit ${PIPESTATUS[0]}", 1, 1),
    ("--help >/dev/full", 2, 1),
    ("--help | true; exit ${PIPESTATUS[0]}", 0, 0),
    ("--version >&-", 0, 0),
    ("leaderboard theirs 1</dev/null", 2, 1),
]


@pytest.mark.parametrize(("words", "code", "lines"), SHELL, ids=[words for words, *_ in SHELL])
def test_output_that_nobody_takes_ends_quietly_with_its_exit_code(here: Path, words: str, code: int, lines: int) -> None:
    save("theirs", "net")
    if "damaged" in words:
        save("damaged", "net")
        Path("damaged/records/cpu/x.json").write_text("{")
    done = subprocess.run(["bash", "-c", RUN + words, sys.executable], stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    told = done.stderr.splitlines()
    assert (done.returncode, len(told)) == (code, lines), done.stderr
    assert all(line.startswith("edgebench: ") for line in told)


def test_closed_streams_are_never_a_file_of_ours(here: Path) -> None:
    save("theirs", "net")
    script = '"$0" -m edgebench leaderboard theirs --out L.md >&- 2>&- <&-'
    assert subprocess.run(["bash", "-c", script, sys.executable], check=False, timeout=60).returncode == 0
    assert Path("L.md").read_text().startswith("# Leaderboard\n")
