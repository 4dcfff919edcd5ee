"""What is installed is what was looked at: versions, hashes, actions by commit."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent.parent
LOCKED = re.compile(r"^([A-Za-z0-9_.\-]+)==(\S+)((?: ;[^\\]*)?) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n?)+)", re.M)


def name_of(text: str) -> str:
    return re.sub(r"[-_.]+", "-", text).lower()


def locked() -> dict[str, str]:
    return {name_of(name): version for name, version, _, _ in LOCKED.findall((ROOT / "constraints.lock").read_text())}


def test_every_package_of_the_lock_has_its_hashes() -> None:
    text = (ROOT / "constraints.lock").read_text()
    assert len(locked()) == len(re.findall(r"^[A-Za-z0-9]", text, re.M)) > 100


def test_the_lock_has_the_versions_that_the_tests_passed_with() -> None:
    pins = dict(
        line.split(";")[0].strip().split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    )
    for name, version in pins.items():
        if name_of(name) in locked():
            assert locked()[name_of(name)] == version, name


def test_the_lock_holds_all_that_edgebench_asks_for() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = config["options.extras_require"]
    asked = "\n".join([config["options"]["install_requires"], extras["torch"], extras["tflite"], extras["report"]])
    for line in asked.split("\n"):
        if line and not line.startswith("%"):
            wanted = Requirement(line)
            assert locked()[name_of(wanted.name)] in wanted.specifier, line


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "workflows").glob("*.yml")), ids=lambda path: path.name)
def test_actions_are_pinned_by_commit(path: Path) -> None:
    used = re.findall(r"uses: (\S+)(.*)", path.read_text())
    assert used
    for action, beside in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action), action
        assert re.fullmatch(r"  # v\d+\.\d+\.\d+", beside), f"{action}: which version is that?"
