"""Files that can run code are loaded where edgebench wrote them or the user vouches for them, and nowhere else."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import verbs
from conftest import Cli, SmallDisk
from test_measure import Bundles

from edgebench import models, trust
from edgebench.bundle import export
from edgebench.bundle.manifest import list_files, read_bundle, write_manifest
from edgebench.config import read_dataset, read_target
from edgebench.data import open_images
from edgebench.errors import CheckpointError, StorageWarning, UntrustedFile
from edgebench.files import sha256_file
from edgebench.models import checkpoint
from edgebench.models import source as source_
from edgebench.schema import Bundle

SAID = "exported programs can run code when they are loaded, and edgebench did not write this one ("
GIVEN: dict[str, Any] = {"format": "onnx", "dataset": "digits", "size": 16, "channels": 1}
PROFILE = """
name: theirs
dataset: {name: digits}
input: {size: 16, channels: 1}
models:
  - {name: theirs, architecture: exported-program, checkpoint: theirs.pt2, role: teacher}
variants:
  - {format: onnx, precisions: [fp32]}
"""
TORCH_AS_ONNX = """
name: odd
description: this computer, which opens what calls itself ONNX with torch
transport: local
accepts:
  - {format: onnx, precisions: [fp32], runtime: torch}
"""


class Evil:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        made = f"__import__('os').makedirs({str(self.canary)!r}, exist_ok=True)"
        return eval, (f"{made} or __import__('torch').zeros(1)",)  # a constant, as a program may have one


def rewritten(source: Path, target: Path, change: Callable[[str, bytes], bytes], more: dict[str, bytes]) -> Path:
    """Copy a zip with its members changed, and others added."""
    with zipfile.ZipFile(source) as old:
        members = {name: change(name, old.read(name)) for name in old.namelist()}
    with zipfile.ZipFile(target, "w") as new:
        for name, content in {**members, **more}.items():
            new.writestr(name, content)
    return target


def with_pickle(source: Path, target: Path, canary: Path) -> Path:
    """Add a pickled object under a name in capitals: torch looks names up whatever their case."""

    def change(name: str, content: bytes) -> bytes:
        if not name.endswith("constants_config.json"):
            return content
        config = json.loads(content)
        config["config"]["x"] = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
        return json.dumps(config).encode()

    root = zipfile.ZipFile(source).namelist()[0].split("/")[0]
    return rewritten(source, target, change, {f"{root}/data/constants/OPAQUE_OBJ_0": pickle.dumps(Evil(canary))})


def with_expression(source: Path, target: Path, canary: Path) -> Path:
    """Make an open size one that is computed by code, which is spelt with letters, digits and brackets alone."""
    code = f"__import__('os').makedirs({str(canary)!r}, exist_ok=True)"
    spelt = f"exec({'+'.join(f'chr({ord(letter)})' for letter in code)})"

    def change(name: str, content: bytes) -> bytes:
        return re.sub(rb'"expr_str": "[^"]*"', b'"expr_str": "%s"' % spelt.encode(), content) if "/models/" in name else content

    return rewritten(source, target, change, {})


ATTACKS = {"pickle": with_pickle, "expression": with_expression}


@pytest.fixture
def theirs(here: Path) -> Path:
    """Make a program as someone else would, for digits, with a note that no plain program has."""
    module = models.build("tinynet:net", 10, 1, 16).eval()
    program = torch.export.export(module, (torch.zeros(1, 1, 16, 16),))
    torch.export.save(program, here / "theirs.pt2", extra_files={"note": "from me"})
    return here / "theirs.pt2"


@pytest.fixture
def evil(here: Path, request: pytest.FixtureRequest) -> Path:
    """Make a program that runs code when it is loaded."""
    module, batch = models.build("tinynet:net", 10, 1, 16).eval(), torch.export.Dim("batch")
    program = torch.export.export(module, (torch.zeros(2, 1, 16, 16),), dynamic_shapes=({0: batch},))
    torch.export.save(program, here / "good.pt2")
    return ATTACKS[request.param](here / "good.pt2", here / "evil.pt2", here / "canary")


@pytest.fixture
def hostile(here: Path, tiny_bundles: Bundles) -> Path:
    """Make a bundle that computes as it should, and runs code when it is loaded."""
    return forged(tiny_bundles["torch", "fp32"], here / "hostile", here / "canary")


def forged(source: Path, folder: Path, canary: Path, **more: Any) -> Path:
    shutil.copytree(source, folder)
    bundle = read_bundle(folder)
    with_pickle(source / bundle.entry, folder / bundle.entry, canary)
    write_manifest(folder, bundle.model_copy(update={"files": list_files(folder), **more}))
    return folder


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be another user, whose edgebench has written and tried nothing yet."""
    monkeypatch.setattr(trust, "_tried", {})
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(trust, "_written", set())


def one_line(errors: str) -> bool:
    """Say whether the last line, and no other, is about programs that can run code; those before it are progress."""
    *others, last = errors.splitlines()
    return last.startswith("edgebench: ") and "exported program" in last and "exported program" not in "".join(others)


# ---------------------------------------------------------------- programs


@pytest.mark.parametrize("evil", ATTACKS, indirect=True)
def test_a_program_of_others_runs_nothing_unless_the_user_vouches(evil: Path, cli: Cli) -> None:
    canary = evil.parent / "canary"
    for verb in (("export", evil, "--format", "onnx"), ("export", evil, "--format", "torch"), ("quantize", evil)):
        code, _, err = cli(*verb, "--dataset", "digits", "--size", "16", "--channels", "1")
        assert (code, one_line(err)) == (2, True)
        assert f"{evil}: {SAID}" in err and "); give --trust (in Python trust=True) if you know who made it" in err
    assert not canary.exists()
    with contextlib.suppress(AttributeError):  # the expression has no value
        checkpoint.read(evil, trust=True)
    assert canary.exists(), "then the attack is none, and the test shows nothing"


def test_a_program_that_the_user_vouches_for_is_exported(theirs: Path, cli: Cli) -> None:
    words = ("--format", "onnx", "--dataset", "digits")
    code, _, err = cli("export", theirs, *words, "--trust")
    assert code == 0, err
    code, _, err = cli("export", theirs, *words)
    assert (code, SAID in err) == (2, True)  # an answer for once


def test_other_endings_are_no_way_around(theirs: Path) -> None:
    assert trust.is_program(theirs)
    for name in ("theirs.pt", "theirs.bin", "theirs"):
        other = theirs.rename(theirs.with_name(name))
        assert trust.is_program(other)
        with pytest.raises(CheckpointError, match="no checkpoint"):
            checkpoint.read(other, trust=True)
        theirs = other
    torch.save({"a": torch.zeros(2)}, "weights.pt")
    assert not trust.is_program(Path("weights.pt"))


def test_torchscript_is_refused_as_before(here: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would rather have programs
        torch.jit.save(torch.jit.script(torch.nn.ReLU()), "script.pt")
    with pytest.raises(CheckpointError, match="TorchScript"):
        checkpoint.read(Path("script.pt"), trust=True)


def test_a_profiles_program_is_asked_about_before_anything_else(theirs: Path, cli: Cli) -> None:
    Path("theirs.yaml").write_text(PROFILE)
    for more in ((), ("--dry-run",)):
        code, _, err = cli("run", "theirs.yaml", *more)
        assert (code, SAID in err, one_line(err)) == (2, True, True)
    assert not Path("results").exists()
    assert not Path(".edgebench/models").exists()
    assert cli("run", "theirs.yaml", "--dry-run", "--trust")[0] == 0


def test_an_imported_program_is_vouched_for_from_then_on(theirs: Path, stranger: None) -> None:
    data, root = open_images(read_dataset("digits")), Path("models")
    source: dict[str, Any] = {"text": str(theirs), "name": "theirs", "size": 16, "channels": 1}
    with pytest.raises(UntrustedFile):
        source_.import_checkpoint(source_.SourceOptions(**source), data, root)
    folder = source_.import_checkpoint(source_.SourceOptions(**source, trust=True), data, root)
    assert source_.import_checkpoint(source_.SourceOptions(**source), data, root) == folder
    assert models.load_model(folder).model.architecture == models.PROGRAM


def test_a_model_folder_of_others_is_asked_about_as_source_and_as_teacher(
    theirs: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    source = source_.SourceOptions(str(theirs), name="theirs", size=16, channels=1, trust=True)
    folder = source_.import_checkpoint(source, open_images(read_dataset("digits")), Path("models"))
    monkeypatch.setenv("XDG_STATE_HOME", str(theirs.parent / "other"))
    monkeypatch.setattr(trust, "_written", set())
    with pytest.raises(UntrustedFile, match=r"checkpoint\.pt2"):
        verbs.export(folder, **GIVEN)
    student = ("tinynet:net", "--recipe", "distill", "--teacher", folder, "--size", "16", "--channels", "1")
    code, _, err = cli("train", *student, "--option", "epochs=1")
    assert (code, SAID in err) == (2, True)
    assert verbs.export(folder, **GIVEN, trust=True).bundle.model.name == "theirs"


# ---------------------------------------------------------------- bundles


def test_a_bundle_of_others_goes_to_no_device_unless_the_user_vouches(hostile: Path, tiny_bundles: Bundles, cli: Cli) -> None:
    canary = hostile.parent / "canary"
    for verb in (
        ("run", hostile),
        ("noise", hostile),
        ("diagnose", hostile),
        ("compare", tiny_bundles["torch", "fp32"], hostile),
    ):
        code, _, err = cli(*verb)
        assert (code, one_line(err)) == (2, True), err
        assert f"{hostile}/model.pt2: {SAID}" in err
    assert not list(Path(".edgebench").rglob("*.pt2"))
    assert not canary.exists()
    code, out, _ = cli("run", hostile, "--target", "sleeper.yaml", "--trust", "--half-width", "50%")
    assert code == 0, out
    assert checkpoint.read(hostile / "model.pt2", trust=True).module()(torch.zeros(1, 1, 16, 16)).shape == (1, 10)
    assert canary.exists(), "then the attack is none, and the test shows nothing"


def test_a_device_takes_apart_what_its_host_let_through(hostile: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "_check", lambda *_: None)
    code, out, _ = cli("run", hostile, "--half-width", "50%", "--json")
    [cell] = json.loads(out)["cells"]
    assert (code, cell["state"]) == (1, "failed")
    assert "OPAQUE_OBJ_0': is no part of a plain program" in cell["reason"]
    assert not (hostile.parent / "canary").exists()


def test_of_several_bundles_the_others_are_measured(hostile: Path, tiny_bundles: Bundles, cli: Cli) -> None:
    given = (hostile, tiny_bundles["onnx", "fp32"], "--target", "sleeper.yaml")
    code, out, _ = cli("run", *given, "--half-width", "50%", "--json")
    cells = {cell["format"]: cell for cell in json.loads(out)["cells"]}
    assert (code, cells["onnx"]["state"], cells["torch"]["state"]) == (1, "done", "failed")
    assert SAID in cells["torch"]["reason"]
    assert not (hostile.parent / "canary").exists()


def test_a_program_under_another_formats_name_is_found(here: Path, tiny_bundles: Bundles, cli: Cli) -> None:
    Path("odd.yaml").write_text(TORCH_AS_ONNX)
    disguised = forged(tiny_bundles["torch", "fp32"], here / "disguised", here / "canary", format="onnx", runtime="onnxruntime")
    (disguised / "model.pt2").rename(disguised / "model.onnx")
    bundle = read_bundle_as(disguised, "model.onnx")
    assert list(trust.programs(disguised, bundle, "onnxruntime")) == ["model.onnx"]
    for target in ("cpu", "odd.yaml"):
        code, _, err = cli("run", disguised, "--target", target)
        assert (code, SAID in err) == (2, True)
    plain = tiny_bundles["onnx", "fp32"]
    assert not list(trust.programs(plain, read_bundle(plain), "onnxruntime"))
    assert list(trust.programs(plain, read_bundle(plain), "torch")) == ["model.onnx"]


def read_bundle_as(folder: Path, entry: str) -> Any:
    """Give a bundle's model file another name."""
    content = json.loads((folder / "bundle.json").read_text())
    bundle = Bundle.model_validate(content)
    return write_manifest(folder, bundle.model_copy(update={"entry": entry, "files": list_files(folder)}))


def test_a_bundle_on_another_users_computer_is_asked_about_where_it_cannot_be_tried(
    tiny_bundles: Bundles, here: Path, stranger: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust, "trial", lambda _: "no process without rights can be made here")
    for (format, _), folder in tiny_bundles.items():
        bundle = read_bundle(folder)
        assert trust.is_own(folder, bundle, bundle.runtime) == (format != "torch")
    with pytest.raises(UntrustedFile, match=r"did not write this one \(no process without rights can be made here\)"):
        verbs.run(bundle=[tiny_bundles["torch", "fp32"]])


def test_a_plain_bundle_on_another_users_computer_is_measured_after_a_trial(
    tiny_bundles: Bundles, here: Path, stranger: None, cli: Cli
) -> None:
    folder = tiny_bundles["torch", "fp32"]
    code, out, err = cli("run", folder, "--target", "sleeper.yaml", "--half-width", "50%", "--json")
    assert (code, [cell["state"] for cell in json.loads(out)["cells"]]) == (0, ["done"]), err
    assert list(trust._tried.values()) == [None]
    assert not trust.is_own(folder, read_bundle(folder), "torch")


def test_a_cached_program_that_could_be_anybodys_is_exported_again(here: Path, tiny_bundles: Bundles) -> None:
    real = tiny_bundles["torch", "fp32"]
    bundle = read_bundle(real)
    accepts = export.accepted(read_target("cpu"), "torch", "fp32")
    order = export.Order(bundle.model, lambda: models.load_model(real), "torch", "fp32", accepts, None)
    assert export.find_bundle(order, bundle.key, real) == bundle
    forgery = forged(real, here / "forgery", here / "canary")
    assert read_bundle(forgery).key == bundle.key
    assert export.find_bundle(order, bundle.key, forgery) is None


# ---------------------------------------------------------------- the list


def test_the_list_is_the_users_alone(stranger: None, tmp_path: Path) -> None:
    trust.remember("a" * 64)
    place = tmp_path / "state" / "edgebench" / "written"
    assert [path.name for path in place.iterdir()] == ["a" * 64]
    assert place.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_a_list_that_others_could_write_counts_for_nothing(theirs: Path, stranger: None, mode: int) -> None:
    place = theirs.parent / "state" / "edgebench" / "written"
    place.mkdir(parents=True)
    place.chmod(mode)
    (place / sha256_file(theirs)).touch()
    with pytest.raises(UntrustedFile, match="owner or permissions"):
        checkpoint.read(theirs)
    place.chmod(0o700)
    assert checkpoint.read(theirs)


def test_a_list_in_the_folder_that_edgebench_works_in_counts_for_nothing(
    theirs: Path, stranger: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = sha256_file(theirs)
    for state, home in (("state", str(theirs.parent / "home")), ("", "."), ("", "home")):
        monkeypatch.setenv("XDG_STATE_HOME", state)
        monkeypatch.setenv("HOME", home)
        for folder in ("state", ".local/state", "home/.local/state"):
            Path(folder, "edgebench", "written").mkdir(parents=True, exist_ok=True, mode=0o700)
            if folder != "home/.local/state" or not os.path.isabs(home):
                Path(folder, "edgebench", "written", digest).touch()
        with pytest.raises(UntrustedFile):
            checkpoint.read(theirs)
        shutil.rmtree("home")


def test_what_cannot_be_noted_is_said_and_counts_for_this_process(theirs: Path, stranger: None) -> None:
    Path("state").write_text("a file, where a folder is needed")
    with pytest.raises(UntrustedFile, match=r"cannot be read \(.*written: Not a directory\) \(.*; give --trust"):
        checkpoint.read(theirs)
    with pytest.warns(StorageWarning, match=r"no note could be kept .*Not a directory"):
        trust.remember(sha256_file(theirs))
    assert checkpoint.read(theirs)


def test_a_full_disk_is_said(stranger: None, small_disk: SmallDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = small_disk("8k,nr_inodes=4")
    monkeypatch.setenv("XDG_STATE_HOME", str(disk))
    with pytest.warns(StorageWarning, match="No space left on device"):
        for number in range(4):
            trust.remember(f"{number:064}")


def test_a_command_says_in_one_line_that_no_note_could_be_kept(here: Path) -> None:
    Path("state").write_text("")
    code = "from edgebench import cli, trust; cli.execute = lambda *_: trust.remember('a' * 64); cli.main()"
    user = {**os.environ, "XDG_STATE_HOME": str(here / "state")}
    done = subprocess.run([sys.executable, "-c", code], env=user, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"edgebench: .*/state/edgebench/written: no note could be kept .*\n", done.stderr)


def test_many_processes_write_at_the_same_time(stranger: None, tmp_path: Path) -> None:
    code = "import sys; from edgebench import trust\nfor n in range(50): trust.remember(f'{sys.argv[1]}{n:060}')"
    names = ("aaaa", "bbbb", "aaaa", "cccc")
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(lambda name: subprocess.run([sys.executable, "-W", "error", "-c", code, name], check=True), names))
    assert len(list((tmp_path / "state" / "edgebench" / "written").iterdir())) == 150
