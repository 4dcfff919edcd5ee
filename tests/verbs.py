"""The verbs of `edgebench.api`, with each option of their groups by its own name."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from edgebench import api
from edgebench.diagnose.diagnose import Diagnosis
from edgebench.models.source import SourceOptions
from edgebench.quantize.search import Result
from edgebench.run.compare import Suite
from edgebench.run.options import ExportOptions, MeasureOptions, QuantizeOptions, RunOptions
from edgebench.run.outcome import ExportResult, RunResult
from edgebench.schema import Noise


def taken(kind: type[Any], given: dict[str, Any], *first: Any, **renamed: str) -> Any:
    """Take the options of one group out of what was given; renamed: what a field is called there."""
    names = {field.name: renamed.get(field.name, field.name) for field in dataclasses.fields(kind)[len(first) :]}
    return kind(*first, **{name: given.pop(called) for name, called in names.items() if called in given})


def train(architecture: str, **given: Any) -> Path:
    recipe = {name: given.pop(name) for name in ("options", "work") if name in given}
    return api.train(taken(SourceOptions, given, architecture), **recipe, **given)


def export(source: str | Path, **given: Any) -> ExportResult:
    return api.export(taken(SourceOptions, given, str(source)), options=taken(ExportOptions, given), **given)


def quantize(source: str, **given: Any) -> Result:
    groups = {"options": taken(QuantizeOptions, given), "measure": taken(MeasureOptions, given), "run": taken(RunOptions, given)}
    return api.quantize(taken(SourceOptions, given, source), **groups, **given)


def run(*profile: str, **given: Any) -> RunResult:
    measure = taken(MeasureOptions, given, runtime="options")
    return api.run(*profile, measure=measure, options=taken(RunOptions, given), **given)


def compare(first: Path, second: Path, *more: Path, **given: Any) -> Suite:
    given.setdefault("mode", "standard")
    return api.compare(first, second, *more, measure=taken(MeasureOptions, given), options=taken(RunOptions, given), **given)


def noise(*bundle: Path, **given: Any) -> tuple[Path, Noise]:
    given.setdefault("mode", "standard")
    return api.noise(*bundle, measure=taken(MeasureOptions, given), options=taken(RunOptions, given), **given)


def diagnose(bundle: Path, **given: Any) -> Diagnosis:
    measure = taken(MeasureOptions, given, runtime="options")
    return api.diagnose(bundle, measure=measure, options=taken(RunOptions, given), **given)
