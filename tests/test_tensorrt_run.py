"""TensorRT on a device: whole cells through the agent, on strict doubles of every version's module, CUDA and trtexec."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import verbs
from conftest import TINY, Cli
from factory import parity_of
from processes import with_environment
from tensorrt_board import NANO, ORIN, PC, RELEASES, Board, compiled

from edgebench.agent.cell import worker
from edgebench.agent.tensorrt import engines
from edgebench.bundle import import_file as import_
from edgebench.bundle.import_file import FileOptions
from edgebench.bundle.manifest import list_files, read_bundle, write_manifest
from edgebench.bundle.predict import output_specs
from edgebench.config import read_target
from edgebench.data import open_dataset
from edgebench.device import deploy, inspect, measure
from edgebench.device import job as job_
from edgebench.device.job import Pass
from edgebench.errors import MeasureError
from edgebench.exporters._tensorrt import plan
from edgebench.schema import Finish, Link, Measurement, ModeSpec, Scenario

BRIEF = ModeSpec(trials=1, min_samples=20, min_seconds=0.2, cap_seconds=0.6, window_seconds=0.05)
WHOLE = (Pass("finish"), Pass("accuracy"), Pass("memory"), Pass("trial"))
IMAGES = 4
TARGET = """
name: board
description: a board with TensorRT
transport: local
python: PYTHON
accepts:
  - format: tensorrt
    precisions: [fp32, fp16, int8]
    runtime: tensorrt
    limits: {version: "VERSION", opset: 13, explicit: EXPLICIT}
    options: OPTIONS
"""
Made = Callable[..., Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Export the tiny network for a version of TensorRT, each once."""
    folder = tmp_path_factory.mktemp("tensorrt")
    (folder / "tinynet.py").write_text(TINY)
    done: dict[tuple[str, str, bool], Path] = {}

    def make(version: str = "10.3", precision: str = "fp32", explicit: bool = True) -> Path:
        if (version, precision, explicit) not in done:
            target = write_target(folder, version, explicit)
            with pytest.MonkeyPatch.context() as patch:
                patch.syspath_prepend(str(folder))
                done[version, precision, explicit] = verbs.export(
                    "tinynet:net",
                    format="tensorrt",
                    precision=precision,
                    target=str(target),
                    dataset="digits",
                    size=16,
                    channels=1,
                    name="tiny",
                    calibration={"samples": 32},
                    out=folder / f"{version}-{explicit}",
                ).folder
        return done[version, precision, explicit]

    return make


def write_target(folder: Path, version: str, explicit: bool = True, python: str = sys.executable, **options: Any) -> Path:
    path = folder / f"board-{version}-{explicit}.yaml"
    text = TARGET.replace("PYTHON", python).replace("VERSION", version).replace("EXPLICIT", str(explicit).lower())
    path.write_text(text.replace("OPTIONS", json.dumps(options)))
    return path


@pytest.fixture
def board(here: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    """Make a device; CUDA must have nothing to complain about at the end."""
    made = Board(here, compiled(tmp_path_factory.getbasetemp()), monkeypatch)
    yield made
    assert made.mistakes() == ""


def images_of(folder: Path) -> Any:
    ref = read_bundle(folder).model.lineage.dataset
    assert ref is not None
    return open_dataset(ref).read("test").images[:IMAGES]


def measured(
    folder: Path, target: Path, passes: Sequence[Pass] = WHOLE, options: Any = (), heard: Any = bool, **scenario: Any
) -> Measurement:
    """Run passes of a bundle on a target, briefly."""
    bundle, device, images = read_bundle(folder), read_target(str(target)), images_of(folder)
    transport = deploy.connect(device, Link(Path("device")))
    deployed = deploy.deploy(device, transport, folder, bundle, [images])
    asked = Scenario(**{"threads": 1, "warmup_seconds": 0.1, **scenario})
    options = {**device.accepts[0].options, **dict(options)}
    cell = job_.cell_job(bundle, "tensorrt", deployed, [images], asked, options)
    [found] = measure.measure(transport, deployed.agent, job_.job([cell], passes, BRIEF, asked), heard)
    return found


def predicted(found: Measurement) -> Any:
    assert found.failure is None, found.failure
    assert found.predictions is not None
    return np.frombuffer(found.predictions.values, "<f4").reshape(found.predictions.rows, -1)


def on_host(folder: Path) -> Any:
    """Return what ONNX Runtime makes of the bundle's file, for the same images."""
    import onnxruntime

    from edgebench.agent.runtimes import preprocess

    bundle = read_bundle(folder)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # as the double
    session = onnxruntime.InferenceSession(folder / bundle.entry, options, providers=["CPUExecutionProvider"])
    inputs = preprocess.apply(images_of(folder), bundle.model.preprocessing.model_dump(mode="json"))
    return np.concatenate([session.run(None, {bundle.inputs[0].name: one[None]})[0] for one in inputs])


@pytest.mark.parametrize(("version", "precision"), [("8.2", "fp16"), ("8.6", "int8"), ("10.3", "int8"), ("11.0", "fp16")])
def test_a_whole_cell_runs_on_every_version(here: Path, made: Made, board: Board, version: str, precision: str) -> None:
    board.has(version)
    folder = made(version, precision)
    found = measured(folder, write_target(here, version))
    assert np.allclose(predicted(found), on_host(folder), atol=1e-5)
    assert found.finish is not None
    assert (found.finish["cached"], found.finish["how"]) == (False, "python")
    assert found.finish["tensorrt"] == RELEASES[version]
    assert found.finish["cuda"].startswith("libcudart, CUDA ")
    kinds = found.finish["layers"]["by_precision"]
    assert kinds.get(precision), kinds
    assert set(found.trials[0].stages) == {"host_to_device", "compute", "device_to_host"}
    assert min(found.trials[0].stages["compute"]) > 0
    assert found.memory["device_bytes"] > 1000


def test_an_engine_that_somebody_brings_runs_as_it_is(
    here: Path, made: Made, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    board.has("10.3")
    folder, target = made("10.3", "fp32"), write_target(here, "10.3")
    measured(folder, target, [Pass("finish")])
    [built] = Path("device").rglob("*.plan")
    described = json.dumps({"task": "classify"}).encode()
    Path("net.engine").write_bytes(len(described).to_bytes(4, "little") + described + built.read_bytes())
    monkeypatch.setattr(plan, "MAGIC", (b"ENGI",))  # the double's engines begin so
    device = read_target(str(target))
    brought = import_.read(FileOptions(Path("net.engine"), shapes={"input": "1x1x16x16"}), device, None, False)
    bundle, _ = import_.bundle_of(brought, Path("brought"), lambda _, draft: draft.outputs)
    one = np.random.default_rng(0).random((1, 1, 1, 16, 16), np.float32)
    [spec] = output_specs(Path("brought"), bundle, [one], device)
    assert (bundle.format, bundle.finish, spec.name, spec.shape) == ("tensorrt", None, "output", (1, 10))


def finished(folder: Path, target: Path, **more: Any) -> dict[str, Any]:
    """Run the finish pass alone, and return the facts."""
    found = measured(folder, target, [Pass("finish")], **more)
    assert found.failure is None, found.failure
    assert found.finish is not None
    return dict(found.finish)


def reason(folder: Path, target: Path, passes: Sequence[Pass] = WHOLE[:1], **more: Any) -> str:
    """Return why a cell failed."""
    found = measured(folder, target, passes, **more)
    assert found.failure is not None
    return f"{found.failure.stage}: {found.failure.reason}"


def varied(folder: Path, name: str, edit: Callable[[Path], object] = bool, options: Any = (), **changes: Any) -> Path:
    """Copy a bundle with other fields, other options of its finish step, or another file."""
    made = Path(name).resolve()
    shutil.copytree(folder, made)
    edit(made)
    bundle = read_bundle(folder)
    assert bundle.finish is not None
    finish = {"options": {**bundle.finish.options, **dict(options)}, **changes.pop("finish", {})}
    write_manifest(made, bundle.model_copy(update={"files": list_files(made), "finish": Finish(**finish), **changes}))
    return made


def plans() -> list[Path]:
    return sorted(Path("device").rglob("engine-*.plan"))


# ---------------------------------------------------------------- the engine: built once, and anew when it must be


def test_an_engine_is_built_once_and_anew_for_another_tensorrt_gpu_or_flag(here: Path, made: Made, board: Board) -> None:
    board.has("10.3")
    folder, target = made("10.3"), write_target(here, "10.3")
    first = finished(folder, target)
    assert (first["cached"], first["gpu"], first["compute_capability"]) == (False, "Orin", "8.7")
    assert (first["engine_bytes"], len(plans())) == (plans()[0].stat().st_size, 1)
    built = plans()[0].stat().st_mtime_ns
    again = finished(folder, target)
    assert (again["cached"], again["layers"], plans()[0].stat().st_mtime_ns) == (True, first["layers"], built)
    board.has("10.3", gpu="Orin:8.7:1:64000")  # the same GPU with more memory
    assert finished(folder, target)["cached"]
    board.has("10.3", gpu=PC)
    assert not finished(folder, target)["cached"]
    board.has("8.6", gpu=PC)
    assert not finished(folder, target)["cached"]
    assert len(plans()) == 3
    other = varied(folder, "other", options={"flags": ["FP16"], "precision": "fp16"})
    assert finished(other, target)["layers"]["by_precision"].get("fp16")
    assert finished(folder, target)["cached"]


@pytest.mark.parametrize("damage", ["cut", "changed", "facts"])
def test_a_damaged_engine_is_built_anew(here: Path, made: Made, board: Board, damage: str) -> None:
    board.has("10.3")
    folder, target = made("10.3"), write_target(here, "10.3")
    finished(folder, target)
    [plan] = plans()
    whole = plan.read_bytes()
    if damage == "facts":
        plan.with_suffix(".json").write_text("{")
    else:
        plan.write_bytes(whole[:1000] if damage == "cut" else whole[:-1] + b"?")
    assert not finished(folder, target)["cached"]
    assert plan.read_bytes() == whole
    plan.unlink()
    assert "no engine for this GPU and TensorRT" in reason(folder, target, [Pass("accuracy")])


def test_an_engine_of_another_version_is_said_and_removed(here: Path, made: Made, board: Board) -> None:
    folder, target = made("10.3"), write_target(here, "10.3")
    board.has("8.6")
    finished(folder, target)
    foreign = plans()[0].read_bytes()
    board.has("10.3")
    finished(folder, target)
    [own] = [path for path in plans() if path.read_bytes() != foreign]
    engines.keep(str(own), foreign, {}, [])
    said = reason(folder, target, [Pass("accuracy")])
    assert "of another TensorRT or GPU" in said
    assert "expecting library version 10.3.0.30 got 8.6.2.3" in said
    assert "run again to build it" in said
    assert measured(folder, target, WHOLE[:2]).failure is None


def test_a_gpu_without_int8_refuses_it_with_the_reason(here: Path, made: Made, board: Board) -> None:
    folder, target = made("8.6", "int8"), write_target(here, "8.6")
    for program in (False, True):
        board.has("8.6", module=not program, program=program, gpu=NANO)
        assert "(NVIDIA Tegra X1, compute capability 5.3) computes no INT8; export fp16" in reason(folder, target)
    assert plans() == []


@pytest.mark.parametrize(("version", "program"), [("8.2", False), ("8.2", True), ("10.3", False), ("10.3", True)])
def test_a_calibration_cache_is_read_and_made_the_version_s_own(
    here: Path, made: Made, board: Board, version: str, program: bool
) -> None:
    board.has(version, module=not program, program=program, gpu=ORIN)
    folder, target = made("8.2", "int8", False), write_target(here, version)
    assert (folder / "calibration.cache").read_bytes().startswith(b"TRT-8200-")
    parity = parity_of(read_bundle(folder))
    assert parity.runtime == "onnxruntime, the cache as Q/DQ pairs"
    assert parity.max_abs > 1e-4  # the float file itself agrees to 1e-7
    assert finished(folder, target)["tensorrt"].startswith(version)
    other = varied(folder, "other", lambda made: (made / "calibration.cache").write_text("1.0 2.0\n"))
    assert "no calibration cache of TensorRT" in reason(other, target)


def test_a_cache_that_is_not_enough_is_no_reason_to_calibrate_with_nothing(here: Path, made: Made, board: Board) -> None:
    board.has("8.2", gpu=ORIN)
    head = "TRT-8200-EntropyCalibration2\n"
    empty = varied(made("8.2", "int8", False), "empty", lambda made: (made / "calibration.cache").write_text(head))
    assert "did not take calibration.cache and asked for images" in reason(empty, write_target(here, "8.2"))


@pytest.mark.parametrize(
    ("bundle", "version", "said"),
    [
        (("8.2", "fp16"), "11.0", "TensorRT 11.0.0.114 has no flag FP16, and the bundle is for 8.2"),
        (("11.0", "fp16"), "8.2", "TensorRT 8.2.1.8 knows no strongly typed networks, and the bundle is for 11.0"),
        (("8.2", "int8", False), "11.0", "TensorRT 11.0.0.114 has no flag INT8, and the bundle is for 8.2"),
    ],
)
def test_a_bundle_for_another_tensorrt_says_what_is_missing(
    here: Path, made: Made, board: Board, bundle: tuple[Any, ...], version: str, said: str
) -> None:
    board.has(version, gpu=PC)
    assert said in reason(made(*bundle), write_target(here, version))
    board.has(version, gpu=PC, module=False, program=True)
    option = {"11.0": "--fp16" if "fp16" in bundle else "--int8", "8.2": "--stronglyTyped"}[version]
    assert f"takes no {option}, and the bundle is for TensorRT {bundle[0]}" in reason(made(*bundle), write_target(here, version))


def newer(made: Path) -> None:
    """Say that a file is of operator set 18."""
    import onnx

    model = onnx.load(made / "model.onnx")
    model.opset_import[0].version = 18
    onnx.save(model, made / "model.onnx")


@pytest.mark.parametrize(("version", "program"), [("8.2", False), ("8.6", True)])
def test_what_the_parser_refuses_is_named_with_its_node(
    here: Path, made: Made, board: Board, version: str, program: bool
) -> None:
    board.has(version, module=not program, program=program)
    said = reason(varied(made("8.2", "fp16"), "newer", newer), write_target(here, version))
    assert said.startswith("finish: ValueError: ")
    assert " at node /0/Conv (Conv): " in said
    assert "the operator set 18 is not supported" in said
    reads = {"8.2": "TensorRT 8.2 reads 13", "8.6": "TensorRT 8.6 reads 17"}[version]
    assert f"the file is of opset 18 and {reads} at most" in said


@pytest.mark.parametrize("program", [False, True])
def test_memory_that_ran_out_is_said(
    here: Path, made: Made, board: Board, monkeypatch: pytest.MonkeyPatch, program: bool
) -> None:
    board.has("10.3", module=not program, program=program)
    monkeypatch.setenv("EDGEBENCH_DOUBLE_FAULT", "oom")
    assert "building the engine: the GPU's memory ran out" in reason(made("10.3"), write_target(here, "10.3"))


def test_a_gpu_that_is_full_is_said_when_the_engine_is_loaded(here: Path, made: Made, board: Board) -> None:
    board.has("10.3", gpu="Orin:8.7:1:1")
    finished(made("10.3"), write_target(here, "10.3"))
    said = reason(made("10.3"), write_target(here, "10.3"), [Pass("accuracy")])
    assert "making the engine's context" in said


def test_no_way_to_the_gpu_is_said_with_the_reason(here: Path, made: Made, board: Board) -> None:
    board.has("10.3", cuda=False)
    folder, target = made("10.3"), write_target(here, "10.3")
    said = reason(folder, target)
    assert "no way to the GPU's memory (ctypes: " in said
    assert reason(folder, target, options={"cuda": "auto"}) == said
    for way in ("opencl", "pycuda"):
        refused = f"option cuda: {way} is not one of auto, ctypes: ctypes is used everywhere now"
        assert refused in reason(folder, target, options={"cuda": way})
    assert "tensorrt has no option cudda; it has trtexec, cuda" in reason(folder, target, options={"cudda": "ctypes"})
    with pytest.raises(MeasureError, match="option finish_timeout: 'long' is no number of seconds"):
        measured(folder, target, options={"finish_timeout": "long"})


def test_an_engine_that_is_not_as_the_bundle_says_is_refused(here: Path, made: Made, board: Board) -> None:
    board.has("10.3")
    folder, target = made("10.3"), write_target(here, "10.3")
    bundle = read_bundle(folder)
    named = varied(folder, "named", outputs=(bundle.outputs[0].model_copy(update={"name": "other"}),))
    assert "the engine's output is ['output'], the bundle's ['other']" in reason(named, target, WHOLE[:2])
    shaped = varied(folder, "shaped", outputs=(bundle.outputs[0].model_copy(update={"shape": (1, 7)}),))
    assert "has the shape (1, 10), the bundle's (1, 7)" in reason(shaped, target, WHOLE[:2])


# ---------------------------------------------------------------- what hangs, and what is killed


def left_running(board: Board) -> dict[int, str]:
    """Find what still runs of this device, this process apart."""
    mine = with_environment({f"EDGEBENCH_DOUBLE_LOG={board.log}".encode()})
    return {pid: command for pid, command in mine.items() if pid != os.getpid()}


def gone(board: Board, seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while left_running(board) and time.monotonic() < end:
        time.sleep(0.05)
    return not left_running(board)


@pytest.mark.parametrize("program", [False, True])
def test_a_build_that_hangs_is_ended_with_all_it_started(
    here: Path, made: Made, board: Board, monkeypatch: pytest.MonkeyPatch, program: bool
) -> None:
    board.has("10.3", module=not program, program=program)
    monkeypatch.setenv("EDGEBENCH_DOUBLE_FAULT", "hang")
    target, seen = write_target(here, "10.3"), list[Any]()
    if program:
        said = reason(made("10.3"), target, heard=seen.append, options={"finish_timeout": 1.5})
    else:
        said = reason(varied(made("10.3"), "hanging", finish={"timeout_seconds": 1.5}), target, heard=seen.append)
    assert "not done after 1.5 s; look at what else runs on the device, or give it more: --option finish_timeout" in said
    assert [event["what"] for event in seen if event["event"] == "progress"] == ["building for this device"] * 2
    assert gone(board), left_running(board)
    assert plans() == []
    board.log.unlink(missing_ok=True)  # a process that is ended gives nothing back
    monkeypatch.delenv("EDGEBENCH_DOUBLE_FAULT")
    finished(made("10.3"), target)
    assert list(Path("device").rglob(".engine-*")) == []


@pytest.mark.parametrize("whom", ["worker", "host"])
def test_trtexec_dies_with_whoever_started_it(
    here: Path, made: Made, board: Board, monkeypatch: pytest.MonkeyPatch, whom: str
) -> None:
    board.has("10.3", module=False, program=True)
    monkeypatch.setenv("EDGEBENCH_DOUBLE_FAULT", "hang")

    class Unreachable(Exception):
        pass

    def heard(event: Any) -> None:
        if event["event"] != "progress":
            return
        running = left_running(board)
        assert any("trtexec" in command and "--onnx" in command for command in running.values())
        if whom == "host":
            raise Unreachable
        [worker] = [pid for pid, command in running.items() if command.endswith(" worker")]
        os.kill(worker, signal.SIGKILL)

    folder, target = made("10.3"), write_target(here, "10.3")
    if whom == "host":
        with pytest.raises(Unreachable):
            measured(folder, target, heard=heard)
    else:
        assert "killed by SIGKILL" in reason(folder, target, heard=heard)
    assert gone(board), left_running(board)


# ---------------------------------------------------------------- trtexec


@pytest.mark.parametrize(("version", "precision"), [("8.2", "fp16"), ("11.0", "fp16")])
def test_a_whole_cell_runs_through_trtexec_alone(here: Path, made: Made, board: Board, version: str, precision: str) -> None:
    board.has(version, module=False, program=True)
    folder = made(version, precision)
    found = measured(folder, write_target(here, version))
    assert np.allclose(predicted(found), on_host(folder), atol=1e-4)
    check_timed_by_trtexec(found, version, precision)
    assert (found.memory["device_bytes"], found.memory["baseline_bytes"]) == (20 << 20, None)
    assert found.memory["peak_bytes"] > 1 << 20
    assert found.memory["method"] == "VmHWM of trtexec"


def test_lines_without_a_time_are_read_as_well(here: Path, made: Made, board: Board) -> None:
    board.has("8.6", module=False, program=True)
    found = measured(made("8.6", "int8"), write_target(here, "8.6"), [Pass("finish"), Pass("trial")])
    check_timed_by_trtexec(found, "8.6", "int8")


def check_timed_by_trtexec(found: Measurement, version: str, precision: str) -> None:
    assert found.failure is None, found.failure
    assert found.finish is not None
    assert (found.finish["how"], found.finish["tensorrt"]) == ("trtexec", RELEASES[version].rpartition(".")[0])
    assert found.finish["layers"]["by_precision"].get(precision)
    [trial] = found.trials
    assert trial.complete
    assert len(trial.samples_ns) >= 20
    assert len(trial.warmup_ns) >= 1
    assert trial.load_ns == (37658200 if version == "8.2" else 49658200)
    parts = [sum(stage) for stage in zip(*trial.stages.values(), strict=True)]
    assert np.allclose(parts, trial.samples_ns, rtol=1e-3)
    assert set(trial.stages["host_to_device"]) == {20000}  # also where transfers must be asked for
    windows = trial.windows
    assert len(windows) > 1
    assert sum(window.inferences for window in windows) == len(trial.samples_ns)
    assert all(before.end_ns == after.begin_ns for before, after in pairwise(windows))
    during = [one for one in found.conditions if one["sampling"]]
    assert during[0]["t_ns"] < windows[0].end_ns  # not only after trtexec has ended
    assert during[0]["worker_ns"] > 0


def test_trtexec_is_used_where_it_is_wished_for_and_refused_where_it_cannot_do_what_is_asked(
    here: Path, made: Made, board: Board
) -> None:
    board.has("10.3", program=True)
    folder, target = made("10.3"), write_target(here, "10.3")
    program = str(here / "programs" / "trtexec")
    assert finished(folder, target)["how"] == "python"
    assert finished(folder, target, options={"trtexec": program})["how"] == "trtexec"
    assert finished(folder, target, options={"trtexec": program})["cached"]
    assert "/nowhere/trtexec is no program" in reason(folder, target, options={"trtexec": "/nowhere/trtexec"})
    assert "prints no version of TensorRT" in reason(folder, target, options={"trtexec": "/bin/true"})
    said = reason(folder, target, [Pass("finish"), Pass("trial")], options={"trtexec": program}, kind="paced", rate=10)
    assert "asks by itself, and knows the scenario single-stream alone" in said


@pytest.mark.parametrize(
    ("fault", "passes", "said"),
    [
        ("disagrees", [Pass("trial")], "trtexec prints a min latency of"),
        ("nan", [Pass("accuracy")], "has no numbers of 'output'"),
        ("killed", [Pass("finish")], "trtexec was killed by SIGKILL"),
        ("no GPU", [Pass("finish")], "looking for the GPU: trtexec was killed by SIGABRT: Cuda failure: no CUDA-capable device"),
    ],
)
def test_what_trtexec_says_is_not_believed_blindly(
    here: Path, made: Made, board: Board, monkeypatch: pytest.MonkeyPatch, fault: str, passes: list[Pass], said: str
) -> None:
    board.has("10.3", module=False, program=True)
    folder, target = made("10.3"), write_target(here, "10.3")
    if passes[0].name != "finish":
        finished(folder, target)
    monkeypatch.setenv("EDGEBENCH_DOUBLE_FAULT", fault)
    assert said in reason(folder, target, passes)


@pytest.mark.parametrize("program", [False, True])
def test_layers_are_timed_one_by_one(here: Path, made: Made, board: Board, program: bool) -> None:
    board.has("10.3", module=not program, program=program)
    found = measured(made("10.3", "int8"), write_target(here, "10.3"), [Pass("finish"), Pass("profile")])
    assert found.failure is None, found.failure
    assert found.profile is not None
    nodes = {node["name"]: node for node in found.profile}
    assert (nodes["/0/Conv"]["op"], nodes["/0/Conv"]["dtype"]) == ("Conv", "int8")
    assert nodes["/2/Relu"]["dtype"] == "fp16"
    assert {node["where"] for node in nodes.values()} == {"GPU"}
    assert all(node["ns"] > 0 for node in nodes.values())


# ---------------------------------------------------------------- records, old Python, what a device has


def test_a_record_holds_the_engine_and_its_stages_and_is_verified(here: Path, made: Made, board: Board, cli: Cli) -> None:
    board.has("10.3")
    folder, target = made("10.3", "int8"), write_target(here, "10.3")
    code, out, err = cli("run", folder, "--target", target, "--half-width", "50%", "--json")
    assert code == 0, err
    [record] = json.loads(out)["records"]
    assert record["finish"]["layers"]["by_precision"]["int8"] == 3
    assert set(record["latency"]["stages_ns"]) == {"host_to_device", "compute", "device_to_host"}
    assert record["memory"]["device_bytes"] > 0
    assert record["cell"]["runtime_version"] == "tensorrt 10.3.0.30"
    [path] = list(Path("results").rglob("*.json"))
    assert path.stat().st_size < 20_000
    code, out, err = cli("verify", "results")
    assert code == 0, err


@pytest.mark.parametrize("program", [False, True])
def test_a_cell_runs_on_the_python_of_a_nano(here: Path, made: Made, board: Board, program: bool) -> None:
    python = Path(__file__).parent.parent / "build" / "twins" / "py36" / "bin" / "python"
    if not python.exists():
        pytest.skip("no build/twins/py36/bin/python: `make twins` makes it")
    board.has("8.2", module=not program, program=program)
    folder = made("8.2", "fp16")
    target = write_target(here, "8.2", python=str(python))
    found = measured(folder, target, [Pass("finish"), Pass("memory"), Pass("trial")] if program else WHOLE)
    assert found.failure is None, found.failure
    assert program or np.allclose(predicted(found), on_host(folder), atol=1e-4)
    assert found.environment["python"].startswith("3.6")
    assert found.trials[0].stages["compute"]
    assert found.memory["device_bytes"]


def test_slow_predictions_are_sent_one_by_one_so_that_the_worker_does_not_count_as_hanging(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[dict[str, Any]] = []
    Path("images").write_bytes(bytes(range(3)))
    data = {"path": "images", "count": 3, "shape": [1], "dtype": "uint8"}
    slow = SimpleNamespace(
        load=int,
        offers=(),
        job={"inputs": [{"name": "input", "data": data}], "samples": 3, "batch": 1},
        prepare=lambda query: query[0][0],
        runtime=SimpleNamespace(infer=lambda tensor: tensor, scores=lambda output: output * 4),
        events=SimpleNamespace(emit=lambda _event, **fields: sent.append(fields)),
    )
    for seconds, rows in ((worker.CHUNK_SECONDS, [3]), (0.0, [1, 1, 1])):
        sent.clear()
        monkeypatch.setattr(worker, "CHUNK_SECONDS", seconds)
        worker.accuracy(slow)  # type: ignore[arg-type]
        assert [event["rows"] for event in sent] == rows
        assert b"".join(base64.b64decode(event["values"]) for event in sent) == b"\0\0\0\0\1\1\1\1\2\2\2\2"


def test_a_device_with_trtexec_alone_has_the_runtime(here: Path, board: Board) -> None:
    def runtime() -> dict[str, Any]:
        device = read_target(str(write_target(here, "8.2")))
        transport = deploy.connect(device, Link(Path("device")))
        found = measure.probe(transport, deploy.deploy_agent(device, transport))["runtimes"]["tensorrt"]
        return dict(found)

    board.has("8.2", module=False)
    assert runtime() == {"version": None, "reason": "no module named 'tensorrt'"}
    board.has("8.2", module=False, program=True)
    assert runtime()["version"] == "trtexec 8.2.1"
    board.has("8.2", program=True)
    assert runtime()["version"] == "tensorrt 8.2.1.8"


def test_what_brings_tensorrt_to_a_device_is_said(here: Path, cli: Cli) -> None:
    runtimes = json.loads(cli("doctor", "--json")[1])["runtimes"]
    [note] = [row["note"] for row in runtimes if row["runtime"] == "tensorrt"]
    assert "sudo apt-get install tensorrt python3-libnvinfer" in note
    assert "pip install 'tensorrt<11', or the version" in note
    assert inspect.install(read_target(str(write_target(here, "8.2"))), "tensorrt") in note
