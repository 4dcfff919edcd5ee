"""Static figures for papers: the charts of tables with their values, as SVG and PNG."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgebench.errors import MissingExtra
from edgebench.report import columns
from edgebench.report.charts import evaluation, pruning, tradeoff, training
from edgebench.report.charts.vega import PAPER, Spec, widened
from edgebench.report.lineage import SHORT
from edgebench.report.tables import Row, Table

Evidence = Mapping[str, Mapping[str, Any]]
"""What is behind each record, by its path: `Evidence.values()`."""
WIDTH = 560
CELL, LEAST, MOST = 30, 200, 620
"""Pixels: a cell of a confusion matrix, and the ends of its width."""
CURVES = 7
"""So many rows' ROC curves, or models' learning curves, can be told apart in one figure."""
NO_TEXT = {"Cs", "Cn", "Co"}
"""Halves of pairs, and what is not assigned: no file of text should hold them."""


@dataclass(frozen=True)
class Figure:
    """One figure: the stem of its file's name, and its specification with the values in it."""

    name: str
    spec: Spec


def draw(tables: Sequence[Table], evidence: Evidence) -> Iterator[tuple[str, bytes]]:
    """Draw every figure as SVG and as PNG: file name and content. `MissingExtra` where the drawing library is not installed."""
    try:
        import vl_convert
    except ImportError as error:
        raise MissingExtra("drawing figures", "report", "vl_convert") from error
    theme = tradeoff.theme(False)
    theme["legend"] |= {"labelLimit": WIDTH // 2 - 30}
    for figure in figures(tables, evidence):
        svg = vl_convert.vegalite_to_svg(figure.spec, config=theme, allowed_base_urls=[])
        yield f"{figure.name}.svg", _described(svg, figure.spec["description"]).encode()
        yield f"{figure.name}.png", vl_convert.svg_to_png(svg, scale=2)


def _described(svg: str, description: str) -> str:
    """Say for a screen reader what is drawn."""
    return svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(description)}" ', 1)


def figures(tables: Sequence[Table], evidence: Evidence) -> Iterator[Figure]:
    """Make for each table the trade-offs, the sizes, what pruning did, learning and ROC curves, and each row's confusion matrix.

    Names are made of letters, digits, `.`, `-` and `_`, and are unique whatever the tables are called.
    """
    taken: set[str] = set()
    for table in tables:
        if table.rows:
            group = " ".join(filter(None, (*table.title.values(), table.mode)))
            for part, spec in _of_table(table, evidence):
                yield Figure(_free(f"{group} {part}", taken), printed(spec))


def _of_table(table: Table, evidence: Evidence) -> Iterator[tuple[str, Spec]]:
    """Name and specify a table's figures."""
    where = f"{columns.title(table)} ({table.mode})"
    rows = [tradeoff.values(row) for row in table.rows]
    for axis, (heading, key, _) in tradeoff.AXES.items():
        drawn = [row for row in rows if row[key] is not None]
        for source, members in _sources(drawn).items() if axis == "energy" else [("", drawn)]:
            if members:
                headline = table.headline if table.judged else ""
                what = headline or tradeoff.beside(axis)[0].partition(",")[0]
                title = f"{what} against {heading.partition(',')[0]}{f' ({source})' if source else ''}"
                spec = _titled(tradeoff.tradeoff(axis, headline), title, where)
                yield f"tradeoff {axis} {source}", {**widened(spec, WIDTH), "datasets": {"rows": members}}
    spec = _titled(tradeoff.sizes(judged=table.judged), "Size", where)
    yield "sizes", {**widened(spec, WIDTH), "datasets": {"rows": rows}}
    pruned = pruning.values(table.rows)
    if pruned:
        spec = _titled(pruning.panels(table.headline if table.judged else ""), "Pruning", where)
        yield "pruning", {**spec, "datasets": {"pruned": pruned}}
    trained = training.labelled(_trainings(table, evidence))
    if trained:
        spec = _titled(training.panels(), "Learning curves", where)
        yield "learning-curves", {**spec, "datasets": {"training": trained}}
    curves = _curves(table, evidence)
    if curves:
        left = f"; {CURVES} rows of {len(table.rows)}, in the table's order" if len(table.rows) > CURVES else ""
        spec = _titled(evaluation.roc(), "ROC curves, averaged over the classes", where + left)
        yield "roc", {**widened(spec, WIDTH), "datasets": {"roc": curves}}
    for row in table.rows:
        yield from _matrices(row, evidence, where)


def _sources(rows: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Part rows by where their energy was measured: figures of different sources are never drawn together."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(f"{row['energy_provenance']} {row['energy_rail']}".strip(), []).append(row)
    return dict(sorted(found.items()))


def _curves(table: Table, evidence: Evidence) -> list[dict[str, Any]]:
    """Take the averaged curve of each row, of two classes the only one, as many as can be told apart."""
    names = [row.entry.name for row in table.rows]
    found = []
    for row in table.rows:
        lines = _evaluated(row, evidence).get("roc") or []
        line = next((line for line in lines if line["average"] and line["curve"] == "macro-average"), lines[0] if lines else None)
        if line is not None:
            name = row.entry.name
            label = name if names.count(name) == 1 else f"{name}, {row.entry.runtime}"
            found.append({**line, "curve": label, "average": False})
    return found[:CURVES]


def _trainings(table: Table, evidence: Evidence) -> list[tuple[str, list[dict[str, Any]]]]:
    """Take the curves of each model that has some, once whatever it was exported to, as many as can be told apart."""
    found: dict[str, tuple[str, list[dict[str, Any]]]] = {}
    for row in table.rows:
        sha256, lines = row.entry.model_sha256, evidence.get(row.entry.path, {}).get("training")
        if lines and sha256 is not None:
            found.setdefault(sha256, (row.entry.model, lines))
    names = [name for name, _ in found.values()]
    labels = [name if names.count(name) == 1 else f"{name}, {sha256[:SHORT]}" for sha256, (name, _) in found.items()]
    return list(zip(labels, (lines for _, lines in found.values()), strict=True))[:CURVES]


def _evaluated(row: Row, evidence: Evidence) -> Mapping[str, Any]:
    return evidence.get(row.entry.path, {}).get("evaluation") or {}


def _matrices(row: Row, evidence: Evidence, where: str) -> Iterator[tuple[str, Spec]]:
    """Draw a row's confusion matrix, in counts and in shares."""
    lines = _evaluated(row, evidence).get("confusion") or []
    for part, normalised in (("confusion", False), ("confusion-normalised", True)) if lines else ():
        spec = _titled(evaluation.confusion(normalised), f"Confusion matrix of {row.entry.name}", where)
        width, height = (min(max(CELL * count, LEAST), MOST) for count in (len(lines[0]["predicted"]), len(lines)))
        yield f"{row.entry.name} {part}", {**widened(spec, width), "height": height, "datasets": {"confusion": lines}}


def _titled(spec: Spec, title: str, subtitle: str) -> Spec:
    """Put a title over a chart, on paper."""
    heading = {"text": _wrapped(title, 60), "subtitle": _wrapped(subtitle, 80)}
    return {**spec, "title": heading, "background": PAPER[False], "padding": 12}


def _wrapped(text: str, width: int) -> list[str]:
    """Break a title into lines, long words too, so that none is cut off."""
    import textwrap

    return textwrap.wrap(_shown(text), width, max_lines=3, placeholder=" …")


# ---------------------------------------------------------------- names and text


def _free(text: str, taken: set[str]) -> str:
    """Make a file's name of any text, and one that is not taken, also where capitals do not count."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", plain)
    stem = re.sub(r"\.{2,}", ".", stem).strip("-.")[:120] or "figure"
    name, number = stem, 1
    while name.casefold() in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name.casefold())
    return name


def printed(content: Any) -> Any:
    """Clean all text of a specification; no text of a record is one of its keys."""
    if isinstance(content, str):
        return _shown(content)
    if isinstance(content, Mapping):
        return {key: printed(value) for key, value in content.items()}
    return [printed(value) for value in content] if isinstance(content, list | tuple) else content


def _shown(text: str) -> str:
    """Leave out what turns the direction of text, and put a mark in the place of what is no text."""
    return columns.plain("".join("\ufffd" if unicodedata.category(each) in NO_TEXT else each for each in text))
