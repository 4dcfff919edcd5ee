"""What each column of the leaderboard shows, in every format."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgebench.errors import UnknownName
from edgebench.report.advice import unstable
from edgebench.report.tables import Row, Table
from edgebench.store.row import NO_DATASET, Entry

UNSEEN = (
    *((0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x200B, 0x200F)),
    *((0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0)),
    *((0xFFF0, 0xFFFB), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0000, 0xE0FFF)),
)
"""First and last of the characters that are not to be seen: Unicode's Default_Ignorable_Code_Point (DerivedCoreProperties.txt)
and the marks of annotations. Those that turn the direction of text, zero-width ones and tags are among them."""
INVISIBLE = dict.fromkeys(code for first, last in UNSEEN for code in range(first, last + 1))
CONTROLS = dict.fromkeys((*range(32), *range(127, 160)), " ")
BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
METER_COST = 0.02
"""A meter that lengthens an inference by more is named beside its figure."""
NARROW = (
    *("rank", "model", "format", "precision", "metric", "delta", "p50", "p99"),
    *("size", "reduction", "retained", "memory", "verdict"),
)
"""The columns that a terminal and a page have room for."""


@dataclass(frozen=True)
class Column:
    """One column."""

    name: str
    """What `--columns` calls it."""
    heading: str
    fill: Callable[[Row], str]
    """How people read it."""
    keys: tuple[str, ...]
    """The numbers behind it, as `Row.values` calls them."""
    number: bool = True
    always: bool = True
    """Whether it is there where no row has anything in it."""


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


def plain(text: str) -> str:
    """Leave out what is not to be seen, and put one space in the place of control characters and runs of spaces."""
    return " ".join(text.translate(INVISIBLE).translate(CONTROLS).split())


def line(text: str) -> str:
    """Leave out what is not to be seen, and join what control characters and line breaks part; its spaces stay as they are."""
    head, *rest = BREAKS.split(text.translate(INVISIBLE))
    return " ".join(filter(None, (head.rstrip(), *map(str.strip, rest)))) if rest else head


def _columns(headline: str) -> list[Column]:
    return [
        Column("rank", "", lambda row: f"{row.rank or ''}{' ●' if row.pareto else ''}", ("rank", "pareto")),
        Column("model", "model", lambda row: row.entry.model, ("model",), number=False),
        Column("role", "role", lambda row: row.entry.role, ("role",), number=False),
        Column("format", "format", lambda row: row.entry.format, ("format",), number=False),
        Column("precision", "precision", lambda row: row.entry.precision, ("precision",), number=False),
        Column("runtime", "runtime", lambda row: row.entry.runtime, ("runtime",), number=False),
        Column("metric", f"{headline} %", lambda row: percent(row.entry.metric), ("metric", "metric_value")),
        Column("interval", "95 % interval", _interval, ("metric_low", "metric_high")),
        Column(
            "shuffled", "others' text %", lambda row: percent(row.entry.more["shuffled_text"]), ("shuffled_text",), always=False
        ),
        Column("delta", "Δ points", _delta, ("metric_delta", "to_fp32")),
        Column("auroc", "AUROC", lambda row: _number(row.entry.auroc, ".4f"), ("auroc",)),
        Column("p50", "p50 ms", _time("median_ns"), ("median_ns", "median_low_ns", "median_high_ns")),
        Column("p90", "p90 ms", _time("p90_ns"), ("p90_ns",)),
        Column("p99", "p99 ms", _time("p99_ns"), ("p99_ns",)),
        Column("rate", "per second", lambda row: _number(row.entry.per_second, ".0f"), ("per_second",)),
        Column("size", "size MiB", lambda row: mebibytes(row.entry.size_bytes), ("size_bytes",)),
        Column("parameters", "parameters M", lambda row: _number((row.entry.parameters or 0) / 1e6, ".2f"), ("parameters",)),
        Column("macs", "MACs M", lambda row: _number((row.entry.more["macs"] or 0) / 1e6 or None, ".2f"), ("macs",)),
        Column("reduction", "reduction % (size / parameters)", _reduction, ("reduction_size", "reduction_parameters")),
        Column("retained", "retained %", lambda row: percent(row.retained), ("retained",)),
        Column("memory", "peak MiB", lambda row: mebibytes(row.entry.peak_bytes), ("peak_bytes", "device_bytes")),
        Column("energy", "energy mJ", _energy, ("energy_joules", "energy_provenance", "energy_reason")),
        Column("controls", "validation % (controls)", _controls, ("validation", "controls")),
        Column("explained", "map ρ (own, other)", _explained, ("explained", "explanation"), always=False),
        Column("verdict", "verdict", lambda row: row.entry.verdict or "", ("verdict",), number=False),
    ]


TRAINING = (
    Column("freeze", "freeze", lambda row: _of_training(row, "freeze", ""), ("freeze",), number=False),
    Column("trainable", "trainable", lambda row: _of_training(row, "trainable_parameters", ".0f"), ("trainable_parameters",)),
    Column("epochs", "epochs to best", lambda row: _of_training(row, "epochs_to_best", ".0f"), ("epochs_to_best",)),
    Column("seconds", "training s", lambda row: _of_training(row, "seconds", ".1f"), ("seconds",)),
)
"""What transfer strategies cost; shown where they are asked for, since most models have none of it."""


def chosen(headline: str, names: Sequence[str] = (), filled: Sequence[str] = ()) -> list[Column]:
    """Return the columns that are named, in that order; else all but `TRAINING`. `UnknownName` for one that there is not.

    filled: which of the columns any row has something in that nobody misses where none has.
    """
    usual = {column.name: column for column in _columns(headline)}
    columns = {**usual, **{column.name: column for column in TRAINING}}
    for name in names:
        if name not in columns:
            raise UnknownName("column", name, columns)
    return [columns[name] for name in names] or [each for each in usual.values() if each.always or each.name in filled]


def narrow(table: Table) -> tuple[str, ...]:
    """Name the columns that a terminal has room for."""
    at = NARROW.index("metric") + 1
    others = [name for name in table.filled if name != "shuffled"]
    return (*NARROW[:at], *(name for name in table.filled if name == "shuffled"), *NARROW[at:-1], *others, NARROW[-1])


def _of_training(row: Row, key: str, form: str) -> str:
    value = row.entry.more.get("trained", {}).get(key)
    return "" if value is None else format(value, form)


def _time(key: str) -> Callable[[Row], str]:
    return lambda row: milliseconds(getattr(row.entry, key))


def _delta(row: Row) -> str:
    """Print the difference to FP32, with its interval where both were measured on the same samples."""
    paired = row.entry.more["to_fp32"]
    if paired is None or row.entry.headline != "accuracy":
        return percent(row.metric_delta, sign=True)
    value, low, high = (percent(paired["difference"][name], sign=True) for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _interval(row: Row) -> str:
    found = row.entry.more["interval"]
    return f"[{percent(found[0])}, {percent(found[1])}]" if found else ""


def _controls(row: Row) -> str:
    """Print what a recipe's network has on the validation split, and what its controls have there."""
    found = row.entry.more["controls"]
    beside = ", ".join(f"{kind} {percent(value)}" for kind, value in found.items())
    return f"{percent(row.entry.more['validation'])} ({beside})" if found else ""


def _reduction(row: Row) -> str:
    if row.reduction_size is None:
        return ""
    return f"{percent(row.reduction_size)} / {percent(row.reduction_parameters)}"


def _explained(row: Row) -> str:
    """Print the correlation of a file's maps with FP32's, and what it is to be held against."""
    drift = row.drift
    if drift is None:
        return ""
    value, own, other = (_number(drift[f"{kind}_correlation"], ".2f") or "none" for kind in ("found", "own", "other"))
    against = "" if drift["same_model"] else f", against {drift['reference']}"
    return f"{value} ({own}, {other}{against})"


def _energy(row: Row) -> str:
    entry = row.entry
    if entry.energy_joules is None:
        return entry.energy_reason or ""
    flags = [str(entry.energy_provenance)] + (["short"] if entry.energy_short else [])
    if (entry.energy_meter_cost or 0) > METER_COST:
        flags.append(f"metering costs {100 * (entry.energy_meter_cost or 0):.0f} %")
    return f"{entry.energy_joules * 1e3:.3g} ({', '.join(flags)})"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


# ---------------------------------------------------------------- beside the rows


def title(table: Table) -> str:
    """Name a table by what its rows have in common."""
    device = {"device": table.device} if table.device else {}
    named = [f"{name} {value}" for name, value in {**table.title, **device}.items() if value]
    return ", ".join(named if table.judged else [NO_DATASET, *named])


def circumstances(table: Table) -> list[str]:
    """Say on what, and how, the rows were measured."""
    environment = table.environment
    device = environment.get("board") or environment.get("cpu") or environment.get("machine") or "unknown device"
    virtual = " (virtual machine)" if environment.get("virtual") else ""
    return [
        f"{device}{virtual}",
        f"{environment.get('cores')} cores, {environment.get('threads')} used",
        str(environment.get("os")),
        f"mode {table.mode}",
        *_scenario(table.first),
    ]


def _scenario(entry: Entry) -> list[str]:
    """Say how inferences were asked for, unless it is one after the other."""
    if entry.scenario_kind == "single-stream":
        return []
    scenario = entry.asked
    details = {
        "multi-stream": f"{scenario.streams} samples a query",
        "offline": "batch size of the highest throughput",
        "server": f"Poisson arrivals, p99 under {scenario.bound_ms} ms",
        "paced": f"{scenario.rate:g} per second" if scenario.rate else f"{scenario.idle_ms} ms between",
    }
    return [f"scenario {scenario.kind} ({details[scenario.kind]})"]


def notes(table: Table) -> list[str]:
    """Say what each doubtful verdict rests on, and why something is blank."""
    lines = [
        f"{row.entry.verdict} {row.entry.name}: {reason['reason']}; {reason['recommendation']}."
        for row in table.rows
        for reason in row.entry.more["reasons"]
    ]
    lines += [text for applies, text in BLANKS if any(applies(row, table) for row in table.rows)]
    return lines + ([f"{table.beyond} more rows were not asked for."] if table.beyond else [])


def advice(table: Table) -> str:
    """Say what UNSTABLE means here where more than half of the rows are; empty where fewer are."""
    verdicts = [(row.entry.verdict, row.entry.more["reasons"]) for row in table.rows]
    return unstable(verdicts, table.mode, table.beyond > 0)


BLANKS: tuple[tuple[Callable[[Row, Table], bool], str], ...] = (
    (
        lambda row, _: row.entry.p99_ns is None,
        "A blank quantile had too few samples to bound it (or its samples are batches of calls).",
    ),
    (
        lambda row, _: row.entry.judged and row.metric_delta is None and row.entry.more["to_fp32"] is None,
        "A blank Δ: the same model was not measured here in torch FP32.",
    ),
    (
        lambda row, table: row.retained is None and table.teacher is not None and (table.judged or row.reduction_size is None),
        "A blank reduction or retained: of several teachers, none is known to be this model's.",
    ),
    (lambda row, _: row.entry.judged and row.entry.metric is None, "A blank metric is not defined on these labels."),
    (
        lambda row, _: not row.entry.judged,
        "Accuracy is blank: no data set given; ● marks rows that no other row beats in latency, size and peak memory at once.",
    ),
    (
        lambda row, _: row.drift is not None,
        "Map ρ: median rank correlation of a file's occlusion maps with FP32's, by the device's own scores; in brackets that of "
        "maps with themselves, and with another image's: it can be no higher than the one, and means nothing near the other.",
    ),
    (
        lambda row, _: row.entry.more["shuffled_text"] is not None,
        "Others' text: the same metric of the same file on the device, where each sample got another's text by a seed; "
        "a model that is as good with it as with its own does not read.",
    ),
    (lambda row, _: row.entry.peak_bytes is None, "A blank peak could not be read on that device."),
    (
        lambda row, _: row.rank is None,
        "Rows without a rank have no value to be ranked by, or an energy that may not be: measured in windows under 60 s.",
    ),
)
"""What is blank or needs a word in which row, and why."""


def failure(entry: Entry) -> str:
    """Say which cell failed where, and why."""
    reason = entry.more["failure"]
    why = f"{entry.more['failed_stage']}: {reason['reason']}" if reason else "no reason was written down"
    return f"{entry.name} ({entry.mode}): {why}"
