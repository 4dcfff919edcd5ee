"""Choosing a model by limits: what remains, best first, and what excludes the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli
from factory import make_cell, make_latency, make_record, make_tables

from edgebench.errors import InputError
from edgebench.report import leaderboard
from edgebench.report import limits as limits_
from edgebench.schema import Energy, Interval, Verdict

RESULTS = Path(__file__).parent.parent / "results"


def chosen(limits: dict[str, float], *records: Any, sort: str = "metric") -> limits_.Choice:
    placed = [(Path(f"{index}.json"), record) for index, record in enumerate(records)]
    [found] = limits_.choose(make_tables(placed, sort, ("target",)), limits)
    return found


def names(found: limits_.Choice) -> list[str]:
    return [row.entry.model for row in found.kept]


def reasons(found: limits_.Choice) -> dict[str, tuple[str, ...]]:
    return {row.entry.model: why for row, why in found.excluded}


SMALL = make_record(cell=make_cell("small"), median_ns=2e6, accuracy=0.9, size=3_000_000)
GOOD = make_record(cell=make_cell("good"), median_ns=9e6, accuracy=0.97, size=9_000_000)


def test_without_limits_everything_remains_best_first() -> None:
    assert names(chosen({}, SMALL, GOOD)) == ["good", "small"]
    assert names(chosen({}, SMALL, GOOD, sort="latency")) == ["small", "good"]


def test_a_limit_holds_at_its_value_and_not_beyond() -> None:
    p99 = SMALL.latency.p99_ns if SMALL.latency else None
    assert p99 == 3e6
    assert names(chosen({"max_p99": 3e6}, SMALL, GOOD)) == ["small"]
    assert names(chosen({"max_p99": 3e6 - 1}, SMALL, GOOD)) == []
    assert names(chosen({"min_metric": 0.97}, SMALL, GOOD)) == ["good"]


def test_every_broken_limit_is_told() -> None:
    found = chosen({"max_p50": 5e6, "max_size": 5e6, "min_metric": 0.95}, SMALL, GOOD)
    assert reasons(found) == {
        "good": ("p50 9.00 ms, 5.00 ms is the most", "size 8.58 MiB, 4.77 MiB is the most"),
        "small": ("metric 90.0 %, 95.0 % is the least",),
    }


def test_what_is_not_known_keeps_to_no_limit() -> None:
    few = make_record(cell=make_cell("few"), latency=make_latency(1e6, p99_ns=None))
    assert reasons(chosen({"max_p99": 1e9}, few)) == {"few": ("p99 is not known",)}
    joules = Interval(value=0.001, low=0.001, high=0.001)
    short = make_record(cell=make_cell("short"), energy=Energy(joules=joules, provenance="board", short=True))
    whole = make_record(cell=make_cell("whole"), energy=Energy(joules=joules, provenance="board", short=False))
    assert reasons(chosen({"max_energy": 0.002}, short, whole)) == {"short": ("energy is not known",)}


def test_an_invalid_measurement_is_no_choice() -> None:
    odd = make_record(cell=make_cell("odd"), verdict=Verdict(word="INVALID"))
    assert reasons(chosen({}, odd, GOOD)) == {"odd": ("its measurement is INVALID",)}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("max_p99", "20ms", 2e7),
        ("max_p99", "1.5 s", 1.5e9),
        ("max_p50", "300us", 3e5),
        ("max_p50", "300µs", 3e5),
        ("max_size", "5MB", 5e6),
        ("max_size", "5 MiB", 5 * 2**20),
        ("max_energy", ".5mJ", 5e-4),
        ("min_metric", "85%", 0.85),
        ("min_metric", "0.85", 0.85),
        ("min_rate", "100", 100),
    ],
)
def test_quantities_are_read_with_their_units(name: str, text: str, value: float) -> None:
    assert limits_.quantity(name, text) == pytest.approx(value)


@pytest.mark.parametrize(
    ("name", "text"),
    [("max_p99", "20"), ("max_p99", "20 MB"), ("max_size", "five"), ("max_size", "-5MB"), ("min_metric", "nan"), ("max_p50", "")],
)
def test_what_is_no_quantity_is_one_clear_line(name: str, text: str) -> None:
    with pytest.raises(InputError, match=f"^--{name.replace('_', '-')} .*not understood; write it like "):
        limits_.quantity(name, text)


def test_the_command_line_chooses_among_the_committed_records(cli: Cli) -> None:
    code, out, _ = cli("recommend", RESULTS, "--max-size", "5MB", "--min-accuracy", "98%")
    assert code == 0
    assert "Best: mobilenetv2-distilled tflite int8." in out
    assert "left out: resnet18 onnx int8: size 10.77 MiB, 4.77 MiB is the most" in out
    found = json.loads(cli("recommend", RESULTS, "--max-size", "5MB", "--json")[1])
    assert {row["size_bytes"] <= 5e6 for row in found[0]["kept"]} == {True}
    code, _, err = cli("recommend", RESULTS, "--max-p99", "1ns")
    assert (code, err) == (1, "edgebench: nothing keeps to these limits\n")
    code, _, err = cli("recommend", RESULTS, "--max-p99", "20")
    assert (code, "--max-p99 20: not understood; write it like 20ms" in err) == (2, True)


def test_python_takes_numbers_and_text() -> None:
    [found] = leaderboard.recommend(RESULTS, limits={"max_p99": "1ms", "max_size": 5e6}, where={"precision": ["int8"]})
    assert found.kept
    with pytest.raises(InputError, match="did you mean 'max_p99'"):
        leaderboard.recommend(RESULTS, limits={"max_p9": 1.0})
