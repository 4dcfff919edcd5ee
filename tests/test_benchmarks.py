"""The table of benchmarks: what is run, what is written, and what counts as changed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "tests" / "benchmarks"
SCRIPT = '''"""{name} holds.

More of it.
"""
import sys
from pathlib import Path

from figures import state

DEPENDS = ("code/{name}.py",)
QUIET = {quiet}

if __name__ == "__main__":
    with open("ran", "a") as stream:
        stream.write("{name} ")
    value = float(Path("code/{name}.py").read_text())
    sys.exit(state(value <= 5, f"{{value:g}} s | {name}", "5 s") or value < 0)
'''


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=edgebench", "-c", "user.email=edgebench@localhost"]
    command = ["git", *identity, "-c", "commit.gpgsign=false", "-c", "core.hooksPath=/dev/null", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def table(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run the script that keeps the table; returns exit code and output."""
    command = [sys.executable, "tests/benchmarks/table.py", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def rows(folder: Path) -> dict[str, list[str]]:
    lines = [line for line in (folder / "docs" / "benchmarks.md").read_text().splitlines() if line.startswith("|")]
    return {line.split(" | ")[0].removeprefix("| "): line.removesuffix(" |").split(" | ") for line in lines[2:]}


def ran(folder: Path) -> list[str]:
    path = folder / "ran"
    words = path.read_text().split() if path.exists() else []
    path.unlink(missing_ok=True)
    return words


def save(folder: Path) -> None:
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "what is there")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Commit three benchmarks, one of which wants a quiet machine, and the table's own files."""
    folder = tmp_path / "checkout"
    scripts = folder / "tests" / "benchmarks"
    scripts.mkdir(parents=True)
    (folder / "code").mkdir()
    for name in ("figures.py", "table.py"):
        (scripts / name).write_bytes((BENCHMARKS / name).read_bytes())
    for name, quiet in (("one", False), ("two", False), ("still", True)):
        (scripts / f"{name}.py").write_text(SCRIPT.format(name=name, quiet=quiet))
        (folder / "code" / f"{name}.py").write_text("1")
    (folder / ".gitignore").write_text("ran\n__pycache__/\n")
    git(folder, "init", "-q")
    save(folder)
    return folder


def measured(folder: Path, *names: str) -> None:
    assert table(folder, *names)[0] == 0
    save(folder)
    ran(folder)


def test_a_benchmark_that_is_run_has_its_row_and_the_others_stay(checkout: Path) -> None:
    head = git(checkout, "rev-parse", "--short", "HEAD")
    code, said = table(checkout, "one")
    found = rows(checkout)
    assert (code, ran(checkout)) == (0, ["one"]), said
    assert found["one"][1:5] == ["one holds.", r"1 s \| one", "5 s", "yes"]
    assert found["one"][7] == head
    assert found["one"][8].isdigit()
    assert found["two"][2:] == ["not measured since the table exists", *["–"] * 6]
    path = checkout / "docs" / "benchmarks.md"
    path.write_text(path.read_text().replace("| two holds. | not measured since the table exists | –", "| by hand | 4 \\| 2 | 9"))
    table(checkout, "still")
    again = rows(checkout)
    assert again["one"] == found["one"]
    assert again["two"][1:4] == ["by hand", r"4 \| 2", "9"]
    assert again["still"][4] == "yes"


def test_a_benchmark_that_falls_short_is_written_down_and_the_others_run_all_the_same(checkout: Path) -> None:
    (checkout / "code" / "one.py").write_text("7")
    save(checkout)
    code, said = table(checkout)
    assert (code, ran(checkout)) == (1, ["one", "still", "two"])
    assert "FALLS SHORT: 7 s | one; bound: 5 s" in said
    assert said.rstrip().endswith("falls short: one")
    assert {name: row[4] for name, row in rows(checkout).items()} == {"one": "no", "two": "yes", "still": "yes"}


def test_one_that_breaks_keeps_its_row_and_fails(checkout: Path) -> None:
    measured(checkout, "one")
    before = rows(checkout)["one"]
    for content in ("no number", "-1"):  # -1: it says that it holds, and then it fails
        (checkout / "code" / "one.py").write_text(content)
        code, said = table(checkout, "one")
        assert code == 1
        assert "ended with exit code 1 before it could say" in said
        assert rows(checkout)["one"] == before


def test_what_has_not_changed_since_its_figure_is_not_run(checkout: Path) -> None:
    measured(checkout)
    (checkout / "code" / "other.py").write_text("nothing depends on it")
    save(checkout)
    code, said = table(checkout, "--due", "60")
    assert (code, ran(checkout), "due" in said) == (0, [], False), said


@pytest.mark.parametrize("commits", [True, False])
def test_what_has_changed_is_run_and_nothing_is_written(checkout: Path, commits: bool) -> None:
    measured(checkout)
    before = rows(checkout)
    for name in ("two", "still"):
        (checkout / "code" / f"{name}.py").write_text("2")
    if commits:
        save(checkout)
    code, said = table(checkout, "--due", "60")
    assert (code, ran(checkout)) == (0, ["two"])
    assert "due, not run here: still" in said
    assert rows(checkout) == before


def test_a_changed_one_that_falls_short_fails(checkout: Path) -> None:
    measured(checkout)
    (checkout / "code" / "two.py").write_text("8")
    code, said = table(checkout, "--due", "60")
    assert (code, ran(checkout)) == (1, ["two"])
    assert "falls short: two" in said


def test_the_quickest_are_run_first_and_those_that_do_not_fit_are_named(checkout: Path) -> None:
    measured(checkout)
    path = checkout / "docs" / "benchmarks.md"
    path.write_text(
        "".join(retimed(line, {"| one ": "30", "| two ": "500"}) for line in path.read_text().splitlines(keepends=True))
    )
    for name in ("one", "two"):
        (checkout / "code" / f"{name}.py").write_text("2")
    code, said = table(checkout, "--due", "60")
    assert (code, ran(checkout)) == (0, ["one"])
    assert "due, not run here: two" in said
    assert table(checkout, "--due", "20")[0] == 0
    assert ran(checkout) == []


def retimed(line: str, seconds: dict[str, str]) -> str:
    wanted = next((each for name, each in seconds.items() if line.startswith(name)), None)
    return line if wanted is None else f"{line.rsplit(' | ', 1)[0]} | {wanted} |\n"


def test_a_figure_of_code_that_was_not_committed_is_due_wherever_it_is_read(checkout: Path, tmp_path: Path) -> None:
    (checkout / "code" / "one.py").write_text("2")
    table(checkout, "one")
    assert rows(checkout)["one"][7].endswith("-dirty")
    save(checkout)
    ran(checkout)
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{checkout}", "shallow")
    for folder in (checkout, tmp_path / "shallow"):
        table(folder, "--due", "60")
        assert ran(folder) == ["one"]


def test_one_that_was_never_measured_is_named_since_its_time_is_not_known(checkout: Path) -> None:
    measured(checkout, "one")
    code, said = table(checkout, "--due", "60")
    assert (code, ran(checkout)) == (0, [])
    assert "due, not run here: still, two" in said


def test_a_commit_that_is_gone_counts_as_a_change_but_not_where_history_is_shallow(checkout: Path, tmp_path: Path) -> None:
    measured(checkout)
    (checkout / "more").write_text("")
    save(checkout)
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{checkout}", "shallow")
    code, said = table(tmp_path / "shallow", "--due", "60")
    assert (code, ran(tmp_path / "shallow")) == (0, [])
    assert "history is too short here to say whether they are due, not run: one, still, two" in said
    path = checkout / "docs" / "benchmarks.md"
    path.write_text(path.read_text().replace(rows(checkout)["one"][7], "0123abc"))
    assert table(checkout, "--due", "60")[0] == 0
    assert sorted(ran(checkout)) == ["one", "two"]


def declared(path: Path) -> dict[str, Any]:
    """Return the constants that a script declares."""
    found: dict[str, Any] = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in ("DEPENDS", "QUIET"):
            found[node.targets[0].id] = ast.literal_eval(node.value)
    return found


SCRIPTS = sorted(path for path in BENCHMARKS.glob("*.py") if "DEPENDS" in declared(path))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_benchmark_depends_on_paths_that_exist_and_on_all_that_it_imports_of_the_tests(path: Path) -> None:
    depends = declared(path)["DEPENDS"]
    assert not [each for each in depends if not (ROOT / each).exists()]
    tree = ast.parse(path.read_text())
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    helpers = {f"tests/{folder}{name}.py" for name in names - {"figures"} for folder in ("", "benchmarks/")}
    assert {helper for helper in helpers if (ROOT / helper).exists()} <= set(depends)


def test_the_table_has_a_row_for_each_benchmark_and_for_nothing_else() -> None:
    assert len(SCRIPTS) >= 14
    assert list(rows(ROOT)) == [path.stem for path in SCRIPTS]
    assert all(len(row) == 9 for row in rows(ROOT).values())
