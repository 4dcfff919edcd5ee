"""Charts and figures: what they say is read back out of their SVG."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import vl_convert
from factory import make_cell, make_record
from numpy.typing import NDArray
from PIL import Image
from scipy.special import softmax
from sklearn import metrics as sklearn

from edgebench.config import read_dataset
from edgebench.data import Split, open_images
from edgebench.report import figures
from edgebench.report.charts import tradeoff
from edgebench.report.charts.vega import COLOURS, DASHES, PAPER, SHAPES
from edgebench.report.detail import gather
from edgebench.report.tables import Row, Table
from edgebench.schema import Energy, Interval, Record
from edgebench.store import records as records_
from edgebench.store.row import flatten

Array = NDArray[Any]
RECORDS = Path(__file__).parent.parent / "results" / "records" / "cpu"
SVG = "{http://www.w3.org/2000/svg}"
MOVE = re.compile(r"translate\(([-\d.]+),\s*([-\d.]+)\)")
HOSTILE = (
    "<script>alert(1)</script>",
    "</svg><img src=x onerror=alert(1)>",
    "a|b `c` \"q\" 's' ]]> &amp; {{x}} ${y}",
    "\u202eliam\u202c",
    "שלום 🙂 мир",
    "\x00\x07\ud800\ufffe",
    "__proto__",
    "datum.x]['constructor",
    "../../etc/passwd",
    "n" * 400,
)


def drawn(spec: dict[str, Any], dark: bool = False, **data: Any) -> ElementTree.Element:
    """Draw a chart as SVG; it may load nothing."""
    whole = {**tradeoff.widened(spec, 520), "datasets": data}
    return ElementTree.fromstring(vl_convert.vegalite_to_svg(whole, config=tradeoff.theme(dark), allowed_base_urls=[]))


def texts(root: ElementTree.Element) -> list[str]:
    return ["".join(each.itertext()) for each in root.iter(f"{SVG}text")]


def marks(root: ElementTree.Element, kind: str) -> Iterator[ElementTree.Element]:
    """Yield the items of all marks of a kind: symbol, text, rule, …."""
    for group in root.iter(f"{SVG}g"):
        if f"mark-{kind} role-mark" in group.get("class", ""):
            yield from group


def place(item: ElementTree.Element) -> tuple[float, float]:
    found = MOVE.match(item.get("transform", ""))
    assert found is not None
    return float(found[1]), float(found[2])


@pytest.fixture(scope="module")
def digits() -> Split:
    return open_images(read_dataset("digits")).read("test")


@pytest.fixture(scope="module")
def behind(digits: Split) -> dict[str, Any]:
    (path,) = RECORDS.glob("mobilenetv2-distilled.onnx.int8.*.json")
    return gather(path, records_.read_record(path), digits).values()


@pytest.fixture(scope="module")
def scores() -> Array:
    (path,) = RECORDS.glob("mobilenetv2-distilled.onnx.int8.*.json")
    return records_.read_samples(path, records_.read_record(path))["predictions"]


def a_row(number: int, metric: float, median_ns: float, name: str = "", **changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"record": f"r{number}.json", "model": name or f"m{number}", "role": "baseline", "format": "onnx"}
    row |= {"precision": "fp32", "runtime": "rt 1", "metric_value": metric, "median_ns": median_ns, "p99_ns": None}
    row |= {"median_low_ns": None, "median_high_ns": None, "size_bytes": 1_000_000 * (number + 1), "peak_bytes": None}
    row |= {"energy_joules": None, "energy_provenance": None, "verdict": "VALID"}
    return {**row, **changes}


# ---------------------------------------------------------------- numbers, read back


@pytest.mark.parametrize("dark", [False, True])
def test_the_cells_of_a_confusion_matrix_are_scikit_learns(
    behind: dict[str, Any], scores: Array, digits: Split, dark: bool
) -> None:
    root = drawn(tradeoff.every()["confusion"], dark, confusion=behind["evaluation"]["confusion"])
    cells = [(place(item), int("".join(item.itertext()))) for item in marks(root, "text")]
    columns, rows = (sorted({spot[axis] for spot, _ in cells}) for axis in (0, 1))
    found = np.zeros((10, 10), int)
    for (x, y), count in cells:
        found[rows.index(y), columns.index(x)] = count
    assert found.tolist() == sklearn.confusion_matrix(digits.labels, scores.argmax(axis=1)).tolist()


def test_shares_of_a_confusion_matrix_are_of_the_true_class(behind: dict[str, Any], scores: Array, digits: Split) -> None:
    root = drawn(tradeoff.every()["confusion_normalised"], confusion=behind["evaluation"]["confusion"])
    found = sorted("".join(item.itertext()) for item in marks(root, "text"))
    wanted = sklearn.confusion_matrix(digits.labels, scores.argmax(axis=1), normalize="true").ravel()
    assert found == sorted(f"{value:.2f}" for value in wanted if value)


def told(label: str, found: list[str]) -> float:
    (text,) = (text for text in found if text.endswith(f"  {label}"))
    return float(text.removesuffix(label))


def about(value: float) -> Any:
    return pytest.approx(value, abs=5.6e-5)  # rounded to five decimals, then to four


def test_the_legends_tell_scikit_learns_areas(behind: dict[str, Any], scores: Array, digits: Split) -> None:
    likely, truth = softmax(scores.astype(np.float64), axis=1), np.eye(10)[digits.labels]
    roc = texts(drawn(tradeoff.every()["roc"], roc=behind["evaluation"]["roc"]))
    recall = texts(drawn(tradeoff.every()["precision_recall"], precision_recall=behind["evaluation"]["precision_recall"]))
    for average in ("micro", "macro"):
        assert told(f"{average}-average", roc) == about(sklearn.roc_auc_score(truth, likely, average=average))
        assert told(f"{average}-average", recall) == about(sklearn.average_precision_score(truth, likely, average=average))
    for digit in range(10):
        assert told(str(digit), roc) == about(sklearn.roc_auc_score(truth[:, digit], likely[:, digit]))
        assert told(str(digit), recall) == about(sklearn.average_precision_score(truth[:, digit], likely[:, digit]))
    assert "the corner, enlarged" in roc


def test_curves_of_a_weaker_model_are_drawn_whole() -> None:
    lines = [{"curve": "a", "average": False, "area": 0.8, "x": [0, 0.2, 1], "y": [0, 0.8, 1]}]
    found = texts(drawn(tradeoff.every()["roc"], roc=lines))
    assert "the corner, enlarged" not in found
    assert {"0.0", "0.5", "1.0"} <= set(found)


def test_the_calibration_chart_tells_its_error_and_every_bin(behind: dict[str, Any]) -> None:
    (line,) = behind["evaluation"]["calibration"]
    root = drawn(tradeoff.every()["calibration"], calibration=[line])
    assert f"ECE {line['ece']:.4f}: confidence in the decision" in texts(root)
    assert len(list(marks(root, "symbol"))) == len(line["count"])


def test_each_trial_has_a_line_and_a_body(behind: dict[str, Any]) -> None:
    lines = drawn(tradeoff.every()["ecdf"], trials=behind["trials"])
    assert sum(group.get("class", "").startswith("mark-line role-mark") for group in lines.iter(f"{SVG}g")) == 5
    assert [f"trial {n}" for n in range(1, 6)] == [text for text in texts(lines) if text.startswith("trial ")]
    bodies = drawn(tradeoff.every()["violin"], trials=behind["trials"])
    assert sum(group.get("class", "").startswith("mark-area role-mark") for group in bodies.iter(f"{SVG}g")) == 5
    assert len(list(marks(bodies, "rule"))) == 5


def test_a_series_has_conditions_under_it_and_its_onset() -> None:
    series = [{"trial": 1, "t_s": [0.5, 1.5, 2.5], "median_ns": [1_000_000, 1_000_000, 2_000_000]}]
    conditions = [
        {"what": "clock, MHz", "t_s": [0, 1, 2], "value": [1500, 1500, 900]},
        {"what": "temperature, °C", "t_s": [0, 1, 2], "value": [40.5, 50, 60]},
    ]
    root = drawn(tradeoff.every()["series"], series=series, conditions=conditions, onset=[{"t_s": 2.5, "slowdown": 1.0}])
    found = texts(root)
    assert found.index("temperature, °C") < found.index("clock, MHz")
    assert "+100.0 % at the end" in found
    assert len(list(marks(root, "rule"))) == 1
    alone = texts(drawn(tradeoff.every()["series_alone"], series=series, onset=[]))
    assert alone.count("seconds") == 1
    assert "clock, MHz" not in alone


def test_the_power_chart_marks_idle_and_samples_by_words() -> None:
    stretches = [
        {"what": "idle", "label": "idle", "begin_s": -5, "end_s": -1},
        {"what": "samples", "label": "trial 1", "begin_s": 0, "end_s": 10},
    ]
    power = [{"source": "ina3221 <VDD>", "provenance": "module", "t_s": [-5, 0, 10], "watts": [3, 8, 8]}]
    root = drawn(tradeoff.every()["power"], power=power, stretches=stretches)
    assert {"idle", "trial 1", "ina3221 <VDD> (module)"} <= set(texts(root))
    assert len(list(marks(root, "rect"))) == 2


# ---------------------------------------------------------------- trade-off


def on_front(rows: list[dict[str, Any]], axis: str = "p50") -> set[str]:
    """Read the names that stand at the front."""
    return {"".join(item.itertext()) for item in marks(drawn(tradeoff.tradeoff(axis), rows=rows), "text")}


def test_the_front_is_what_no_other_row_beats() -> None:
    draw = np.random.default_rng(3)
    for _ in range(5):
        rows = [a_row(n, round(float(draw.random()), 2), float(draw.integers(1, 9)) * 1e5) for n in range(14)]
        better = {
            row["model"]
            for row in rows
            if not any(
                other["metric_value"] >= row["metric_value"]
                and other["median_ns"] <= row["median_ns"]
                and (other["metric_value"], other["median_ns"]) != (row["metric_value"], row["median_ns"])
                for other in rows
            )
        }
        assert on_front(rows) <= better
        corners = {(row["metric_value"], row["median_ns"]) for row in rows if row["model"] in better}
        assert len(on_front(rows)) == (len(corners) if len(corners) <= 6 else 0)


def test_what_is_invalid_or_not_known_is_not_on_the_front() -> None:
    rows = [a_row(0, 0.99, 1e5, verdict="INVALID"), a_row(1, 0.9, 2e5), a_row(2, 0.95, 3e5, p99_ns=9e5)]
    assert on_front(rows) == {"m1", "m2"}
    assert on_front(rows, "p99") == {"m2"}
    faint = [item for item in marks(drawn(tradeoff.tradeoff(), rows=rows), "symbol") if item.get("opacity") == "0.3"]
    assert len(faint) == 1


def test_energies_of_two_sources_are_never_drawn_together() -> None:
    metered: dict[str, Any] = {"energy_joules": 0.002, "energy_provenance": "module", "energy_rail": "VDD_IN"}
    rows = [
        a_row(0, 0.9, 1e5, **metered),
        a_row(1, 0.95, 1e5, **{**metered, "energy_joules": 0.004}),
        a_row(2, 0.97, 1e5, **{**metered, "energy_provenance": "wall", "energy_rail": "socket"}),
        a_row(3, 0.99, 1e5, **{**metered, "energy_joules": 0.001, "energy_short": True}),
    ]
    spec = tradeoff.tradeoff("energy")
    assert len(list(marks(drawn(spec, rows=rows), "symbol"))) == 3
    assert on_front(rows, "energy") == {"m0", "m1"}
    wall = {**spec, "params": [{"name": "source", "value": "wall socket"}]}
    assert len(list(marks(drawn(wall, rows=rows), "symbol"))) == 1


def test_variants_differ_in_colour_and_in_shape() -> None:
    rows = [a_row(n, 0.5 + n / 100, 1e5 * (n + 1), precision=f"p{n}") for n in range(7)]
    items = list(marks(drawn(tradeoff.tradeoff(), rows=rows), "symbol"))
    assert len({item.get("fill") for item in items}) == 7
    assert len({item.get("d") for item in items}) == 7
    assert len(set(itertools.islice(zip(itertools.cycle(COLOURS[False]), itertools.cycle(SHAPES), strict=False), 56))) == 56
    dashes = itertools.cycle(map(tuple, DASHES))
    assert len(set(itertools.islice(zip(itertools.cycle(COLOURS[False]), dashes, strict=False), 35))) == 35


def test_sizes_are_written_beside_their_bars() -> None:
    rows = [a_row(0, 0.9, 1e5, size_bytes=2_613_000), a_row(1, 0.9, 1e5, size_bytes=45_000_000)]
    found = texts(drawn(tradeoff.sizes(), rows=rows))
    assert {"m0, onnx fp32", "m1, onnx fp32", "2.49 MiB", "42.9 MiB"} <= set(found)


# ---------------------------------------------------------------- for everybody


def light_of(colour: str) -> Array:
    """Return linear red, green and blue of a colour."""
    values = np.array([int(colour[begin : begin + 2], 16) for begin in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(linear: Array) -> Array:
    """Convert to CIE L*a*b* (D65)."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    ratios = to_xyz @ np.clip(linear, 0, 1) / [0.9505, 1.0, 1.089]
    x, y, z = np.where(ratios > 0.008856, np.cbrt(ratios), 7.787 * ratios + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


SEEN = {
    "by most": np.eye(3),
    "without red": np.array([[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.052]]),
    "without green": np.array([[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]]),
    "without blue": np.array([[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]]),
}
"""How colours are seen (Machado, Oliveira and Fernandes 2009)."""


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("how", SEEN)
def test_the_colour_blind_can_tell_the_colours_apart(dark: bool, how: str) -> None:
    seen = [lab(SEEN[how] @ light_of(colour)) for colour in COLOURS[dark]]
    assert min(float(np.linalg.norm(one - other)) for one, other in itertools.combinations(seen, 2)) > 15


@pytest.mark.parametrize("dark", [False, True])
def test_colours_stand_out_from_their_background(dark: bool) -> None:
    def luminance(colour: str) -> float:
        return float(light_of(colour) @ [0.2126, 0.7152, 0.0722])

    for colour in COLOURS[dark]:
        low, high = sorted([luminance(colour), luminance(PAPER[dark])])
        assert (high + 0.05) / (low + 0.05) >= 3  # WCAG 2.2, 1.4.11


@pytest.mark.parametrize("name", [*tradeoff.every(), *tradeoff.AXES, "sizes"])
def test_every_chart_needs_no_network_and_is_drawn_without_data(name: str) -> None:
    spec = tradeoff.tradeoff(name) if name in tradeoff.AXES else tradeoff.sizes() if name == "sizes" else tradeoff.every()[name]
    assert "url" not in json.dumps(spec).replace(spec["$schema"], "")
    behind = ["rows", "trials", "series", "conditions", "onset", "power", "stretches", "training"]
    nothing: dict[str, Any] = {name: [] for name in (*behind, "roc", "precision_recall", "confusion", "calibration")}
    root = drawn(spec, **nothing)
    assert not any("NaN" in value for each in root.iter() for key, value in each.items() if key != "aria-label")


def test_hostile_names_are_text_and_nothing_else() -> None:
    rows = [a_row(n, 0.5 + n / 100, 1e5 * (n + 1), name, format=name, role=name) for n, name in enumerate(HOSTILE)]
    lines = [{"curve": name, "average": False, "area": 0.5, "x": [0, 1], "y": [0, 1]} for name in HOSTILE]
    matrix = [{"true": name, "total": 1, "predicted": list(HOSTILE), "count": [1] * 10} for name in HOSTILE]
    for spec, data in (
        (tradeoff.tradeoff(by="model"), {"rows": rows}),
        (tradeoff.sizes(), {"rows": rows}),
        (tradeoff.every()["roc"], {"roc": lines}),
        (tradeoff.every()["confusion"], {"confusion": matrix}),
    ):
        root = drawn(figures.printed(spec), **figures.printed(data))
        assert {each.tag.removeprefix(SVG) for each in root.iter()} <= {
            "svg",
            "g",
            "path",
            "text",
            "tspan",
            "line",
            "rect",
            "defs",
            "linearGradient",
            "stop",
            "clipPath",
        }
        assert any("<script>alert(" in text for text in texts(root))
        assert not any(set(text) & set("\u202e\x00\ud800\ufffe") for text in texts(root))


# ---------------------------------------------------------------- figures


def a_table(records: Mapping[str, Record], **title: str) -> Table:
    entries = [flatten(path, record) for path, record in records.items()]
    rows = [Row(n, False, entry, None, None, None, None, None) for n, entry in enumerate(entries, 1)]
    return Table(title or {"dataset": "digits", "target": "cpu"}, replace(entries[0], mode="quick"), tuple(rows), ())


@pytest.fixture(scope="module")
def committed(digits: Split) -> tuple[Table, dict[str, Any]]:
    records = {path.name: (path, records_.read_record(path)) for path in sorted(RECORDS.glob("mobilenetv2.*.json"))}
    found = {name: gather(path, record, digits).values() for name, (path, record) in records.items()}
    return a_table({name: record for name, (_, record) in records.items()}), found


def test_figures_are_svg_and_png_with_safe_names(committed: tuple[Table, dict[str, Any]]) -> None:
    table, found = committed
    files = dict(figures.draw([replace(table, rows=table.rows[:1])], found))
    stems = {name.rpartition(".")[0] for name in files}
    assert {f"{stem}.{ending}" for stem in stems for ending in ("svg", "png")} == set(files)
    parts = {stem.removeprefix("digits-cpu-quick-") for stem in stems}
    row = f"mobilenetv2-{table.rows[0].entry.format}-{table.rows[0].entry.precision}"
    wanted = {"tradeoff-p50", "tradeoff-p99", "tradeoff-size", "tradeoff-memory", "sizes", "roc"}
    assert parts == wanted | {f"{row}-confusion", f"{row}-confusion-normalised"}
    for name, content in files.items():
        if name.endswith(".svg"):
            root = ElementTree.fromstring(content)
            assert (root.tag, root.get("role")) == (f"{SVG}svg", "img")
            assert len(root.get("aria-label", "")) > 30
        else:
            assert content.startswith(b"\x89PNG")


def test_one_figure_holds_the_roc_curves_of_a_tables_rows(committed: tuple[Table, dict[str, Any]]) -> None:
    table, found = committed
    specs = {figure.name: figure.spec for figure in figures.figures([table], found)}
    lines = specs["digits-cpu-quick-roc"]["datasets"]["roc"]
    assert [line["curve"] for line in lines] == [row.entry.name for row in table.rows]
    for line, row in zip(lines, table.rows, strict=True):
        average = found[row.entry.path]["evaluation"]["roc"][1]
        assert average["curve"] == "macro-average"
        assert line["area"] == average["area"]


def test_no_more_curves_are_drawn_than_can_be_told_apart() -> None:
    curve = [{"curve": "ill", "average": False, "area": 0.9, "x": [0, 1], "y": [0, 1]}]
    table = a_table({f"{n}.json": make_record(cell=make_cell(f"m{n}")) for n in range(9)})
    found = {f"{n}.json": {"evaluation": {"roc": curve, "confusion": None}} for n in range(9)}
    spec = next(figure.spec for figure in figures.figures([table], found) if figure.name.endswith("roc"))
    assert len(spec["datasets"]["roc"]) == 7
    assert "7 rows of 9" in " ".join(spec["title"]["subtitle"])


def test_rows_of_one_name_keep_their_own_curves() -> None:
    curve = [{"curve": "ill", "average": False, "area": 0.9, "x": [0, 1], "y": [0, 1]}]
    cells = [make_cell(options={"threads": n}) for n in (1, 2)]
    table = a_table({f"{n}.json": make_record(cell=cell) for n, cell in enumerate(cells)})
    found = {f"{n}.json": {"evaluation": {"roc": curve, "confusion": None}} for n in (0, 1)}
    spec = next(figure.spec for figure in figures.figures([table], found) if figure.name.endswith("roc"))
    assert len({line["curve"] for line in spec["datasets"]["roc"]}) == 2


def test_energy_has_a_figure_for_each_source() -> None:
    def metered(rail: str) -> Energy:
        return Energy(joules=Interval(value=0.002), provenance="module", meter="ina3221", rail=rail, short=False)

    records = {f"{rail}.json": make_record(cell=make_cell(rail), energy=metered(rail)) for rail in ("VDD_IN", "CPU")}
    specs = {figure.name: figure.spec for figure in figures.figures([a_table(records)], {})}
    names = sorted(name for name in specs if "energy" in name)
    assert names == ["digits-cpu-quick-tradeoff-energy-module-CPU", "digits-cpu-quick-tradeoff-energy-module-VDD_IN"]
    assert [len(specs[name]["datasets"]["rows"]) for name in names] == [1, 1]


def test_without_evidence_there_are_the_figures_of_the_table_alone() -> None:
    names = [figure.name for figure in figures.figures([a_table({"a.json": make_record()})], {})]
    assert not any("roc" in name or "confusion" in name for name in names)
    assert "digits-cpu-quick-sizes" in names


def test_file_names_are_safe_and_unique_whatever_a_table_is_called() -> None:
    tables = [a_table({"a.json": make_record()}, dataset=name) for name in (*HOSTILE, *HOSTILE, "CON", "con", ".hidden", "")]
    names = [figure.name for figure in figures.figures(tables, {})]
    assert len({name.casefold() for name in names}) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,139}", name) and ".." not in name for name in names)


def test_hostile_titles_are_drawn_and_kept_short(here: Path) -> None:
    table = a_table({"a.json": make_record()}, dataset=" ".join(HOSTILE))
    files = dict(figures.draw([table], {}))
    for name, content in files.items():
        if name.endswith(".svg"):
            root = ElementTree.fromstring(content)
            assert any("<script>alert(1)</script>" in text for text in texts(root))
            assert float(root.get("width", "0")) < 1200
        else:
            (here / "figure.png").write_bytes(content)
            with Image.open(here / "figure.png") as image:
                assert image.width < 2400
