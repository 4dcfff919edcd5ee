"""The layout that the design promises."""

from __future__ import annotations

import ast
import configparser
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {"edgebench.exporters": "exporters", "edgebench.targets": "targets", "edgebench.profiles": "profiles"}
LEVELS = """
cli
api
search
quantize diagnose explain validate
run
bundle report
store recipes
models analysis device
data config
tasks
trust plugins
files sandbox
schema agent leftovers sandboxed __version__
errors architectures
"""
"""The rooms of `edgebench/`, each level above those that it may use."""
ALONE = {
    "analysis": {"schema", "tasks"},
    "report": {"store", "analysis", "data", "plugins", "files", "schema", "errors", "__version__"},
    "agent": set(),
    "exporters": {"schema", "errors", "files"},
    "targets": {"schema", "errors", "files"},
}
"""Those that may use less than all that stands below them."""
HEAVY = {
    *("torch", "tensorflow", "coremltools", "tensorrt", "duckdb", "jinja2", "vl_convert", "lightning", "onnx", "litert_torch"),
    "captum",
}


def sources(folder: str) -> list[Path]:
    path = ROOT / folder
    return [path] if path.is_file() else sorted(path.rglob("*.py"))


def imported(path: Path, top_level: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level else list(ast.walk(tree))
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def rooms() -> dict[str, list[Path]]:
    """Return the files of each room: a folder or a module of `edgebench/`, or one of the folders beside it."""
    found = {
        path.stem: sources(f"edgebench/{path.name}") for path in (ROOT / "edgebench").iterdir() if path.suffix in ("", ".py")
    }
    return {**found, "exporters": sources("exporters"), "targets": sources("targets")}


def used(path: Path) -> set[str]:
    """Return the rooms that a file imports."""
    return {name.split(".")[1] for name in imported(path) if name.startswith("edgebench.")}


def test_a_room_uses_only_what_stands_below_it() -> None:
    levels = {room: number for number, line in enumerate(LEVELS.split("\n")) for room in line.split()}
    for room, paths in rooms().items():
        if room in ("__init__", "__main__", "__pycache__"):
            continue  # the public face
        below = {other for other, level in levels.items() if level > levels.get(room, 0)}
        for path in paths:
            wrong = used(path) - ALONE.get(room, below) - {room}
            assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_nothing_imports_the_command_line() -> None:
    for folder in ("edgebench", "exporters", "targets"):
        for path in sources(folder):
            if "edgebench/cli" not in path.as_posix() and path.name != "__main__.py":
                assert not {name for name in imported(path) if name.startswith("edgebench.cli")}, path


def test_heavy_libraries_are_imported_inside_plugins_or_functions() -> None:
    allowed = {
        "edgebench/data/_torchvision.py",
        "edgebench/models/plain_zoo.py",
        "edgebench/models/scratch_zoo.py",
        "edgebench/models/torchvision_zoo.py",
        "edgebench/models/checkpoint.py",
        "edgebench/models/fusion.py",
        "edgebench/models/heads.py",
        "edgebench/models/program.py",
        "edgebench/models/graphs.py",
        "edgebench/models/shapes.py",
        "edgebench/recipes/_augment.py",
        "edgebench/recipes/_classifier.py",
        "edgebench/recipes/_fake_quant.py",
        "edgebench/recipes/_fusion.py",
        "edgebench/recipes/_groups.py",
        "edgebench/recipes/_losses.py",
        "edgebench/recipes/_order.py",
        "edgebench/recipes/_pruning.py",
        "edgebench/recipes/_trainer.py",
        "edgebench/recipes/_transfer.py",
        "edgebench/recipes/_volumes.py",
    }
    for folder in ("edgebench", "exporters", "targets"):
        for path in sources(folder):
            name = path.relative_to(ROOT).as_posix()
            heavy = {module for module in imported(path, top_level=True) if module.split(".")[0] in HEAVY}
            assert not heavy or name in allowed, f"{name} imports {heavy} at its top"


@pytest.mark.parametrize("path", sources("edgebench/agent"), ids=lambda path: path.name)
def test_the_agent_is_standard_library_and_python_3_6(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 6))
    modules = {name.split(".")[0] for name in imported(path)}
    if not path.name.startswith(("rt_", "meter_")):
        assert modules <= set(sys.stdlib_module_names), modules
    assert not any(isinstance(node, ast.NamedExpr) for node in ast.walk(tree))


def test_every_package_is_listed() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    found = set()
    for package, folder in {"edgebench": "edgebench", **FOLDERS}.items():
        for init in (ROOT / folder).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT / folder).parts
            found.add(".".join((package, *parts)))
    assert listed == found


def test_the_top_level_is_what_the_design_says() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    top = {line.split("/")[0] for line in listed.stdout.splitlines()}
    needed = {"edgebench", "targets", "exporters", "profiles", "results", "tests", "setup.cfg", "README.md"}
    beside = {
        "pyproject.toml",
        "constraints.txt",
        "constraints.lock",
        "Makefile",
        "LICENSE",
        "CHANGELOG.md",
        "docs",
        ".ci",
        ".github",
    }
    assert needed <= top
    assert top <= needed | beside | {".ci", ".github", ".gitignore", ".pre-commit-config.yaml"}


@pytest.mark.smoke
def test_help_imports_neither_torch_nor_numpy() -> None:
    code = (
        "import sys; from edgebench.cli import execute; execute(['--help'], True);"
        "print('loaded:', sorted({'torch', 'numpy', 'pydantic', 'scipy', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "leaderboard" in done.stdout
    assert "loaded: []" in done.stdout
