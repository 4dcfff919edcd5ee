"""Tables as LaTeX for papers; wants the packages booktabs and, for names in other scripts, a Unicode engine."""

from __future__ import annotations

from collections.abc import Sequence

from edgebench.report import columns
from edgebench.report.columns import narrow
from edgebench.report.tables import Table

SPECIAL = {
    "\\": r"\textbackslash{}",
    **{each: f"\\{each}" for each in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "●": r"$\bullet$",
    "Δ": r"$\Delta$",
    "ρ": r"$\rho$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "µ": r"$\mu$",
    "±": r"$\pm$",
    "×": r"$\times$",
}


def render(tables: Sequence[Table], names: Sequence[str] = ()) -> str:
    """Write each table as a `table` with its notes below; failed cells are among the notes."""
    return "\n".join(_table(table, names or narrow(table)) for table in tables)


def _table(table: Table, names: Sequence[str]) -> str:
    chosen = columns.chosen(table.headline, names)
    lines = [r"\begin{table}", r"\centering", r"\small", rf"\caption{{{escape(columns.title(table))}}}"]
    if table.rows:
        lines += [rf"\begin{{tabular}}{{{''.join('r' if column.number else 'l' for column in chosen)}}}", r"\toprule"]
        lines += [_line([column.heading for column in chosen]), r"\midrule"]
        lines += [_line([column.fill(row) for column in chosen]) for row in table.rows]
        lines += [r"\bottomrule", r"\end{tabular}"]
    line = columns.advice(table)
    below = [*([line] if line else []), *columns.notes(table), *(f"Failed: {columns.failure(entry)}." for entry in table.failed)]
    beside = ["; ".join(columns.circumstances(table)) + "."] if table.rows else []
    lines += [rf"\par\smallskip\footnotesize {escape(note)}" for note in (*beside, *below)]
    return "\n".join([*lines, r"\end{table}", ""])


def _line(cells: Sequence[str]) -> str:
    text = " & ".join(escape(cell) for cell in cells) + r" \\"
    return "{}" + text if text.startswith(("[", "*")) else text  # or the end of the line before would take it for its option


def escape(text: str) -> str:
    """Keep text from becoming LaTeX."""
    return "".join(SPECIAL.get(each, each) for each in columns.plain(text))
