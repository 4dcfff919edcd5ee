"""What a search leaves in its folder: what it found as JSON and as a page, bundles, and the profile of the best one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from edgebench import __version__
from edgebench.files import new_folder, write_atomic, write_json
from edgebench.report import compression
from edgebench.run.session import Session
from edgebench.schema import Profile
from edgebench.search.outcome import Candidate, Found

SUMMARY, PAGE, PARETO, BEST, PROFILE = "compress.json", "compress.html", "pareto", "best", "best.yaml"
MANIFEST = "pareto.json"


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    """Write what was found so far."""
    write_json(folder / SUMMARY, dict(summary))


def write_page(folder: Path, summary: Mapping[str, Any]) -> Path:
    """Write the page; `MissingExtra` where what fills its template is not installed."""
    write_atomic(folder / PAGE, compression.render(summary, __version__).encode())
    return folder / PAGE


def write_bundles(folder: Path, found: Found) -> None:
    """Copy the bundles that nothing beats, the fastest first, and the best one; one that is gone is left out."""
    named = {f"{place:02d}-{_stem(each)}": each for place, each in enumerate(found.unbeaten, 1)}
    with new_folder(folder / PARETO, MANIFEST) as staging:
        kept = {name: each for name, each in named.items() if _copied(each, staging / name)}
        rows = [{"bundle": name, "trial": each.tried.number, "keeps": each.keeps} for name, each in kept.items()]
        (staging / MANIFEST).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    if found.best is not None and _place(found.best).is_dir():
        with new_folder(folder / BEST, "bundle.json") as staging:
            _copied(found.best, staging)


def _place(candidate: Candidate) -> Path:
    return Path(str(candidate.tried.result["bundle"]))


def _copied(candidate: Candidate, place: Path) -> bool:
    if not (_place(candidate) / "bundle.json").is_file():
        return False
    shutil.copytree(_place(candidate), place, dirs_exist_ok=True)
    return True


def _stem(candidate: Candidate) -> str:
    assert candidate.entry is not None
    return f"{candidate.entry.model}.{candidate.entry.format}.{candidate.entry.precision}"


def write_profile(folder: Path, profile: Profile, session: Session) -> None:
    """Write how the best is made, for `edgebench run`; a mixture of precisions was found by measuring, and has none."""
    place = folder / PROFILE
    if profile.variants[0].precisions == ("mixed",):
        place.unlink(missing_ok=True)
        return
    name = f"{profile.models[0].name[:50]}-compressed"
    said = profile.model_copy(update={"name": name, "scenario": session.scenario(profile.scenario)})
    content = said.model_dump(mode="json", exclude_defaults=True)
    write_atomic(place, yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode())
