"""Every reader of what strangers give, on files that were changed at random: it reads them or refuses them, in its own words.

`make fuzz` goes on for an hour; here each takes a few hundred files.
"""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxfiles
import pytest
import tflitefiles
from factory import make_measurement, make_record
from hypothesis import given
from test_datasets import FUZZ, mutations
from test_tensorrt_doubles import SUMMARY

from edgebench.agent.runtimes import onnxfile, rt_torch
from edgebench.agent.runtimes.programs import Refused
from edgebench.agent.tensorrt import log as tensorrt_log
from edgebench.agent.tensorrt import trtexec_report
from edgebench.bundle import kinds, shapes
from edgebench.bundle.manifest import read_bundle
from edgebench.config import read_fleet, read_profile, read_target
from edgebench.device.bounds import BadEvent
from edgebench.device.events import parsed
from edgebench.errors import EdgebenchError, InputError
from edgebench.exporters._edgetpu import log as edgetpu_log
from edgebench.files import seal
from edgebench.schema import Noise, Scenario
from edgebench.store import noise, records, samples

ROOT = Path(__file__).parent.parent.parent
TINY = ROOT / "tests" / "golden" / "tiny.onnx.fp32"
TRTEXEC = ROOT / "tests" / "doubles" / "tensorrt"
pytestmark = pytest.mark.fuzz
Fuzzed = Callable[[Callable[[], None]], None]


def run(fuzzed: Fuzzed, seeds: list[bytes], read: Callable[[bytes], Any], *errors: type[Exception]) -> None:
    """Give a reader the files as they are, which it reads, and changed: nothing but these errors may come out, in a line each."""
    for seed in seeds:
        read(seed)

    @FUZZ
    @given(mutations(seeds))
    def test(content: bytes) -> None:
        try:
            read(content)
        except errors as error:
            assert "\n" not in str(error), error

    fuzzed(test)


@pytest.mark.parametrize("sealed", [False, True])
def test_records(tmp_path: Path, fuzzed: Fuzzed, sealed: bool) -> None:
    path = tmp_path / "record.json"
    record = seal(make_record().model_dump(mode="json", by_alias=True))

    def read(content: bytes) -> None:
        if sealed:  # as somebody would who knows how
            with contextlib.suppress(ValueError, RecursionError):
                changed = json.loads(content)
                content = json.dumps(seal(changed)).encode() if isinstance(changed, dict) else content
        path.write_bytes(content)
        records.owned(path, records.read_content(path))

    run(fuzzed, [json.dumps(record).encode()], read, EdgebenchError)


def test_samples(fuzzed: Fuzzed) -> None:
    record = make_record()

    def read(content: bytes) -> None:
        try:
            samples.measured(samples.unpack(content), record)
        except Exception as error:  # read_samples names it
            raise EdgebenchError(records.unreadable(error).replace("\n", " ")) from error

    run(fuzzed, [samples.pack(make_measurement(), np.array([0, 1]))], read, EdgebenchError)


def test_noise_files(tmp_path: Path, fuzzed: Fuzzed) -> None:
    path = tmp_path / "noise.json"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        noise.read_noise_file(path)

    found = Noise(
        target="cpu",
        device="0" * 64,
        mode="quick",
        bundle="net",
        bundle_sha256="1" * 64,
        scenario=Scenario(),
        started_at="2026-01-02T03:04:05Z",
        ratios=(1.01, 0.99),
        floor=0.01,
    )
    run(fuzzed, [json.dumps(seal(found.model_dump(mode="json", by_alias=True))).encode()], read, EdgebenchError)


def test_bundle_manifests(tmp_path: Path, fuzzed: Fuzzed) -> None:
    for path in TINY.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())

    def read(content: bytes) -> None:
        (tmp_path / "bundle.json").write_bytes(content)
        read_bundle(tmp_path)

    run(fuzzed, [(TINY / "bundle.json").read_bytes()], read, EdgebenchError)


@pytest.mark.parametrize("kind", ["profile", "target", "fleet"])
def test_yaml_files(tmp_path: Path, fuzzed: Fuzzed, kind: str) -> None:
    path = tmp_path / "theirs.yaml"
    seeds = {
        "profile": [(ROOT / "profiles" / "digits.yaml").read_bytes()],
        "target": [each.read_bytes() for each in sorted((ROOT / "targets").glob("*.yaml"))[:4]],
        "fleet": [b"devices:\n- {target: cpu, name: a}\n- {target: jetson-nano, host: a@b, cache: {mebibytes: 100}}\n"],
    }[kind]

    def read(content: bytes) -> None:
        path.write_bytes(content)
        if kind == "profile":
            read_profile(str(path))
        elif kind == "target":
            read_target(str(path))
        else:
            read_fleet(path)

    run(fuzzed, seeds, read, EdgebenchError)


def test_events(fuzzed: Fuzzed) -> None:
    lines = [
        {
            "event": "samples",
            "name": "trial",
            "trial": 0,
            "cell": 0,
            "ns": [1, 2, 3],
            "begin_ns": 0,
            "end_ns": 9,
            "inferences": 3,
        },
        {"event": "power", "meter": 0, "channel": 0, "t_ns": [1], "values": [1.5]},
    ]

    def read(content: bytes) -> None:
        parsed(content.decode("utf-8", "replace") + "\n")

    run(fuzzed, [json.dumps(line).encode() for line in lines], read, BadEvent)


def test_onnx_graphs(tmp_path: Path, fuzzed: Fuzzed) -> None:
    path = tmp_path / "model.onnx"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        onnxfile.nodes(str(path))

    run(fuzzed, [(TINY / "model.onnx").read_bytes()], read, ValueError)


def test_exported_programs(tiny_bundles: dict[tuple[str, str], Path], fuzzed: Fuzzed) -> None:
    content = next(tiny_bundles["torch", "fp32"].glob("*.pt2")).read_bytes()
    run(fuzzed, [content], rt_torch.cleaned, Refused)


@pytest.fixture
def compiler_log() -> Iterator[bytes]:
    yield (
        b"Edge TPU Compiler version 16.0.384591198\nModel compiled successfully in 12 ms.\n\nInput model: a.tflite\n"
        b"Number of Edge TPU subgraphs: 1\nTotal number of operations: 9\nNumber of operations that will run on Edge TPU: 7\n"
        b"Operator                       Count      Status\n\nCONV_2D                        3          Mapped to Edge TPU\n"
    )


def test_compiler_logs(fuzzed: Fuzzed, compiler_log: bytes) -> None:
    def read(content: bytes) -> None:
        text = content.decode("utf-8", "replace")
        edgetpu_log.parse(text, text)

    run(fuzzed, [compiler_log], read, ValueError)


LAYERS = json.dumps({"Layers": [{"Name": "conv1", "LayerType": "Convolution"}, "relu1"]}).encode()
TIMES = json.dumps([{"startComputeMs": 5.0, "latencyMs": 1.0, "h2dMs": 0.1, "computeMs": 0.8, "d2hMs": 0.1}] * 2).encode()
PRINTED = (SUMMARY % ("", "", "")).encode()
OUTPUTS = json.dumps([{"name": "out", "dimensions": "1x2", "values": [0.5, 1]}]).encode()
TEXTS: dict[str, tuple[bytes, Callable[[str], Any]]] = {
    "layers": (LAYERS, tensorrt_log.layers),
    "entries": (PRINTED, tensorrt_log.entries),
    "node": (b"[E] In node 3 with name: conv and operator: Foo (importFoo): UNSUPPORTED_NODE\n", tensorrt_log.node),
    "allocated": (b"[MemUsageChange] Init CUDA: CPU +1, GPU +0, now: CPU 1, GPU 2 (MiB)\n", tensorrt_log.allocated_bytes),
    "times": (TIMES, trtexec_report.times),
    "summary": (PRINTED, trtexec_report.summary),
    "profile": (json.dumps([{"count": 2}, {"name": "conv", "averageMs": 0.5}]).encode(), trtexec_report.profile),
    "outputs": (OUTPUTS, lambda text: trtexec_report.outputs(text, "out")),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_texts_of_tensorrt(fuzzed: Fuzzed, kind: str) -> None:
    seed, read = TEXTS[kind]
    run(fuzzed, [seed], lambda content: read(content.decode("utf-8", "replace")), ValueError)


SOURCE = b"class Net(Module):\n  def forward(self: __torch__.Net,\n    x: Tensor) -> Tensor:\n    return x\n"
PROGRAM = json.dumps(
    {
        "graph_module": {
            "graph": {"tensor_values": {"x": {"dtype": 7, "sizes": [{"as_int": 1}]}}, "nodes": []},
            "signature": {"input_specs": [{"user_input": {"arg": {"as_tensor": {"name": "x"}}}}], "output_specs": []},
        }
    }
).encode()


def archive(path: Path, members: dict[str, bytes]) -> bytes:
    with zipfile.ZipFile(path, "w") as made:
        for name, content in members.items():
            made.writestr(name, content)
    return path.read_bytes()


def test_model_files(tmp_path: Path, fuzzed: Fuzzed) -> None:
    seeds = [
        onnxfiles.convolution(tmp_path / "a", metadata={"imgsz": "[8, 8]"}).read_bytes(),
        tflitefiles.linear(tmp_path / "b", "float16", "float32").read_bytes(),
        archive(tmp_path / "c", {"net/code/__torch__.py": SOURCE, "net/data.pkl": b"\x80\x02c__torch__\nNet\n)\x81}b."}),
        archive(tmp_path / "d", {"net/models/model.json": PROGRAM}),
    ]
    path = tmp_path / "model"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        shapes.image_size(kinds.read_file(path))

    run(fuzzed, seeds, read, InputError)
