"""A language model's answers → times to the first token, rates, exact matches, energy of a token. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgebench.analysis import energy
from edgebench.analysis.stats import eligible, interval, quantile
from edgebench.schema import Answer, Energy, Generation, Interval, Power, Prompts, Spread, Trial, Window

Values = NDArray[np.float64]
NO_FIRST = "the program prints the prefill's time, and no first token's"
NO_TOKENS = "the program does not tell what it generated"
NO_REFERENCE = "no prompt has a reference"


def summarize(trials: Sequence[Trial], asked: Prompts, references: Sequence[str | None] = ()) -> Generation:
    """Summarise trials of a language model; ValueError where a trial has no answers, or they are not whole sweeps.

    Times are taken within each trial, then the median over trials; rates are those times turned over, so that the
    slowest values make their quantiles too.
    """
    whole = all(trial.answers and len(trial.answers) % asked.count == 0 for trial in trials)
    if not trials or not whole:
        raise ValueError(f"a trial has no answers, or no whole sweep of {asked.count} prompts")
    answers = [each for trial in trials for each in trial.answers]
    sweep = answers[: asked.count]
    exact, compared, unmatched = _exact(answers, references)
    unknown = {} if exact is not None else {"exact_match": unmatched}
    if not sweep[0].has_first:
        unknown["first_token_ns"] = NO_FIRST
    if not sweep[0].tokens:
        unknown["same_answers"] = NO_TOKENS
    prefills = [np.array([each.first_ns for each in trial.answers], np.float64) for trial in trials]
    per_token = [np.array([each.first_ns / each.prompt_tokens for each in trial.answers], np.float64) for trial in trials]
    between = [np.array([ns for each in trial.answers for ns in each.token_ns], np.float64) for trial in trials]
    if not all(len(values) and values.min() > 0 for values in between):
        raise ValueError("every answer of a trial ends with its first token: nothing is known of decoding; choose other prompts")
    tails = all(each.tokens_each == 1 for each in answers)
    return Generation(
        prompts=asked.count,
        prompts_sha256=asked.sha256,
        max_new_tokens=asked.max_new_tokens,
        sweeps=len(answers) // asked.count,
        prompt_tokens=sum(each.prompt_tokens for each in sweep),
        new_tokens=sum(each.new_tokens for each in sweep),
        first_token_ns=_spread(prefills) if sweep[0].has_first else None,
        prefill_per_second=_turned(per_token),
        token_ns=_spread(between, tails),
        decode_per_second=_turned(between, tails),
        exact_match=exact,
        references=compared,
        same_answers=_same(answers, asked.count) if sweep[0].tokens else None,
        unknown=unknown,
    )


def _spread(trials: Sequence[Values], tails: bool = True) -> Spread:
    """Return the medians over trials of each trial's median, p90 and p99."""
    smallest = min(map(len, trials))
    found = {
        name: float(np.median([quantile(values, q) for values in trials])) if tails and eligible(smallest, q) else None
        for name, q in (("p90", 0.9), ("p99", 0.99))
    }
    return Spread(median=interval([float(np.median(values)) for values in trials]), count=sum(map(len, trials)), **found)


def _turned(trials: Sequence[Values], tails: bool = True) -> Spread:
    """Return tokens a second of nanoseconds a token: quantiles are those of the slowest."""
    spread = _spread(trials, tails)
    rates = interval([1e9 / float(np.median(values)) for values in trials])
    p90, p99 = (None if each is None else 1e9 / each for each in (spread.p90, spread.p99))
    return Spread(median=rates, p90=p90, p99=p99, count=spread.count)


def _exact(answers: Sequence[Answer], references: Sequence[str | None]) -> tuple[float | None, int, str]:
    """Return the share of references that are answered exactly, how many there are, and why there is no share."""
    texts: dict[int, str] = {}
    for each in answers:
        if each.text is not None:
            texts.setdefault(each.prompt, each.text)
    known = [(index, text) for index, text in enumerate(references) if text is not None]
    if not answers[0].tokens:
        return None, len(known), NO_TOKENS
    if not known:
        return None, 0, NO_REFERENCE
    right = sum(texts.get(index, "").strip() == text.strip() for index, text in known)
    return right / len(known), len(known), ""


def _same(answers: Sequence[Answer], count: int) -> bool:
    """Return whether every sweep gave the first one's tokens: decoding is greedy."""
    return all(tuple(each.tokens) == tuple(answers[each.prompt].tokens) for each in answers[count:])


def token_windows(trials: Sequence[Trial]) -> Iterator[Window]:
    """Count in each window the new tokens instead of the answers."""
    for trial in trials:
        done = 0
        for window in trial.windows:
            within = trial.answers[done : done + window.inferences]
            done += window.inferences
            yield replace(window, inferences=sum(each.new_tokens for each in within))


def with_energy(found: Generation, power: Power, headline: Energy, trials: Sequence[Trial]) -> Generation:
    """Add the energy of a token by the rail that counts, or why there is none."""
    joules, reason = _token_energy(power, headline, list(token_windows(trials)))
    unknown = found.unknown if joules is not None else {**found.unknown, "token_joules": reason}
    return found.model_copy(update={"token_joules": joules, "unknown": unknown})


def _token_energy(power: Power, headline: Energy, windows: Sequence[Window]) -> tuple[Interval | None, str]:
    if headline.joules is None:
        return None, headline.reason or energy.NO_METER
    rail = (headline.meter, headline.rail, headline.counter)
    traces = [trace for trace in power.traces if (trace.meter, trace.rail, trace.counter) == rail]
    found = [energy.measured(power, trace, windows, headline.meter_cost) for trace in traces]
    one = next((each for each in found if each.joules is not None), None)
    return (None, "its readings are not there") if one is None else (one.joules, "")
