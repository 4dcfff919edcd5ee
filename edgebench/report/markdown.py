"""Tables as markdown that GitHub renders; the same tables give the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgebench.report.tables import Row, Table
from edgebench.schema import Record, Scenario

HEADER = """# Leaderboard

Made by `edgebench leaderboard` from the records beside it, and from nothing else.
● marks rows that no other row beats in metric, latency and size at once.
Δ is the difference to the same model in torch FP32; reduction and retained compare with the teacher in FP32.
Latency is one inference, batch 1 unless said otherwise, host tensor to host tensor; p50 is the median over trials.
Rows that share a rank do not differ by more than 2 % or the device's own noise, whichever is larger.
"""

METER_COST = 0.02
"""A meter that lengthens an inference by more is named beside its figure."""
Column = tuple[str, str, Callable[[Row], str]]


def milliseconds(value: float | None) -> str:
    """Print nanoseconds as milliseconds with three significant digits; blank where there is none."""
    if value is None:
        return ""
    number = value / 1e6
    return f"{number:.1f}" if number >= 100 else f"{number:.2f}" if number >= 1 else f"{number:.3f}"


def percent(value: float | None, sign: bool = False) -> str:
    """Print a fraction as percent; blank where there is none."""
    return "" if value is None else f"{100 * value:{'+' if sign else ''}.1f}"


def mebibytes(value: int | None) -> str:
    """Print bytes as MiB; blank where there is none."""
    return "" if value is None else f"{value / 2**20:.2f}"


def columns(table: Table) -> list[Column]:
    """List a table's columns: heading, alignment, and how a row fills it."""
    return [
        ("", "-:", lambda row: f"{row.rank}{' ●' if row.pareto else ''}"),
        ("model", "-", lambda row: row.record.cell.model),
        ("role", "-", lambda row: row.record.role),
        ("format", "-", lambda row: row.record.cell.format),
        ("precision", "-", lambda row: row.record.cell.precision),
        ("runtime", "-", lambda row: row.record.cell.ran_by),
        (f"{table.headline} %", "-:", lambda row: percent(row.metric)),
        ("Δ points", "-:", _delta),
        ("AUROC", "-:", lambda row: _number(row.values()["auroc"], ".4f")),
        ("p50 ms", "-:", lambda row: milliseconds(row.values()["median_ns"])),
        ("p90 ms", "-:", lambda row: milliseconds(row.values()["p90_ns"])),
        ("p99 ms", "-:", lambda row: milliseconds(row.values()["p99_ns"])),
        ("per second", "-:", lambda row: f"{row.values()['per_second']:.0f}"),
        ("size MiB", "-:", lambda row: mebibytes(row.record.size_bytes)),
        ("parameters M", "-:", lambda row: _number((row.record.parameters or 0) / 1e6, ".2f")),
        ("reduction % (size / parameters)", "-:", _reduction),
        ("retained %", "-:", lambda row: percent(row.retained)),
        ("peak MiB", "-:", lambda row: mebibytes(row.record.memory.peak_bytes)),
        ("energy mJ", "-:", _energy),
        ("verdict", "-", lambda row: row.values()["verdict"]),
    ]


def _delta(row: Row) -> str:
    """Print the difference to FP32, with its interval where both were measured on the same samples."""
    accuracy = row.record.accuracy
    paired = accuracy.to_fp32 if accuracy else None
    if paired is None or accuracy is None or accuracy.headline != "accuracy":
        return percent(row.metric_delta, sign=True)
    low, high = paired.difference.low, paired.difference.high
    return f"{percent(paired.difference.value, sign=True)} [{percent(low, sign=True)}, {percent(high, sign=True)}]"


def _reduction(row: Row) -> str:
    if row.reduction_size is None:
        return ""
    return f"{percent(row.reduction_size)} / {percent(row.reduction_parameters)}"


def _energy(row: Row) -> str:
    energy = row.record.energy
    if energy.joules is None:
        return energy.reason or ""
    flags = [str(energy.provenance)] + (["short"] if energy.short else [])
    if (energy.meter_cost or 0) > METER_COST:
        flags.append(f"metering costs {100 * (energy.meter_cost or 0):.0f} %")
    return f"{energy.joules.value * 1e3:.3g} ({', '.join(flags)})"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def render(tables: Sequence[Table]) -> str:
    """Write every table with its failed cells and the reasons of its verdicts."""
    if not tables:
        return HEADER + "\nNo records yet: `edgebench run` makes them.\n"
    return HEADER + "".join(_section(table) for table in tables)


def _section(table: Table) -> str:
    title = ", ".join(f"{name} {value}" for name, value in table.title.items())
    lines = [f"\n## {escape(title)}\n"]
    if table.rows:
        lines += [_circumstances(table), "", *_grid(table), ""]
        lines += _notes(table)
    if table.failed:
        lines += ["\n**Failed cells**\n", *(_failure(record) for _, record in table.failed), ""]
    return "\n".join(lines)


def _circumstances(table: Table) -> str:
    environment = table.environment
    device = environment.get("board") or environment.get("cpu") or environment.get("machine") or "unknown device"
    virtual = " (virtual machine)" if environment.get("virtual") else ""
    parts = [
        f"{device}{virtual}",
        f"{environment.get('cores')} cores, {environment.get('threads')} used",
        str(environment.get("os")),
        f"mode *{table.mode}*",
        *_scenario(table.scenario),
    ]
    return escape("; ".join(parts)) + "."


def _scenario(scenario: Scenario) -> list[str]:
    """Say how inferences were asked for, unless it is one after the other."""
    details = {
        "multi-stream": f"{scenario.streams} samples a query",
        "offline": "batch size of the highest throughput",
        "server": f"Poisson arrivals, p99 under {scenario.bound_ms} ms",
        "paced": f"{scenario.rate:g} per second" if scenario.rate else f"{scenario.idle_ms} ms between",
    }
    return [] if scenario.kind == "single-stream" else [f"scenario *{scenario.kind}* ({details[scenario.kind]})"]


def _grid(table: Table) -> list[str]:
    chosen = columns(table)
    lines = ["| " + " | ".join(name for name, _, _ in chosen) + " |", "|" + "|".join(align for _, align, _ in chosen) + "|"]
    return lines + ["| " + " | ".join(escape(fill(row)) for _, _, fill in chosen) + " |" for row in table.rows]


def _notes(table: Table) -> list[str]:
    """Say once what each doubtful verdict rests on."""
    lines = []
    for row in table.rows:
        verdict = row.record.verdict
        for reason in verdict.reasons if verdict else ():
            cell = row.record.cell
            lines.append(
                f"- {verdict.word if verdict else ''} {cell.model} {cell.format} {cell.precision}: "
                f"{reason.reason}; {reason.recommendation}."
            )
    blank = any(row.record.latency and row.record.latency.p99_ns is None for row in table.rows)
    if blank:
        lines.append("- A blank quantile had too few samples to bound it (or its samples are batches of calls).")
    return [escape(line) for line in lines]


def _failure(record: Record) -> str:
    cell, failure = record.cell, record.failure
    reason = f"{record.failed_stage}: {failure.reason}" if failure else "no reason was written down"
    return escape(f"- {cell.model} {cell.format} {cell.precision} ({cell.mode}): {reason}")


def escape(text: str) -> str:
    """Keep text from ending a table cell, or from becoming markup."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
