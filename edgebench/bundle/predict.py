"""Run a bundle on this computer, through the agent as on a device."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgebench.bundle.samples import Array
from edgebench.device import deploy, measure
from edgebench.device import job as job_
from edgebench.errors import ExportError
from edgebench.schema import MODES, Bundle, Link, Measurement, Scenario, Target, TensorSpec


def predict(folder: Path, bundle: Bundle, samples: Sequence[Array], target: Target) -> list[Array]:
    """Run a bundle through the agent on this computer; returns an array [n, …] for each of its outputs."""
    [outputs] = predictions(folder, bundle, samples, target, [{}])
    return outputs


def predictions(
    folder: Path, bundle: Bundle, samples: Sequence[Array], target: Target, ways: Sequence[Mapping[str, Any]]
) -> list[list[Array]]:
    """Run a bundle that was made here once for each set of runtime options.

    samples: for each input an array [n, …], as `samples.samples` makes them. Returns for each way float32 arrays
    [n, …], one for each output; a batch that is fixed above 1 stands in the first dimension too.
    """
    host = target.model_copy(update={"transport": "local", "host": None, "python": None})
    with tempfile.TemporaryDirectory(prefix="edgebench-") as root:
        transport = deploy.connect(host, Link(Path(root)))
        deployed = deploy.deploy(host, transport, folder, bundle, samples)
        given = (bundle, bundle.runtime, deployed, samples, Scenario())
        cells = [job_.cell_job(*given, options, known=True, scored=bundle.outputs) for options in ways]
        batch = 4 if bundle.dynamic_batch and len(bundle.inputs) == len(bundle.outputs) == 1 else 1
        passes = [job_.Pass("accuracy", batch=batch, cell=cell) for cell in range(len(cells))]
        job = job_.job(cells, passes, MODES["quick"], Scenario())
        measured = measure.measure(transport, deployed.agent, job, lambda _: None)
    return [_predicted(bundle, each) for each in measured]


def _predicted(bundle: Bundle, measurement: Measurement) -> list[Array]:
    found = measurement.predictions
    if measurement.failure is not None or found is None:
        failure = measurement.failure
        reason = f"{failure.stage}: {failure.reason}" if failure else "no predictions"
        raise ExportError(f"{bundle.name}: the exported file does not run: {reason}")
    return split(np.frombuffer(found.values, "<f4").reshape(found.rows, -1), bundle.outputs)


def split(rows: Array, outputs: Sequence[TensorSpec]) -> list[Array]:
    """Cut samples' values [n, all of them] into an array for each output: [n, …], without a first dimension of 1."""
    ends = np.cumsum([math.prod(each.shape) for each in outputs])[:-1]
    shapes = [each.shape[1:] if each.shape[:1] == (1,) else each.shape for each in outputs]
    return [part.reshape(len(rows), *shape) for part, shape in zip(np.split(rows, ends, axis=1), shapes, strict=True)]
