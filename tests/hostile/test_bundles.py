"""Bundles of others, sealed as they are: what does not hold fails their own cell, and the next goes on."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Cli
from test_measure import Bundles

from edgebench.bundle.manifest import list_files, read_bundle, write_manifest


def npz(outputs: Any, **more: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, outputs=outputs, **more)
    return buffer.getvalue()


def bomb() -> bytes:
    """Write a header that promises a terabyte, over nothing."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 36, 10)})
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("outputs.npy", header.getvalue())
    return buffer.getvalue()


PARITY: dict[str, tuple[Callable[[], bytes], str]] = {
    "no archive": (lambda: b"nothing", "not a complete .npz"),
    "objects": (lambda: npz(np.array([{}], object)), "holds Python objects"),
    "text": (lambda: npz(np.array(["a"])), "plain numbers are wanted"),
    "too few": (lambda: npz(np.zeros((3, 10), np.float32)), "parity.npz of the bundle has float32[3, 10] for"),
    "a bomb": (bomb, "says that it has"),
    "no outputs": (lambda: npz(np.zeros(1)).replace(b"outputs", b"inputss"), "no array 'outputs'"),
}


@pytest.mark.parametrize("kind", PARITY)
def test_what_the_host_computed_is_not_taken_at_its_word(here: Path, tiny_bundles: Bundles, cli: Cli, kind: str) -> None:
    make, reason = PARITY[kind]
    shutil.copytree(tiny_bundles["onnx", "fp32"], "theirs")
    Path("theirs/parity.npz").write_bytes(make())
    changed = read_manifest(Path("theirs"))
    write_manifest(Path("theirs"), changed.model_copy(update={"files": list_files(Path("theirs"))}))
    found = outcome(cli, "theirs", tiny_bundles["onnx", "int8"])
    assert [cell["state"] for cell in found["cells"]] == ["failed", "done"]
    assert reason in found["cells"][0]["reason"]


def test_samples_beyond_the_data_set_are_refused(here: Path, tiny_bundles: Bundles, cli: Cli) -> None:
    shutil.copytree(tiny_bundles["onnx", "fp32"], "theirs")
    bundle = read_bundle(Path("theirs"))
    chosen = (*bundle.parity_samples[:-1], 10**9)
    write_manifest(Path("theirs"), bundle.model_copy(update={"parity_samples": chosen}))
    found = outcome(cli, "theirs", tiny_bundles["onnx", "int8"])
    assert [cell["state"] for cell in found["cells"]] == ["failed", "done"]
    assert "samples; export it again" in found["cells"][0]["reason"]


def read_manifest(folder: Path) -> Any:
    """Read a bundle's manifest though its files are no longer those that it lists."""
    from edgebench.schema import Bundle

    return Bundle.model_validate(json.loads((folder / "bundle.json").read_text()))


def outcome(cli: Cli, *bundles: Any) -> Any:
    code, out, err = cli("run", *bundles, "--target", "sleeper.yaml", "--half-width", "50%", "--json")
    assert (code, "Traceback" in err) == (1, False), err
    return json.loads(out)
