"""What the benchmarks share: a bundle to measure, cells made from it, and pairs of cells run in turn."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from edgebench import ExportOptions, MeasureOptions, RunOptions, SourceOptions, api
from edgebench.analysis import stats
from edgebench.config import read_target
from edgebench.run.interleave import Plan, interleaved, take_turns
from edgebench.run.plan import CellJob
from edgebench.run.prepare import tie_bundle
from edgebench.run.session import Session, run_job
from edgebench.schema import Comparison, Measurement, ModeSpec, Scenario, Trial, TurnSpec

DOUBLES = Path(__file__).parent.parent / "doubles"
TARGET = """
name: bench
description: this computer, with the doubles of the tests
transport: local
agent_plugins: [PLUGINS]
accepts:
  - {format: onnx, precisions: [fp32, int8], runtime: onnxruntime}
  - {format: tflite, precisions: [fp32, int8], runtime: tflite}
"""
TINY = "benchnet:net"
"""A network of some kilobytes, which stays in a core's own cache."""
SOURCE = """
import torch

def net(classes, channels, size):
    return torch.nn.Sequential(
        torch.nn.Conv2d(channels, 16, 3, stride=2), torch.nn.ReLU(), torch.nn.Conv2d(16, 16, 3, stride=2), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(16, classes))
"""
REDUCED = ModeSpec(trials=5, min_samples=64, min_seconds=0.7, cap_seconds=10, window_seconds=0.1, adaptive=False)
"""The mode standard, reduced: as many trials, each 0.7 s instead of 10 s, stopped by the counts alone."""


TAKEN = TurnSpec(pairs=6, turns=4, cap_seconds=10, seconds=0.06)
"""A comparison in turn, reduced to about nine seconds: the pairs and turns of the mode quick, each turn shorter."""
FEWER = ModeSpec(trials=5, min_samples=20, min_seconds=0.3, cap_seconds=2, window_seconds=0.06, adaptive=False)
"""Trials for a comparison trial by trial that samples each side about as long."""
UNWARMED = Scenario(threads=1, warmup_seconds=0.05)


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Start a benchmark's command line."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


@contextmanager
def workplace() -> Iterator[Path]:
    """Give a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="edgebench-bench-") as folder:
        yield Path(folder)


def bundle(folder: Path, architecture: str = "mobilenet_v3_small", size: int = 64, format: str = "onnx") -> Path:
    """Export a network with random weights, on digits."""
    if architecture == TINY:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "benchnet.py").write_text(SOURCE)
        sys.path.insert(0, str(folder))
    source, there = SourceOptions(architecture, size=size, channels=1, name="net"), ExportOptions(folder / f"{format}-{size}")
    return api.export(source, format=format, dataset="digits", options=there).folder


def session(folder: Path, spec: ModeSpec = REDUCED, taken: TurnSpec = TAKEN) -> Session:
    """Start a session whose mode is `spec`, and in which comparisons are as `taken` says."""

    class Reduced(Session):
        @property
        def spec(self) -> ModeSpec:
            return spec

        @property
        def turns(self) -> TurnSpec:
            return taken

    return Reduced(MeasureOptions("standard"), RunOptions(folder / "results", folder / "work"), lambda *_: None)


def subject(opened: Session, made: Path, scenario: Scenario | None = None, runtime: str | None = None) -> CellJob:
    """Tie a bundle to this computer, with another runtime where one is named."""
    path = opened.options.work.parent / "bench.yaml"
    doubles = sorted(DOUBLES.glob("rt_*.py"))
    for double in doubles:
        (path.parent / double.name).write_bytes(double.read_bytes())
    path.write_text(TARGET.replace("PLUGINS", ", ".join(double.name for double in doubles)))
    found = tie_bundle(opened, made, read_target(str(path), trust=True), None)
    changes = {"scenario": scenario or Scenario(threads=1)} | ({"runtime": runtime} if runtime else {})
    return dataclasses.replace(found, cell=found.cell.model_copy(update=changes))


def pairs(opened: Session, first: CellJob, second: CellJob, comparisons: int) -> list[tuple[list[Trial], list[Trial]]]:
    """Run so many comparisons, each its trials A B B A; stops the benchmark where a cell fails."""
    trials, found = opened.spec.trials, []
    for index in range(comparisons):
        one, other = checked(run_job(opened, [first, second], interleaved(2, trials), lambda _: None))
        found.append((list(one.trials), list(other.trials)))
        progress(f"comparison {index + 1} of {comparisons}")
    return found


def in_turn(opened: Session, first: CellJob, second: CellJob) -> Comparison:
    """Compare two cells window by window; stops the benchmark where they cannot, or one fails."""
    taken = take_turns(opened, [first, second], Plan(opened.turns, opened.spec.trials), "compare")
    if taken.why_by_trial:
        sys.exit(taken.why_by_trial)
    return taken.compare(0, 1, None)


def by_trial(pair: tuple[list[Trial], list[Trial]]) -> Comparison:
    """Compare two cells whose trials alternated."""
    return stats.compare(*map(stats.medians, pair), paired=True, floor=None)


def share(found: Sequence[Comparison], *words: str) -> str:
    """Say how many comparisons ended with these words."""
    count = sum(each.word in words for each in found)
    return f"{count} of {len(found)}" + (f" ({100 * count / len(found):.0f} %)" if found else "")


def checked(found: Sequence[Measurement]) -> Sequence[Measurement]:
    """End the benchmark where a measurement failed."""
    for measurement in found:
        if measurement.failure is not None:
            sys.exit(f"{measurement.failure.stage}: {measurement.failure.reason}")
    return found


def progress(text: str) -> None:
    """Show on standard error how far it is."""
    print(f"\r{text} ", end="", file=sys.stderr, flush=True)
