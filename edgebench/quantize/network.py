"""Quantize a network: whole, or as the search finds it fastest on the target."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgebench import plugins
from edgebench.bundle.claimed import claimed
from edgebench.bundle.export import Order, accepted, exporter
from edgebench.config import read_dataset, read_devices, read_values
from edgebench.data import open_images
from edgebench.errors import InputError
from edgebench.models.source import SourceOptions, open_source
from edgebench.quantize.search import Result, SearchOptions, compare_plain, judge, search
from edgebench.run.options import MeasureOptions, QuantizeOptions, RunOptions
from edgebench.run.session import Session
from edgebench.schema import CalibrationPlan, Exporter, Progress, Target


def quantize_network(
    source: SourceOptions,
    dataset: str | None,
    format: str,
    target: str | Target,
    options: QuantizeOptions,
    measure: MeasureOptions,
    run: RunOptions,
    progress: Progress,
) -> Result:
    """Do what `api.quantize` says with a network; `GoalMissed`, with the result, where the file loses too much."""
    if dataset is None:
        raise InputError("quantize: INT8 needs samples to calibrate on; give --dataset")
    precision = "mixed" if options.search else "int8"
    if (
        options.search
        and plugins.declared(plugins.load("edgebench.exporters", format, "format"), "mixer", Exporter.mixer) is None
    ):
        raise InputError(f"quantize --search mixes precisions within onnx files, not within {format}; give --format onnx")
    exporter(format, precision)
    if options.by not in ("block", "node"):
        raise InputError(f"quantize searches by block or by node, not by {options.by}")
    plan = read_values(CalibrationPlan, options.calibration, "calibration")
    [device] = read_devices([target], run.trust or source.trust)
    accepts = accepted(device, format, precision)
    data = open_images(read_dataset(dataset))
    model, network = open_source(source, data)
    network = claimed(network, data, source.expect_accuracy)
    order = Order(model, network, format, precision, accepts, data, plan)
    folder = Path(options.out) / f"{model.name}.{format}.{precision}"
    with Session(measure, replace(run, trust=run.trust or source.trust), progress) as session:
        if not options.search:
            return judge(compare_plain(session, order, device, folder), options.max_degradation)
        least = SearchOptions.max_degradation if options.max_degradation is None else options.max_degradation
        wanted = SearchOptions(options.by, least, options.minutes, options.samples)
        return judge(search(session, order, device, wanted, folder), least)
