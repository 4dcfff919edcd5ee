"""`edgebench serve` on boards: an engine that is built when it starts, a stick; what is answered is what the record has."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import verbs
from coral import export, exporting, library, modules
from servers import command, digits, png
from tensorrt_board import Board, compiled

from edgebench.store import records

COUNT = 12
TARGET = """
name: board
description: this computer as a board
transport: local
accepts: [{format: FORMAT, precisions: [fp32, int8], runtime: FORMAT, limits: LIMITS}]
"""


def answers_are_the_record_s(folder: Path, work: Path, arguments: Sequence[object] = ()) -> None:
    """Measure a bundle on the board, serve it there, and compare."""
    verbs.run(bundle=[folder], target=["board.yaml"], results=work / "results", work=work / "work")
    [path] = records.record_paths(work / "results")
    predictions = records.read_measurement(path, records.read_record(path))[0].predictions
    assert predictions is not None
    scores = np.frombuffer(predictions.values, "<f4").reshape(predictions.rows, -1)[:COUNT]
    with command(folder, "--threads", 1, *arguments) as (_, client):
        found = [client.post("/predict?return_features=true", png(image)).json["features"] for image in digits(COUNT).images]
    assert (np.array([next(iter(each.values())) for each in found], np.float32) == scores).all()


def test_an_engine_is_built_and_served(
    here: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = '{version: "10.3", opset: 13, explicit: true}'
    Path("board.yaml").write_text(TARGET.replace("FORMAT", "tensorrt").replace("LIMITS", limits))
    given = {"dataset": "digits", "size": 16, "channels": 1, "name": "tiny", "target": "board.yaml"}
    folder = verbs.export("tinynet:net", format="tensorrt", out=here / "bundles", **given).folder
    board = Board(here, compiled(tmp_path_factory.getbasetemp()), monkeypatch)
    board.has("10.3")
    answers_are_the_record_s(folder, here)
    assert list(folder.glob("engine-*.plan"))
    assert board.mistakes() == ""


def test_a_stick_is_served(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with exporting(here):
        folder = export("swish", goals={"min_mapped": 0}).folder.resolve()
    Path("board.yaml").write_text(TARGET.replace("FORMAT", "edgetpu").replace("LIMITS", "{}"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(modules(here / "site"))]))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library(here / "lib")))
    monkeypatch.setenv("EDGETPU_DOUBLE_STICKS", "1")
    answers_are_the_record_s(folder, here)
