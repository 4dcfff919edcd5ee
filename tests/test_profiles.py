"""Profiles of several stages, their forms on synthetic data and in minutes, and the list of those that there are."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import verbs
from conftest import Cli

from edgebench import cli as command_line
from edgebench.config import read_profile, read_stages
from edgebench.data import open_dataset
from edgebench.data._torchvision import load_torchvision
from edgebench.errors import DataError, InputError, ProfileError
from edgebench.run.catalogue import catalogue
from edgebench.run.forms import Form
from edgebench.schema import DatasetRef, Profile

ROOT = Path(__file__).parent.parent
SEEDS = ("chest-pipeline", "medmnist-2d3d", "medmnist-edge", "nanoray", "xai-pruning")
PAGES = {name: ROOT / "docs" / "tutorials" / f"{name}.md" for name in SEEDS}
STAGES = """
name: two
dataset: {name: digits}
input: {size: 48, channels: 1}
models: [{name: net, architecture: 'tinynet:net', recipe: train, options: {epochs: 9}}]
variants: [{format: onnx, precisions: [fp32]}]
explain: {methods: [grad-cam], samples: 9}
stages:
  - {name: whole}
  - name: lost
    dataset: {name: medmnist, options: {source: nowhere.npz}}
    explain: null
scenario: {half_width: 0.5}
"""


def written(text: str, name: str = "two.yaml") -> str:
    Path(name).write_text(text)
    return name


def test_a_stage_has_what_the_whole_has_but_for_what_it_says(here: Path) -> None:
    whole, lost = read_stages(written(STAGES))
    assert (whole.title, lost.title) == ("two whole", "two lost")
    assert (whole.dataset, lost.dataset.name) == (DatasetRef(name="digits"), "medmnist")
    assert whole.models == lost.models
    assert whole.explain is not None
    assert (whole.explain.methods, lost.explain) == (("grad-cam",), None)


def test_a_profile_without_stages_is_what_it_was() -> None:
    [stage] = read_stages("digits")
    assert stage == read_profile("digits")
    assert (stage.stage, stage.title, stage.explain) == ("", "digits", None)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("stages:\n  - {name: whole}", "stages:\n  - {name: lost}", "no two the same"),
        ("{name: whole}", "{dataset: {name: digits}}", "want a name each"),
        ("{name: whole}", "{name: whole, modles: []}", "stage whole: unknown key 'modles': did you mean 'models'"),
        ("medmnist, options: {source: nowhere.npz}", "digits", "two models on digits are called net"),
        ("samples: 9", "models: [other]", "there is no model 'other'"),
        ("stages:", "stages: 3\nmore:", "stages is a list"),
    ],
)
def test_a_mistake_in_a_stage_is_named_with_its_place(here: Path, before: str, after: str, words: str) -> None:
    assert before in STAGES
    with pytest.raises(ProfileError, match=words):
        read_stages(written(STAGES.replace(before, after)))


def test_what_takes_one_stage_says_so(here: Path) -> None:
    with pytest.raises(ProfileError, match=r"has stages \(whole, lost\)"):
        read_profile(written(STAGES))


# ---------------------------------------------------------------- forms


def formed(name: str, form: Form, work: Path) -> dict[str, Profile]:
    return {stage.stage: form.of(stage, work, lambda _: None) for stage in read_stages(name)}


def test_tiny_on_real_data_takes_as_few_epochs_as_recipes_take_and_few_samples(tmp_path: Path) -> None:
    [compressed] = formed("digits-compressed", Form(tiny=True), tmp_path).values()
    options = {model.name: model.options for model in compressed.models}
    assert (options["base"]["epochs"], options["half-steps"]["epochs"], options["quarter-steps"]["epochs"]) == (1, 3, 4)
    assert str(compressed.dataset) == "digits,limit=64"
    assert compressed.input.size == 32
    stages = formed("xai-pruning", Form(tiny=True), tmp_path)
    assert (stages["explained"].input.size, stages["pruned"].input.size) == (32, 16)
    assert stages["explained"].models[0].options["pretrained"], "real data keep what the profile asks for"
    assert stages["explained"].explain is not None
    assert (stages["explained"].explain.samples, stages["explained"].explain.evaluations) == (4, 64)


def test_synthetic_data_are_made_once_and_nothing_begins_with_published_weights(tmp_path: Path) -> None:
    said: list[str] = []
    stage = next(stage for stage in read_stages("medmnist-2d3d") if stage.stage == "retina")
    made = Form(synthetic=True, tiny=True).of(stage, tmp_path, said.append)
    frozen = next(model for model in made.models if model.name == "vgg16-frozen")
    assert (frozen.options.get("pretrained"), frozen.options["untrained"]) == (None, True)
    assert made.dataset.options["synthetic"] == "tiny"
    assert any("begin at random" in line for line in said)
    [file] = (tmp_path / "synthetic").rglob("*.npz")
    before = file.stat().st_mtime_ns
    assert Form(synthetic=True, tiny=True).of(stage, tmp_path, said.append).dataset == made.dataset
    assert file.stat().st_mtime_ns == before
    assert sum(line.startswith("synthesize") for line in said) == 1


def test_what_a_form_says_must_fit(here: Path, tmp_path: Path) -> None:
    [stage, _] = read_stages(written(STAGES + "tiny: {options: {net.steps: 3}}\n"))
    with pytest.raises(ProfileError, match=r"net\.steps: the recipe train has no such option"):
        Form(tiny=True).of(stage, tmp_path, print)
    [stage, _] = read_stages(written(STAGES + "tiny: {input: {siz: 3}}\n"))
    with pytest.raises(ProfileError, match=r"two whole: unknown key 'input\.siz'"):
        Form(tiny=True).of(stage, tmp_path, print)


def test_a_limit_leaves_each_class_its_share() -> None:
    whole, some = (open_dataset(DatasetRef(name="digits", options=options)) for options in ({}, {"limit": 100}))
    for name in ("train", "val", "test"):
        shares = np.bincount(whole.read(name).labels) / len(whole.read(name))
        found = np.bincount(some.read(name).labels, minlength=10)
        assert found.sum() == 100
        assert np.abs(found - 100 * shares).max() <= 1
    assert some.ref.options == {"limit": 100}
    with pytest.raises(DataError, match="limit=0 is no whole number"):
        open_dataset(DatasetRef(name="digits", options={"limit": 0}))


def test_bundles_have_no_forms(tiny_bundles: dict[tuple[str, str], Path]) -> None:
    with pytest.raises(InputError, match="forms of a profile"):
        verbs.run(bundle=[tiny_bundles["onnx", "fp32"]], form=Form(tiny=True))


# ---------------------------------------------------------------- the whole way


def run(cli: Cli, *arguments: Any) -> tuple[int, Any]:
    code, out, err = cli("run", *arguments, "--json")
    assert out, err
    return code, json.loads(out)


def test_stages_run_one_after_the_other_and_lost_data_take_no_other_with_them(here: Path, cli: Cli) -> None:
    written(STAGES)
    code, found = run(cli, "two.yaml", "--tiny")
    assert code == 1
    states = {cell["stage"]: (cell["state"], cell["reason"]) for cell in found["cells"]}
    assert states["whole"] == ("done", "")
    assert states["lost"][0] == "failed"
    assert "no file nowhere.npz" in states["lost"][1]
    record = next(each for each in found["records"] if each["status"] == "done")
    assert (record["cell"]["mode"], record["cell"]["dataset"]["options"]) == ("tiny", {"limit": 64})
    assert record["model"]["lineage"]["options"]["epochs"] == 1
    [explained] = found["explained"]
    assert (explained["stage"], explained["state"], len(explained["explanation"]["samples"])) == ("whole", "done", 4)
    assert Path(explained["sheet"]).is_file()

    code, again = run(cli, "two.yaml", "--tiny", "--only", "stage=whole", "--target", "cpu")
    assert code == 0
    assert [(cell["stage"], cell["state"]) for cell in again["cells"]] == [("whole", "cached")]
    assert [each["state"] for each in again["explained"]] == ["cached"]

    code, out, _ = cli("run", "two.yaml", "--tiny", "--only", "stage=whole")
    assert (code, "Cells (tiny)" in out, "its figures say nothing of the real thing" in out) == (0, True, True)
    assert "dataset digits,limit=64, target cpu (tiny)" in cli("leaderboard", "results")[1]


def test_only_names_stages_and_what_they_have(here: Path, cli: Cli) -> None:
    written(STAGES)
    for only, words in (("stage=third", "third"), ("model=other", "other")):
        code, _, err = cli("run", "two.yaml", "--dry-run", "--only", only)
        assert (code, words in err) == (2, True)
    code, _, err = cli("run", "two.yaml", "--tiny", "--mode", "strict")
    assert (code, "leave out --mode strict" in err) == (2, True)
    code, out, _ = cli("run", "two.yaml", "--tiny", "--dry-run", "--only", "stage=whole")
    assert (code, "1 of 1 cells to do" in out, "1 explanations of models" in out) == (0, True, True)


# ---------------------------------------------------------------- the list


def test_profiles_say_what_they_want(cli: Cli) -> None:
    load_torchvision()
    import medmnist

    code, out, err = cli("profiles", "medmnist-edge", "xai-pruning", "--json")
    assert code == 0, err
    found = {each["stage"]: each for each in json.loads(out)}
    assert found["pathmnist"]["samples"] == sum(medmnist.INFO["pathmnist"]["n_samples"].values())
    assert found["explained"]["fetch"].startswith("kaggle datasets download")
    assert found["pruned"]["explained"] == []
    assert found["explained"]["explained"] == ["grad-cam", "lime"]
    assert all(each["seconds_estimated"] > 60 for each in found.values())
    code, out, _ = cli("profiles", "xai-pruning")
    assert (code, "takes (estimate)" in out, "Times are estimates" in out) == (0, True, True)


def test_the_estimate_counts_what_torchvision_says_of_its_networks() -> None:
    from torchvision.models import ResNet50_Weights

    from edgebench.run import catalogue as module

    published = ResNet50_Weights.IMAGENET1K_V1.meta["_ops"] * 1e9
    assert module._macs("resnet50", 224, 3) == pytest.approx(published, rel=0.02)
    assert {each.profile for each in catalogue(["digits", "nanoray"])} == {"digits", "nanoray"}


# ---------------------------------------------------------------- tutorials


def commands(page: Path) -> list[list[str]]:
    """Return the commands of a page, without their `edgebench`."""
    blocks = re.findall(r"^```console\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line)[2:] for line in lines if line.startswith("$ edgebench ")]


@pytest.mark.parametrize("name", SEEDS)
def test_a_tutorial_has_its_profile_and_commands_that_the_program_takes(name: str) -> None:
    found = commands(PAGES[name])
    assert ["run", name, "--synthetic", "--tiny"] in found
    program: Any = typer.main.get_command(command_line.app)
    for arguments in found:
        with program.make_context("edgebench", list(arguments)) as context:
            _, command, rest = program.resolve_command(context, list(arguments))
            command.make_context(arguments[0], list(rest)).close()
    assert f"tutorials/{name}.md" in (ROOT / "docs" / "index.md").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore:medmnist.*synthetic:edgebench.errors.DataWarning")
def test_a_tutorials_command_runs_and_again_does_nothing(here: Path, cli: Cli) -> None:
    [arguments] = [each for each in commands(PAGES["medmnist-2d3d"]) if each[-2:] == ["--synthetic", "--tiny"]]
    one = "stage=retina,model=cnn2d,precision=fp32"
    code, found = run(cli, *arguments[1:], "--only", one)
    assert code == 0, found["cells"]
    [record] = found["records"]
    assert record["cell"]["dataset"]["options"]["synthetic"] == "tiny"
    assert record["accuracy"] is not None
    assert [each["method"] for each in found["explained"]] == ["grad-cam"]
    assert "dataset medmnist,synthetic=tiny" in cli("leaderboard", "results")[1]
    code, again = run(cli, *arguments[1:], "--only", one)
    assert (code, [cell["state"] for cell in again["cells"]]) == (0, ["cached"])
