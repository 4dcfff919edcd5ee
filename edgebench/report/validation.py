"""A validation as one HTML page that opens from disk, loads nothing and runs nothing: its charts are pictures."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgebench.errors import MissingExtra
from edgebench.report.charts import tradeoff
from edgebench.report.charts import validation as charts
from edgebench.report.charts.vega import Spec
from edgebench.report.figures import printed
from edgebench.report.intervals import ABSENT, decimal, p_value, percent

Found = Mapping[str, Any]
SHARES = ("sensitivity", "specificity", "ppv", "npv")
SCORES = ("f1", "mcc", "kappa")
WORDS = ("class", "file", "chosen for", "second less first", "probabilities")
"""Headings of columns that hold text."""
STYLES = ("style", "parts", "validation")
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True)
class Grid:
    """A table: the first cell of a row heads it."""

    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Picture:
    """A chart in both colours, as SVG in base64."""

    caption: str
    text: str
    light: str
    dark: str


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    id: str
    title: str
    hint: str
    pictures: tuple[Picture, ...]
    grids: tuple[Grid, ...]


Draw = Callable[[str, Spec], Picture]


def render(found: Found, version: str = "") -> str:
    """Write the page of what a validation found; `MissingExtra` where what draws it is not installed."""
    from edgebench.report import page

    try:
        import vl_convert

        templates = page.environment()
    except ImportError as error:
        raise MissingExtra("the page of edgebench validate", "report", error.name or "vl_convert") from error

    def draw(caption: str, spec: Spec) -> Picture:
        pictures = []
        for dark in (False, True):
            svg = vl_convert.vegalite_to_svg(printed(spec), config=tradeoff.theme(dark), allowed_base_urls=[])
            pictures.append(base64.b64encode(svg.encode(errors="replace")).decode("ascii"))
        return Picture(caption, str(spec["description"]), *pictures)

    return templates.get_template("validation.html.j2").render(
        policy=POLICY,
        style=page.styles(STYLES),
        found=found,
        sections=list(_sections(found, draw)),
        words=WORDS,
        version=version,
    )


def _sections(found: Found, draw: Draw) -> Iterator[Section]:
    for part in (_decisions, _points, _probabilities, _worth, _groups, _hurt, _raters, _studies):
        section = part(found, draw)
        if section.pictures or section.grids:
            yield section


# ---------------------------------------------------------------- decisions


def _decisions(found: Found, draw: Draw) -> Section:
    curves = {name: [line for line in found["roc"] if line["class"] == name] for name in found["looked_at"]}
    pictures = tuple(draw(f"ROC curves: {name}", charts.roc(lines)) for name, lines in curves.items() if lines)
    hint = "How well the files tell classes apart, whatever the threshold; then their decisions over all classes."
    return Section("decisions", "Telling classes apart", hint, pictures, tuple(_of_decisions(found)))


def _of_decisions(found: Found) -> Iterator[Grid]:
    yield Grid(
        "Area under the ROC curve, with its 95 % interval",
        ("class", "file", "AUC", "positive", "negative"),
        tuple(
            (line["class"], line["file"], decimal(line["auc"]), str(line["positive"]), str(line["negative"]))
            for line in found["areas"]
        ),
    )
    if found["area_tests"]:
        yield Grid(
            "AUC of files on the same samples (DeLong)",
            ("class", "second less first", "difference", "p", "p (Holm)"),
            tuple(
                (line["class"], _pair(line), decimal(line["difference"], sign=True), p_value(line["p"]), p_value(line["p_holm"]))
                for line in found["area_tests"]
            ),
        )
    if found["overall"]:
        weighted = any("weighted_kappa" in line for line in found["overall"])
        yield Grid(
            "Decisions over all classes, as the files decide",
            ("file", "accuracy %", "Cohen's κ", "MCC", *(("κ, quadratic weights",) if weighted else ())),
            tuple(
                (line["file"], percent(line["accuracy"]), decimal(line["kappa"], places=3), _number(line["mcc"]))
                + ((decimal(line["weighted_kappa"], places=3),) if weighted else ())
                for line in found["overall"]
            ),
        )
    if found["changes"]:
        yield Grid(
            "What another file changes, sample by sample",
            ("second less first", "accuracy, points", "gained", "lost", "McNemar"),
            tuple(_change(_pair(line), line) for line in found["changes"]),
        )


def _pair(line: Found) -> str:
    return f"{line['second']} − {line['first']}"


def _number(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.3f}"


def _change(name: str, line: Found) -> tuple[str, ...]:
    difference = percent(line["difference"], sign=True)
    p = ABSENT if line["mcnemar_p"] is None else p_value(line["mcnemar_p"])
    return name, difference, str(line["gained"]), str(line["lost"]), p


def _points(found: Found, draw: Draw) -> Section:
    grids = tuple(
        grid
        for name in found["looked_at"]
        for grid in _points_of(name, [line for line in found["points"] if line["class"] == name], found["predictive"])
    )
    hint = "Thresholds were chosen on the validation data, so that what they reach on these samples may differ."
    return Section("points", "Operating points", hint, (), grids)


def _points_of(name: str, lines: Sequence[Found], prevalences: Sequence[float]) -> Iterator[Grid]:
    yield Grid(
        f"{name}: decisions, in percent with 95 % intervals",
        ("file", "chosen for", "threshold", "in validation", "sensitivity", "specificity", "PPV", "NPV"),
        tuple(
            (line["file"], line["rule"], _threshold(line), _reached(line), *(percent(line[each]) for each in SHARES))
            for line in lines
        ),
    )
    yield Grid(
        f"{name}: one number for all decisions",
        ("file", "chosen for", "accuracy %", "F1", "MCC", "Cohen's κ"),
        tuple(
            (line["file"], line["rule"], percent(line["accuracy"]), *(decimal(line[each], places=3) for each in SCORES))
            for line in lines
        ),
    )
    if prevalences:
        yield Grid(
            f"{name}: predictive values at stated prevalences, in percent",
            ("file", "chosen for", "prevalence", "PPV", "NPV"),
            tuple(
                (line["file"], line["rule"], f"{100 * each['prevalence']:g} %", percent(each["ppv"]), percent(each["npv"]))
                for line in lines
                for each in line["predictive"]
            ),
        )


def _threshold(line: Found) -> str:
    return ABSENT if line["threshold"] is None else f"{line['threshold']:.4g}"


def _reached(line: Found) -> str:
    reached = line["reached"]
    return ABSENT if reached is None else f"{100 * reached['sensitivity']:.1f} / {100 * reached['specificity']:.1f}"


# ---------------------------------------------------------------- probabilities


def _probabilities(found: Found, draw: Draw) -> Section:
    pictures, rows, notes = [], [], []
    for line in found["calibration"]:
        ways = {"as it is": line["plain"], "with temperature": line["scaled"]}
        known = {how: rated for how, rated in ways.items() if rated is not None}
        bins = [{"how": how, **rated["bins"]} for how, rated in known.items()]
        pictures.append(draw(f"Reliability: {line['file']}", charts.reliability(bins)))
        for how, rated in known.items():
            temperature = f"{line['temperature']:.3f}" if how != "as it is" else "1"
            chance = f"{rated['ece']:.4f}", f"{rated['ece_by_chance']:.4f}"
            rows.append((line["file"], how, temperature, *chance, decimal(rated["brier"])))
        if line["scaled"] is None:
            notes.append(f"{line['file']}: no temperature: {line['origin']}.")
        elif line["origin"] == "carried":
            notes.append(f"{line['file']}: the temperature is the one that its bundle carries.")
    headings = ("file", "probabilities", "temperature", "ECE", "ECE by chance, up to", "Brier")
    grid = Grid("Calibration of the test data's probabilities", headings, tuple(rows), tuple(notes))
    hint = "Whether what is held likely is so as often; a temperature is fitted on the validation data and changes no decision."
    return Section("calibration", "Calibration", hint, tuple(pictures), (grid,) if rows else ())


def _worth(found: Found, draw: Draw) -> Section:
    parts: dict[tuple[str, float, bool], list[Found]] = {}
    for line in found["decision_curves"]:
        parts.setdefault((line["class"], line["prevalence"], line["stated"]), []).append(line)
    pictures = tuple(
        draw(f"{name}, prevalence {100 * prevalence:.3g} %{'' if stated else ' (of these samples)'}", charts.decision(lines))
        for (name, prevalence, stated), lines in parts.items()
    )
    hint = "Net benefit of acting on probabilities, with the temperature where there is one, beside acting on all and on none."
    return Section("worth", "Decision curves", hint, pictures, ())


# ---------------------------------------------------------------- groups


def _groups(found: Found, draw: Draw) -> Section:
    pictures, grids = [], []
    for table in found["subgroups"]:
        title = f"{table['file']} by {table['column']}"
        values = [
            {**{name: each["value"][name] for name in ("value", "low", "high")}, "group": row["group"], "few": row["few"]}
            | {"measure": _measured(each)}
            for row in table["rows"]
            for each in row["measures"]
            if each["value"] is not None and each["value"]["low"] is not None
        ]
        pictures.append(draw(title, charts.forest(values, "share or area")))
        grids.append(_group_grid(title, table))
    hint = "Whom a file fails: each group with its 95 % interval; groups marked as few say little by themselves."
    return Section("groups", "Groups of patients", hint, tuple(pictures), tuple(grids))


def _group_grid(title: str, table: Found) -> Grid:
    names = [_measured(each) for each in table["rows"][0]["measures"]]
    patients = table["rows"][0]["patients"] is not None
    rows = tuple(
        (_group(row), str(row["samples"]), *((str(row["patients"]),) if patients else ()), *map(_value, row["measures"]))
        for row in table["rows"]
    )
    rule = (f"Sensitivity and specificity are those at the operating point {table['rule']}.",) if table["rule"] else ()
    tests = tuple(
        f"{_measured(test)}: largest gap {100 * test['gap']:.1f} points, {p_value(test['p'])}, "
        f"corrected {p_value(test['p_holm'])} (permutation)."
        for test in table["tests"]
        if test["p"] is not None
    )
    return Grid(title, ("group", "samples", *(("patients",) if patients else ()), *names), rows, (*rule, *tests))


def _value(each: Found) -> str:
    return (decimal if each["measure"] == "AUC" else percent)(each["value"])


def _group(row: Found) -> str:
    return f"{row['group']} (few)" if row["few"] else str(row["group"])


def _measured(line: Found) -> str:
    return f"{line['measure']}, {line['class']}" if line["class"] else str(line["measure"])


def _hurt(found: Found, draw: Draw) -> Section:
    pictures, grids = [], []
    parts: dict[tuple[str, str, str], list[Found]] = {}
    for table in found["hurt"]:
        parts.setdefault((table["first"], table["second"], table["column"]), []).append(table)
    for (first, second, column), tables in parts.items():
        title = f"{second} − {first} by {column}"
        values = [
            {**row["difference"], "group": row["group"], "few": row["few"], "measure": _measured(table)}
            for table in tables
            for row in table["rows"]
            if row["difference"] is not None
        ]
        pictures.append(draw(title, charts.forest(values, "change of the share", centre=0.0)))
        grids += [_hurt_grid(title, table) for table in tables]
    hint = "The second file less the first on the same samples, each at its own operating point: whether it hurts one group more."
    return Section("hurt", "What another file does to groups", hint, tuple(pictures), tuple(grids))


def _hurt_grid(title: str, table: Found) -> Grid:
    rows = tuple((*_change(_group(row), row)[:1], str(row["samples"]), *_change("", row)[1:]) for row in table["rows"])
    headings = ("group", "samples", "change, points", "gained", "lost", "McNemar")
    test: tuple[str, ...] = ()
    if table["p"] is not None:
        gap = f"Changes of groups differ by {100 * table['gap']:.1f} points at most"
        test = (f"{gap}, {p_value(table['p'])}, corrected {p_value(table['p_holm'])} (permutation).",)
    return Grid(f"{title}: {_measured(table)}", headings, rows, test)


# ---------------------------------------------------------------- readers


def _raters(found: Found, draw: Draw) -> Section:
    raters = (found["readers"] or {}).get("raters")
    title, hint = "Agreement of files and readers", "Cohen's κ of each pair, and Fleiss' κ of several, with 95 % intervals."
    if not raters:
        return Section("raters", title, hint, (), ())
    pairs = Grid(
        f"Decisions on {raters['cases']} cases ({raters['way']}), pair by pair",
        ("pair", "decided alike %", "Cohen's κ"),
        tuple(
            (f"{line['first']}, {line['second']}", f"{100 * line['same']:.1f}", decimal(line["kappa"], places=3))
            for line in raters["pairs"]
        ),
        (f"{raters['left_out']} more raters have no pairs here.",) if raters["left_out"] else (),
    )
    several = Grid(
        "Several raters",
        ("raters", "Fleiss' κ"),
        (
            ("all readers", decimal(raters["fleiss_readers"], places=3)),
            (f"all readers and {raters['file']}", decimal(raters["fleiss_with_file"], places=3)),
        ),
    )
    return Section("raters", title, hint, (), (pairs, several))


def _studies(found: Found, draw: Draw) -> Section:
    pictures, grids = [], []
    for line in (found["readers"] or {}).get("studies", ()):
        title = _measured({"measure": line["figure"], "class": line["class"]})
        if "reason" in line:
            grids.append(Grid(title, ("reader",), (), (f"Not analysed: {line['reason']}.",)))
            continue
        means = {"reader": "mean", "without": line["without"]["value"], "with": line["with"]["value"], "mean": True}
        pictures.append(draw(title, charts.readers([*({**row, "mean": False} for row in line["rows"]), means], line["figure"])))
        grids.append(_study_grid(title, line))
    hint = "Readers and cases are both samples of more: the interval and p hold for other readers and other cases like these."
    return Section("readers", "Readers without and with aid", hint, tuple(pictures), tuple(grids))


def _study_grid(title: str, line: Found) -> Grid:
    rows = tuple(
        (row["reader"], f"{row['without']:.4f}", f"{row['with']:.4f}", f"{row['difference']:+.4f}") for row in line["rows"]
    )
    mean = ("mean [95 %]", decimal(line["without"]), decimal(line["with"]), decimal(line["difference"], sign=True))
    first, second = line["df"]
    freedom = f"{first:g} and {'∞' if second is None else format(second, '.1f')}"
    f = "not defined, since nothing varies" if line["f"] is None else f"{line['f']:.3f}"
    test = f"F = {f} with {freedom} degrees of freedom, {p_value(line['p'])}; {line['readers']} readers, {line['cases']} cases."
    return Grid(title, ("reader", "without aid", "with aid", "difference"), (*rows, mean), (test,))
