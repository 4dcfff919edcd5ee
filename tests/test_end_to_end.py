"""From images and a checkpoint to a number: the accuracy of the exported file is that of the pipeline which trained it.

`EDGEBENCH_CASES=60` draws so many cases; `EDGEBENCH_FIRST_CASE` says from which seed on.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import pipeline
import pytest
from pipeline import Case

from edgebench import api
from edgebench.config import read_devices
from edgebench.device.job import Pass
from edgebench.errors import DataWarning, EdgebenchError, ModelWarning
from edgebench.models.source import SourceOptions
from edgebench.run.options import ExportOptions, MeasureOptions, RunOptions
from edgebench.run.prepare import tie_bundle
from edgebench.run.record import judge
from edgebench.run.session import Session, run_job

CASES, FIRST = int(os.environ.get("EDGEBENCH_CASES", "8")), int(os.environ.get("EDGEBENCH_FIRST_CASE", "0"))


@pytest.fixture(autouse=True)
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder that holds the user's own source."""
    (tmp_path / "theirs.py").write_text(pipeline.SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


def dataset(case: Case, root: Path) -> str:
    """Say of the data what its user knows."""
    options = {
        "resize": case.resize,
        "interpolation": case.interpolation,
        "antialias": str(case.antialias).lower(),
        "background": case.background,
        "exif": "ignore" if case.exif == "ignore" else "apply",
        **({} if "crop" in case.resize else {"size": "x".join(map(str, case.size))}),
        **({"channels": "1"} if case.channels == 1 and case.grey_at == "first" else {}),
        **({"sort": "natural"} if case.order == "natural" else {}),
        **({"classes": str(root / "names.txt")} if case.order == "file" else {}),
    }
    (root / "names.txt").write_text("\n".join(case.classes))
    return f"image-folder:{root}," + ",".join(f"{key}={value}" for key, value in options.items())


def exported(case: Case, root: Path) -> Any:
    """Export the checkpoint with what its user knows of it."""
    head = {"one": "logits"}.get(case.head, case.head)
    source = SourceOptions(
        str(root / "theirs.pth"),
        architecture=f"theirs:{case.head}",
        name=f"case-{case.seed}",
        size=case.size[0],
        channels=case.channels,
        mean=case.mean,
        std=case.std,
        head=head if case.stated else None,
    )
    return api.export(source, format="onnx", dataset=dataset(case, root), options=ExportOptions(root)).folder


def made(case: Case, root: Path) -> tuple[Path | str, float]:
    """Train and export a case; returns the bundle's folder or the refusal, and the right accuracy."""
    pipeline.write(case, root)
    network, right = pipeline.train(case, root)
    pipeline.save(case, network, root / "theirs.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        warnings.simplefilter("ignore", ModelWarning)
        try:
            return exported(case, root), right
        except EdgebenchError as error:
            return str(error), right


def test_an_exported_file_has_the_accuracy_of_the_pipeline_that_trained_it(tmp_path: Path) -> None:
    cases = [pipeline.drawn(seed) for seed in range(FIRST, FIRST + CASES)]
    results = [made(case, tmp_path / str(case.seed)) for case in cases]
    folders = [(case, folder, right) for case, (folder, right) in zip(cases, results, strict=True) if isinstance(folder, Path)]
    [cpu] = read_devices(["cpu"])
    with Session(MeasureOptions(), RunOptions(work=tmp_path), lambda *_: None) as session, warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        subjects = [tie_bundle(session, folder, cpu, None) for _, folder, _ in folders]
        found = run_job(session, subjects, [Pass("accuracy", cell=index) for index in range(len(subjects))], lambda _: None)
        measured = [
            judge(subject, each.predictions)[0].metrics["accuracy"] for subject, each in zip(subjects, found, strict=True)
        ]
    for (case, _, right), accuracy in zip(folders, measured, strict=True):
        assert not case.refused, case
        assert accuracy == pytest.approx(right, abs=1.0001 / pipeline.tested(case)), case
    said = [(case, text) for case, (text, _) in zip(cases, results, strict=True) if isinstance(text, str)]
    for case, text in said:
        assert case.refused and case.refused in text and "\n" not in text, (case, text)
    rights = [right for _, _, right in folders]
    assert min(rights) < 0.99 and max(rights) > 0.6
