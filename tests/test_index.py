"""The index over records: it keeps up with the files, and answers as tables made of all of them would."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Cli, SmallDisk
from factory import make_cell, make_latency, make_record, make_tables
from scipy.stats import t
from synthetic import records

from edgebench.analysis import stats, ties
from edgebench.errors import InputError, UnknownName
from edgebench.files import seal
from edgebench.report import leaderboard, tables
from edgebench.report.writers import markdown
from edgebench.schema import Energy, Interval, Lineage, Record, Verdict
from edgebench.store import index, snapshot
from edgebench.store import records as storing
from edgebench.store.row import COMBINATION, FIELDS, flatten


def put(folder: Path, name: str, **changes: Any) -> Path:
    """Write a sealed record under a name of its own."""
    record = make_record(cell=make_cell(name, **changes.pop("cell", {})), **changes)
    path = folder / "records" / "cpu" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(seal(record.model_dump(mode="json", by_alias=True))))
    return path


def listed(folder: Path) -> list[str]:
    with leaderboard.open_results(folder) as opened:
        return [entry.model for entry in opened.index.entries()]


def damaged(folder: Path) -> dict[str, str]:
    with leaderboard.open_results(folder) as opened:
        return {each.path: each.reason for each in opened.index.damaged}


def test_new_changed_and_removed_records_are_noticed(tmp_path: Path) -> None:
    first, second = put(tmp_path, "a"), put(tmp_path, "b")
    assert listed(tmp_path) == ["a", "b"]
    put(tmp_path, "c")
    first.unlink()
    second.write_text(put(tmp_path, "d").read_text())  # in place: the folder itself does not change
    assert listed(tmp_path) == ["d", "c", "d"]
    assert listed(tmp_path) == ["d", "c", "d"]


def test_only_what_changed_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a")
    listed(tmp_path)
    put(tmp_path, "b")
    read: list[str] = []

    def remembering(path: Path, *, whole: bool) -> Record:
        read.append(path.name)
        return original(path, whole=whole)

    original = storing.read_record
    monkeypatch.setattr(storing, "read_record", remembering)
    assert listed(tmp_path) == ["a", "b"]
    assert read == ["b.json"]


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def edited(path: Path) -> None:
    path.write_text(path.read_text().replace('"size_bytes": 4000000', '"size_bytes": 3000000'))


def huge(path: Path) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps(seal({**content, "size_bytes": 10**30})))


def lonely(path: Path) -> None:
    path.write_text(path.read_text().replace("Testix", "\\ud800"))


def endless(path: Path) -> None:
    path.write_text("[" * 100_000)


def elsewhere(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere.json")


@pytest.mark.parametrize("harm", [half, edited, huge, lonely, endless, elsewhere])
def test_a_damaged_record_is_named_and_stops_nothing(tmp_path: Path, cli: Cli, harm: Callable[[Path], None]) -> None:
    put(tmp_path, "good")
    path = put(tmp_path, "bad")
    whole = path.read_bytes()
    harm(path)
    assert listed(tmp_path) == ["good"]
    [(name, reason)] = damaged(tmp_path).items()
    assert (name, str(path) in reason or name in reason) == ("records/cpu/bad.json", True)
    code, out, err = cli("leaderboard", tmp_path)
    assert (code, " good " in out, " bad " in out) == (1, True, False)
    assert err.startswith("edgebench: left out: ") and "bad.json" in err and len(err.splitlines()) == 1
    path.unlink()
    path.write_bytes(whole)
    assert (listed(tmp_path), damaged(tmp_path)) == (["bad", "good"], {})


def test_odd_names_of_files_do_no_harm(tmp_path: Path) -> None:
    path = put(tmp_path, "a")
    path.with_name("'; DROP TABLE entries; --.json").write_bytes(path.read_bytes())
    os.link(path, os.fsencode(path.parent) + b"/\xff.json")
    (tmp_path / "records" / "a.json").mkdir()
    assert listed(tmp_path) == ["a", "a"]
    assert set(damaged(tmp_path)) == {"records/cpu/\\xff.json", "records/a.json"}


def test_filters_and_groups_are_names_and_never_queries(tmp_path: Path) -> None:
    put(tmp_path, "a")
    with leaderboard.open_results(tmp_path) as opened:
        assert opened.index.entries({"model": ["x') OR TRUE --"]}) == []
        with pytest.raises(UnknownName, match="group"):
            opened.tables(by=("target; DROP TABLE entries",))
        with pytest.raises(UnknownName, match="filter"):
            opened.index.entries({"1=1 --": ["a"]})
        assert len(opened.index.entries({"model": ["[ab]"], "verdict": ["VALID"]})) == 1


def test_what_is_known_is_answered_without_the_libraries_that_measuring_needs(tmp_path: Path) -> None:
    for name, median in (("a", 1e6), ("b", 9e6)):
        put(tmp_path, name, median_ns=median)
    listed(tmp_path)
    heavy = {"numpy", "scipy", "sklearn", "rich", "edgebench.schema"}
    ask = f"execute(['leaderboard', {str(tmp_path)!r}], True); print('loaded:', sorted({heavy} & set(sys.modules)))"
    code = f"import sys; from edgebench.cli import execute; {ask}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert " b " in done.stdout
    assert "loaded: []" in done.stdout


def test_a_folder_without_records_is_empty_and_a_missing_one_is_told(tmp_path: Path) -> None:
    assert listed(tmp_path) == []
    with pytest.raises(InputError, match="no such folder; run `edgebench run` first"):
        listed(tmp_path / "nowhere")


# ---------------------------------------------------------------- where it lies


def test_a_damaged_index_is_made_anew(tmp_path: Path) -> None:
    put(tmp_path, "a")
    listed(tmp_path)
    place = index._place(tmp_path)
    place.write_bytes(b"not a database" * 1000)
    assert listed(tmp_path) == ["a"]


def test_without_a_place_to_keep_it_the_index_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert listed(tmp_path) == ["a"]


def test_where_the_disk_of_the_index_is_full_it_is_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_disk: SmallDisk
) -> None:
    put(tmp_path, "a")
    monkeypatch.setenv("XDG_CACHE_HOME", str(small_disk("64k")))
    assert listed(tmp_path) == ["a"]
    put(tmp_path, "b")
    assert listed(tmp_path) == ["a", "b"]


HOLD = "import duckdb, sys; held = duckdb.connect(sys.argv[1]); print(flush=True); sys.stdin.readline()"


def test_another_edgebench_at_the_same_index_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a")
    listed(tmp_path)
    place = index._place(tmp_path)
    holder = subprocess.Popen([sys.executable, "-c", HOLD, place], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdin and holder.stdout
    holder.stdout.readline()
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 2:
            holder.communicate("\n")

    monkeypatch.setattr(time, "sleep", nap)
    assert listed(tmp_path) == ["a"]
    assert len(naps) == 2
    assert place.exists()


def test_an_interrupted_build_leaves_an_index_that_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        put(tmp_path, name)
    monkeypatch.setattr(index, "BATCH", 1)

    def interrupt(what: str, done: float, total: float, lane: str = "") -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), leaderboard.open_results(tmp_path, interrupt):
        pass
    assert listed(tmp_path) == ["a", "b", "c"]


def test_every_folder_of_records_is_looked_at(tmp_path: Path) -> None:
    put(tmp_path, "a")
    (tmp_path / "records" / "deep" / "deeper").mkdir(parents=True)
    assert sorted(snapshot.digests(str(tmp_path))) == ["records", "records/cpu", "records/deep", "records/deep/deeper"]


# ---------------------------------------------------------------- what it answers


VARIANTS = [("onnx", "fp32"), ("onnx", "int8"), ("torch", "fp32")]


def some(count: int, seed: int) -> list[tuple[Path, Record]]:
    """Make records with many ties, blanks, and energies of several kinds."""
    draw = random.Random(seed)
    made = []
    for number in range(count):
        median = draw.choice([1e6, 2e6, 2.02e6, 3e6])
        joules = draw.choice([None, 0.1, 0.2])
        energy = Energy(
            joules=None if joules is None else Interval(value=joules),
            provenance=draw.choice(["board", "module"]),
            short=draw.random() < 0.3,
        )
        record = make_record(
            cell=make_cell(
                f"m{number % 7}", draw.choice(["onnx", "torch"]), draw.choice(["fp32", "int8"]), target=f"t{number % 2}"
            ),
            accuracy=draw.choice([0.8, 0.9]),
            size=draw.choice([10, 20, 30]),
            role=draw.choice(["teacher", "student"]),
            latency=make_latency(median, p99_ns=draw.choice([None, median * 1.5])),
            energy=energy,
            verdict=Verdict(word=draw.choice(["VALID", "INVALID"])),
            started_at=f"2026-01-{draw.randrange(10, 30)}T00:00:00Z",
        )
        made.append((Path(f"records/{number}.json"), record))
    return made


@pytest.mark.parametrize("sort", index.ORDERS)
def test_the_first_rows_are_those_of_the_whole_table(sort: str, tmp_path: Path) -> None:
    for seed in range(8):
        held = index.hold(flatten(path.as_posix(), record) for path, record in some(40, seed))
        opened = leaderboard.Open(tmp_path, held)
        for where in ({}, {"precision": ["int8"]}):
            whole, cut = (opened.tables(sort=sort, by=("target",), where=where, top=top).tables for top in (None, 3))
            assert [table.rows[:3] for table in whole] == [table.rows for table in cut]
            assert [len(table.rows) - 3 for table in whole if len(table.rows) > 3] == [t.beyond for t in cut if t.beyond]


def test_every_order_ranks_by_what_it_sorts() -> None:
    assert list(index.ORDERS) == list(tables.SORTS)
    for sort, value in tables.SORTS.items():
        for table in make_tables(some(40, 1), sort, ("target",)):
            values = [value(row.entry) for row in table.rows]
            known = [each for each in values if each is not None]
            assert known == sorted(known, reverse=sort == "metric")
            assert values[len(known) :] == [None] * (len(values) - len(known))


def test_the_front_is_what_no_other_row_beats() -> None:
    for table in make_tables(some(60, 2), by=("target",)):
        axes = {
            row.entry.path: (row.entry.median_ns or 0, -(row.entry.metric or 0), row.entry.size_bytes or 0) for row in table.rows
        }
        beaten = {
            path
            for path, own in axes.items()
            if any(all(a <= b for a, b in zip(other, own, strict=True)) and other != own for other in axes.values())
        }
        assert {row.entry.path for row in table.rows if not row.pareto} == beaten


def test_ranks_differ_where_the_whole_interval_lies_beyond_what_counts_as_none() -> None:
    draw, words = random.Random(3), set()
    for _ in range(200):
        centre = draw.choice([1.0, 1.01, 1.03, 1.06, 1.2])
        one, other = ([middle * draw.gauss(1, 0.01) for _ in range(draw.choice([3, 5]))] for middle in (1.0, centre))
        floor = draw.choice([None, 0.05])
        before, after = np.log(one), np.log(other)
        error = np.sqrt(before.var(ddof=1) / len(one) + after.var(ddof=1) / len(other))
        half = t.ppf(0.975, min(len(one), len(other)) - 1) * error
        low, high = np.exp(after.mean() - before.mean() - half), np.exp(after.mean() - before.mean() + half)
        expected = bool(low > 1 + (floor or 0.02) or high < 1 - (floor or 0.02))
        assert ties.differ(one, other, floor) is expected
        words.add((expected, stats.compare(one, other, paired=False, floor=floor).word in ("faster", "slower")))
    assert words == {(True, True), (False, True), (False, False)}  # whatever differs for a rank differs in a comparison too
    assert not ties.differ([1.0], [2.0], None)


def test_an_entry_keeps_what_tells_combinations_apart() -> None:
    assert set(COMBINATION) <= set(FIELDS)
    one = flatten("a", make_record(cell=make_cell("net")))
    again = flatten("b", make_record(cell=make_cell("net", bundle_sha256="c" * 64), median_ns=5.0))
    other = flatten("c", make_record(cell=make_cell("net", options={"units": 1})))
    assert one.combination == again.combination != other.combination


def test_two_devices_of_one_name_are_told_apart() -> None:
    cells = [make_cell("a"), make_cell("b", device="f" * 64), make_cell("c", target="pi")]
    made = make_tables([(Path(f"{number}.json"), make_record(cell=cell)) for number, cell in enumerate(cells)])
    assert [table.device for table in made] == ["d" * 10, "f" * 10, ""]


def test_cells_that_were_judged_on_other_samples_under_one_name_are_in_tables_of_their_own() -> None:
    cells = [make_cell("a"), make_cell("b", evaluation_sha256="f" * 64), make_cell("c", target="pi")]
    made = make_tables([(Path(f"{number}.json"), make_record(cell=cell)) for number, cell in enumerate(cells)])
    assert [[row.entry.model for row in table.rows] for table in made] == [["a"], ["b"], ["c"]]
    named = [f"digits (test samples {each})" for each in ((cells[0].evaluation_sha256 or "")[:10], "f" * 10)]
    assert [table.title["dataset"] for table in made] == [*named, "digits"]


def test_of_several_teachers_a_model_is_compared_with_its_own() -> None:
    def made(name: str, role: str, parents: tuple[str, ...] = ()) -> Record:
        lineage = Lineage(recipe="train", parents=parents)
        model = next(records(1)).model
        assert model is not None
        model = model.model_copy(update={"name": name, "role": role, "sha256": name * 64, "lineage": lineage})
        return make_record(cell=make_cell(name, "torch"), role=role, model=model)

    teachers = [made("a", "teacher"), made("b", "teacher")]
    known, lost = made("c", "student", ("b" * 64,)), made("d", "student")
    [table] = make_tables((Path(f"{number}.json"), record) for number, record in enumerate([*teachers, known, lost]))
    assert {row.entry.model: row.teacher for row in table.rows} == {"a": "0.json", "b": "1.json", "c": "1.json", "d": None}
    assert "of several teachers, none is known" in markdown.render([table])
    [table] = make_tables((Path(f"{number}.json"), record) for number, record in enumerate([teachers[0], lost]))
    assert [row.teacher for row in table.rows] == ["0.json", "0.json"]
