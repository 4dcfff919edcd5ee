"""Run benchmarks and keep their figures in `docs/benchmarks.md`; or run those whose code has changed since.

`table.py NAME…` runs the named scripts, or all of them, and writes their rows; every other row stays as it is.
`table.py --due SECONDS` writes nothing: it runs what has changed since its figure, the quickest first and as much as the
time allows, and names what is left. Both end with 1 where a figure falls short of its bound.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import datetime
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from figures import FILE

from edgebench.agent import facts
from edgebench.files import write_atomic

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent.parent
TABLE = ROOT / "docs" / "benchmarks.md"
DIRTY = "-dirty"
"""Follows the commit where what a benchmark depends on was changed and not committed."""
HEAD = """# Benchmarks

What is promised of the measuring, and what was found: `make bench` runs every script of `tests/benchmarks/` and writes its
row, `make bench BENCH="energy ssh_push"` those that are named, and every other row stays as it is. Noise decides some of them,
which want a machine that does nothing else. `.ci/run` runs what has changed since a row's commit, where that takes seconds.

"""


@dataclass(frozen=True)
class Script:
    """What a benchmark declares: paths and folders that its figure depends on, and whether noise would decide it."""

    name: str
    promise: str
    depends: tuple[str, ...]
    quiet: bool


@dataclass(frozen=True)
class Row:
    """One line of the table; a dash stands for what is not known."""

    script: str
    promises: str
    figure: str = "not measured since the table exists"
    bound: str = "–"
    held: str = "–"
    date: str = "–"
    processor: str = "–"
    commit: str = "–"
    seconds: str = "–"


COLUMNS = tuple(field.name for field in dataclasses.fields(Row))


def scripts() -> dict[str, Script]:
    """Read what each script declares, without importing it; a file without `DEPENDS` is none."""
    found = {}
    for path in sorted(FOLDER.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assigned = [node for node in tree.body if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)]
        values = {ast.unparse(node.targets[0]): node.value for node in assigned}
        if "DEPENDS" in values:
            quiet = "QUIET" in values and bool(ast.literal_eval(values["QUIET"]))
            depends = (*ast.literal_eval(values["DEPENDS"]), path.relative_to(ROOT).as_posix())
            promise = (ast.get_docstring(tree) or "").partition("\n")[0]
            found[path.stem] = Script(path.stem, promise, depends, quiet)
    return found


def read() -> dict[str, Row]:
    """Read the table; a file that is not there has no rows."""
    lines = TABLE.read_text(encoding="utf-8").splitlines() if TABLE.exists() else []
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines if line.startswith("|")][2:]
    rows = [Row(*(cell.strip().replace(r"\|", "|") for cell in line)) for line in cells]
    return {row.script: row for row in rows}


def write(rows: Iterable[Row]) -> None:
    """Write the table, by name."""
    lines = [COLUMNS, ("---",) * len(COLUMNS), *map(dataclasses.astuple, sorted(rows, key=lambda row: row.script))]
    text = "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
    TABLE.parent.mkdir(exist_ok=True)
    write_atomic(TABLE, (HEAD + text).encode())


def git(*arguments: str) -> str | None:
    """Ask git; None where it says no."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def measured_commit(script: Script) -> str:
    """Name the commit that is measured, and whether what the script depends on differs from it."""
    commit = git("rev-parse", "--short", "HEAD") or "unknown"
    return commit + (DIRTY if git("status", "--porcelain", "--", *script.depends) else "")


def changed(script: Script, row: Row, shallow: bool) -> bool | None:
    """Return whether what the script depends on differs from the row's commit; None where history is too short to say."""
    if row.commit == "–" or row.commit.endswith(DIRTY):
        return True
    if git("cat-file", "-e", f"{row.commit}^{{commit}}") is None:
        return None if shallow else True
    return git("diff", "--name-only", row.commit, "--", *script.depends) != ""


def measured(script: Script) -> Row | None:
    """Run a script and read what it states; None where it ended without a word."""
    print(f"== {script.name}", flush=True)
    commit, began = measured_commit(script), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        stated = Path(folder) / "figures"
        stated.touch()
        command = [sys.executable, str(FOLDER / f"{script.name}.py")]
        code = subprocess.run(command, cwd=ROOT, env={**os.environ, FILE: str(stated)}, check=False).returncode
        said = [json.loads(line) for line in stated.read_text(encoding="utf-8").splitlines()]
    if not said or (code != 0 and all(each["holds"] for each in said)):
        print(f"{script.name}: ended with exit code {code} before it could say whether it holds", flush=True)
        return None
    here = facts.environment()
    return Row(
        script=script.name,
        promises=script.promise,
        figure="; ".join(each["figure"] for each in said),
        bound="; ".join(dict.fromkeys(each["bound"] for each in said)),
        held="yes" if all(each["holds"] for each in said) else "no",
        date=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        processor=f"{here['cpu']}, {here['cores']} cores",
        commit=commit,
        seconds=f"{time.monotonic() - began:.0f}",
    )


def measure(names: Sequence[str], known: Mapping[str, Script]) -> int:
    """Run scripts and write their rows, each as soon as it is known."""
    short = []
    for name in names:
        row = measured(known[name])
        if row is None or row.held != "yes":
            short.append(name)
        rows = {name: Row(name, script.promise) for name, script in known.items()}
        rows |= {old.script: old for old in read().values() if old.script in known}
        write({**rows, **({name: row} if row else {})}.values())
    print(f"falls short: {', '.join(short)}" if short else f"{TABLE.relative_to(ROOT)} is written")
    return 1 if short else 0


def run_due(budget: float, known: Mapping[str, Script]) -> int:
    """Run what has changed since its figure while the time allows; nothing is written."""
    rows, began = read(), time.monotonic()
    shallow = git("rev-parse", "--is-shallow-repository") != "false"
    states = {name: changed(script, rows.get(name) or Row(name, ""), shallow) for name, script in known.items()}
    unknown = [name for name, state in states.items() if state is None]
    if unknown:
        print(f"history is too short here to say whether they are due, not run: {', '.join(unknown)}")
    seconds = {name: float(rows[name].seconds) for name in known if name in rows and rows[name].seconds != "–"}
    left, short = [], []
    for name in sorted((name for name, state in states.items() if state), key=lambda name: seconds.get(name, float("inf"))):
        if known[name].quiet or time.monotonic() - began + seconds.get(name, float("inf")) > budget:
            left.append(name)
            continue
        row = measured(known[name])
        if row is None or row.held != "yes":
            short.append(name)
    if left:
        print(f"due, not run here: {', '.join(sorted(left))} (make bench BENCH=… runs them and writes {TABLE.relative_to(ROOT)})")
    print(f"falls short: {', '.join(short)}" if short else "no benchmark that was run here falls short")
    return 1 if short else 0


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--due", type=float, metavar="SECONDS", help="run what has changed since its figure, for so long")
    given, known = parser.parse_args(), scripts()
    if strange := [name for name in given.names if name not in known]:
        parser.error(f"no benchmark {strange[0]!r}; there are: {', '.join(known)}")
    return measure(given.names or list(known), known) if given.due is None else run_due(given.due, known)


if __name__ == "__main__":
    sys.exit(main())
