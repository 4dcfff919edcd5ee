"""A profile's goal `explanation_correlation`: what is quantized looks where the model in FP32 looks, on the device."""

from __future__ import annotations

from collections.abc import Sequence

from edgebench.analysis import metrics
from edgebench.errors import EdgebenchError, ExportError, GoalMissed, InputError, StorageError
from edgebench.explain._subjects import deployed
from edgebench.explain._work import explain
from edgebench.run.options import ExplainOptions
from edgebench.run.outcome import CellOutcome
from edgebench.run.plan import CellJob
from edgebench.run.session import Session
from edgebench.schema import Profile

FLOATS = ("fp32", "fp16")
"""Precisions that the parity gate judges value by value."""
REFERENCES = ("onnx", "tflite", "torch")
"""Formats that stand for a model in FP32 where its own format has none, the first ones rather."""
OPTIONS = ExplainOptions(worst=0)


def check(profile: Profile | None) -> None:
    """Refuse a profile whose goal could never be judged, before anything long begins."""
    if profile is None or profile.goals.explanation_correlation is None:
        return
    quantized = [f"{each.format} {one}" for each in profile.variants for one in each.precisions if one not in FLOATS]
    if quantized and not any("fp32" in each.precisions for each in profile.variants):
        raise InputError(
            f"{profile.name}: goals.explanation_correlation compares {quantized[0]} with fp32; add fp32 to precisions"
        )


def held(
    session: Session,
    profile: Profile,
    prepared: Sequence[CellJob | CellOutcome],
    options: ExplainOptions = OPTIONS,
) -> list[CellJob | CellOutcome]:
    """Replace cells whose maps correlate less with FP32's than the profile wants by failed ones, written down with the reason.

    A cell without FP32 beside it on its target fails too: nothing is let through unjudged.
    """
    least = profile.goals.explanation_correlation
    if least is None or session.options.dry_run:
        return list(prepared)
    jobs = [each for each in prepared if isinstance(each, CellJob)]
    found: list[CellJob | CellOutcome] = []
    for each in prepared:
        if isinstance(each, CellOutcome) or each.cell.precision in FLOATS or not metrics.headline(each.bundle.model.task):
            found.append(each)
            continue
        wrong = _wrong(session, each, jobs, least, options)
        found.append(each if wrong is None else session.fail(each.cell, each.bundle.model.role, wrong))
    return found


def _wrong(
    session: Session, job: CellJob, jobs: Sequence[CellJob], least: float, options: ExplainOptions
) -> EdgebenchError | None:
    reference = _reference(job, jobs)
    if reference is None:
        return ExportError(
            f"{job.bundle.name}: no fp32 of this model is prepared on {job.cell.target} to compare its maps with "
            "(explanation_correlation); let the run include fp32"
        )
    chosen = ExplainOptions(**{**vars(options), "min_correlation": least})
    try:
        explain(session, [deployed(session, each) for each in (reference, job)], chosen)
    except GoalMissed as error:
        return ExportError(str(error))
    except (InputError, StorageError):
        raise
    except EdgebenchError as error:
        return error
    return None


def _reference(job: CellJob, jobs: Sequence[CellJob]) -> CellJob | None:
    """Find the same model in FP32 on the same target: in the same format, else in another."""
    order = [job.cell.format, *REFERENCES]
    same = [
        each
        for each in jobs
        if each.cell.precision == "fp32"
        and each.cell.target == job.cell.target
        and each.bundle.model.sha256 == job.bundle.model.sha256
        and each.cell.format in order
    ]
    return min(same, key=lambda each: order.index(each.cell.format), default=None)
