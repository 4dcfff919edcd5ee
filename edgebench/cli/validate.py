"""`edgebench validate`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from edgebench.cli import console, options
from edgebench.errors import InputError
from edgebench.report.intervals import decimal, p_value, percent

CLASSES = 3
"""Of more classes their operating points are on the page and in `--json` alone."""
Found = Mapping[str, Any]


def command(
    sources: Annotated[
        list[str], typer.Argument(help="Bundles' folders, records (a path or the beginning of a key), results folders.")
    ],
    dataset: Annotated[str | None, typer.Option(help="What they are judged on; as they say themselves unless given.")] = None,
    groups: Annotated[
        Path | None, typer.Option(help="CSV with a row for each test sample: file or index, patient, and groups.")
    ] = None,
    by: Annotated[str | None, typer.Option(help="Columns of --groups that make groups, for instance sex,age,site.")] = None,
    bands: Annotated[
        list[str] | None, typer.Option(help="Where a column of numbers is parted, for instance age=18,40,65; repeatable.")
    ] = None,
    readers: Annotated[
        Path | None, typer.Option(help="CSV with a row for each reader and case: file or index, reader, rating, decision, aid.")
    ] = None,
    prevalence: Annotated[
        list[str] | None, typer.Option(help="Shares with the condition that PPV and NPV are given for: 0.05,0.2; repeatable.")
    ] = None,
    sensitivity: Annotated[float, typer.Option(help="Of the operating point with a fixed sensitivity.")] = 0.95,
    specificity: Annotated[float, typer.Option(help="Of the operating point with a fixed specificity.")] = 0.95,
    positive: Annotated[list[str] | None, typer.Option(help="A class to look at closely, against the rest; repeatable.")] = None,
    keep_temperature: Annotated[
        bool, typer.Option("--keep-temperature", help="Write the temperatures that were fitted into the bundles.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Write the page there; validation.html unless --json.")] = None,
    results: Annotated[Path, typer.Option(help="The folder that records named by their keys are in.")] = Path("results"),
    work: Annotated[Path, typer.Option(help="Where the bundles of records are looked for.")] = Path(".edgebench"),
    trust: options.Trust = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON: every number.")] = False,
) -> None:
    """Judge files as a clinic would: operating points, calibration, groups of patients, and readers without and with aid.

    Thresholds and temperatures are chosen on validation data, figures are of test data. The first file is what the others are
    compared with.
    """
    from edgebench import api
    from edgebench.validate.options import ValidateOptions

    asked = ValidateOptions(
        groups=groups,
        by=_names(by),
        bands=_bands(bands or ()),
        readers=readers,
        prevalence=_shares(prevalence or ()),
        sensitivity=sensitivity,
        specificity=specificity,
        positive=tuple(positive or ()),
        keep_temperature=keep_temperature,
        results=results,
        work=work,
        trust=trust,
    )
    with console.progress() as progress:
        found = api.validate(sources, dataset=dataset, options=asked, progress=progress)
        if out is None and not json:
            out = Path("validation.html")
        if out is not None:
            found.write(out)
    if json:
        console.print_json(found.values())
    else:
        _print(found.values())
        console.say(f"{out}: everything, with what each number means")


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, (each.strip() for each in (text or "").split(",")))))


def _bands(texts: Sequence[str]) -> dict[str, tuple[float, ...]]:
    found = {}
    for text in texts:
        column, _, edges = text.rpartition("=")
        try:
            found[column] = tuple(float(edge) for edge in edges.split(","))
        except ValueError:
            column = ""
        if not column:
            raise InputError(f"--bands {text}: wants a column and numbers, for instance age=18,40,65")
    return found


def _shares(texts: Sequence[str]) -> tuple[float, ...]:
    parts = [part for text in texts for part in text.split(",")]
    try:
        return tuple(dict.fromkeys(float(part) for part in parts))
    except ValueError as error:
        raise InputError(f"--prevalence {','.join(texts)}: wants shares, for instance 0.05,0.2") from error


# ---------------------------------------------------------------- printing


def _print(found: Found) -> None:
    for each in found["files"]:
        console.say(f"{each['name']}: {each['where']}")
    console.say()
    _tables(found)
    if found["readers"]:
        _readers(found["readers"])
    for note in found["notes"]:
        console.say(f"- {note}")
    for folder, value in found["kept"].items():
        console.say(f"{folder}: carries the temperature {value:.4g}")


def _tables(found: Found) -> None:
    rows = [{"class": line["class"], "file": line["file"], "AUC [95 %]": decimal(line["auc"])} for line in found["areas"]]
    console.print_table("Area under the ROC curve", rows, right=("AUC [95 %]",))
    for line in found["area_tests"]:
        difference = decimal(line["difference"], sign=True)
        console.say(f"{line['class']}: {line['second']} less {line['first']}: {difference}, {p_value(line['p_holm'])}")
    if found["area_tests"]:
        console.say()
    if len(found["looked_at"]) <= CLASSES:
        names = ("sensitivity", "specificity", "ppv", "npv")
        rows = [
            {
                **{name: line[name] for name in ("class", "file", "rule")},
                "threshold": "" if line["threshold"] is None else f"{line['threshold']:.4f}",
                **{name: percent(line[name]) for name in names},
            }
            for line in found["points"]
        ]
        console.print_table("At operating points, % [95 %]", rows, right=("threshold", *names))
    for table in found["subgroups"]:
        console.print_table(f"{table['file']} by {table['column']}, % [95 %]", list(_groups(table)), right=("samples",))
        for test in table["tests"]:
            if test["p"] is not None:
                console.say(f"{_measured(test)}: largest gap {100 * test['gap']:.1f} points, {p_value(test['p_holm'])}")
        console.say()
    for table in found["hurt"]:
        if table["p"] is not None:
            what = f"{table['second']} against {table['first']} by {table['column']}, {_measured(table)}"
            console.say(f"{what}: changes differ by {100 * table['gap']:.1f} points, {p_value(table['p_holm'])}")


def _groups(table: Found) -> Iterator[dict[str, str]]:
    for row in table["rows"]:
        name = f"{row['group']}{' (few)' if row['few'] else ''}"
        values = {_measured(each): (decimal if each["measure"] == "AUC" else percent)(each["value"]) for each in row["measures"]}
        yield {"group": name, "samples": str(row["samples"]), **values}


def _measured(line: Found) -> str:
    return f"{line['measure']} ({line['class']})" if line["class"] else str(line["measure"])


def _readers(found: Found) -> None:
    if found["raters"]:
        together = found["raters"]
        console.say(f"Fleiss' κ of {found['count']} readers: {decimal(together['fleiss_readers'])}")
        console.say(f"Fleiss' κ of them and {together['file']}: {decimal(together['fleiss_with_file'])}")
    for line in found["studies"]:
        what = f"{line['figure']}{', ' + line['class'] if line['class'] else ''}"
        if "reason" in line:
            console.say(f"{what}: {line['reason']}")
        else:
            parts = [f"{way} {decimal(line[way])}" for way in ("without", "with")]
            console.say(f"{what}: {', '.join(parts)}; difference {decimal(line['difference'], sign=True)}, {p_value(line['p'])}")
    console.say()
