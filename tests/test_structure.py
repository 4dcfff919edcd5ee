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
PURE = {"edgebench.schema", "edgebench.errors", "edgebench.files", "edgebench.discovery"}
MAY_IMPORT = {
    "edgebench/schema.py": set(),
    "edgebench/errors.py": set(),
    "edgebench/files.py": {"edgebench.errors"},
    "edgebench/plugins.py": {"edgebench.errors"},
    "edgebench/analysis/ties.py": set(),
    "edgebench/analysis/stats.py": {"edgebench.schema", "edgebench.ties"},
    "edgebench/analysis/processor.py": {"edgebench.schema"},
    "edgebench/analysis/verdict.py": {"edgebench.schema", "edgebench.processor", "edgebench.stats"},
    "edgebench/analysis/power.py": {"edgebench.schema"},
    "edgebench/analysis/energy.py": {"edgebench.schema", "edgebench.stats", "edgebench.trace"},
    "edgebench/analysis/metrics.py": {"edgebench.schema"},
    "edgebench/config.py": PURE,
    "edgebench/run/plan.py": PURE,
    "edgebench/run/forecast.py": {"edgebench.schema"},
    "edgebench/device/deploy.py": PURE,
    "edgebench/device/measure.py": PURE | {"edgebench.plan", "edgebench.deploy"},
    "edgebench/device/tune.py": PURE | {"edgebench.measure"},
    "edgebench/device/inspect.py": PURE | {"edgebench.measure", "edgebench.profile"},
    "edgebench/device/device.py": PURE | {"edgebench.deploy", "edgebench.inspection", "edgebench.measure"},
    "edgebench/device/wheelhouse.py": PURE,
    "edgebench/device/setup.py": PURE | {"edgebench.deploy", "edgebench.measure", "edgebench.wheelhouse"},
    "edgebench/bundle/manifest.py": PURE,
    "edgebench/trust.py": PURE,
    "edgebench/store/samples.py": {"edgebench.schema"},
    "edgebench/store/records.py": PURE | {"edgebench.samples", "edgebench.scan"},
    "edgebench/diagnose/graph.py": set(),
    "edgebench/diagnose/findings.py": {"edgebench.schema", "edgebench.graph"},
    "edgebench/diagnose/quantization_rules.py": {"edgebench.findings", "edgebench.graph", "edgebench.processor"},
    "edgebench/diagnose/kernel_rules.py": {"edgebench.findings", "edgebench.graph"},
    "edgebench/store/row.py": PURE,
    "edgebench/store/snapshot.py": set(),
    "edgebench/store/index.py": PURE | {"edgebench.__version__", "edgebench.entry", "edgebench.scan", "edgebench.store"},
    "edgebench/store/find.py": PURE | {"edgebench.entry", "edgebench.index", "edgebench.scan", "edgebench.store"},
    "edgebench/store/merge.py": PURE | {"edgebench.index", "edgebench.scan", "edgebench.store"},
    "edgebench/store/cleanup.py": PURE | {"edgebench.entry", "edgebench.index", "edgebench.scan", "edgebench.store"},
    "edgebench/analysis/curves.py": set(),
    "edgebench/analysis/evaluation.py": {"edgebench.schema", "edgebench.curves", "edgebench.metrics"},
    "edgebench/analysis/timeline.py": {"edgebench.schema", "edgebench.stats", "edgebench.trace"},
    "edgebench/report/detail.py": PURE | {"edgebench.data", "edgebench.evaluation", "edgebench.readings", "edgebench.store"},
    "edgebench/report/server.py": PURE | {"edgebench.results", "edgebench.scan"},
    "edgebench/report/": {
        "edgebench.schema",
        "edgebench.stats",
        "edgebench.ties",
        "edgebench.errors",
        "edgebench.entry",
        "edgebench.report",
    },
    "edgebench/agent/": set(),
    "edgebench/data/": PURE | {"edgebench.data", "edgebench.models"},
    "edgebench/models/": PURE | {"edgebench.models", "edgebench.agent", "edgebench.trust"},
    "edgebench/recipes/": PURE
    | {"edgebench.recipes", "edgebench.data", "edgebench.models", "edgebench.agent", "edgebench.profile"},
    "exporters/": {"edgebench.schema", "edgebench.errors", "edgebench.exporters"},
    "targets/": {"edgebench.schema", "edgebench.errors", "edgebench.files", "edgebench.targets"},
}
HEAVY = {"torch", "tensorflow", "coremltools", "tensorrt", "duckdb", "jinja2", "vl_convert", "lightning", "onnx", "litert_torch"}


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


@pytest.mark.parametrize("place", MAY_IMPORT)
def test_imports_go_one_way(place: str) -> None:
    for path in sources(place):
        ours = {name for name in imported(path) if name.startswith("edgebench.")}
        allowed = MAY_IMPORT[place]
        wrong = {n for n in ours if not any(n == a or n.startswith(a + ".") for a in allowed)}
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_nothing_imports_the_command_line() -> None:
    for folder in ("edgebench", "exporters", "targets"):
        for path in sources(folder):
            if "edgebench/cli" not in path.as_posix() and path.name != "__main__.py":
                assert not {name for name in imported(path) if name.startswith("edgebench.cli")}, path


def test_heavy_libraries_are_imported_inside_plugins_or_functions() -> None:
    allowed = {
        "edgebench/models/torchvision_zoo.py",
        "edgebench/models/checkpoint.py",
        "edgebench/models/program.py",
        "edgebench/recipes/_classifier.py",
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
    beside = {"pyproject.toml", "constraints.txt", "Makefile", "LICENSE", "CHANGELOG.md", "docs", ".ci", ".github"}
    assert needed <= top
    assert top <= needed | beside | {".gitignore", ".pre-commit-config.yaml"}


@pytest.mark.smoke
def test_help_imports_neither_torch_nor_numpy() -> None:
    code = (
        "import sys; from edgebench.cli import execute; execute(['--help'], True);"
        "print('loaded:', sorted({'torch', 'numpy', 'pydantic', 'scipy', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "leaderboard" in done.stdout
    assert "loaded: []" in done.stdout
