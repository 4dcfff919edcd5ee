"""Files for the Edge TPU on a device: the right runtime and library, the stick, and crashes; and real networks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import verbs
from coral import compiler_on_path, export, exporting, library, modules

from edgebench.agent.runtimes import rt_edgetpu, rt_tflite
from edgebench.analysis.metrics import scores_of
from edgebench.bundle.manifest import read_bundle
from edgebench.config import read_dataset, read_target
from edgebench.data import open_images
from edgebench.device import deploy, measure
from edgebench.device import job as job_
from edgebench.device.job import Pass
from edgebench.errors import ExportError
from edgebench.exporters._edgetpu.graph import read
from edgebench.exporters._edgetpu.versions import HIGHEST
from edgebench.run.outcome import ExportResult
from edgebench.schema import MODES, Bundle, Link, Measurement, Scenario

ROOT = Path(__file__).parent.parent
HERE = """
name: desk
description: this computer with a stick
transport: local
accepts: [{format: edgetpu, precisions: [int8], runtime: edgetpu}]
"""
IMAGES = 24
Board = Callable[..., None]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export the network with a part on the processor once."""
    folder = tmp_path_factory.mktemp("bundle")
    with exporting(folder):
        return export("swish", goals={"min_mapped": 0}).folder.resolve()


@pytest.fixture
def board(here: Path, monkeypatch: pytest.MonkeyPatch) -> Board:
    """Make this computer one with a stick: `sticks`, and folders with modules in the order in which Python looks."""
    Path("desk.yaml").write_text(HERE)

    def make(*folders: Path, sticks: int = 1, lib: bool = True) -> None:
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, folders or [modules(here / "site")])))
        monkeypatch.setenv("LD_LIBRARY_PATH", str(library(here / "lib") if lib else here / "no"))
        monkeypatch.setenv("EDGETPU_DOUBLE_STICKS", str(sticks))

    return make


def measured(folder: Path, **options: Any) -> Measurement:
    """Infer some images; the agent is a process of its own, with this one's surroundings."""
    made, device = read_bundle(folder), read_target("desk.yaml")
    images = open_images(read_dataset("digits")).read("test").images[:IMAGES]
    transport = deploy.connect(device, Link(Path("device")))
    deployed = deploy.deploy(device, transport, folder, made, [images])
    cell = job_.cell_job(made, "edgetpu", deployed, [images], Scenario(), options)
    job = job_.job([cell], [Pass("accuracy", batch=1)], MODES["quick"], Scenario())
    [found] = measure.measure(transport, deployed.agent, job, lambda _: None)
    return found


def reason(found: Measurement) -> str:
    assert found.failure is not None
    return found.failure.reason


def facts() -> dict[str, Any]:
    """Ask what a fresh agent knows of the runtime, with what is around it."""
    code = "import json; from edgebench.agent import facts; print(json.dumps(facts.runtimes(['edgetpu'])['edgetpu']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_whole_cell_runs_with_the_hosts_decisions(bundle: Path, board: Board) -> None:
    board()
    [record] = verbs.run(bundle=[bundle], target=["desk.yaml"], scenario={"half_width": 0.5}).records
    assert record.failure is None, record.failure
    assert record.cell.runtime_version == "tflite-runtime 2.5.0.post1, libedgetpu RuntimeVersion(14)"
    assert record.accuracy is not None
    assert record.accuracy.host_agreement == 1.0
    assert record.bundle_details["placement"]["cpu"][0]["operator"] == "HARD_SWISH"


def test_the_device_is_an_option(bundle: Path, board: Board) -> None:
    board()
    assert measured(bundle, device="usb:0").failure is None
    assert "no Edge TPU pci answers (Failed to load delegate" in reason(measured(bundle, device="pci"))
    assert "device 'nvme': give usb, pci" in reason(measured(bundle, device="nvme"))
    assert "rebuilt is true or false, not 'maybe'" in reason(measured(bundle, rebuilt="maybe"))
    assert "edgetpu has no option speed; it has device, rebuilt" in reason(measured(bundle, speed=3))


def test_a_missing_stick_is_one_clear_reason(bundle: Path, board: Board) -> None:
    board(sticks=0)
    assert "no Edge TPU answers (Failed to load delegate from libedgetpu.so.1); plug it in" in reason(measured(bundle))


def test_a_missing_library_or_module_is_told_before_anything_runs(bundle: Path, board: Board, here: Path) -> None:
    board(lib=False)
    assert facts() == {"version": None, "reason": "no library libedgetpu.so.1"}
    [cell] = verbs.run(bundle=[bundle], target=["desk.yaml"], scenario={"half_width": 0.5}).cells
    assert (cell.state, "no library libedgetpu.so.1" in cell.reason) == ("failed", True)
    assert "libedgetpu.so.1 is not installed" in reason(measured(bundle))
    (here / "empty").mkdir()
    board(here / "empty")
    assert facts() == {"version": None, "reason": "no module named 'tflite_runtime'"}
    assert "sudo apt-get install python3-tflite-runtime libedgetpu1-std" in reason(measured(bundle))


def test_apts_runtime_goes_before_the_environments_own(bundle: Path, board: Board, here: Path) -> None:
    own, apts = modules(here / "env" / "site-packages", "2.14.0"), modules(here / "usr" / "dist-packages")
    board(own, apts)
    assert facts()["version"] == "tflite-runtime 2.5.0.post1, libedgetpu RuntimeVersion(14)"
    assert measured(bundle).failure is None
    broken = here / "old" / "dist-packages"
    modules(broken)
    (broken / "tflite_runtime" / "interpreter.py").write_text("raise ImportError('built for another Python')\n")
    board(broken, modules(here / "good"))
    assert measured(bundle).failure is None


def test_a_version_that_crashes_is_refused_unless_the_library_was_rebuilt(bundle: Path, board: Board, here: Path) -> None:
    board(modules(here / "new", "2.14.0"))
    assert "tflite-runtime 2.14.0 crashes with the libedgetpu that Google built" in reason(measured(bundle))
    died = reason(measured(bundle, rebuilt=True))
    assert "killed by SIGABRT: tflite-runtime 2.14.0 was loading libedgetpu.so.1" in died
    assert "2.5.0.post1 and libedgetpu 16.0 do" in died


def test_a_crash_within_the_library_names_the_versions(
    bundle: Path, board: Board, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board(modules(here / "between", "2.8.0"))
    monkeypatch.setenv("EDGETPU_DOUBLE_CRASH", "1")
    assert "killed by SIGABRT: tflite-runtime 2.8.0 was loading libedgetpu.so.1: versions" in reason(measured(bundle))


def test_a_file_without_a_part_for_the_edge_tpu_is_refused(bundle: Path, board: Board, here: Path) -> None:
    board()
    job = {"options": {}, "inputs": [], "outputs": [], "path": str(bundle / "model.tflite")}
    code = "import json, sys; from edgebench.agent.runtimes import rt_edgetpu; job = json.loads(sys.argv[1])\n"
    code += "rt_edgetpu.Runtime(job).load(job['path'], 1)"
    done = subprocess.run([sys.executable, "-c", code, json.dumps(job)], capture_output=True, text=True, check=False, timeout=60)
    assert "model.tflite has no operator for the Edge TPU" in done.stderr


def test_pycoral_is_used_where_it_is_the_right_one(
    bundle: Path, board: Board, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board(modules(here / "both", pycoral=True))
    job = {"options": {}, "inputs": [], "outputs": [], "path": str(bundle / "model_edgetpu.tflite")}
    code = "import json, sys; from edgebench.agent.runtimes import rt_edgetpu; job = json.loads(sys.argv[1])\n"
    code += "rt_edgetpu.Runtime(job).load(job['path'], 1)"
    done = subprocess.run([sys.executable, "-c", code, json.dumps(job)], capture_output=True, text=True, check=True, timeout=60)
    assert "pycoral loads the delegate" in done.stderr
    wrong = here / "wrong"
    (wrong / "pycoral").mkdir(parents=True)
    (wrong / "pycoral" / "__init__.py").write_text("__version__ = '0.2.0'\n")
    board(wrong)
    assert facts()["reason"] == "no module named 'tflite_runtime'; the pycoral here is another package of that name"
    monkeypatch.syspath_prepend(str(wrong))
    assert rt_edgetpu.wrong_pycoral()
    board(wrong, modules(here / "alone"))
    assert measured(bundle).failure is None


# ---------------------------------------------------------------- real networks


REAL: dict[str, Any] = {"format": "edgetpu", "precision": "int8", "dataset": "digits", "target": "coral-dev-board"}


def real(here: Path, monkeypatch: pytest.MonkeyPatch, network: str, size: int) -> ExportResult:
    compiler_on_path(here, monkeypatch)
    return verbs.export(network, size=size, channels=3, calibration={"samples": 16}, **REAL)


def old_python() -> str:
    python = ROOT / "build" / "twins" / "py37" / "bin" / "python"
    if not python.exists():
        pytest.skip(f"no {python.relative_to(ROOT)}: `make twins` makes it")
    return str(python)


def test_the_file_computes_on_tflite_runtime_2_11_what_it_computes_here(bundle: Path, here: Path) -> None:
    noise = np.random.default_rng(0).integers(-128, 128, (12, 16, 16, 1)).astype(np.int8)
    old, new = (outputs(bundle / "model.tflite", noise, here, each, "BUILTIN_REF") for each in (old_python(), sys.executable))
    assert (np.abs(old - new).max() <= 1, np.ptp(new) > 50) == (True, True)


@pytest.mark.slow
def test_a_mobilenet_v2_runs_on_an_old_runtime_as_on_the_host(here: Path, board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain kernels agree; XNNPACK's round otherwise from version to version, which a deep network amplifies."""
    trained = verbs.train("mobilenet_v2", dataset="digits", size=32, channels=3, options={"epochs": 8})
    compiler_on_path(here, monkeypatch)
    result = verbs.export(str(trained), **REAL)
    bundle, path = result.bundle, result.folder / "model.tflite"
    assert (bundle.inputs[0].dtype, bundle.outputs[0].dtype) == ("int8", "int8")
    assert_inline(path.read_bytes())
    assert all(operator.version <= HIGHEST[operator.name] for operator in read(path.read_bytes()).operators)
    placement = bundle.details["placement"]
    assert (placement["operators_share"], placement["macs_share"], placement["macs"]) == (1.0, 1.0, bundle.macs)
    given, expected = digits(result)
    old, new = (outputs(path, given, here, each, "BUILTIN_REF") for each in (old_python(), sys.executable))
    usual = outputs(path, given, here, old_python(), "AUTO")
    print("quanta apart, plain kernels:", np.abs(old - new).max(), "usual ones:", np.abs(usual - expected).max())
    assert (np.abs(old - new).max() <= 1, np.ptp(new) > 50) == (True, True)
    assert np.array_equal(old.argmax(axis=1), new.argmax(axis=1))
    assert np.mean(usual.argmax(axis=1) == expected.argmax(axis=1)) > 0.95
    board()
    found = measured(result.folder).predictions
    assert found is not None
    there = quanta(bundle, scores_of(found.values, found.columns))
    here_too = outputs(path, digits(result, range(IMAGES))[0], here, sys.executable, "AUTO")
    assert np.abs(there - here_too).max() <= 1


def assert_inline(content: bytes) -> None:
    """See that every constant lies within the flatbuffer."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    assert not [buffer for buffer in model.buffers if buffer.offset or buffer.size]
    assert sum(len(buffer.data) for buffer in model.buffers if buffer.data is not None) > 2_000_000


def digits(result: ExportResult, indices: Sequence[int] | None = None) -> tuple[Any, Any]:
    """Quantize samples of the test split, those of the parity check if none are named; their outputs on the host besides."""
    bundle = result.bundle
    images = open_images(read_dataset("digits")).read("test").images[list(indices or bundle.parity_samples)]
    with np.load(result.folder / "parity.npz") as saved:
        expected = quanta(bundle, saved["outputs"])
    data = {"dtype": "uint8", "shape": list(images.shape[1:]), "count": len(images)}
    runtime = rt_tflite.Runtime(
        {"inputs": [{**bundle.inputs[0].model_dump(), "data": data}], "outputs": [bundle.outputs[0].model_dump()]}
    )
    [tensor] = runtime.prepare([images.tobytes()], len(images))
    return tensor, expected


def quanta(bundle: Bundle, scores: Any) -> Any:
    """Turn real scores back into the file's integers."""
    assert bundle.outputs[0].scale is not None
    assert bundle.outputs[0].zero_point is not None
    return np.round(scores / bundle.outputs[0].scale).astype(int) + bundle.outputs[0].zero_point


@pytest.mark.slow
@pytest.mark.parametrize("network", ["resnet18", "mobilenet_v3_small", "efficientnet_b0", "vit_b_16"])
def test_a_network_compiles_or_is_refused_with_operator_and_layer(
    here: Path, monkeypatch: pytest.MonkeyPatch, network: str
) -> None:
    refusals = {
        "mobilenet_v3_small": r"1 % of the operators .* HARD_SWISH at features\.0\.2: Operation not supported",
        "vit_b_16": r"\(LayerNorm\).*SQUARED_DIFFERENCE|\(GELU\).*GELU",
    }
    if network in refusals:
        with pytest.raises(ExportError, match=refusals[network]):
            real(here, monkeypatch, network, 32)
        return
    bundle = real(here, monkeypatch, network, 32).bundle
    assert bundle.details["placement"]["operators_share"] == 1.0


def outputs(path: Path, inputs: Any, folder: Path, python: str, kernels: str) -> Any:
    """Run a TFLite file on int8 inputs [n, h, w, c] with some Python's runtime; integers [n, classes]."""
    given, saved = folder / "inputs.npy", folder / "outputs.npy"
    np.save(given, inputs)
    subprocess.run([python, "-c", RUN, path, given, saved, kernels], check=True, capture_output=True, timeout=300)
    return np.load(saved).astype(int)


RUN = """
import sys
import numpy
try:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType
except ImportError:
    from tflite_runtime.interpreter import Interpreter, OpResolverType
run = Interpreter(model_path=sys.argv[1], experimental_op_resolver_type=getattr(OpResolverType, sys.argv[4]))
run.allocate_tensors()
given, made = run.get_input_details()[0], run.get_output_details()[0]
assert (given["dtype"], made["dtype"]) == (numpy.int8, numpy.int8)
found = []
for image in numpy.load(sys.argv[2]):
    run.set_tensor(given["index"], image[None])
    run.invoke()
    found.append(run.get_tensor(made["index"])[0].copy())
numpy.save(sys.argv[3], numpy.array(found))
"""
