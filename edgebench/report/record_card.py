"""One record as people read it: what was measured, whether it can be relied on, and everything that bears on it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgebench.report.columns import mebibytes, milliseconds, percent
from edgebench.schema import Energy, FewSamples, Interval, LatencySummary, Model, Paired, Record, Spread

NOT_JUDGED = "no data set given"


@dataclass(frozen=True)
class Section:
    """A heading, and lines of what is what; what there is nothing of is left out."""

    title: str
    lines: tuple[tuple[str, str], ...]


def title(record: Record) -> str:
    """Name the cell, and say in one word what became of it."""
    cell = record.cell
    word = record.verdict.word if record.verdict else record.status
    return f"{cell.model} {cell.format} {cell.precision} on {cell.target}, mode {cell.mode}: {word}"


def reasons(record: Record) -> list[str]:
    """Say why a verdict is what it is, or why the cell failed, and what to do."""
    found = [f"{each.reason}; {each.recommendation}" for each in (record.verdict.reasons if record.verdict else ())]
    if record.failure is not None:
        advice = f"; {record.failure.recommendation}" if record.failure.recommendation else ""
        found.append(f"{record.failed_stage}: {record.failure.reason}{advice}")
    return found


def sections(record: Record) -> list[Section]:
    """Describe a record for people."""
    parts: list[tuple[str, Iterator[tuple[str, str | None]]]] = [
        ("cell", _cell(record)),
        ("generation", _generation(record)),
        ("latency" if record.generation is None else "mean latency of an answer", _latency(record)),
        ("warnings", ((each.kind.replace("-", " "), each.text) for each in record.warnings)),
        ("accuracy", _accuracy(record)),
        ("right outputs", _right_outputs(record)),
        ("memory", _memory(record)),
        ("energy", _energy(record.energy)),
        *((f"energy of {rail.rail}", _energy(rail)) for rail in record.rails),
        ("model", _model(record, record.model)),
        ("bundle", _bundle(record)),
        ("environment", _facts({**record.environment, **{f"clock {name}": value for name, value in record.clock.items()}})),
        ("tools", _facts(record.tools)),
        ("samples", _samples(record)),
    ]
    made = [Section(heading, tuple((what, text) for what, text in lines if text)) for heading, lines in parts]
    return [section for section in made if section.lines]


def _right_outputs(record: Record) -> Iterator[tuple[str, str | None]]:
    for each in record.right_outputs:
        yield each.output, each.reason or f"off by {each.largest:.3g} at most, {each.off:.3g} of what is allowed"


def _cell(record: Record) -> Iterator[tuple[str, str | None]]:
    cell = record.cell
    yield "data set", str(cell.dataset) if cell.dataset else "none given"
    yield "target", cell.target
    yield "device", cell.device
    yield "runtime", record.ran_by
    asked = _text(cell.scenario.model_dump(mode="json", exclude_defaults=True, exclude={"kind"}))
    yield "scenario", cell.scenario.kind + (f", {asked}" if asked else "")
    yield "method", str(cell.method)
    yield "measured", f"{record.started_at}, in {record.seconds:.0f} s"
    yield "key", record.key
    yield "evaluation split", cell.evaluation_sha256
    if cell.subset is not None:
        yield "subset", f"{cell.subset.samples} samples of the test split, each class in its share, seed {cell.subset.seed}"


def _generation(record: Record) -> Iterator[tuple[str, str | None]]:
    """Describe a language model's answers."""
    found = record.generation
    if found is None:
        return
    asked = "random tokens" if found.prompts_sha256 is None else f"sha256 {found.prompts_sha256}"
    yield "prompts", f"{found.prompts}, {found.prompt_tokens} tokens; {asked}"
    yield "answers", f"{found.new_tokens} tokens a sweep, {found.max_new_tokens} an answer at most; {found.sweeps} sweeps"
    for name, spread in (("first token", found.first_token_ns), ("token to token", found.token_ns)):
        yield (
            name,
            None if spread is None else f"{_between(spread.median, milliseconds, 'ms')}{_tails(spread, milliseconds, 'ms')}",
        )
    for name, rate in (("prefill", found.prefill_per_second), ("decode", found.decode_per_second)):
        yield name, f"{_between(rate.median, _rate, 'tokens a second')}{_tails(rate, _rate, 'tokens a second')}"
    if found.token_joules is not None:
        yield "energy of a token", _between(found.token_joules, lambda joules: f"{joules * 1e3:.3g}", "mJ")
    if found.exact_match is not None:
        yield "exact match", f"{percent(found.exact_match)} % of {found.references} references"
    if found.same_answers is not None:
        yield "sweeps", "gave the same tokens" if found.same_answers else "gave other tokens than the first"
    for name, reason in found.unknown.items():
        yield f"no {name.replace('_', ' ')}, because", reason


def _rate(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.4g}"


def _tails(spread: Spread, form: Callable[[float], str], unit: str) -> str:
    known = [(name, getattr(spread, name)) for name in ("p90", "p99")]
    return "".join(f", {name} {form(value)} {unit}" for name, value in known if value is not None)


def _latency(record: Record) -> Iterator[tuple[str, str | None]]:
    latency = record.latency
    if latency is None:
        return
    program = record.program if record.generation is None else None  # else its samples are here
    taken = f"{latency.samples} samples" if program is None else f"a value each: {program['statistic']} of {program['name']}"
    yield "p50", f"{_between(latency.median_ns, milliseconds, 'ms')}, over {latency.trials} trials and {taken}"
    yield "trials' medians", f"{', '.join(milliseconds(value) for value in latency.trial_medians_ns)} ms"
    for name, value in (("p90", latency.p90_ns), ("p95", latency.p95_ns), ("p99", latency.p99_ns), ("p99.9", latency.p999_ns)):
        none = "too few samples to bound it" if program is None else f"{program['name']} does not print it"
        yield name, f"{milliseconds(value)} ms" if value is not None else none
    yield "mean", f"{milliseconds(latency.mean_ns)} ms, standard deviation {milliseconds(latency.stdev_ns)} ms"
    yield "least, most", f"{milliseconds(latency.min_ns)} ms, {milliseconds(latency.max_ns)} ms"
    yield "outliers", f"{latency.outliers} of {latency.samples} samples; flagged, never removed"
    yield "per second", f"{record.per_second:.0f}" + (f", {latency.batch} at a time" if latency.batch > 1 else "")
    yield from _apart(latency)
    if record.program is not None:
        yield "program", f"{record.program['name']}, sha256 {record.program['sha256']}"
    for point in record.throughput:
        yield f"batch {point.batch}", f"{point.per_second.value:.0f} per second"
    if record.server is not None:
        yield "server", f"{record.server.per_second.value:.0f} per second under {milliseconds(record.server.bound_ns)} ms"
    if record.sustained is not None:
        onset = record.sustained.onset_seconds
        begins = "never for good" if onset is None else f"from {onset:.0f} s on"
        yield "sustained", f"{percent(record.sustained.slowdown, sign=True)} % after the first minute; 5 % slower {begins}"
    if record.loadgen is not None:
        yield "MLPerf LoadGen", f"{record.loadgen.result}, p50 {milliseconds(record.loadgen.median_ns) or 'unknown'} ms"


def _apart(latency: LatencySummary) -> Iterator[tuple[str, str | None]]:
    """List what an inference's figure leaves out, and the stages that it is made of."""
    yield "load, first inference", f"{milliseconds(latency.load_ns)} ms, {milliseconds(latency.first_ns)} ms"
    yield "prepare, read out", f"{milliseconds(latency.prepare_ns)} ms, {milliseconds(latency.scores_ns)} ms"
    for name, value in latency.stages_ns.items():
        yield name.replace("_", " "), f"{milliseconds(value)} ms"


def _accuracy(record: Record) -> Iterator[tuple[str, str | None]]:
    accuracy = record.accuracy
    if accuracy is None:
        yield "none, because", NOT_JUDGED if record.cell.dataset is None and record.status == "done" else None
        yield from _few_samples(record.few_samples)
        return
    for name, value in accuracy.metrics.items():
        yield name, f"{value:.4f}" + (f", over {accuracy.samples} samples" if name == accuracy.headline else "")
    if accuracy.commonest is not None:
        yield "accuracy of the commonest class", f"{accuracy.commonest:.4f}"
    if accuracy.interval is not None:
        yield "accuracy of all, 95 %", f"{_between(accuracy.interval, percent, '%')}, by the number of samples"
    if accuracy.host_agreement is not None:
        yield "as on the exporting host", f"{percent(accuracy.host_agreement)} % of the decisions"
    yield "against fp32", _paired(accuracy.to_fp32)
    yield "against the teacher", _paired(accuracy.to_teacher)


def _few_samples(few: FewSamples | None) -> Iterator[tuple[str, str | None]]:
    if few is None:
        return
    yield "none, because", few.reason
    if few.host_agreement is not None and few.max_abs is not None:
        same = f"{percent(few.host_agreement)} % of {few.samples} samples"
        yield "as on the exporting host", f"{same}, scores {few.max_abs:.2g} apart at most"
    for name, value in few.metrics.items():
        yield f"{name} of these alone", f"{value:.4f}, over {few.samples} samples"


def _paired(paired: Paired | None) -> str | None:
    if paired is None:
        return None
    decided = f"{paired.gained} gained and {paired.lost} lost of {paired.samples}"
    change = _between(paired.difference, lambda value: percent(value, sign=True), "points")
    return f"{change}; {decided}; p = {paired.mcnemar_p:.2g}; record {paired.reference[:10]}"


def _memory(record: Record) -> Iterator[tuple[str, str | None]]:
    memory = record.memory
    for name, value in (
        ("peak", memory.peak_bytes),
        ("the model's share", memory.model_bytes),
        ("loaded", memory.loaded_bytes),
        ("runtime alone", memory.baseline_bytes),
        ("of the accelerator", memory.device_bytes),
    ):
        yield name, f"{mebibytes(value)} MiB" if value is not None else None
    yield "method", memory.method
    yield "none, because", memory.reason


def _energy(energy: Energy) -> Iterator[tuple[str, str | None]]:
    for name, value in (("of an inference", energy.joules), ("less idle", energy.net_joules)):
        yield name, _between(value, lambda joules: f"{joules * 1e3:.3g}", "mJ") if value is not None else None
    for name, watts in (("power", energy.watts), ("idle power", energy.idle_watts)):
        yield name, f"{watts:.2f} W" if watts is not None else None
    yield "covers", energy.provenance
    yield "meter", " ".join(filter(None, (energy.meter, energy.rail)))
    yield "readings", f"{energy.rate_hz:.1f} per second, {energy.updates} at least" if energy.rate_hz is not None else None
    yield "flag", "windows under 60 s: never ranked" if energy.short else None
    yield "metering costs", f"{percent(energy.meter_cost)} % of the time" if energy.meter_cost is not None else None
    yield "none, because", energy.reason


def _model(record: Record, model: Model | None) -> Iterator[tuple[str, str | None]]:
    yield "role", record.role
    yield "size", f"{mebibytes(record.size_bytes)} MiB" if record.size_bytes is not None else None
    yield "parameters", f"{record.parameters / 1e6:.2f} M" if record.parameters is not None else None
    yield "multiply-accumulates", f"{record.macs / 1e6:.1f} M" if record.macs is not None else None
    if model is None:
        return
    lineage = model.lineage
    yield "architecture", model.architecture
    yield "task", f"{model.task}, {len(model.classes)} classes" if model.classes else model.task
    yield "checkpoint", model.sha256
    yield "recipe", f"{lineage.recipe}, seed {lineage.seed}"
    yield "options", _text(lineage.options)
    yield "made from", ", ".join(lineage.parents)
    yield "trained on", str(lineage.dataset) if lineage.dataset else None


def _bundle(record: Record) -> Iterator[tuple[str, str | None]]:
    yield "sha256", record.cell.bundle_sha256
    if record.calibration is not None:
        calibration = record.calibration
        yield "calibration", f"{calibration.method}, {calibration.samples} samples of the {calibration.split} split"
    if record.parity is not None:
        parity = record.parity
        if parity.top1_agreement is not None:
            yield "parity", f"{percent(parity.top1_agreement)} % of {parity.samples} decisions as in torch"
    yield from _facts({**record.bundle_details, **(record.finish or {})})


def _samples(record: Record) -> Iterator[tuple[str, str | None]]:
    samples = record.samples
    if samples is None:
        return
    count = f", {record.latency.samples} samples in {record.latency.trials} trials" if record.latency else ""
    yield "file", f"{samples.file}, {mebibytes(samples.bytes)} MiB{count}"
    yield "sha256", samples.sha256


def _facts(facts: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    for name, value in facts.items():
        yield name.replace("_", " "), _text(value)


def _text(value: Any) -> str | None:
    """Write a value on one line; None where it says nothing."""
    if value is None or value in ({}, [], ()):
        return None
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(inner)}" for name, inner in value.items() if inner is not None)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(str(_text(each)) for each in value)
    return value if isinstance(value, str) else json.dumps(value)


def _between(interval: Interval, show: Callable[[float], str], unit: str) -> str:
    """Print a value with its interval, where it has one."""
    low, high = interval.low, interval.high
    bounds = f" [{show(low)}, {show(high)}]" if low is not None and high is not None else ""
    return f"{show(interval.value)}{bounds} {unit}"
