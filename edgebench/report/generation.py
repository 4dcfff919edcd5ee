"""Tables of language models: a row a bundle, of those that answered the same prompts on the same device."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from edgebench.errors import InputError
from edgebench.files import write_atomic
from edgebench.report import columns
from edgebench.report.advice import unstable
from edgebench.report.writers import markdown
from edgebench.store import index as indexing
from edgebench.store.index import Damaged, Where
from edgebench.store.row import Entry

FORMATS = {"markdown": ".md", "json": ".json"}
HEADER = """# Language models

Made by `edgebench leaderboard --task generation` from the records beside it, and from nothing else.
One prompt after the other, greedy. First token: from the prompt's text to its first new token. Prefill: prompt tokens over that
time. Decode: new tokens after the first. Times are medians over trials; p99 of a rate is what 99 % of the values reach at least.
"""


@dataclass(frozen=True)
class Table:
    """Rows of one device, mode and set of prompts, the fastest decoding first; and what failed there."""

    first: Entry
    rows: tuple[Entry, ...]

    @property
    def title(self) -> str:
        """Name what the rows have in common."""
        found, first = self.first.more["generation"], self.first
        digest = found["prompts_sha256"]
        asked = f"{found['prompts']} prompts ({digest[:8]})" if digest else "random tokens"
        sizes = f"{found['prompt_tokens']} tokens, {found['max_new_tokens']} new ones at most"
        return f"target {first.target}, {asked}, {sizes} ({first.mode})"

    def values(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        found = self.first.more["generation"]
        common = ("prompts", "prompts_sha256", "prompt_tokens", "max_new_tokens")
        group = {"target": self.first.target, "device": self.first.device, "mode": self.first.mode}
        return {**group, **{name: found[name] for name in common}, "rows": [_values(row) for row in self.rows]}


@dataclass(frozen=True)
class Made:
    """All tables, the cells that have no result, and what could not be read."""

    tables: tuple[Table, ...]
    failed: tuple[Entry, ...]
    damaged: tuple[Damaged, ...]

    def values(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        failed = [{**_cell(each), "stage": each.more["failed_stage"], **(each.more["failure"] or {})} for each in self.failed]
        return {"tables": [table.values() for table in self.tables], "failed": failed}


def make(results: Path, where: Where | None = None) -> Made:
    """Make the tables of a folder of records; of the same cell the newest record counts."""
    with indexing.open_index(Path(results), lambda *_: None) as index:
        entries = index.entries(where, generating=True)
        damaged = tuple(index.damaged)
    newest: dict[tuple[Any, ...], Entry] = {}
    for entry in sorted(entries, key=lambda each: (each.started_at, each.path)):
        newest[(entry.combination, *_asked(entry))] = entry
    grouped: dict[tuple[Any, ...], list[Entry]] = {}
    for entry in newest.values():
        if entry.status == "done":
            grouped.setdefault((entry.target, entry.device, entry.mode, entry.scenario, *_asked(entry)), []).append(entry)
    rows = [sorted(group, key=lambda each: (-_decode(each), each.path)) for _, group in sorted(grouped.items(), key=_order)]
    failed = tuple(each for each in newest.values() if each.status == "failed")
    return Made(tuple(Table(group[0], tuple(group)) for group in rows), failed, damaged)


def _order(item: tuple[tuple[Any, ...], list[Entry]]) -> str:
    return repr(item[0])


def _asked(entry: Entry) -> tuple[Any, ...]:
    found = entry.more.get("generation") or {}
    return tuple(found.get(name) for name in ("prompts_sha256", "prompt_tokens", "max_new_tokens"))


def _decode(entry: Entry) -> float:
    return float(entry.more["generation"]["decode_per_second"]["median"]["value"])


def _cell(entry: Entry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in ("model", "format", "precision", "runtime", "target", "mode")}


def _values(entry: Entry) -> dict[str, Any]:
    numbers = {name: getattr(entry, name) for name in ("size_bytes", "parameters", "peak_bytes", "verdict")}
    found = {name: value for name, value in entry.more["generation"].items() if name not in ("prompts", "prompts_sha256")}
    return {**_cell(entry), **found, **numbers, "energy_provenance": entry.energy_provenance, "record": entry.path}


# ---------------------------------------------------------------- for people

Fill = Callable[[Entry], str]


def _of(name: str, quantile: str, form: Callable[[float], str]) -> Fill:
    def fill(entry: Entry) -> str:
        spread = entry.more["generation"][name]
        value = None if spread is None else spread["median"]["value"] if quantile == "median" else spread[quantile]
        return "" if value is None else form(value)

    return fill


def _rate(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _exact(entry: Entry) -> str:
    found = entry.more["generation"]
    return "" if found["exact_match"] is None else f"{columns.percent(found['exact_match'])} of {found['references']}"


def _energy(entry: Entry) -> str:
    joules = entry.more["generation"]["token_joules"]
    return "" if joules is None else f"{joules['value'] * 1e3:.3g} ({entry.energy_provenance})"


COLUMNS: dict[str, Fill] = {
    "model": lambda entry: entry.model,
    "format": lambda entry: entry.format,
    "precision": lambda entry: entry.precision,
    "first token ms": _of("first_token_ns", "median", columns.milliseconds),
    "p90 ms": _of("first_token_ns", "p90", columns.milliseconds),
    "p99 ms": _of("first_token_ns", "p99", columns.milliseconds),
    "prefill tok/s": _of("prefill_per_second", "median", _rate),
    "decode tok/s": _of("decode_per_second", "median", _rate),
    "decode p99": _of("decode_per_second", "p99", _rate),
    "mJ/token": _energy,
    "exact %": _exact,
    "size MiB": lambda entry: columns.mebibytes(entry.size_bytes),
    "peak MiB": lambda entry: columns.mebibytes(entry.peak_bytes),
    "verdict": lambda entry: entry.verdict or "",
}
NAMED = {
    "token_joules": "energy of a token",
    "exact_match": "exact match",
    "first_token_ns": "time to the first token",
    "same_answers": "comparison of the sweeps' tokens",
}
"""What readers call what is not known."""
NUMBERS = tuple(name for name in COLUMNS if name not in ("model", "format", "precision", "verdict"))


def grid(table: Table) -> list[dict[str, str]]:
    """Write a table's rows as people read them."""
    return [{heading: fill(row) for heading, fill in COLUMNS.items()} for row in table.rows]


def advice(table: Table) -> str:
    """Say what UNSTABLE means here where more than half of the rows are; empty where fewer are."""
    return unstable([(row.verdict, row.more["reasons"]) for row in table.rows], table.first.mode)


def notes(table: Table, verdicts: bool = True) -> list[str]:
    """Say why something is blank, and what doubtful verdicts rest on."""
    why: dict[str, list[str]] = {}
    for row in table.rows:
        for name, reason in row.more["generation"]["unknown"].items():
            why.setdefault(f"no {NAMED.get(name, name)}: {reason}", []).append(row.name)
        for each in row.more["reasons"] if verdicts else ():
            why.setdefault(f"{row.verdict}: {each['reason']}; {each['recommendation']}", []).append(row.name)
        if row.more["generation"]["same_answers"] is False:
            why.setdefault("sweeps gave other tokens than the first, though decoding is greedy", []).append(row.name)
    return [f"{text} ({'all' if len(names) == len(table.rows) > 1 else ', '.join(names)})" for text, names in why.items()]


def render(made: Made, base: Path = Path()) -> str:
    """Write all tables as markdown; links to records begin with `base`."""
    parts = [HEADER]
    for table in made.tables:
        head = [
            f"\n## {markdown.escape(table.title)}\n",
            _line(COLUMNS),
            _line("-:" if each in NUMBERS else "-" for each in COLUMNS),
        ]
        parts += [*head, *(_line(_linked(row, base)) for row in table.rows), ""]
        parts += [f"- {markdown.escape(note)}" for note in notes(table)]
    parts += [f"- failed: {markdown.escape(columns.failure(each))}" for each in made.failed]
    return "\n".join(parts if made.tables or made.failed else [HEADER, "No records of language models yet."]) + "\n"


def _linked(row: Entry, base: Path) -> list[str]:
    cells = [markdown.escape(fill(row)) for fill in COLUMNS.values()]
    return [f"[{cells[0]}]({quote(os.fsencode((base / row.path).as_posix()))})", *cells[1:]]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def publish(made: Made, results: Path, out: Path | None, format: str | None) -> str:
    """Write the tables as markdown or JSON, into a file where one is named; `InputError` for other formats."""
    named = next((name for name, ending in FORMATS.items() if out is not None and out.suffix == ending), "markdown")
    chosen = format or named
    if chosen not in FORMATS:
        raise InputError(f"--format {chosen}: language models' tables are written as {' or '.join(FORMATS)}")
    base = Path(os.path.relpath(results, out.parent)) if out is not None else Path()
    text = json.dumps(made.values(), indent=2, ensure_ascii=False) + "\n" if chosen == "json" else render(made, base)
    if out is not None:
        write_atomic(out, text.encode(errors="backslashreplace"))
    return text
