"""What the documents for contributors say: the guide's plugins work as it says, and the files that are named exist."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import top_k_accuracy_score
from test_structure import LEVELS

from edgebench import schema
from edgebench.schema import Record
from edgebench.store import explanations, records

ROOT = Path(__file__).parent.parent
GUIDE = ROOT / ".github" / "CONTRIBUTING.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"\b([Aa]dd|[Ss]ave)\s`([\w.-]+)`:\s+```\w+\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FOLDER = re.compile(r"^\| (A [^|]+) \| `([\w/]+)` \|", re.MULTILINE)
COMMANDS = """
import shlex, sys
import brief
from edgebench.cli import execute

brief.quick(*brief.BRIEF)
for line in sys.stdin:
    print(line, flush=True)
    code = execute(shlex.split(line)[1:], debug=False)
    if code:
        sys.exit(f"{line.strip()}: exit code {code}")
"""
"""Runs every command in one process: torch takes seconds to load."""


def sections() -> dict[str, str]:
    """Return the text of each section, by its heading."""
    parts = re.split(r"^##+ (.*)\n", GUIDE.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def commands(text: str) -> list[str]:
    blocks = [body for language, body in FENCE.findall(text) if language == "console"]
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]


def lay_out(folder: Path) -> None:
    """Copy the packages into a checkout of their own, whose top folder Python can import from."""
    shutil.copytree(ROOT / "edgebench", folder / "edgebench")
    for name in ("exporters", "targets", "profiles"):
        shutil.copytree(ROOT / name, folder / "edgebench" / name)
        (folder / name).symlink_to(folder / "edgebench" / name)


def write_files(folder: Path) -> list[str]:
    """Write the guide's files where it says; returns their paths."""
    folders = dict(FOLDER.findall(GUIDE.read_text()))
    written = []
    for heading, text in sections().items():
        for verb, name, content in FILE.findall(text):
            path = folder / (folders[heading] if verb.lower() == "add" else "") / name
            assert not path.exists(), f"{path}: the guide's example is there already"
            path.write_text(content)
            written.append(path.relative_to(folder).as_posix())
    return written


@dataclass(frozen=True)
class Done:
    """A checkout in which all was done that the guide says."""

    folder: Path
    output: str

    def record(self, **cell: str) -> tuple[Path, Record]:
        """Return the one record whose cell has these values."""
        found = [each for each in records.read_all(self.folder / "results") if cell.items() <= each[1].cell.model_dump().items()]
        [(path, record)] = found
        assert record.failure is None, record.failure
        return path, record

    def model(self, **lineage: object) -> dict[str, object]:
        """Return the one model whose lineage has these values."""
        found = [json.loads(path.read_text()) for path in self.folder.glob(".edgebench/models/*/model.json")]
        [model] = [each for each in found if lineage.items() <= each["lineage"].items()]
        return dict(model)


def test_each_kind_of_plugin_has_a_section_with_a_file_and_commands_that_show_it() -> None:
    folders, text = dict(FOLDER.findall(GUIDE.read_text())), sections()
    assert list(folders) == [
        "A device",
        "A format",
        "A runtime",
        "A power meter",
        "A recipe",
        "A data set",
        "A task",
        "A way to explain",
    ]
    for heading in folders:
        assert [verb for verb, _, _ in FILE.findall(text[heading]) if verb.lower() == "add"], heading
        assert commands(text[heading]), heading
    files = sum(len(FILE.findall(body)) for body in text.values())
    others = [body for language, body in FENCE.findall(GUIDE.read_text()) if language != "console"]
    assert files == len(others), "a code block that is no file of the guide, or a file that the test does not see"


def test_what_the_guide_says_to_add_works_as_it_says(tmp_path: Path) -> None:
    lay_out(tmp_path)
    written = write_files(tmp_path)
    lines = [line for text in sections().values() for line in commands(text)]
    paths = os.pathsep.join((str(tmp_path), str(ROOT / "tests")))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}  # tiny networks on cores that others use
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS],
        cwd=tmp_path,
        env=environment,
        input="".join(f"{line}\n" for line in lines),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(written) == 11
    check(Done(tmp_path, done.stdout))


def check(done: Done) -> None:
    """Look at what each of the guide's plugins has left."""
    assert "The computer on the shelf" in done.output
    shelf = done.record(target="shelf")[1]
    plain = done.record(format="plain-onnx")[1]
    reference = done.record(runtime="onnx-reference")[1]
    for other in (plain, reference):  # the same weights, drawn from the same seed
        assert other.accuracy is not None
        assert shelf.accuracy is not None
        assert other.accuracy.metrics == shelf.accuracy.metrics
    metered, _ = records.read_measurement(*done.record(target="cpu", model="cnn"))
    [trace] = metered.power.traces
    assert (trace.meter, trace.provenance, set(trace.values)) == ("gauge", "wall", {4.2})
    assert len(trace.values) > 3
    smooth = done.model(recipe="smooth")
    assert isinstance(smooth["lineage"], dict)
    assert smooth["lineage"]["options"]["smoothing"] == 0.2
    stripes = done.model(dataset={"name": "stripes", "options": {}})
    assert stripes["classes"] == ["level", "upright"]
    assert isinstance(stripes["metrics"], dict)
    assert stripes["metrics"]["val_accuracy"] > 0.9
    [alone] = (done.folder / "results" / "explanations" / "cpu").glob("cnn.onnx.fp32.alone.*.json")
    assert explanations.read(alone).inferences_per_image == 1 + 1 + 64
    path, two = done.record(model="two")
    measured, labels = records.read_measurement(path, two)
    assert two.accuracy is not None
    assert measured.predictions is not None
    scores = np.frombuffer(measured.predictions.values, "<f4").reshape(-1, 10)
    assert two.accuracy.headline == "top-two"
    assert two.accuracy.metrics["top-two"] == pytest.approx(top_k_accuracy_score(labels, scores, k=2), abs=1e-6)


NAMED = re.compile(r"`((?:[\w.-]+/)*(?:[\w.-]+/|[\w-]+\.(?:py|md|yaml|json|sh)|run))`")
PLACES = ("", "edgebench")


def named(document: Path) -> set[str]:
    """Return every path that a document names in its text, and the targets of its links; not the files that it has one add."""
    text = document.read_text()
    own = {name for _, name, _ in FILE.findall(text)}
    links = {str(document.parent / target) for target in re.findall(r"\]\(([^)#:]+)\)", text)}
    return {*NAMED.findall(FENCE.sub("", text)), *links} - own


@pytest.mark.parametrize("document", [GUIDE, ARCHITECTURE], ids=lambda path: path.name)
def test_every_file_that_a_document_for_contributors_names_exists(document: Path) -> None:
    found = named(document)
    assert len(found) > 15
    assert not [name for name in sorted(found) if not any((ROOT / place / name).exists() for place in PLACES)]


def test_the_architecture_names_every_room_and_every_folder_beside_them() -> None:
    inside = [path for path in (ROOT / "edgebench").iterdir() if not path.name.startswith("_") and path.suffix in ("", ".py")]
    rooms = {path.name + ("/" if path.is_dir() else "") for path in inside}
    rooms |= {"exporters/", "targets/", "profiles/", "results/", "tests/"}
    assert rooms - named(ARCHITECTURE) == set()


def test_the_architecture_gives_the_directions_that_are_tested() -> None:
    levels = [set(line.split()) - {"__version__"} for line in LEVELS.strip().splitlines()]
    [drawn] = re.findall(r"^    (cli → .*\n.*)$", ARCHITECTURE.read_text(), re.MULTILINE)
    assert [set(re.findall(r"\w+", level)) for level in drawn.split("→")] == levels


def test_the_architecture_names_types_that_exist() -> None:
    [types] = re.findall(r"^## Types\n(.*?)^## ", ARCHITECTURE.read_text(), re.MULTILINE | re.DOTALL)
    words = re.findall(r"\*\*(\w+)\*\*", types)
    assert len(words) == 7
    assert not [word for word in words if not hasattr(schema, word)]
