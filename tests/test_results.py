"""Folders of records: listed, looked up, pruned, merged; and what a pull request's results are checked by."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Cli, SmallDisk
from factory import make_cell, make_measurement, make_record

from edgebench import files
from edgebench.report import leaderboard
from edgebench.schema import (
    DatasetRef,
    Interval,
    Noise,
    Paired,
    Scenario,
)
from edgebench.store import layout, records
from edgebench.store import noise as noise_

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden"
OLDER, NEWER = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"


def save(folder: str, model: str = "net", version: str = "b", samples: int = 100, **changes: Any) -> Path:
    """Write a record; `version` is the bundle's, so that the same combination has another key. Returns its path."""
    cell = make_cell(model, bundle_sha256=version * 64, **changes.pop("cell", {}))
    record = make_record(cell=cell, **changes)
    records.save(Path(folder), record, make_measurement(samples))
    return Path(folder) / layout.place(record)


def change(path: Path, **values: Any) -> None:
    """Change a record and seal it again."""
    path.write_text(json.dumps(files.seal({**json.loads(path.read_text()), **values})))


def everything(folder: str) -> set[str]:
    return {path.as_posix() for path in Path(folder).rglob("*") if path.is_file()}


def age(path: Path) -> Path:
    os.utime(path, (1, 1))
    return path


# ---------------------------------------------------------------- list


def test_records_are_listed_a_line_each(here: Path, cli: Cli) -> None:
    save("results", "a", cell={"precision": "int8"})
    save("results", "b", status="failed")
    code, out, _ = cli("results", "list")
    head, first, second = (line.split("\t") for line in out.splitlines())
    assert code == 0
    assert dict(zip(head, first, strict=True)) == {
        "model": "a",
        "format": "onnx",
        "precision": "int8",
        "target": "cpu",
        "device": "d" * 10,
        "mode": "quick",
        "data set": "digits",
        "measured": "2026-01-02T03:04:05Z",
        "verdict": "VALID",
        "p50 ms": "0.001",
        "metric %": "90.0",
        "record": next(Path("results").rglob("a.*.json")).relative_to("results").as_posix(),
    }
    assert second[head.index("verdict")] == "failed"


def test_a_list_can_be_chosen_cut_and_read_by_programs(here: Path, cli: Cli) -> None:
    for model in ("a", "b", "c"):
        save("results", model)
    _, out, err = cli("results", "list", "--where", "model=a,b", "--limit", "1")
    assert [line.split("\t")[0] for line in out.splitlines()] == ["model", "a"]
    assert "1 more; --limit 0 lists all" in err
    _, out, _ = cli("results", "list", "--json")
    found = json.loads(out)
    assert [record["model"] for record in found["records"]] == ["a", "b", "c"]
    assert found["records"][0]["median_ns"] == 1000.0
    assert (found["beyond"], found["damaged"]) == (0, [])
    _, out, err = cli("results", "list", "--where", "model=z")
    assert (out, "no records here" in err) == ("", True)


def test_a_terminal_shows_the_first_lines_in_columns(here: Path) -> None:
    for number in range(52):
        save("results", f"net{number:02}")
    screen, end = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "edgebench", "results", "list"], stdout=end, stderr=subprocess.PIPE, text=True
    )
    os.close(end)
    shown = b""
    try:
        while part := os.read(screen, 65536):
            shown += part
    except OSError:  # the other end is closed
        pass
    lines = shown.decode().splitlines()
    assert len(lines) == 1 + 50
    assert "\t" not in lines[1]
    assert lines[0].index("verdict") == lines[1].index("VALID")
    assert "2 more" in process.communicate()[1]


def test_hostile_text_stays_on_its_line(here: Path, cli: Cli) -> None:
    hostile = "\x1b[31m\n::error::x\t\u202e<b>|😀"
    path = save("results", cell={"dataset": DatasetRef(name=hostile)})
    path.rename(path.with_name("evil\n::error::\x1b\u202e.json"))
    code, out, _ = cli("results", "list")
    assert code == 0
    [_, line] = out.splitlines()
    assert not {"\x1b", "\u202e"} & set(line)
    assert line.count("\t") == 11
    assert "<b>|😀" in line
    _, out, _ = cli("results", "show", "evil")
    assert not {"\x1b", "\u202e"} & set(out)
    assert not any(line.startswith("::") for line in out.splitlines())


def test_a_damaged_record_is_named_beside_the_list(here: Path, cli: Cli) -> None:
    save("results", "good")
    path = save("results", "bad")
    path.write_text(path.read_text()[:99])
    code, out, err = cli("results", "list")
    assert (code, len(out.splitlines())) == (1, 2)
    assert f"left out: {path}: not a readable record" in err
    _, out, _ = cli("results", "list", "--json")
    assert json.loads(out)["damaged"][0]["record"] == path.relative_to("results").as_posix()


# ---------------------------------------------------------------- show


def test_a_record_is_found_by_its_path_its_name_and_its_key(here: Path, cli: Cli) -> None:
    path, _ = save("results", "one"), save("results", "two")
    key = json.loads(path.read_text())["key"]
    below = path.relative_to("results").as_posix()
    for name in (path, below, f"cpu/{path.stem}", path.name, "one", "cpu/one.onnx", key[:6], key[:20], key):
        code, out, _ = cli("results", "show", name, "--json")
        assert (code, json.loads(out)["key"]) == (0, key), name


def test_a_name_that_fits_none_or_several_says_so(here: Path, cli: Cli) -> None:
    save("results", "net1"), save("results", "net2")
    code, _, err = cli("results", "show", "net")
    assert code == 2
    assert "'net' is the beginning of 2 records: cpu/net1.onnx" in err
    code, _, err = cli("results", "show", "resnet")
    assert code == 2
    assert "no record begins with 'resnet'" in err
    assert "edgebench results list" in err


def test_all_that_matters_of_a_record_is_shown(cli: Cli) -> None:
    code, out, _ = cli("results", "show", "resnet18", "--results", GOLDEN / "results-2")
    assert code == 0
    assert out.startswith("resnet18 onnx int8 on cpu, mode quick: UNSTABLE\n- the model waited 34 % of the samples' time")
    for text in (
        "data set          digits",
        "2.14 [2.08, 2.21] ms, over 3 trials and 4157 samples",
        "p99                    too few samples to bound it",
        "accuracy                  0.0944, over 360 samples",
        "peak               84.72 MiB",
        "none, because  rapl: no zone",
        "recipe                random-weights, seed 0",
        "min-max, 256 samples of the train split",
        "kernel               6.18",
        "onnxruntime  1.31.1",
        "355c8bfb.samples.npz, 0.03 MiB, 4157 samples in 3 trials",
    ):
        assert text in out, text


def test_a_failed_record_shows_why(here: Path, cli: Cli) -> None:
    save("results", status="failed")
    _, out, _ = cli("results", "show", "net")
    assert out.startswith("net onnx fp32 on cpu, mode quick: failed\n- trial 1: killed by SIGKILL; run again\n")


def test_comparisons_and_energy_are_shown(here: Path, cli: Cli) -> None:
    path = save("results")
    content = json.loads(path.read_text())
    paired = {"samples": 360, "difference": {"value": -0.01, "low": -0.02, "high": 0.0}, "gained": 1, "lost": 5}
    content["accuracy"]["to_teacher"] = {**paired, "mcnemar_p": 0.25, "reference": "ab" * 32}
    energy = {"joules": {"value": 0.0021, "low": 0.002, "high": 0.0022}, "watts": 4.5, "provenance": "board", "short": True}
    change(path, accuracy=content["accuracy"], energy=energy)
    _, out, _ = cli("results", "show", "net")
    assert "-1.0 [-2.0, +0.0] points; 1 gained and 5 lost of 360; p = 0.25; record ababababab" in out
    assert "2.1 [2, 2.2] mJ" in out
    assert "4.50 W" in out
    assert "idle" not in out
    assert "windows under 60 s: never ranked" in out


# ---------------------------------------------------------------- clean


def test_clean_says_what_goes_and_removes_it_only_when_told(here: Path, cli: Cli) -> None:
    old, new = save("results", version="1", started_at=OLDER), save("results", version="2", started_at=NEWER)
    before = everything("results")
    code, out, _ = cli("results", "clean")
    assert code == 0
    assert out.splitlines()[0].startswith(f"goes: {old.relative_to('results')} (superseded, ")
    assert "1 superseded to remove" in out
    assert "--yes" in out
    assert everything("results") == before
    shown = cli("leaderboard")
    code, out, _ = cli("results", "clean", "--yes")
    assert (code, "1 superseded removed" in out) == (0, True)
    assert everything("results") == {str(new), str(new.with_name(f"{new.stem}.bcdb4b15.samples.npz"))}
    assert cli("leaderboard") == shown
    assert cli("results", "clean", "--yes")[1] == "nothing removed\n"


def test_only_the_same_combination_is_superseded(here: Path) -> None:
    save("results", started_at=NEWER)
    for number, cell in enumerate(
        ({"mode": "standard"}, {"device": "e" * 64}, {"format": "torch"}, {"precision": "int8"}, {"options": {"a": 1}})
    ):
        save("results", version=str(number), started_at=OLDER, cell=cell)
    save("results", version="9", started_at=OLDER, cell={"scenario": Scenario(threads=1)})
    assert leaderboard.clean().going == ()


def test_some_newest_are_kept_and_young_ones_and_those_not_asked_for(here: Path, cli: Cli) -> None:
    days = [time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 86400 * ago)) for ago in (100, 50, 1, 0)]
    a = [save("results", "a", version=str(number), started_at=day) for number, day in enumerate(days)]
    b = [save("results", "b", version=str(number), started_at=day) for number, day in enumerate(days)]

    def going(*options: str) -> list[str]:
        _, out, _ = cli("results", "clean", "--json", *options)
        return [f"results/{each['path']}" for each in json.loads(out)["going"]]

    assert going() == sorted(map(str, a[:3] + b[:3]))
    assert going("--keep", "3") == sorted(map(str, a[:1] + b[:1]))
    assert going("--older-than", "30d", "--where", "model=a") == sorted(map(str, a[:2]))
    assert going("--older-than", "20w") == []
    assert cli("results", "prune", "--json") == cli("results", "clean", "--json")  # as it was called before
    code, _, err = cli("results", "clean", "--older-than", "soon")
    assert (code, "for instance 90d" in err) == (2, True)


def test_a_failure_goes_once_its_cell_has_a_newer_result(here: Path) -> None:
    stale, later = save("f", "a", "1", status="failed", started_at=OLDER), save("f", "b", "1", status="failed", started_at=NEWER)
    save("results", "a", "2", started_at=NEWER), save("results", "b", "2", started_at=OLDER)
    shutil.copytree("f", "results", dirs_exist_ok=True)
    pruned = leaderboard.clean(yes=True)
    assert [(each.path, each.why) for each in pruned.going] == [(stale.relative_to("f").as_posix(), "failure")]
    assert not (Path("results") / stale.relative_to("f")).exists()
    assert (Path("results") / later.relative_to("f")).exists()


def compared_with(path: Path, reference: Path) -> None:
    """Let a record have been compared with another one."""
    key = json.loads(reference.read_text())["key"]
    paired = Paired(samples=1, difference=Interval(value=0), gained=0, lost=0, mcnemar_p=1, reference=key)
    accuracy = json.loads(path.read_text())["accuracy"]
    change(path, accuracy={**accuracy, "to_fp32": paired.model_dump(mode="json")})


def test_what_kept_records_were_compared_with_stays(here: Path) -> None:
    first = save("results", "ref", "1", started_at=OLDER)
    second = save("results", "ref", "2", started_at=NEWER)
    save("results", "ref", "3", started_at="2026-03-01T00:00:00Z")
    compared_with(second, first)
    assert len(leaderboard.clean().going) == 2
    net = save("results", "net")
    compared_with(net, second)
    found = leaderboard.clean()
    assert (found.going, found.referred) == ((), 2)
    net.unlink()
    assert len(leaderboard.clean().going) == 2


def made_from(path: Path, sha256: str, *parents: str) -> None:
    """Let a record be of a checkpoint, made from others."""
    model = json.loads(next((GOLDEN / "results-2").rglob("*.json")).read_text())["model"]
    change(path, model={**model, "sha256": sha256, "lineage": {**model["lineage"], "parents": list(parents)}})


def test_the_newest_record_of_a_teacher_stays_with_its_student(here: Path) -> None:
    for month, sha256 in enumerate(("old", "old", "new"), 1):
        made_from(save("results", "teacher", str(month), started_at=f"2026-0{month}-01T00:00:00Z"), sha256)
    made_from(save("results", "student"), "student", "old")
    found = leaderboard.clean()
    gone = {json.loads((Path("results") / each.path).read_text())["cell"]["bundle_sha256"][0] for each in found.going}
    assert (gone, found.referred) == ({"1"}, 1)


def test_samples_and_files_that_writers_left_go_when_nobody_can_be_at_work_on_them(here: Path) -> None:
    kept = save("results")
    folder = kept.parent
    for name in ("x.onnx.fp32.quick.0123456789.01234567.samples.npz", ".x.onnx.fp32.json.ab_1cd2e"):
        (folder / name).write_bytes(b"young")
        (folder / name.replace("x.onnx", "old.onnx")).write_bytes(b"old")
        age(folder / name.replace("x.onnx", "old.onnx"))
    (folder / ".gitkeep").write_bytes(b"")
    age(folder / ".gitkeep")
    age(next(folder.glob("net*.npz")))
    found = leaderboard.clean(yes=True)
    assert sorted((each.why, each.bytes) for each in found.going) == [("samples", 3), ("temporary", 3)]
    assert sorted(path.name[:5] for path in folder.iterdir()) == [".gitk", ".x.on", "net.o", "net.o", "x.onn"]
    assert leaderboard.clean(where={"model": ["net"]}).going == ()


def test_damaged_records_are_named_and_stay_with_whatever_may_be_their_samples(here: Path, cli: Cli) -> None:
    for version in ("1", "2", "3"):
        save("results", version=version, started_at=f"2026-0{version}-01T00:00:00Z")
    first, second = (path for path in Path("results/records/cpu").glob("*.json") if "2026-03" not in path.read_text())
    first.write_text("{")
    samples = next(second.parent.glob(f"{second.stem}.*.npz"))
    samples.write_bytes(b"changed")
    for path in second.parent.glob("*.npz"):
        age(path)
    before = everything("results")
    code, out, err = cli("results", "clean", "--yes")
    assert (code, out, everything("results")) == (0, "nothing removed\n", before)
    assert f"stays: {first}: not a readable record" in err
    assert f"{samples}: changed since it was measured" in err


def test_a_record_that_is_measured_again_meanwhile_stays(here: Path) -> None:
    old = save("results", version="1", started_at=OLDER)
    save("results", version="2", started_at=NEWER)

    def meanwhile(what: str, done: float, total: float, lane: str = "") -> None:
        if what.startswith("checking"):
            save("results", version="1", started_at="2026-03-01T00:00:00Z", samples=50)

    leaderboard.clean(yes=True, progress=meanwhile)
    assert json.loads(old.read_text())["started_at"] == "2026-03-01T00:00:00Z"
    assert records.read_record(old).samples is not None


def test_samples_that_another_record_names_as_well_stay(here: Path) -> None:
    path = save("results")
    shutil.copy(path, path.with_name("copy.json"))
    assert [each.path for each in leaderboard.clean(yes=True).going] == ["records/cpu/copy.json"]
    assert records.read_record(path).samples is not None


def test_nothing_is_removed_through_a_link(here: Path) -> None:
    old = save("elsewhere", version="1", started_at=OLDER)
    save("results", version="2", started_at=NEWER)
    Path("results/records/linked").symlink_to(old.parent.resolve())
    Path("results/records/cpu/link.json").symlink_to(old.resolve())
    (old.parent / "x.samples.npz").write_bytes(b"")
    age(old.parent / "x.samples.npz")
    before = everything("elsewhere")
    found = leaderboard.clean(yes=True)
    assert found.going == ()
    assert ["reached by a link" in each.reason for each in found.damaged] == [True]
    assert everything("elsewhere") == before


# ---------------------------------------------------------------- merge


def noise(folder: str, started_at: str = OLDER, device: str = "d" * 64, floor: float = 0.01) -> Path:
    found = Noise(
        target="cpu",
        device=device,
        mode="quick",
        bundle="net",
        bundle_sha256="b" * 64,
        scenario=Scenario(),
        started_at=started_at,
        ratios=(1.0, 1.01),
        floor=floor,
    )
    return noise_.save_noise(Path(folder), found)


def test_records_of_several_people_come_together(here: Path, cli: Cli) -> None:
    save("ann", "one"), save("ann", "two"), noise("ann")
    save("bob", "one"), save("bob", "three", status="failed")
    dry = cli("results", "merge", "ann", "bob", "--dry-run")
    assert not Path("results").exists()
    code, out, _ = cli("results", "merge", "ann", "bob")
    assert (code, out) == (0, "results: 4 files taken; 1 were there already\n")
    assert dry[1] == out.replace("taken", "would be taken")
    assert [record.cell.model for _, record in records.read_all(Path("results"))] == ["one", "three", "two"]
    assert everything("results") == {name.replace(each, "results") for each in ("ann", "bob") for name in everything(each)}
    code, out, _ = cli("results", "merge", "ann", "bob")
    assert (code, out) == (0, "results: nothing to do; 5 were there already\n")


def test_of_two_measurements_of_a_cell_the_newer_stays(here: Path, cli: Cli) -> None:
    old, new = save("old", started_at=OLDER, samples=50), save("new", started_at=NEWER)
    _, out, _ = cli("results", "merge", "old", "new")
    assert f"{new}: takes the place of an older one at {old.relative_to('old')}" in out
    assert everything("results") == {name.replace("new", "results") for name in everything("new")}
    code, out, _ = cli("results", "merge", "old")
    assert (code, "nothing to do; 1 older than what is there" in out) == (0, True)
    assert f"{old}: gives way to a newer one" in out
    noise("old", NEWER, floor=0.5), noise("new", OLDER, floor=0.1)
    assert leaderboard.merge([Path("old"), Path("new")]).counts["older"] == 2
    kept = noise_.read_noise(Path("results"), "cpu", "d" * 64, "quick")
    assert kept is not None
    assert kept.floor == 0.5


def test_records_of_older_schemas_are_taken_as_they_are(here: Path, cli: Cli) -> None:
    code, out, _ = cli("results", "merge", GOLDEN / "results-1", GOLDEN / "results-2")
    assert code == 0
    assert "2 of an older schema, which is migrated on reading" in out
    for folder in ("results-1", "results-2"):
        for path in (path for path in (GOLDEN / folder).rglob("*") if path.is_file()):
            assert (Path("results") / path.relative_to(GOLDEN / folder)).read_bytes() == path.read_bytes()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link(path: Path) -> None:
    shutil.copytree(path.parent, "real", dirs_exist_ok=True)
    path.unlink()
    path.symlink_to(Path("real").resolve() / path.name)


def link_samples(path: Path) -> None:
    samples = next(path.parent.glob("*.npz"))
    samples.rename("samples")
    samples.symlink_to(Path("samples").resolve())


def flip(path: Path) -> None:
    samples = next(path.parent.glob("*.npz"))
    samples.write_bytes(bytes([*samples.read_bytes()[:-1], 1]))


def samples_called(name: str) -> Callable[[Path], None]:
    return lambda path: change(path, samples={**json.loads(path.read_text())["samples"], "file": name})


HOSTILE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "truncated": (lambda path: path.write_text(path.read_text()[:300]), "not a readable record"),
    "edited": (lambda path: path.write_text(path.read_text().replace("VALID", "VALiD")), "its hash differs"),
    "deep": (lambda path: path.write_text("[" * 100_000), "not a readable record"),
    "long": (lambda path: path.write_bytes(b" " * (records.MOST_BYTES + 1)), "longer than any record"),
    "no number": (lambda path: path.write_text('{"schema": NaN, "sha256": ""}'), "not a readable record"),
    "not text": (lambda path: path.write_text('{"a": "\\ud800"}'), "not a readable record"),
    "newer": (lambda path: change(path, schema=99), "record schema 99"),
    "no schema": (lambda path: change(path, schema=[3]), "record schema [3]"),
    "foreign key": (lambda path: change(path, key="../../../../tmp/x"), "is no sha256"),
    "unknown field": (lambda path: change(path, **{"\n::error::": 1}), "Extra inputs"),
    "samples outside": (samples_called("../../../x.samples.npz"), "its samples are called"),
    "other samples": (samples_called("other.samples.npz"), "its samples are called"),
    "samples changed": (flip, "changed since it was measured"),
    "no samples": (lambda path: next(path.parent.glob("*.npz")).unlink(), "cannot be read"),
    "link": (link, "a link or something else"),
    "link to samples": (link_samples, "its samples are a link"),
    "pipe": (pipe, "a link or something else"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_no_intact_record_is_named_and_left_out(here: Path, cli: Cli, what: str) -> None:
    spoil, reason = HOSTILE[what]
    path = save("theirs", "bad")
    spoil(path)
    good = save("theirs", "good")
    code, out, _ = cli("results", "merge", "theirs")
    assert code == 1
    assert "results: 1 file taken; 1 refused" in out
    [line] = [line for line in out.splitlines() if line.startswith("refused: ")]
    assert reason in line
    assert path.stem in line
    assert [record for _, record in records.read_all(Path("results"))] == [records.read_record(good)]
    assert len(everything("results")) == 2


def test_a_linked_folder_is_named_and_not_entered(here: Path) -> None:
    save("theirs"), save("secret", "secret")
    Path("theirs/records/more").symlink_to(Path("secret/records").resolve())
    found = leaderboard.merge([Path("theirs")])
    assert (found.counts["new"], found.counts["refused"]) == (1, 1)
    shutil.rmtree("theirs")
    Path("theirs").mkdir()
    Path("theirs/records").symlink_to(Path("secret/records").resolve())
    assert leaderboard.merge([Path("theirs")]).counts == {"new": 0, "newer": 0, "older": 0, "same": 0, "refused": 1}


def test_a_record_goes_where_its_content_says(here: Path) -> None:
    path = save("theirs")
    other = Path("theirs/records/elsewhere/\u202eevil.json")
    other.parent.mkdir()
    path.rename(other)
    next(path.parent.glob("*.npz")).rename(other.with_name(next(path.parent.glob("*.npz")).name))
    assert leaderboard.merge([Path("theirs")]).taken == 1
    assert (Path("results") / path.relative_to("theirs")).is_file()


def test_a_noise_measurement_that_leads_out_is_refused(here: Path) -> None:
    save("theirs")
    change(noise("theirs"), device="/../../x")
    found = leaderboard.merge([Path("theirs")])
    assert found.counts["refused"] == 1
    assert "is no sha256" in found.arrivals[0].reason


def test_a_damaged_record_that_is_there_is_not_overwritten(here: Path) -> None:
    save("theirs", started_at=NEWER)
    mine = save("results", started_at=OLDER)
    mine.write_text("{")
    assert leaderboard.merge([Path("theirs")]).counts["refused"] == 1
    assert mine.read_text() == "{"


def test_devices_that_share_a_name_are_told_apart(here: Path, cli: Cli) -> None:
    save("results", "a")
    save("theirs", "b", cell={"device": "e" * 64}, environment={"board": "Pi | 5", "cpu": "Test | CPU", "cores": 4, "threads": 1})
    save("theirs", "c", status="failed", cell={"device": ""})
    dry = cli("results", "merge", "theirs", "--dry-run")
    _, out, _ = cli("results", "merge", "theirs")
    assert out.splitlines()[:3] == [
        "target cpu names 2 devices; their tables stay apart:",
        "- dddddddddd: board unknown, cores 2, os Testix",
        "- eeeeeeeeee: board Pi | 5, cores 4, os unknown",
    ]
    assert dry[1].splitlines()[:3] == out.splitlines()[:3]
    _, out, _ = cli("results", "merge", "theirs")
    assert out == "results: nothing to do; 2 were there already\n"


@pytest.mark.parametrize("after", [1, 2, 3])
def test_an_interrupted_merge_is_taken_up(here: Path, after: int) -> None:
    for model in ("a", "b", "c", "d"):
        save("theirs", model)

    def interrupt(what: str, done: float, total: float, lane: str = "") -> None:
        if done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leaderboard.merge([Path("theirs")], progress=interrupt)
    assert len(records.read_all(Path("results"))) == after
    found = leaderboard.merge([Path("theirs")])
    assert (found.counts["same"], found.counts["new"]) == (after, 4 - after)
    assert len(records.read_all(Path("results"))) == 4


def test_samples_are_there_before_the_record_that_names_them(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save("theirs")

    def killed(path: Path, content: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("edgebench.store.merge.write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            leaderboard.merge([Path("theirs")])
    [samples] = [path for path in Path("results").rglob("*") if path.is_file()]
    age(samples)
    assert samples.name.endswith(layout.SAMPLES)
    assert leaderboard.merge([Path("theirs")]).counts["new"] == 1
    assert time.time() - samples.stat().st_mtime < 60  # a cleaning beside it would have left it alone
    assert len(records.read_all(Path("results"))) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_one_line_and_the_same_merge_goes_on(here: Path, cli: Cli, small_disk: SmallDisk) -> None:
    for number in range(8):
        save("theirs", f"net{number}", samples=2000)
    disk = small_disk("40k")
    code, _, err = cli("results", "merge", "theirs", "--into", disk / "results")
    assert (code, "the disk is full; free some space" in err) == (2, True)
    some = len(records.read_all(disk / "results"))
    assert 0 < some < 8
    subprocess.run(["mount", "-o", "remount,size=4m", disk], check=True)
    assert leaderboard.merge([Path("theirs")], disk / "results").counts["new"] == 8 - some
    assert len(records.read_all(disk / "results")) == 8


def test_nothing_is_written_through_a_link_that_leads_out(here: Path, cli: Cli) -> None:
    save("theirs")
    Path("results/records").mkdir(parents=True)
    Path("elsewhere").mkdir()
    Path("results/records/cpu").symlink_to(Path("elsewhere").resolve())
    code, _, err = cli("results", "merge", "theirs")
    assert (code, "a link that leads out of results" in err) == (2, True)
    assert list(Path("elsewhere").iterdir()) == []


def test_a_folder_that_cannot_be_merged_is_named(here: Path, cli: Cli) -> None:
    save("results")
    Path("empty").mkdir()
    for folder, reason in (("empty", "holds no records/"), ("nowhere", "holds no records/"), ("results", "into itself")):
        code, _, err = cli("results", "merge", folder)
        assert (code, reason in err) == (2, True), folder


def test_a_merge_is_read_by_programs(here: Path, cli: Cli) -> None:
    path = save("theirs")
    path.write_text("{")
    save("theirs", "good")
    code, out, _ = cli("results", "merge", "theirs", "--json")
    found = json.loads(out)
    assert code == 1
    assert found["counts"] == {"new": 1, "newer": 0, "older": 0, "same": 0, "refused": 1}
    assert found["told"][0]["path"] == str(path)


# ---------------------------------------------------------------- verify, and the workflow


def test_samples_that_nothing_can_read_do_not_stop_verify(here: Path, cli: Cli) -> None:
    for folder in ("results-1", "results-2"):
        shutil.copytree(GOLDEN / folder, "results", dirs_exist_ok=True)
    path = next(Path("results").rglob("*.onnx.*.json"))
    named = json.loads(path.read_text())["samples"]
    content = (path.parent / named["file"]).read_bytes()[:-100]
    (path.parent / named["file"]).write_bytes(content)
    change(path, samples={**named, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)})
    code, out, _ = cli("verify")
    assert code == 1
    assert f"{path}: its samples cannot be read (BadZipFile: " in out
    assert "1 of 2 records hold" in out


WORKFLOW = ROOT / ".github" / "workflows" / "results.yml"
Checks = Callable[[], tuple[int, str, str]]


@pytest.fixture
def checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checks:
    """Copy the committed results into a repository; returns what runs the workflow there: exit code, log, summary."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "results", "results")
    git("init", "--quiet", "--initial-branch", "main")
    commit()
    (job,) = yaml.safe_load(WORKFLOW.read_text())["jobs"].values()
    runner, summary = tmp_path / "runner", tmp_path / "runner" / "summary"
    variables = {"RUNNER_TEMP": str(runner), "GITHUB_STEP_SUMMARY": str(summary), "GITHUB_SHA": "0" * 40}
    variables |= {"GITHUB_SERVER_URL": "https://example.org", "GITHUB_REPOSITORY": "someone/results", "RESULTS": "results"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")

    def run() -> tuple[int, str, str]:
        commit()
        shutil.rmtree(runner, ignore_errors=True)
        runner.mkdir()
        code, log = 0, ""
        for step in job["steps"]:
            if "pip install" not in step.get("run", "pip install") and (not code or "if" in step):
                bash = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
                done = subprocess.run(bash, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
                code, log = code or done.returncode, log + done.stdout
        return code, log, summary.read_text()

    return run


def git(*arguments: str) -> None:
    who = ("-c", "user.name=someone", "-c", "user.email=someone@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *who, *arguments], check=True, capture_output=True)


def commit() -> None:
    Path(".gitignore").write_text("runner\n")
    git("add", "--all")
    git("commit", "--quiet", "--allow-empty", "--message", "results")


def test_the_workflow_passes_on_the_committed_results(checks: Checks) -> None:
    code, log, summary = checks()
    assert code == 0, log
    assert re.search(r"    (\d+) of \1 records hold", summary)
    assert "No table changes." in summary


def test_the_workflow_fails_on_a_record_that_was_changed_by_hand(checks: Checks) -> None:
    path = next(Path("results/records").rglob("*.json"))
    path.write_text(path.read_text().replace('"outliers": ', '"outliers": 1'))
    code, log, summary = checks()
    assert code == 1
    assert f"{path}: changed since it was measured" in log
    assert f"    {path}: changed since it was measured" in summary
    assert "- 1 files changed" in summary


def test_the_workflow_fails_on_a_figure_that_its_samples_do_not_give(checks: Checks) -> None:
    path = next(Path("results/records").rglob("*.json"))
    latency = json.loads(path.read_text())["latency"]
    change(path, latency={**latency, "p90_ns": 1.0})
    code, log, _ = checks()
    assert (code, f"{path}: latency.p90_ns: 1.0 is written" in log) == (1, True)


def test_the_workflow_fails_on_a_leaderboard_of_other_records(checks: Checks) -> None:
    for path in Path("results/records").rglob("resnet18.torch.*"):
        path.unlink()
    code, log, summary = checks()
    assert code == 1
    assert "LEADERBOARD.md is not what its records give" in log
    assert "- 2 files removed" in summary
    assert "## Tables that change" in summary
    leaderboard.leaderboard(Path("results"), out=Path("results/LEADERBOARD.md"))
    assert checks()[0] == 0


def test_the_workflow_shows_the_tables_that_change(checks: Checks) -> None:
    shutil.copytree(GOLDEN / "results-2" / "records", "results/records", dirs_exist_ok=True)
    leaderboard.leaderboard(Path("results"), out=Path("results/LEADERBOARD.md"))
    commit()
    for path in Path("results/records").rglob("resnet18.torch.*"):
        path.unlink()
    leaderboard.leaderboard(Path("results"), out=Path("results/LEADERBOARD.md"))
    code, log, summary = checks()
    assert code == 0, log
    changed = summary.partition("## Tables that change")[2]
    assert "mode standard" in changed
    assert "mode quick" not in changed
    assert (
        "](https://example.org/someone/results/blob/" + "0" * 40 + "/results/records/cpu/resnet18.onnx.int8.standard" in changed
    )


def test_what_records_say_is_no_command_to_the_runner(checks: Checks) -> None:
    path = next(Path("results/records").rglob("*.json"))
    path.with_name("evil\n::add-mask::x.json").write_text("{")
    code, log, summary = checks()
    assert code == 1
    lines = log.splitlines()
    stop = next(number for number, line in enumerate(lines) if re.fullmatch("::stop-commands::[0-9a-f]{32}", line))
    assert stop < next(number for number, line in enumerate(lines) if "add-mask" in line)
    assert not any(line.startswith("::add-mask") for line in (*lines, *summary.splitlines()))


def test_the_workflow_is_safe_for_forks() -> None:
    text = WORKFLOW.read_text()
    workflow = yaml.safe_load(text)
    assert list(workflow[True]) == ["pull_request"]
    assert workflow["permissions"] == {"contents": "read"}
    assert "secrets" not in text
    for job in workflow["jobs"].values():
        assert "permissions" not in job
        for step in job["steps"]:
            assert "${{" not in step.get("run", "")
            assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", step.get("uses", f"actions/x@{'0' * 40}"))
