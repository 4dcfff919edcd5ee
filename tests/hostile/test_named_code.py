"""Code that a file of somebody else's names: nothing of it runs before the user has said so for those very bytes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Cli
from test_measure import Bundles

from edgebench import api, trust
from edgebench.config import read_profile, read_target
from edgebench.errors import ProfileError, UntrustedFile

pytestmark = pytest.mark.distrustful
TENSORRT = {"format": "tensorrt", "precisions": ["fp32"], "runtime": "tensorrt"}
MANY = ", ".join(["*a"] * 9)
CANARY = "import pathlib; pathlib.Path('ran').touch()\n"


@pytest.fixture(autouse=True)
def own_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Begin with a list of trusted files, and of written ones, that is empty."""
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "own"))
    monkeypatch.setattr(trust, "_written", set())
    return tmp_path / "own"


def target(name: str, **changes: Any) -> Path:
    path = Path(name)
    path.write_text(yaml.safe_dump({"extends": "cpu", "name": "lab", **changes}))
    return path


def refused(cli: Cli, bundles: Bundles, path: Path, names: str) -> None:
    code, _, err = cli("run", bundles["onnx", "fp32"], "--target", path, "--half-width", "50%")
    assert code == 2, err
    assert f"{path}: names code to be run ({names}), and nobody said yet that it may" in err
    assert f"edgebench trust {path}" in err
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"python": "./canary.sh"}, "the interpreter ./canary.sh"),
        ({"meters": [{"name": "command", "options": {"arguments": ["./canary.sh"]}}]}, "the program ['./canary.sh']"),
        ({"setup": {"requirements": ["canary==1"]}}, "the package canary==1"),
        (
            {
                "accepts": [
                    {"format": "tensorrt", "precisions": ["fp32"], "runtime": "tensorrt", "options": {"trtexec": "./canary.sh"}}
                ]
            },
            "the program ./canary.sh",
        ),
    ],
)
def test_a_target_that_names_a_program_is_refused_until_it_is_trusted(
    here: Path, tiny_bundles: Bundles, cli: Cli, changes: dict[str, Any], names: str
) -> None:
    Path("canary.sh").write_text("#!/bin/sh\ntouch ran\n")
    Path("canary.sh").chmod(0o755)
    path = target("lab.yaml", **changes)
    refused(cli, tiny_bundles, path, names)
    assert cli("targets", "show", path)[0] == 0  # to look at it runs nothing
    assert not Path("ran").exists()
    assert cli("trust", path)[:2] == (0, f"lab.yaml: may run: {names}\n")
    assert read_target(str(path)).name == "lab"


def test_plugins_are_trusted_as_they_are_with_the_file_that_names_them(here: Path, tiny_bundles: Bundles, cli: Cli) -> None:
    Path("rt_canary.py").write_text(CANARY + Path("rt_sleep.py").read_text())
    accepts = [{"format": "onnx", "precisions": ["fp32"], "runtime": "canary"}]
    path = target("lab.yaml", agent_plugins=["rt_canary.py"], accepts=accepts)
    refused(cli, tiny_bundles, path, "the plugin rt_canary.py")
    assert cli("trust", "lab.yaml")[0] == 0
    Path("rt_canary.py").write_text("import os\n" + Path("rt_canary.py").read_text())
    code, _, err = cli("run", tiny_bundles["onnx", "fp32"], "--target", path)
    assert (code, "nobody said yet that it may for rt_canary.py as it is" in err) == (2, True)
    assert not Path("ran").exists()
    cli("trust", "lab.yaml")
    assert cli("run", tiny_bundles["onnx", "fp32"], "--target", path, "--half-width", "50%")[0] == 0
    assert Path("ran").exists()  # it was no empty threat


def test_what_a_file_extends_is_asked_for_by_itself(here: Path, tiny_bundles: Bundles, cli: Cli) -> None:
    target("base.yaml", python="./canary.sh")
    path = target("lab.yaml", extends="base.yaml")
    code, _, err = cli("run", tiny_bundles["onnx", "fp32"], "--target", path)
    assert (code, "names code to be run (the interpreter ./canary.sh)" in err) == (2, True)
    code, out, _ = cli("trust", path)
    assert (code, "base.yaml: may run: the interpreter ./canary.sh" in out) == (0, True)
    assert read_target(str(path)).python == "./canary.sh"


def test_fleets_are_asked_for_too(here: Path, tiny_bundles: Bundles, cli: Cli) -> None:
    Path("fleet.yaml").write_text("devices:\n- {target: cpu, name: a, python: ./canary.sh}\n- {target: cpu, name: b}\n")
    code, _, err = cli("run", tiny_bundles["onnx", "fp32"], "--fleet", "fleet.yaml")
    assert (code, "fleet.yaml: names code to be run (the interpreter ./canary.sh)" in err) == (2, True)
    cli("trust", "fleet.yaml")
    assert "names code" not in cli("run", tiny_bundles["onnx", "fp32"], "--fleet", "fleet.yaml", "--dry-run")[2]


def test_factories_of_profiles_and_model_folders_run_only_for_whom_they_are_known(here: Path, cli: Cli) -> None:
    Path("canary.py").write_text(CANARY + Path("tinynet.py").read_text())
    profile = {
        "name": "theirs",
        "dataset": {"name": "digits"},
        "input": {"size": 16, "channels": 1},
        "models": [{"name": "net", "architecture": "canary:net", "recipe": "train", "options": {"epochs": 1}}],
        "variants": [{"format": "torch", "precisions": ["fp32"]}],
    }
    Path("theirs.yaml").write_text(yaml.safe_dump(profile))
    code, _, err = cli("run", "theirs.yaml")
    assert (code, "theirs.yaml: names code to be run (the network canary:net)" in err) == (2, True)
    assert not Path("ran").exists()
    assert read_profile("theirs.yaml", trust=True).name == "theirs"
    code, out, err = cli("train", "canary:net", "--option", "epochs=1", "--json")  # the command line's own word
    assert code == 0, err
    folder = json.loads(out)["folder"]
    Path("ran").unlink()
    assert cli("export", folder, "--format", "torch")[0] == 0  # edgebench wrote it
    own = Path(os.environ["XDG_STATE_HOME"])
    own.rename(own.with_name("another user's"))
    trust._written.clear()
    code, _, err = cli("export", folder, "--format", "torch", "--out", "elsewhere")
    assert (code, "model.json: names code to be run (the network canary:net)" in err) == (2, True)
    assert cli("trust", folder)[0] == 0
    assert cli("export", folder, "--format", "torch", "--out", "elsewhere", "--trust")[0] == 0


def test_the_list_is_shown_and_files_are_forgotten(here: Path, cli: Cli) -> None:
    path = target("lab.yaml", python="python3")
    api.trust_file(path)
    assert [row["file"] for row in json.loads(cli("trust", "--json")[1])] == [str(path.resolve())]
    doctor = json.loads(cli("doctor", "--json")[1])["files that may run code"]
    assert [(row["file"], row["as it was"]) for row in doctor] == [(str(path.resolve()), "yes")]
    assert cli("trust", path, "--forget")[0] == 0
    with pytest.raises(UntrustedFile):
        read_target(str(path))
    assert cli("trust", path, "--forget")[0] == 2


def test_a_list_that_others_may_write_is_not_believed(here: Path, cli: Cli, own_list: Path) -> None:
    path = target("lab.yaml", python="python3")
    api.trust_file(path)
    (own_list / "edgebench" / "trusted").chmod(0o777)
    with pytest.raises(UntrustedFile, match="could be another's"):
        read_target(str(path))


def test_plugins_outside_of_the_targets_folder_are_refused(here: Path, cli: Cli) -> None:
    Path("inside").mkdir()
    Path("inside/rt_link.py").symlink_to(here / "rt_sleep.py")
    for name in ("../rt_sleep.py", str(here / "rt_sleep.py"), "rt_link.py"):
        target("inside/lab.yaml", agent_plugins=[name])
        with pytest.raises(ProfileError, match="leads out of"):
            read_target("inside/lab.yaml", trust=True)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(f"b{n}: [{MANY}]\n" for n in range(20)),
            "aliases",
        ),
        ("x: " + "[" * 2000 + "]" * 2000, "nested deeper than 50 levels"),
        ("# " + "x" * (1 << 20) + "\nname: big\n", "has more than 1 MiB"),
        ("x: !!python/object/apply:os.system ['touch ran']", "not valid YAML"),
        ("x: !!timestamp 9999-99-99", "not valid YAML"),
    ],
)
def test_yaml_that_multiplies_or_runs_is_refused_in_one_line(here: Path, cli: Cli, text: str, reason: str) -> None:
    Path("theirs.yaml").write_text(text)
    for arguments in (("theirs.yaml",), ("digits", "--target", "theirs.yaml"), ("digits", "--fleet", "theirs.yaml")):
        code, _, err = cli("run", *arguments)
        assert (code, reason in err, err.strip().count("\n")) == (2, True, 0), err
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"meters": 5},
        {"meters": ["rapl"]},
        {"accepts": {"format": "onnx"}},
        {"agent_plugins": 5},
        {"agent_plugins": [5]},
        {"setup": [1]},
        {"setup": {"requirements": 5}},
    ],
)
def test_what_is_no_list_of_names_is_said_by_its_type(here: Path, cli: Cli, changes: dict[str, Any]) -> None:
    code, _, err = cli("run", "digits", "--target", target("lab.yaml", **changes))
    assert (code, err.count("lab.yaml: "), "unexpected" in err) == (2, 1, False), err
