"""The main job from the command line: train → export → run → leaderboard, interrupted, killed, and fed with nonsense."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import brief
import numpy as np
import pytest
from conftest import Cli
from test_data import write_npz, write_photos
from test_measure import agents

from edgebench.files import seal, write_json
from edgebench.schema import Reason, Verdict
from edgebench.store import records as records_

PROFILE = """
name: small
dataset: {name: %s}
input: {size: 16, channels: 1}
models:
  - {name: teacher, architecture: 'tinynet:net', role: teacher, recipe: train, options: {epochs: 2, batch_size: 64}}
  - {name: student, architecture: 'tinynet:net', role: student, recipe: distill, teacher: teacher, options: {epochs: 1}}
variants:
  - {format: torch, precisions: [fp32]}
  - {format: onnx, precisions: [fp32, int8]}
scenario: {half_width: 0.5}
goals: {max_degradation: 0.5}
"""
Bundles = dict[tuple[str, str], Path]


def run_json(cli: Cli, *arguments: Any) -> Any:
    code, out, err = cli("run", *arguments, "--half-width", "50%", "--json")
    assert code in (0, 1), err
    return json.loads(out)


def test_a_profile_goes_from_training_to_leaderboard_and_is_not_done_twice(here: Path, cli: Cli) -> None:
    alone = "teacher: teacher, variants: [{format: onnx, precisions: [fp32, int8]}],"  # the FP32 of the teacher is torch's
    Path("small.yaml").write_text((PROFILE % "digits").replace("teacher: teacher,", alone))
    code, out, _ = cli("run", "small.yaml", "--dry-run")
    assert code == 0
    ahead = "2 models to train, 5 bundles to export, 5 cells to measure; about "
    assert f"5 of 5 cells to do: {ahead}" in out
    assert not Path("results").exists()
    code, out, err = cli("run", "small.yaml")
    assert (code, "5 of 5 cells have a result" in out) == (0, True), err
    assert f"edgebench: small: {ahead}" in err
    assert re.search(r"^edgebench: train teacher \(about \d+ (s|min) left\)$", err, re.M), err
    assert re.search(r"^edgebench: measure student.onnx.int8 on cpu \(about \d+ s left\)$", err, re.M), err
    code, out, _ = cli("leaderboard", "results", "--out", "results/LEADERBOARD.md")
    assert (code, "5 rows" in out) == (0, True)
    first = Path("results/LEADERBOARD.md").read_bytes()
    assert b"retained" in first
    again = run_json(cli, "small.yaml")
    assert {cell["state"] for cell in again["cells"]} == {"cached"}
    assert cli("run", "small.yaml", "--dry-run")[1].count("cached") == 5
    repeated = run_json(cli, "small.yaml", "--repeat", "--only", "model=student,format=onnx,precision=fp32")
    assert [cell["state"] for cell in repeated["cells"]] == ["done"]
    assert len(list(Path("results").rglob("*.json"))) == 5
    cli("leaderboard", "results", "--out", "results/LEADERBOARD.md")
    assert Path("results/LEADERBOARD.md").read_bytes() != first
    rows = json.loads(cli("leaderboard", "results", "--json")[1])[0]["rows"]
    assert {row["role"] for row in rows} == {"teacher", "student"}
    assert all(row["retained"] is not None and row["peak_bytes"] for row in rows)
    for row in rows:
        reference = row["format"] == "torch" or (row["role"], row["precision"]) == ("student", "fp32")
        assert (row["to_fp32"] is None) == reference
        assert row["role"] != "student" or row["to_teacher"]["samples"] == 360
        if not reference:
            gained, lost = row["to_fp32"]["gained"], row["to_fp32"]["lost"]
            assert row["to_fp32"]["difference"]["value"] == pytest.approx((gained - lost) / 360)
            delta = pytest.approx(row["to_fp32"]["difference"]["value"], abs=1e-5) if row["role"] == "teacher" else None
            assert row["metric_delta"] == delta  # a column of differences to torch's own row
    made = json.loads(cli("models", "--json")[1])
    assert [model["model"] for model in made["models"]] == ["student", "teacher"]


@pytest.mark.parametrize("labels", [1, 4])
def test_a_medmnist_file_goes_the_whole_way(here: Path, cli: Cli, labels: int) -> None:
    path = write_npz(here / "own.npz", labels=labels, shape=(20, 20, 1), count=60)
    data = f"medmnist:{path}"
    options = ("--option", "epochs=2", "--option", "batch_size=16")
    code, out, err = cli("train", "tinynet:net", "--dataset", data, "--name", "net", *options, "--json")
    assert code == 0, err
    folder = json.loads(out)["folder"]
    for precision in ("fp32", "int8"):
        code, out, err = cli("export", folder, "--format", "onnx", "--precision", precision, "--dataset", data)
        assert code == 0, err
    found = run_json(cli, "bundles/net.onnx.fp32", "bundles/net.onnx.int8")
    accuracy = found["records"][0]["accuracy"]
    assert accuracy["samples"] == 60
    assert accuracy["headline"] == ("accuracy" if labels == 1 else "auroc")
    assert found["records"][0]["cell"]["dataset"]["options"]["source"] == str(path)


def test_an_image_folder_goes_the_whole_way(here: Path, cli: Cli) -> None:
    write_photos(here / "photos")
    data = "image-folder:photos,size=24"
    options = ("--option", "epochs=3", "--option", "batch_size=8", "--option", "augment=none")
    code, out, err = cli("train", "tinynet:net", "--dataset", data, "--name", "net", *options, "--json")
    assert code == 0, err
    assert cli("export", json.loads(out)["folder"], "--format", "onnx", "--dataset", data)[0] == 0
    record = run_json(cli, "bundles/net.onnx.fp32")["records"][0]
    assert record["accuracy"]["samples"] == 6
    assert {"accuracy", "auroc", "f1"} == set(record["accuracy"]["metrics"])


# ---------------------------------------------------------------- interrupted and killed


def the_run(bundles: Bundles) -> list[str]:
    """Measure two bundles on the runtime that sleeps."""
    both = map(str, (bundles["onnx", "fp32"], bundles["onnx", "int8"]))
    return ["run", "--half-width", "50%", *both, "--target", "sleeper.yaml"]


def start(bundles: Bundles) -> subprocess.Popen[str]:
    """Start `edgebench run` in a process of its own, which takes seconds: 4 ms an inference."""
    return subprocess.Popen(
        [sys.executable, brief.__file__, *the_run(bundles)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "EDGEBENCH_SLEEP": "0.004"},
    )


def wait_for(condition: Any, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


def records() -> list[Path]:
    return list(Path("results").rglob("*.json"))


def test_ctrl_c_keeps_finished_cells_and_the_next_run_does_the_rest(
    here: Path, cli: Cli, tiny_bundles: Bundles, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start(tiny_bundles)
    wait_for(lambda: len(records()) == 1)
    wait_for(lambda: len(agents(here)) >= 2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "the same command does the rest" in err
    assert "Traceback" not in err
    assert agents(here) == []
    kept = {path: path.read_bytes() for path in records()}
    assert len(kept) == 1
    monkeypatch.setenv("EDGEBENCH_SLEEP", "0.0002")
    code, out, err = cli(*the_run(tiny_bundles), "--json")
    assert code == 0, err
    assert sorted(cell["state"] for cell in json.loads(out)["cells"]) == ["cached", "done"]
    assert all(path.read_bytes() == content for path, content in kept.items())


@pytest.mark.parametrize("victim", ["supervisor", "worker"])
def test_a_killed_agent_fails_its_cell_and_the_others_go_on(
    here: Path, cli: Cli, tiny_bundles: Bundles, monkeypatch: pytest.MonkeyPatch, victim: str
) -> None:
    process = start(tiny_bundles)

    def kill() -> None:
        wait_for(lambda: len(agents(here)) >= 2)
        pids = sorted(agents(here))
        with contextlib.suppress(ProcessLookupError):
            os.kill(pids[0] if victim == "supervisor" else pids[-1], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    out, err = process.communicate(timeout=120)
    thread.join()
    assert process.returncode == 1, err
    found = sorted(json.loads(path.read_text())["status"] for path in records())
    assert found == ["done", "failed"]
    [failed] = [json.loads(path.read_text()) for path in records() if path.name.endswith(".failed.json")]
    assert ("SIGKILL" if victim == "worker" else "ended before it was done") in failed["failure"]["reason"]
    monkeypatch.setenv("EDGEBENCH_SLEEP", "0.0002")
    code, out, err = cli(*the_run(tiny_bundles))
    assert code == 0, err
    assert [json.loads(path.read_text())["status"] for path in records()] == ["done", "done"]
    assert "2 of 2 cells" in out


def test_scores_that_are_not_finite_fail_the_cell(
    here: Path, cli: Cli, tiny_bundles: Bundles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEBENCH_FAULT", "nan")
    code, out, _ = cli("run", tiny_bundles["onnx", "fp32"], "--target", "sleeper.yaml", "--half-width", "50%")
    assert (code, "not finite" in out) == (1, True)
    code, out, _ = cli("leaderboard")
    assert "failed: tiny onnx fp32 (quick): predictions: 360 scores are not finite" in out


def test_a_device_that_decides_otherwise_is_invalid(here: Path, cli: Cli, tiny_bundles: Bundles) -> None:
    """The sleeping runtime always answers class 9, whatever the file says."""
    record = run_json(cli, tiny_bundles["onnx", "fp32"], "--target", "sleeper.yaml")["records"][0]
    assert record["verdict"]["word"] == "INVALID"
    assert "decided otherwise than on the host" in record["verdict"]["reasons"][0]["reason"]


def test_a_model_that_cannot_be_made_fails_its_cells_only(here: Path, cli: Cli) -> None:
    Path("breaks.py").write_text(
        "import tinynet, torch\nclass Untrainable(torch.nn.Identity):\n    def forward(self, x):\n"
        "        if self.training:\n            raise RuntimeError('not to be trained')\n        return x\n"
        "def net(classes, channels, size):\n    return torch.nn.Sequential(tinynet.net(classes, channels, size), Untrainable())\n"
    )
    Path("small.yaml").write_text(
        (PROFILE % "digits")
        .replace("role: student, recipe: distill, teacher: teacher,", "recipe: train,")
        .replace("architecture: 'tinynet:net', recipe: train", "architecture: 'breaks:net', recipe: train")
    )
    code, out, err = cli("run", "small.yaml", "--only", "format=onnx,precision=fp32")
    assert code == 1, err
    assert "1 of 2 cells have a result" in out
    assert "could not be made" in out
    assert "**Failed cells**" in cli("leaderboard", "--out", "L.md")[1] + Path("L.md").read_text()


def test_a_quantized_model_that_loses_too_much_is_a_failed_row(here: Path, cli: Cli) -> None:
    Path("small.yaml").write_text((PROFILE % "digits").replace("max_degradation: 0.5", "max_degradation: 0"))
    from edgebench.bundle.parity import compare

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgebench.bundle.export.compare", lambda *given: compare(*given).model_copy(update={"metric_drop": 0.03}))
        code, out, _ = cli("run", "small.yaml", "--only", "model=teacher,format=onnx")
    assert code == 1
    assert "loses 3.0 points" in " ".join(out.split())


ONE_FAILS = """
name: half
dataset: {name: digits}
input: {size: 16, channels: 1}
models:
  - {name: good, architecture: 'tinynet:net', role: teacher, recipe: train, options: {epochs: 4, learning_rate: 0.01}}
  - {name: poor, architecture: 'tinynet:net', role: baseline, recipe: train, options: {epochs: 1, learning_rate: 1.0e-9}}
variants:
  - {format: onnx, precisions: [fp32]}
scenario: {half_width: 0.5}
goals: {threshold: 0.3}
"""


def make_demo(profile: str) -> subprocess.CompletedProcess[str]:
    """Run `make demo` on another profile, with this Python's edgebench, which measures briefly."""
    if not (make := shutil.which("make")):
        pytest.skip("no make here")
    Path("bin").mkdir()
    Path("bin/edgebench").write_text(f'#!/bin/sh\nexec "{sys.executable}" "{brief.__file__}" "$@"\n')
    Path("bin/edgebench").chmod(0o755)
    given = {"BIN": Path("bin").resolve(), "DEMO": Path("demo").resolve(), "PROFILE": Path(profile).resolve()}
    root = str(Path(__file__).parent.parent)
    command = [make, "-o", ".venv/.demo", "-C", root, "demo", *(f"{name}={value}" for name, value in given.items())]
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    return subprocess.run(command, capture_output=True, text=True, timeout=500, check=False, env=environment)


def test_a_demo_with_a_failed_cell_ends_with_its_table_and_page(here: Path, cli: Cli) -> None:
    Path("half.yaml").write_text(ONE_FAILS)
    done = make_demo("half.yaml")
    assert done.returncode == 2, done.stderr  # make's own, for a step that failed
    assert "Error 1" in done.stderr
    ran, _, shown = done.stdout.partition("LEADERBOARD.md: 1 rows")
    last = ran[ran.index("failed: ") :].splitlines()
    assert last[0].startswith("failed: poor onnx fp32 on cpu: poor.onnx.fp32: accuracy ")
    assert last[0].partition("(threshold)")[1]
    assert last[1].startswith("1 of 2 cells have a result")
    assert last[2].startswith("1 failed; `edgebench results list ")
    assert "failed: poor onnx fp32 (quick): export: poor.onnx.fp32: accuracy" in shown
    assert "report.html: 1 rows, 1 failed cells" in shown
    assert "30.0 % are wanted (threshold)" in Path("demo/report.html").read_text()
    assert "**Failed cells**" in Path("demo/results/LEADERBOARD.md").read_text()
    names = cli("results", "list", "demo/results", "--where", "verdict=failed")[1]
    assert (names.count("failed.json"), "poor" in names) == (1, True)
    Path("half.yaml").write_text(ONE_FAILS.replace("threshold: 0.3", "threshold: 0.01"))
    assert cli("run", "half.yaml", "--work", "demo/work", "--results", "demo/results")[0] == 0
    assert "failed: " not in cli("leaderboard", "demo/results")[1]


def test_a_table_that_is_unstable_says_what_would_help(here: Path, cli: Cli, tiny_bundles: Bundles) -> None:
    given = (tiny_bundles["onnx", "fp32"], "--half-width", "50%")
    assert cli("run", *given)[0] == 0
    [path] = records_.record_paths(Path("results"))
    noisy = Verdict(word="UNSTABLE", reasons=(Reason(reason="7 % was stolen", recommendation="run on an idle host"),))
    record = records_.read_record(path).model_copy(update={"verdict": noisy})
    write_json(path, seal(record.model_dump(mode="json", by_alias=True)))
    told = "The only row is UNSTABLE: a repeat may give another number. Most often: 7 % was stolen (1 of 1). What helps: run on"
    for command in (("run", *given), ("leaderboard",)):
        code, out, err = cli(*command)
        assert (code, out.count(told)) == (0, 1), out + err


def test_a_demo_of_what_cannot_be_read_stops_at_once(here: Path) -> None:
    Path("list.yaml").write_text("- a\n")
    done = make_demo("list.yaml")
    assert (done.returncode, "Error 2" in done.stderr) == (2, True)
    assert "a profile is a mapping" in done.stderr
    assert "leaderboard" not in done.stdout


# ---------------------------------------------------------------- bad input

DIGITS = ("--dataset", "digits", "--size", "16", "--channels", "1")


@pytest.mark.filterwarnings("default::edgebench.errors.DataWarning")
@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("export", "resnt18", "--format", "onnx", *DIGITS), "did you mean 'resnet18'"),
        (("export", "resnet18", "--format", "onx", *DIGITS), "did you mean 'onnx'"),
        (("export", "resnet18", "--format", "onnx", "--precision", "fp61"), "did you mean 'fp16'"),
        (("export", "resnet18", "--format", "onnx", "--target", "cpuu"), "did you mean 'cpu'"),
        (("export", "resnet18", "--format", "onnx", "--precision", "int8"), "int8 needs samples"),
        (("export", "resnet18", "--format", "onnx", "--dataset", "digts"), "did you mean 'digits'"),
        (("export", "short.pt", "--architecture", "resnet18", "--format", "onnx", *DIGITS), "truncated or no checkpoint"),
        (("export", "evil.pt", "--architecture", "resnet18", "--format", "onnx", *DIGITS), "nothing in it was run"),
        (("export", "three.pt", "--architecture", "tinynet:net", "--format", "onnx", *DIGITS), "has 3 classes, 10 are wanted"),
        (("export", "nowhere.pt", "--architecture", "resnet18", "--format", "onnx", *DIGITS), "no such checkpoint"),
        (("export", "tinynet:net", "--format", "torch", *DIGITS, "--out", "a-file"), "a file stands where a folder"),
        (("export", "tinynet:net", "--format", "torch", "--dataset", "image-folder:empty"), "0 class folders"),
        (("export", "tinynet:net", "--format", "torch", "--dataset", "image-folder:photos,size=8"), "not a readable image"),
        (("export", "tinynet:net", "--format", "torch", "--dataset", "medmnist:short.npz"), "not a complete .npz"),
        (("export", "tinynet:net", "--format", "torch", "--dataset", "medmnist:volumes.npz"), "does not take volumes of"),
        (("train", "tinynet:net", "--dataset", "medmnist:volumes.npz"), "does not take volumes of 28 × 28 × 28 × 1"),
        (("train", "tinynet:net", "--dataset", "medmnist:pathmnist,root=."), "its MD5 is"),
        (("train", "tinynet:net", "--option", "epochs"), "not KEY=VALUE, for instance epochs=30"),
        (("train", "tinynet:net", "--option", "epochs=[3"), "--option epochs=[3: the value is no YAML"),
        (("run", "digts"), "did you mean 'digits'"),
        (("run", "key.yaml"), "unknown key 'models.0.recip': did you mean 'recipe'"),
        (("run", "option.yaml"), "did you mean 'epochs'"),
        (("run", "cycle.yaml"), "'student' is its own teacher"),
        (("run", "yaml.yaml"), "not valid YAML"),
        (("run", "list.yaml"), "a profile is a mapping"),
        (("run", "nowhere.yaml"), "cannot be read"),
        (("run", "good.yaml", "--only", "model=techer"), "did you mean 'teacher'"),
        (("run", "good.yaml", "--only", "colour=red"), "is not stage=, model=, format="),
        (("run", "good.yaml", "--target", "cup"), "did you mean 'cpu'"),
        (("run", "changed"), "model.onnx: changed since it was written"),
        (("run", "other", "changed"), "no readable bundle.json"),
        (("run", "good.yaml", "--mode", "fast"), "'fast' is not one of"),
        (("leaderboard", "nowhere"), "no such folder"),
        (("leaderboard", "--sort", "latncy", "."), "did you mean 'latency'"),
        (("leaderboard", "--where", "precision", "."), "--where precision: not name=value"),
        (("frobnicate",), "No such command"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(
    here: Path, cli: Cli, tiny_bundles: Bundles, arguments: tuple[str, ...], reason: str
) -> None:
    lay_out_traps(tiny_bundles)
    code, _, err = cli(*arguments)
    assert code == 2, err
    assert reason in err
    assert "Traceback" not in err
    assert not Path("was-executed").exists()
    lines = [line for line in err.splitlines() if line.startswith("edgebench: ") and reason in line]
    assert len(lines) == 1 or arguments[0] == "frobnicate" or "fast" in arguments


class Evil:
    def __reduce__(self) -> Any:
        return (os.mkdir, ("was-executed",))


def lay_out_traps(bundles: Bundles) -> None:
    """Write one of everything that is wrong."""
    import torch

    torch.save(importlib.import_module("tinynet").net(3, 1, 16).state_dict(), "three.pt")
    Path("short.pt").write_bytes(Path("three.pt").read_bytes()[:1000])
    torch.save(Evil(), "evil.pt")
    Path("a-file").write_text("")
    Path("empty").mkdir()
    write_photos(Path("photos"), ("train", "val", "test"), 2)
    Path("photos/test/cat/1.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a photo")
    Path("short.npz").write_bytes(write_npz(Path("whole.npz")).read_bytes()[:5000])
    write_npz(Path("volumes.npz"), shape=(28, 28, 28))
    write_npz(Path("pathmnist.npz"), classes=9)
    Path("good.yaml").write_text(PROFILE % "digits")
    Path("key.yaml").write_text((PROFILE % "digits").replace("recipe: train", "recip: train"))
    Path("option.yaml").write_text((PROFILE % "digits").replace("{epochs: 1}", "{epoch: 1}"))
    Path("cycle.yaml").write_text((PROFILE % "digits").replace("teacher: teacher", "teacher: student"))
    Path("yaml.yaml").write_text("name: [")
    Path("list.yaml").write_text("- a\n")
    shutil.copytree(bundles["onnx", "fp32"], "changed")
    content = bytearray(Path("changed/model.onnx").read_bytes())
    content[100] ^= 1
    Path("changed/model.onnx").write_bytes(bytes(content))


def test_a_folder_that_may_not_be_written_is_said(here: Path, cli: Cli) -> None:
    Path("locked").mkdir(mode=0o500)
    out = "locked/bundles" if os.geteuid() else "/sys/kernel/edgebench"  # root may write to all but such a folder
    code, _, err = cli("export", "tinynet:net", "--format", "torch", *DIGITS, "--out", out)
    assert (code, "permission denied" in err) == (2, True)


def test_a_disk_that_fills_leaves_no_half_bundle(here: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from edgebench.bundle import manifest

    def full(path: Path, content: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(manifest, "write_json", full)
    code, _, err = cli("export", "tinynet:net", "--format", "torch", *DIGITS)
    assert (code, "the disk is full" in err) == (2, True)
    assert not list(Path("bundles").iterdir())


def test_a_missing_extra_names_the_command_to_run(here: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "litert_torch" else find(name))
    code, _, err = cli("export", "tinynet:net", "--format", "tflite", *DIGITS)
    assert (code, "pip install 'edgebench[tflite]'" in err) == (2, True)
    assert "pip install 'edgebench[tflite]'" in cli("doctor")[1]


def test_a_format_that_is_not_installed_fails_its_cells_only(here: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    Path("small.yaml").write_text(PROFILE % "digits")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnx" else find(name))
    code, out, _ = cli("run", "small.yaml", "--only", "model=teacher", "--target", "sleeper.yaml")
    assert code == 1
    assert "1 of 3 cells have a result" in out
    assert "pip install 'edgebench[torch]'" in " ".join(out.split())


@pytest.mark.smoke
def test_an_option_that_the_runtime_does_not_have_is_refused(here: Path, cli: Cli) -> None:
    source = Path(__file__).parent / "golden" / "tiny.onnx.fp32"
    [record] = run_json(cli, source, "--option", "provider=cuda")["records"]
    assert record["failure"]["reason"] == "ValueError: onnxruntime has no option provider; it has optimization"


def test_a_format_that_another_processor_computes_has_its_own_meters(here: Path, cli: Cli, tiny_bundles: Bundles) -> None:
    (here / "watts.sh").write_text("#!/bin/sh\nwhile echo 5; do sleep 0.02; done\n")
    (here / "watts.sh").chmod(0o755)
    spec = f"[{{name: command, provenance: %s, options: {{arguments: [{here}/watts.sh]}}}}]"
    Path("two.yaml").write_text(
        f"name: two\ndescription: two processors\ntransport: local\nagent_plugins: [rt_sleep.py]\nmeters: {spec % 'board'}\n"
        f"accepts:\n  - {{format: torch, precisions: [fp32], runtime: sleep, meters: {spec % 'soc'}}}\n"
        "  - {format: onnx, precisions: [fp32], runtime: sleep}\n"
    )
    for format, provenance in (("torch", "soc"), ("onnx", "board")):
        [record] = run_json(cli, tiny_bundles[format, "fp32"], "--target", "two.yaml")["records"]
        assert record["energy"]["provenance"] == provenance, record["energy"]


@pytest.mark.smoke
def test_every_table_has_its_json(here: Path, cli: Cli) -> None:
    for command in ("models", "targets", "formats", "doctor"):
        code, out, _ = cli(command, "--json")
        assert code == 0
        assert json.loads(out) is not None
        assert cli(command)[0] == 0


@pytest.mark.smoke
def test_the_core_alone_measures_a_bundle_and_compares(here: Path, cli: Cli) -> None:
    """A bundle that was exported elsewhere needs no torch to be measured."""
    source = Path(__file__).parent / "golden" / "tiny.onnx.fp32"
    record = run_json(cli, source)["records"][0]
    assert record["accuracy"]["host_agreement"] == 1.0
    code, out, _ = cli("leaderboard", "--out", "LEADERBOARD.md")
    assert (code, "1 rows" in out) == (0, True)
    assert "](results/records/cpu/" in Path("LEADERBOARD.md").read_text()
    code, out, _ = cli("leaderboard", "--format", "csv", "--where", "precision=fp32,int8", "--columns", "model,p50")
    assert (code, out.splitlines()[0].split(",")[5:7]) == (0, ["model", "median_ns"])
    assert cli("leaderboard", "--where", "precision=int8", "--out", "none.tex")[1] == "none.tex: 0 rows\n"
    digest = hashlib.sha256(Path("LEADERBOARD.md").read_bytes()).hexdigest()
    assert cli("leaderboard", "--out", "again.md")[0] == 0
    assert hashlib.sha256(Path("again.md").read_bytes()).hexdigest() == digest
    assert np.isfinite(record["latency"]["median_ns"]["value"])
