"""Export one model by hand: what it is, what the target takes, and what the file must keep to."""

from __future__ import annotations

from pathlib import Path

from edgebench.agent import facts
from edgebench.analysis.processor import fitted
from edgebench.bundle.claimed import claimed
from edgebench.bundle.export import Order, accepted, build_bundle, exporter
from edgebench.bundle.goals import check_goals
from edgebench.config import read_dataset, read_target, read_values
from edgebench.data import open_images
from edgebench.errors import InputError
from edgebench.models.source import SourceOptions, open_source
from edgebench.run.options import ExportOptions
from edgebench.run.outcome import ExportResult
from edgebench.schema import CalibrationPlan, Goals, Progress

ACCURACY_GOALS = ("threshold", "max_degradation", "percent_max_degradation")
NO_GOALS = dict.fromkeys(ACCURACY_GOALS)
"""An export by hand is judged by its accuracy only where that is asked for."""


def export_source(
    source: SourceOptions,
    format: str,
    precision: str,
    dataset: str | None,
    target: str,
    options: ExportOptions,
    progress: Progress,
) -> ExportResult:
    """Export a source, see `api.export`; `InputError` where what is asked for does not fit together."""
    exporter(format, precision)
    plan = read_values(CalibrationPlan, options.calibration, "calibration")
    wanted = read_values(Goals, {**NO_GOALS, **options.goals}, "goals")
    if wanted.explanation_correlation is not None:
        raise InputError("export: explanation_correlation is judged beside fp32 on a device; name it in a profile")
    device = read_target(target, trust=source.trust)
    here = facts.environment() if device.transport == "local" else None
    accepts = fitted(accepted(device, format, precision), here)
    data = open_images(read_dataset(dataset)) if dataset else None
    asked = [name for name in ACCURACY_GOALS if getattr(wanted, name) is not None]
    if asked and data is None:
        raise InputError(f"export: {asked[0]} is judged on a data set; give --dataset, or leave it out")
    model, network = open_source(source, data)
    network = claimed(network, data, source.expect_accuracy)
    order = Order(model, network, format, precision, accepts, data, plan, options.dynamic_batch, parity=options.samples)
    folder = Path(options.out) / f"{model.name}.{format}.{precision}"
    bundle, cached = build_bundle(order, device, folder, progress)
    check_goals(bundle, wanted)
    return ExportResult(folder, bundle, cached)
