"""Run a bundle on this computer, through the agent as on a device."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgebench.analysis.metrics import scores_of
from edgebench.device import deploy, measure
from edgebench.device import job as job_
from edgebench.errors import ExportError
from edgebench.schema import MODES, Bundle, Link, Measurement, Scenario, Target

Array = NDArray[Any]


def predict(folder: Path, bundle: Bundle, images: Array, target: Target) -> Array:
    """Run a bundle through the agent on this computer; returns float32 scores [n, classes]."""
    [outputs] = predictions(folder, bundle, images, target, [{}])
    return outputs


def predictions(folder: Path, bundle: Bundle, images: Array, target: Target, ways: Sequence[Mapping[str, Any]]) -> list[Array]:
    """Run a bundle that was made here once for each set of runtime options; float32 scores [n, classes] of each."""
    host = target.model_copy(update={"transport": "local", "host": None, "python": None})
    with tempfile.TemporaryDirectory(prefix="edgebench-") as root:
        transport = deploy.connect(host, Link(Path(root)))
        deployed = deploy.deploy(host, transport, folder, bundle, images)
        given = (bundle, bundle.runtime, deployed, images.shape, Scenario())
        cells = [job_.cell_job(*given, options, known=True) for options in ways]
        batch = 4 if bundle.dynamic_batch else 1
        passes = [job_.Pass("accuracy", batch=batch, cell=cell) for cell in range(len(cells))]
        job = job_.job(cells, passes, MODES["quick"], Scenario())
        measured = measure.measure(transport, deployed.agent, job, lambda _: None)
    return [_predicted(bundle, each) for each in measured]


def _predicted(bundle: Bundle, measurement: Measurement) -> Array:
    if measurement.failure is not None or measurement.predictions is None:
        failure = measurement.failure
        reason = f"{failure.stage}: {failure.reason}" if failure else "no predictions"
        raise ExportError(f"{bundle.name}: the exported file does not run: {reason}")
    return scores_of(measurement.predictions.values, measurement.predictions.columns)
