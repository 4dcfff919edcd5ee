"""Whether a record's numbers can be relied on, why not, and what to do. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench.analysis import phone
from edgebench.analysis.processor import REMEDY, SATURATE
from edgebench.analysis.stats import Samples, samples_of
from edgebench.schema import Cell, LatencySummary, Reason, RightOutput, Server, Trial, Verdict, VerdictWord

Conditions = Sequence[Mapping[str, Any]]
STOLEN, WAITED, PRESSED = 0.02, 0.05, 0.10
"""Shares of the samples' time: taken by a hypervisor, spent waiting for a core, and with any task waiting."""
OTHERS = 0.25
"""Cores that others may keep busy: the harness itself needs some of one."""
CLOCK_DROP = 0.10
FIXED = ("performance", "userspace")
"""Governors that do not follow the load."""
BUSY, GPU_BUSY = 0.8, 0.9
"""Cores that the model keeps busy, and share of the GPU's time, from which on a governor raises the clock."""
AWAKE = 0.05
"""Share of a core that a process may use which waits for its turn."""
AGREEMENT = 0.99
IDLE = "run on an idle device"


def judge(
    cell: Cell,
    summary: LatencySummary,
    trials: Sequence[Trial],
    conditions: Conditions,
    min_samples: int,
    host_agreement: float | None,
    server: Server | None = None,
    saturates: bool = False,
) -> Verdict:
    """Return whether the numbers can be relied on, why not, and what to do.

    Dispersion is judged on windows (a tenth of a trial), not on single
    samples: one preempted inference among thousands moves no median. Heat is
    what the mode sustained measures, and waiting what a server's latency is made
    of, so neither counts against them. `saturates`: the bundle's weights assume
    instructions that the processor lacks.
    """
    during = [condition for condition in conditions if condition.get("sampling")]
    invalid = _agreement(host_agreement, saturates) + _swapped(during) + _saving(during)
    invalid += _limits(during, cell.mode == "sustained") + phone.invalid(during, cell.mode == "sustained")
    if cell.mode != "sustained":
        invalid += _throttled(during) + _clocks(during, cell.scenario.kind in ("paced", "server"))
    unstable = _disturbed(during) + phone.unstable(during) + _trials(trials, min_samples)
    unstable += _saturated(host_agreement, saturates)
    if server is not None:
        unstable += _rates(server)
    elif cell.mode != "sustained":
        unstable += _spread(summary, trials)
    word: VerdictWord = "INVALID" if invalid else "UNSTABLE" if unstable else "VALID"
    return Verdict(word=word, reasons=tuple(invalid + unstable))


def with_outputs(verdict: Verdict, outputs: Sequence[RightOutput]) -> Verdict:
    """Judge besides how far outputs are from right ones: 1 is as far as they may be."""
    wrong: list[Reason] = []
    advice = "compare the runtime's version and options with those that the outputs came from, or allow more: --rtol, --atol"
    for each in outputs:
        name, off = each.output, each.off
        if each.reason is not None:
            wrong += _reason(f"output {name} {each.reason}", "give the right outputs of these inputs")
        elif off is not None and off > 1:
            far = f"{each.largest:.3g} at most, {off:.3g} times as far as it may be (element {each.at})"
            wrong += _reason(f"output {name} is off by {far}", advice)
    return verdict.model_copy(update={"word": "INVALID", "reasons": (*wrong, *verdict.reasons)}) if wrong else verdict


def with_wakeful(verdict: Verdict, share: float | None) -> Verdict:
    """Judge besides what a process that took turns did while it waited; `share` of a core, None: it took none."""
    if share is None or share <= AWAKE:
        return verdict
    reason = f"its process used {100 * share:.0f} % of a core while it waited for its turn, beside what was timed"
    wrong = _reason(reason, "give the two fewer threads, or cores of their own: --threads, --affinity")
    word: VerdictWord = "INVALID" if verdict.word == "INVALID" else "UNSTABLE"
    return verdict.model_copy(update={"word": word, "reasons": (*verdict.reasons, *wrong)})


def _reason(reason: str, recommendation: str) -> list[Reason]:
    return [Reason(reason=reason, recommendation=recommendation)]


# ---------------------------------------------------------------- invalid


def _agreement(host_agreement: float | None, saturates: bool) -> list[Reason]:
    if host_agreement is None or host_agreement >= AGREEMENT:
        return []
    found = f"{100 * (1 - host_agreement):.1f} % of the parity samples are decided otherwise than on the host"
    if saturates:
        return _reason(f"{found}: {SATURATE}", REMEDY)
    return _reason(found, "compare the runtime's version with the host's, and export for this target again")


def _saturated(host_agreement: float | None, saturates: bool) -> list[Reason]:
    """Tell of sums that may saturate where the decisions do not show it."""
    if not saturates or (host_agreement is not None and host_agreement < AGREEMENT):
        return []
    return _reason(f"the file assumes other INT8 instructions: {SATURATE}", REMEDY)


def _swapped(during: Conditions) -> list[Reason]:
    swapped = rise(during, "swapped_pages")
    if not swapped:
        return []
    return _reason(
        f"{swapped:.0f} pages were swapped while samples were taken", "free some memory on the device and measure again"
    )


def _throttled(during: Conditions) -> list[Reason]:
    """Find cut clocks: by counters that rose, flags that were set or appeared, and cooling that held them down."""
    events = max(_steps(during, "throttle_events"), _appeared(during, "throttled_since_boot"))
    held = max((condition.get("throttled") or 0 for condition in during), default=0)
    currents = _steps(during, "over_current_events")
    if not events and not held and not currents:
        return []
    counted = f" ({currents:.0f} over-current or under-voltage events)" if currents else ""
    remedy = "cool it" if events or held else "choose a lower power mode"
    return _reason(
        f"the device cut its clocks for heat, current or voltage while samples were taken{counted}",
        f"{remedy}, check its power supply, or use --mode sustained to measure just that",
    )


def _limits(during: Conditions, sustained: bool) -> list[Reason]:
    """Find limits, governors and power modes that changed; limits that heat brought down are what `sustained` measures."""
    found = []
    names = {
        "khz_limit": "the clock's upper limit",
        "gpu_khz_limit": "the upper limit of the GPU's clock",
        "governor": "the governor",
        "power_mode": "the power mode",
    }
    heated = sustained and any(condition.get("throttled") for condition in during)
    for field, name in names.items():
        values = {condition[field] for condition in during if condition.get(field) is not None}
        if len(values) > 1 and not (heated and field.endswith("khz_limit")):
            found += _reason(f"{name} changed while samples were taken", "fix it with `edgebench tune` and measure again")
    return found


def _clocks(during: Conditions, asks_pause: bool) -> list[Reason]:
    """Find a clock that fell by more than a tenth while no governor had a reason to lower it.

    `asks_pause`: whether the scenario leaves the model idle between inferences.
    """
    found: list[Reason] = []
    trials = list(map(_in_time, _trials_of(during)))
    for name, key, steady in (("clock", "khz_real", _busy), ("GPU's clock", "gpu_khz", _gpu_busy)):
        fell = next(filter(None, (_fall(trial, key, steady(trial, asks_pause)) for trial in trials)), None)
        if fell:
            found += _reason(
                f"the {name} moved between {fell[0] / 1e3:.0f} and {fell[1] / 1e3:.0f} MHz while samples were taken",
                "fix the clocks with `edgebench tune apply` and measure again",
            )
    return found


def _fall(trial: Conditions, key: str, steady: Sequence[bool]) -> tuple[float, float] | None:
    """Return the lowest clock of the readings that count and the highest of all, where they lie too far apart."""
    clocks = [condition[key] for condition in trial if condition.get(key)]
    counted = [condition[key] for condition, counts in zip(trial, steady, strict=True) if counts and condition.get(key)]
    if counted and min(counted) < (1 - CLOCK_DROP) * max(clocks):
        return min(counted), max(clocks)
    return None


def _busy(trial: Conditions, asks_pause: bool) -> list[bool]:
    """Tell at which readings the governor, if it goes by load, had a reason to keep the processor's clock up.

    The first reading is of a processor as busy as it is until the second.
    Where nobody knows how busy it was, every reading counts.
    """
    busy = [
        condition.get("governor") in FIXED or (not asks_pause and _share(before, condition) >= BUSY)
        for before, condition in pairwise(trial)
    ]
    return [busy[0] if busy else True, *busy]


def _share(before: Mapping[str, Any], after: Mapping[str, Any]) -> float:
    """Return how many cores the model kept busy between two readings; 1 where nobody knows."""
    if before.get("worker_ns") is None or after.get("worker_ns") is None or after["t_ns"] <= before["t_ns"]:
        return 1.0
    return float(after["worker_ns"] - before["worker_ns"]) / float(after["t_ns"] - before["t_ns"])


def _gpu_busy(trial: Conditions, asks_pause: bool) -> list[bool]:
    """Tell at which readings the GPU had work all the time, or its clock was locked: its governor follows the load."""
    return [
        (condition.get("gpu_load") or 0) >= GPU_BUSY
        or (condition.get("gpu_khz_floor") is not None and condition["gpu_khz_floor"] == condition.get("gpu_khz_limit"))
        for condition in trial
    ]


def _saving(during: Conditions) -> list[Reason]:
    if not any(condition.get("power_profile") == "low-power" or condition.get("low_power") for condition in during):
        return []
    return _reason("the system was saving power", "switch its battery saver off and measure again")


# ---------------------------------------------------------------- unstable


def _disturbed(during: Conditions) -> list[Reason]:
    """Find what others took: a hypervisor, or programs that made the model wait."""
    found = []
    total, stolen = rise(during, "cpu_jiffies"), rise(during, "steal_jiffies")
    if total and stolen / total > STOLEN:
        found += _reason(
            f"{100 * stolen / total:.1f} % of the samples' time was stolen by the hypervisor",
            "run on an idle host or use --mode strict",
        )
    elapsed, waited = rise(during, "t_ns"), rise(during, "worker_wait_ns")
    if elapsed and waited / elapsed > WAITED:
        found += _reason(
            f"the model waited {100 * waited / elapsed:.0f} % of the samples' time for a core that other processes used",
            f"{IDLE}: stop other programs, or keep the model on cores of its own with --affinity",
        )
    pressed, others = rise(during, "cpu_pressure_us") * 1e3, _others(during)
    if elapsed and pressed / elapsed > PRESSED and others > OTHERS:
        found += _reason(
            f"other processes used {others:.1f} cores, and some process waited for one in {100 * pressed / elapsed:.0f} % of the "
            "samples' time",
            f"{IDLE}: stop other programs",
        )
    return found


def _others(during: Conditions) -> float:
    """Return the cores that processes other than the model kept busy.

    Pressure alone does not tell: it counts the model's own threads too. A jiffy is
    10 ms in /proc/stat on every Linux (USER_HZ).
    """
    elapsed = rise(during, "t_ns")
    if not elapsed:
        return 0.0
    busy = rise(during, "cpu_jiffies") - rise(during, "idle_jiffies") - rise(during, "steal_jiffies")
    return max(0.0, (busy * 1e7 - rise(during, "worker_ns")) / elapsed)


def _spread(summary: LatencySummary, trials: Sequence[Trial]) -> list[Reason]:
    found = []
    medians = np.array(summary.trial_medians_ns)
    apart = float(medians.max() / medians.min() - 1)
    if apart > 0.05:
        found += _reason(f"the trials' medians are {100 * apart:.1f} % apart", f"{IDLE} with fixed clocks (`edgebench tune`)")
    windows = np.concatenate([_windows(samples_of(trial)) for trial in trials])
    mean = float(windows.mean())
    scatter = float(windows.std(ddof=1)) / mean if len(windows) > 1 else 0.0
    extreme = float(np.abs(windows - mean).max()) / mean
    if scatter >= 0.1:
        found += _reason(f"the windows' medians scatter by {100 * scatter:.0f} % of their mean", f"{IDLE}: stop other programs")
    elif extreme >= 0.5:
        found += _reason(f"a window's median lies {100 * extreme:.0f} % from the mean", f"{IDLE}: stop other programs")
    return found


def _rates(server: Server) -> list[Reason]:
    rates, found = server.per_second, []
    if not server.held_trials:
        found += _reason(
            f"no rate kept p99 under {server.bound_ns / 1e6:g} ms",
            "raise --bound-ms, or choose a faster model, format or precision",
        )
    elif rates.low is not None and rates.high is not None and rates.high - rates.low > 0.4 * rates.value:
        found += _reason(f"the rate is known to ± {50 * (rates.high - rates.low) / rates.value:.0f} % only", "use --mode strict")
    return found


def _trials(trials: Sequence[Trial], min_samples: int) -> list[Reason]:
    found = []
    unsettled = sum(not trial.settled for trial in trials)
    if unsettled:
        found += _reason(f"the warm-up of {unsettled} of {len(trials)} trials never settled", f"{IDLE} with fixed clocks")
    fewest, what = min((_values(trial) for trial in trials), key=lambda found: found[0])
    if fewest < min_samples:
        found += _reason(
            f"a trial has {fewest} {what}, the mode asks for {min_samples}",
            "the model is slow for this mode: read its tails with care",
        )
    return found


def _values(trial: Trial) -> tuple[int, str]:
    """Count what a trial's quantiles are of: a language model's are of tokens."""
    if trial.answers:
        return sum(each.new_tokens for each in trial.answers), "tokens"
    return len(trial.samples_ns) * trial.calls_per_sample, "samples"


def _windows(samples: Samples) -> NDArray[np.float64]:
    """Return the medians of ten equal parts of a trial."""
    return np.array([float(np.median(part)) for part in np.array_split(samples, min(10, len(samples)))])


# ---------------------------------------------------------------- counters


def _trials_of(conditions: Conditions) -> list[list[Mapping[str, Any]]]:
    found: dict[int, list[Mapping[str, Any]]] = {}
    for condition in conditions:
        found.setdefault(condition["trial"], []).append(condition)
    return list(found.values())


def rise(conditions: Conditions, field: str) -> float:
    """Return how much a counter rose within the trials, all together; 0 where nobody could read it."""
    total = 0.0
    for trial in _trials_of(conditions):
        values = [condition[field] for condition in trial if condition.get(field) is not None]
        total += sum(float(after - before) for before, after in pairwise(values))
    return total


def _steps(conditions: Conditions, field: str) -> float:
    """Count the events within the trials; a counter that was set back, or lost a core's part, hides nothing."""
    return sum((max(0.0, float(after - before)) for before, after in _pairs(conditions, field)), 0.0)


def _appeared(conditions: Conditions, field: str) -> int:
    """Count the flags that were set within the trials: one that was set before is nothing new."""
    return sum(bin(int(after) & ~int(before)).count("1") for before, after in _pairs(conditions, field))


def _pairs(conditions: Conditions, field: str) -> Iterator[tuple[Any, Any]]:
    """Pair each reading of a field with the one before it, within the trials."""
    for trial in _trials_of(conditions):
        yield from pairwise(condition[field] for condition in _in_time(trial) if condition.get(field) is not None)


def _in_time(trial: Conditions) -> Conditions:
    """Order a trial's readings by when they were taken: two threads send them."""
    return sorted(trial, key=lambda condition: condition.get("t_ns") or 0)
