"""What is found as done: keys of bundles and cells do not change with the names of fields."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgebench import plugins
from edgebench.bundle.export import Order, limits_of, order_key
from edgebench.bundle.manifest import read_bundle
from edgebench.schema import Accepts, Cell, DatasetRef, Limits, Network, Scenario, Subset
from edgebench.store.key import KEYED, KEYED_SCENARIO, cell_key

GIVEN: dict[str, Any] = {
    "model": "net",
    "format": "onnx",
    "precision": "int8",
    "bundle_sha256": "b",
    "dataset": DatasetRef(name="digits"),
    "evaluation_sha256": "e",
    "target": "cpu",
    "device": "d",
    "runtime": "onnxruntime",
    "runtime_version": "1.31.1",
    "scenario": Scenario(),
    "mode": "quick",
    "method": 2,
}
SERVER = {"kind": "server", "bound_ms": 5.0, "threads": 2, "affinity": [0, 1]}


@pytest.mark.parametrize("name", ["half_width", "precision"])
def test_cells_keep_the_keys_that_earlier_versions_gave_them(name: str) -> None:
    """The two hashes were computed by the version that hashed whole cells, where `half_width` was called `precision`."""
    assert cell_key(Cell(**GIVEN)) == "e4afe3e4441be33de24eda2c0ebfebb8b52a4aa42f5a9ef93929d268b6184992"
    scenario = Scenario.model_validate({**SERVER, name: 0.05})
    assert scenario.half_width == 0.05
    cell = Cell(**{**GIVEN, "scenario": scenario}, options={"optimization": "none"})
    assert cell_key(cell) == "59a0776733f02a4a7f564c3a826ef5dd8944b72d4f0f897b9068045cf3daf779"


def test_whoever_adds_a_field_decides_whether_it_is_part_of_keys() -> None:
    assert set(Cell.model_fields) == {*KEYED, "scenario", "options", "subset"}
    assert set(Scenario.model_fields) == set(KEYED_SCENARIO)


@pytest.mark.parametrize("field", [*KEYED, "options", "subset"])
def test_each_field_of_a_cell_changes_its_key(field: str) -> None:
    other = {
        "dataset": DatasetRef(name="other"),
        "mode": "strict",
        "method": 1,
        "options": {"a": 1},
        "subset": Subset(samples=5),
    }.get(field, "another")
    assert cell_key(Cell(**{**GIVEN, field: other})) != cell_key(Cell(**GIVEN))


# ---------------------------------------------------------------- bundles

TINY = read_bundle(Path(__file__).parent / "golden" / "tiny.onnx.fp32")
EVERY: dict[str, Any] = {"opset": None, "ir": None, "activations": "int8", "per_channel": True}
STYLE: dict[str, Any] = {"opset": 17, "ir": 10, "activations": "uint8", "per_channel": True, "weight_bits": 7}
CACHED: dict[str, Any] = {"version": "8.5", "opset": 17, "ir": 8, "activations": "int8", "symmetric": True, "explicit": False}
CORAL: dict[str, Any] = {"version": "14", "operators": {"*": 0, "CONV_2D": 5}}
BUNDLES = [
    ("torch", "fp32", {}, "4597b6bc185141ae2c07e085b57cc1093556992c1d86494f14a42303b264003b"),
    ("onnx", "int8", STYLE, "f14cb3528fc50a3d0d5cd3f69ea292b103e7f4aac5665c346c9b31055450e99d"),
    (
        *("onnx", "fp32", {"opset": "13", "symmetric": True, "quantized": ["Conv"], "per_channel": False}),
        "462e2ad8f5bad0686ec592f227c1d2e2a1a8c75bd340937873e3703fa8ae9b3f",
    ),
    ("tflite", "fp32", {}, "7036fc37959a6697ffa66479810abe6923b34e6e582311b15bfb31a59902c206"),
    (
        *("tflite", "int8", {"operators": {"*": 1, "CONV_2D": 5}}),
        "3b9f41923ea66f287f2a75b368b472fa40912932d0cf896eb7c435ef3405a2c8",
    ),
    ("edgetpu", "int8", CORAL, "e22668b1fc6fdff7469e0cdb0e66940756fa68dcfe8672b65ec5c4234844c9c3"),
    ("tensorrt", "int8", CACHED, "2ddfa1455bbb6976959a54ed1b420d6c0e9b58e5b8fb2e8f59c8a556506ab822"),
    (
        *("coreml", "fp16", {"version": "macOS13", "input": "tensor"}),
        "146df8df4d0e04e41fc5acd40b9f36d885cf76c41ba73d7ffa67240ab47da8be",
    ),
]
"""Format, precision, limits, and the key that the version gave whose limits of all formats were one type."""


def never() -> Network:
    raise AssertionError("a key wants no network")


@pytest.mark.parametrize(("format", "precision", "limits", "key"), BUNDLES)
def test_bundles_keep_the_keys_that_earlier_versions_gave_them(
    monkeypatch: pytest.MonkeyPatch, format: str, precision: str, limits: dict[str, Any], key: str
) -> None:
    plugin = plugins.load("edgebench.exporters", format, "format")
    for module, _ in plugin.REQUIRES:
        pytest.importorskip(module)
    monkeypatch.setattr(plugin, "tools", lambda: {"tool": "1"})
    accepts = Accepts(format=format, precisions=(precision,), runtime="any", limits=limits)
    assert order_key(Order(TINY.model, never, format, precision, accepts, None)) == key
    written = limits_of(accepts, precision).model_dump(mode="json")
    again = accepts.model_copy(update={"limits": written})
    assert order_key(Order(TINY.model, never, format, precision, again, None)) == key


LATER = ("genai", "gguf")
"""Formats that came when others' limits were no longer written with each: theirs are empty."""


@pytest.mark.parametrize("format", sorted({*plugins.names("edgebench.exporters")} - {*LATER}))
def test_limits_are_written_where_they_are_given_and_read_back(format: str) -> None:
    kind: type[Limits] = plugins.load("edgebench.exporters", format, "format").Limits
    assert kind().model_dump(mode="json") == EVERY
    given: dict[str, Any] = {
        "operators": {"ADD": 2},
        "version": "14",
        "weight_bits": "auto",
        "explicit": False,
        "input": "tensor",
    }
    limits = kind(**{name: value for name, value in given.items() if name in kind.model_fields})
    assert limits.model_dump() == {**EVERY, **{name: given[name] for name in given if name in kind.model_fields}}
    assert kind.model_validate_json(limits.model_dump_json()) == limits


@pytest.mark.parametrize("format", LATER)
def test_a_format_that_has_no_limits_writes_none(format: str) -> None:
    assert plugins.load("edgebench.exporters", format, "format").Limits().model_dump(mode="json") == {}


def test_a_format_that_comes_later_writes_its_own_limits_alone() -> None:
    class Later(Limits):
        width: int = 8

    assert Later().model_dump() == {}
    assert Later(width=4).model_dump() == {"width": 4}
