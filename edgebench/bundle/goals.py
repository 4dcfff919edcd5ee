"""What a bundle must reach: accuracy, and the share of it that an accelerator takes."""

from __future__ import annotations

from edgebench.analysis import metrics, processor
from edgebench.errors import ExportError
from edgebench.schema import Bundle, Goals, Placement


def check_goals(bundle: Bundle, goals: Goals) -> None:
    """Refuse a file that is less accurate than it must be, or that its accelerator would take too little of.

    Accuracy is the headline metric on the parity samples, of the file as it is
    written and of what this computer's runtime makes of it, where it is the
    target; a bundle that was made without labels has none, and passes.
    """
    _check_mapped(bundle, goals)
    parity = bundle.parity
    if parity is None:
        return
    as_run = parity.as_run
    wrong = _missed(bundle, goals, parity.metric, parity.metric_drop)
    if wrong is not None:
        raise ExportError(
            f"{bundle.name}: {wrong}; use more calibration samples, another --calibration or precision, "
            "or let `edgebench quantize --search` find the nodes that should stay in floating point"
        )
    wrong = None if as_run is None else _missed(bundle, goals, as_run.metric, as_run.metric_drop)
    if wrong is not None and as_run is not None:
        assert parity.metric is not None
        name = metrics.HEADLINE[bundle.model.task]
        why = f": {processor.SATURATE}; {processor.REMEDY}" if as_run.saturates else ""
        raise ExportError(
            f"{bundle.name}: {wrong} as {bundle.runtime} runs it on this processor, "
            f"while the file itself has {name} {100 * parity.metric:.1f} %{why}"
        )


def _missed(bundle: Bundle, goals: Goals, metric: float | None, drop: float | None) -> str | None:
    """Say which goal a metric misses, and by how much; None where it holds all."""
    if metric is None or drop is None:
        return None
    rounding = 1e-9  # 0.9 − 0.89 is more than 0.01
    name, points = metrics.HEADLINE[bundle.model.task], 100 * drop
    if goals.threshold is not None and metric < goals.threshold - rounding:
        return f"{name} {100 * metric:.1f} %, {100 * goals.threshold:.1f} % are wanted (threshold)"
    if bundle.precision in ("fp32", "fp16"):
        return None  # the parity gate has judged these
    if goals.max_degradation is not None and drop > goals.max_degradation + rounding:
        allowed = 100 * goals.max_degradation
        return f"loses {points:.1f} points of {name} against the torch model, {allowed:.1f} are allowed (max_degradation)"
    if goals.percent_max_degradation is not None and 100 * drop > goals.percent_max_degradation * (metric + drop) + rounding:
        share, allowed = 100 * drop / (metric + drop), goals.percent_max_degradation
        return f"loses {share:.1f} % of the torch model's {name}, {allowed:g} are allowed (percent_max_degradation)"
    return None


def _check_mapped(bundle: Bundle, goals: Goals) -> None:
    placement = bundle.placement
    if placement is not None and placement.operators_share < goals.min_mapped:
        raise ExportError(
            f"{bundle.name}: only {100 * placement.operators_share:.0f} % of the operators run on the accelerator, "
            f"{100 * goals.min_mapped:.0f} are wanted (min_mapped); {_stays(placement)}"
        )


def _stays(placement: Placement) -> str:
    """Name the first operators that stay on the processor, with their layers and why."""
    rows = [f"{row.operator} at {row.layer}: {row.status}" for row in placement.cpu]
    return "; ".join(rows[:2]) or "`edgebench diagnose` names the others"
