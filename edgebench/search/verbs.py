"""The verbs that try many ways; `edgebench.api` has them beside the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgebench.models.source import SourceOptions
from edgebench.run.options import CompressOptions, MeasureOptions, RunOptions
from edgebench.schema import Progress, Target, no_progress

if TYPE_CHECKING:
    from edgebench.search.compress import Compressed
    from edgebench.search.sweep import Swept


def compress(
    source: str | Path | SourceOptions,
    *,
    dataset: str,
    target: str | Target = "cpu",
    options: CompressOptions = CompressOptions(),
    measure: MeasureOptions = MeasureOptions(),
    run: RunOptions = RunOptions(),
    progress: Progress = no_progress,
) -> Compressed:
    """Search over students, pruning, distillation, quantization and formats what keeps to the limits on a target.

    source: a model folder, or a checkpoint. Every trial is measured there and is a record; the same search again goes on
    where it stopped, however it stopped. Its folder gets the Pareto set and the best as bundles, `compress.json`, and a page.
    `MissingExtra` without Optuna, `TransportError` where the device is lost: the trial that it was lost in is begun again.
    """
    from edgebench.search.compress import compress as search

    given = source if isinstance(source, SourceOptions) else SourceOptions(str(source))
    return search(given, dataset, target, options, measure, run, progress)


def sweep(
    profile: str,
    over: Mapping[str, Sequence[Any]],
    *,
    target: Sequence[str | Target] = (),
    jobs: int = 1,
    only: str | None = None,
    measure: MeasureOptions = MeasureOptions(),
    options: RunOptions = RunOptions(),
    progress: Progress = no_progress,
) -> Swept:
    """Make and measure a profile's models for every combination of recipe options; what is there is not made again.

    over: values by option, which is set of every recipe that has it, or by `model.option`. jobs: models are trained in so
    many processes; measuring stays one cell after the other on each device.
    """
    from edgebench.search.sweep import sweep as spread

    asked: dict[str, Any] = {"target": target, "jobs": jobs, "only": only}
    return spread(profile, over, **asked, measure=measure, options=options, progress=progress)
