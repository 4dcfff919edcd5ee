"""The report's page in a real browser: what it shows, what it does by click and by keyboard, and that it asks for nothing."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import clinic
import numpy as np
import pytest
import synthetic
from factory import make_cell, make_latency, make_measurement, make_record, make_unjudged

from edgebench import ValidateOptions, validate
from edgebench.errors import InputError
from edgebench.report import columns, tables
from edgebench.report import leaderboard as verbs
from edgebench.report import limits as limits_
from edgebench.schema import (
    Curves,
    DatasetRef,
    Energy,
    Interval,
    Lineage,
    Model,
    Predictions,
    Preprocessing,
    Reason,
    Sustained,
    Verdict,
    image_input,
)
from edgebench.store import records

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
Axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed").Axe
CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")

COMMITTED = Path(__file__).parent.parent / "results"
HOSTILE = [
    "<img src=x onerror=\"window.hacked='img'\">",
    "<script>window.hacked='script'</script>",
    "\"'><svg onload=window.hacked=1>",
    "</script><script>window.hacked=2</script><!--",
    "a|b`c`{{7*7}}${window.hacked=3}",
    "\u202eevil\u2066 🩻 שלום",
    "javascript:window.hacked=4",
]


class Tab:
    """A page in the browser that remembers what it asked for and complained of."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.asked: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda message: self.complaints.append(message.text) if message.type in ("error", "warning") else None)

    def drawn(self, count: int = 1) -> None:
        """Wait until so many trade-off charts are drawn."""
        self.page.wait_for_function(
            "count => document.querySelectorAll('[data-chart=tradeoff] svg .point').length >= count", arg=count
        )

    def names(self, selector: str = "#leaderboard tbody tr") -> list[str]:
        """List the models of the rows that are shown."""
        rows = self.page.locator(f"{selector}:visible")
        return [str(text).strip() for text in rows.locator("th a").all_text_contents()]


Opened = Callable[..., Tab]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def opened(browser: Any) -> Iterator[Opened]:
    """Open a page from disk; at the end nothing but itself was asked for, and nothing went wrong in it."""
    tabs: list[Tab] = []

    def open_page(path: Path, state: str = "", width: int = 1440, **options: Any) -> Tab:
        context = browser.new_context(viewport={"width": width, "height": 900}, offline=True, **options)
        tab = Tab(context.new_page())
        tabs.append(tab)
        tab.page.goto(f"{path.as_uri()}{state}")
        return tab

    yield open_page
    for tab in tabs:
        own = tab.page.url.partition("#")[0]
        assert {url for url in tab.asked if not url.startswith(("data:", "blob:"))} == {own}
        assert not tab.complaints
        tab.page.context.close()


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("committed") / "report.html"
    verbs.report(COMMITTED, out=out)
    return out


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Make records of several boards, energies and verdicts, without samples, and their page."""
    folder = tmp_path_factory.mktemp("many")
    for record in synthetic.records(150):
        records.save(folder / "results", record, None)
    verbs.report(folder / "results", out=folder / "report.html")
    return folder / "results", folder / "report.html"


# ---------------------------------------------------------------- filters and tables


def test_filters_work_by_click(opened: Opened, committed: Path) -> None:
    tab = opened(committed)
    tab.drawn(15)
    tab.page.locator("#filters summary", has_text="Precision").click()
    tab.page.get_by_role("checkbox", name="int8").check()
    assert tab.page.locator("#found").text_content() == "6 of 15 rows"
    assert len(tab.names()) == 6
    assert "precision=int8" in tab.page.url
    tab.page.wait_for_function("() => document.querySelectorAll('[data-chart=tradeoff] svg .point').length === 6")
    tab.page.locator("#clear").click()
    assert len(tab.names()) == 15
    tab.page.go_back()
    assert len(tab.names()) == 6


def test_filters_work_by_keyboard(opened: Opened, committed: Path) -> None:
    tab = opened(committed)
    page = tab.page
    page.locator("#filters summary", has_text="Format").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert page.locator("#found").text_content() == "6 of 15 rows"
    assert {row.split()[0] for row in page.locator("#leaderboard tbody tr:visible td:nth-child(4)").all_text_contents()} == {
        "onnx"
    }
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.textContent").startswith("Format")
    assert page.locator("details.menu[open]").count() == 0


def test_an_address_brings_a_view_back(opened: Opened, committed: Path) -> None:
    tab = opened(committed, "#model=resnet18&axis=size&max_p99=1ms&order=-size&best=latency")
    assert set(tab.names()) == {"resnet18"}
    assert tab.page.locator("#axis input:checked").get_attribute("value") == "size"
    assert tab.page.locator("#limit-max_p99").input_value() == "1ms"
    headings = tab.page.locator("#leaderboard thead th").all_text_contents()
    place = 1 + next(index for index, heading in enumerate(headings) if heading.strip().startswith("size MiB"))
    sizes = [float(text) for text in tab.page.locator(f"#leaderboard tbody tr:visible td:nth-child({place})").all_text_contents()]
    assert sizes == sorted(sizes, reverse=True)


def test_an_address_that_makes_no_sense_shows_everything(opened: Opened, committed: Path) -> None:
    tab = opened(committed, "#axis=<img>&best=nothing&order=constructor&record=../../etc/passwd&max_p99=%00&colours=__proto__&x")
    tab.drawn(15)
    assert len(tab.names()) == 15


def test_headings_sort_by_click_and_by_keyboard(opened: Opened, committed: Path) -> None:
    tab = opened(committed)
    page = tab.page
    first = tab.names()
    heading = page.locator("#leaderboard th[data-column=metric]")
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    assert tab.names()[0] == "resnet18"
    heading.locator("button").press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    assert tab.names()[0] == "mobilenetv2"
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") is None
    assert tab.names() == first


# ---------------------------------------------------------------- choose for me


def test_choosing_works_by_click_and_by_keyboard(opened: Opened, committed: Path) -> None:
    tab = opened(committed)
    page = tab.page
    page.locator("#limit-max_size").click()
    page.keyboard.type("5MB")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.type("98%")
    assert page.locator("#verdict").text_content() == "2 of 15 rows keep to your limits."
    assert page.locator(".best a").text_content() == "mobilenetv2-distilled, tflite int8"
    assert page.locator("#command").text_content() == f"edgebench recommend {COMMITTED} --max-size 5MB --min-metric 98%"
    page.locator(".excluded summary").click()
    assert "resnet18 onnx int8: size 10.77 MiB, 4.77 MiB is the most" in page.locator(".excluded").text_content()
    page.locator("#limit-min_metric").fill("lots")
    assert page.locator("#wrong-min_metric").text_content() == "not understood; write it like 85%"
    assert page.locator("#verdict").text_content() == "A limit was not understood."
    page.locator("#limits button[type=reset]").click()
    assert page.locator("#limit-max_size").input_value() == ""
    assert page.locator("#verdict").text_content() == "No limit is set: 15 of 15 rows can be chosen."


READ = """
hashes => {
  const { rows } = JSON.parse(document.getElementById("data").textContent);
  const path = link => rows[link.dataset.open].record;
  return hashes.map(hash => {
    history.replaceState(null, "", location.pathname + "#" + hash);
    dispatchEvent(new PopStateEvent("popstate"));
    const command = document.getElementById("command").textContent;
    if (document.querySelector("[aria-invalid=true]")) return { command, wrong: true };
    const groups = [...document.querySelectorAll(".choice")].map(group => ({
      title: group.querySelector("h3").textContent,
      kept: [...group.querySelectorAll("tbody th a")].map(path),
      excluded: [...group.querySelectorAll(".excluded li")].map(li => [
        path(li.querySelector("a")), li.textContent.slice(li.querySelector("a").textContent.length + 2)]),
    }));
    return { command, groups };
  });
}
"""


def wishes(folder: Path, count: int) -> list[dict[str, Any]]:
    """Think of limits: exactly a row's value, close to it, in every unit, some of them no quantity; orders and filters."""
    chance = random.Random(7)
    rows = [row for table in verbs.tables(folder).tables for row in table.rows]
    found = []
    for _ in range(count):
        limits = {}
        for name in sorted(chance.sample(list(limits_.KINDS), chance.randint(0, 4)), key=list(limits_.KINDS).index):
            kind = limits_.KINDS[name]
            value = kind.value(chance.choice(rows)) or 1.0
            unit = chance.choice([unit for unit in kind.units if unit or kind.units is not limits_.TIMES])
            number = value * chance.choice([1.0, 1.0, 0.5, 1.5, 0.999]) / kind.units[unit]
            space = chance.choice(["", " "])
            limits[name] = chance.choice([f"{number:.20f}".rstrip("0"), f"{number:.3f}", f"{number:.0f}"]) + space + unit
            if chance.random() < 0.05:
                limits[name] = chance.choice(["five", "-3ms", "1e3", "20 furlongs", "nan", "1..2", "9" * 400 + unit])
        where = {
            name: sorted({getattr(chance.choice(rows).entry, name) for _ in range(chance.randint(1, 3))})
            for name in chance.sample(["target", "format", "precision", "role", "verdict", "model"], chance.choice([0, 0, 1, 2]))
        }
        found.append({"limits": limits, "where": where, "sort": chance.choice(list(tables.SORTS))})
    return found


def expected(folder: Path, wish: dict[str, Any]) -> dict[str, Any]:
    try:
        found = verbs.recommend(folder, **wish)
    except InputError:
        return {"wrong": True}
    return {
        "groups": [
            {
                "title": f"{columns.title(group.table)} ({group.table.mode})",
                "kept": [row.entry.path for row in group.kept],
                "excluded": [[row.entry.path, "; ".join(reasons)] for row, reasons in group.excluded],
            }
            for group in found
            if group.table.rows
        ]
    }


def test_the_page_and_the_command_line_choose_alike(opened: Opened, many: tuple[Path, Path]) -> None:
    from urllib.parse import urlencode

    folder, page = many
    asked = wishes(folder, 120)
    hashes = [
        urlencode([(k, v) for k, vs in wish["where"].items() for v in vs] + [*wish["limits"].items(), ("best", wish["sort"])])
        for wish in asked
    ]
    shown = opened(page).page.evaluate(READ, hashes)
    for wish, found in zip(asked, shown, strict=True):
        command = found.pop("command")
        assert found == expected(folder, wish), wish
        assert command.startswith(f"edgebench recommend {folder}")
    assert sum("wrong" in found for found in shown) > 3
    assert sum(bool(group["kept"]) and bool(group["excluded"]) for found in shown for group in found.get("groups", [])) > 30


def test_the_command_line_that_is_shown_chooses_alike(opened: Opened, many: tuple[Path, Path], cli: Any) -> None:
    import shlex

    folder, page = many
    state = "#target=cpu&precision=int8&precision=fp16&max_p99=1.5%20ms&best=size"
    [found] = opened(page).page.evaluate(READ, [state[1:]])
    words = shlex.split(found["command"])
    assert words[:2] == ["edgebench", "recommend"]
    assert words[2:5] == [str(folder), "--max-p99", "1.5 ms"]
    _, out, _ = cli(*words[1:], "--json")
    kept = [[row["record"] for row in group["kept"]] for group in json.loads(out)]
    assert [group["kept"] for group in found["groups"]] == [paths for paths in kept if paths]


def test_numbers_are_written_as_python_writes_them(opened: Opened, many: tuple[Path, Path]) -> None:
    """The reasons hold numbers in every unit; here the ties, which the two languages round otherwise by themselves."""
    folder, page = many
    limits = [("max_size", f"{0.125 + quarter} MiB") for quarter in (0, 0.25, 0.5, 1.5)]
    limits += [("min_metric", text) for text in ("0.98625%", "12.25%", "12.75%")] + [
        ("min_rate", "1000000.5"),
        ("min_rate", "2000001.5"),
    ]
    limits += [("max_energy", f"{text} uJ") for text in ("1.005", "0.00012345", "1234.5", "0.0625")]
    limits += [("max_p50", "0.0005 us"), ("max_p50", "1ns"), ("max_size", "99999999999999999999 GB"), ("min_rate", "9" * 30)]
    shown = opened(page).page.evaluate(READ, [f"{name}={text.replace('%', '%25')}" for name, text in limits])
    for (name, text), found in zip(limits, shown, strict=True):
        found.pop("command")
        assert found == expected(folder, {"limits": {name: text}, "sort": "metric"}), text


# ---------------------------------------------------------------- records


def test_a_click_on_a_point_opens_its_record(opened: Opened, committed: Path) -> None:
    tab = opened(committed)
    tab.drawn(15)
    point = tab.page.locator(".point").first
    point.hover(force=True)
    assert tab.page.locator("#tip").is_visible()
    assert "p99 ms" in tab.page.locator("#tip").text_content()
    name = tab.page.locator("#tip b").text_content()
    point.click(force=True)
    tab.page.wait_for_selector("dialog[open] .ecdf svg")
    assert tab.page.locator("#record-title").text_content() == name
    for part in ("ecdf", "violin", "confusion", "calibration", "roc", "precision_recall"):
        tab.page.wait_for_selector(f"dialog .{part} svg")
    assert tab.page.locator(".worst img").count() > 0
    assert tab.page.evaluate("[...document.querySelectorAll('.worst img')].every(each => each.naturalWidth > 0)")
    assert "rapl: no zone" in tab.page.locator("dialog .part", has=tab.page.get_by_text("Power and energy")).text_content()


def test_the_keyboard_opens_and_closes_a_record_and_comes_back(opened: Opened, committed: Path) -> None:
    tab = opened(committed)
    page = tab.page
    page.locator("#leaderboard tbody tr a").nth(2).focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open] .violin svg")
    title = page.locator("#record-title").text_content()
    assert "record=records%2Fcpu%2F" in page.url
    page.keyboard.press("Alt+ArrowRight")
    page.wait_for_function("title => document.getElementById('record-title').textContent !== title", arg=title)
    page.wait_for_selector("dialog[open] .violin svg")
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    assert page.evaluate("document.activeElement.matches('#leaderboard tbody a')")
    page.go_back()
    page.wait_for_selector("dialog[open]")


def test_the_keyboard_moves_among_points_and_opens_one(opened: Opened, committed: Path) -> None:
    tab = opened(committed)
    page = tab.page
    tab.drawn(15)
    page.locator("#by select").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.classList.contains('point')")
    first = page.evaluate("document.activeElement.getAttribute('aria-label')")
    page.keyboard.press("ArrowRight")
    second = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert first.startswith("mobilenetv2, tflite, int8, accuracy % 97.8, p50 ms 0.097")
    assert second != first
    assert page.locator("#tip").is_visible()
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open] .ecdf svg")


def test_a_record_is_linked_where_it_lies(opened: Opened, committed: Path) -> None:
    tab = opened(committed)
    links = tab.page.locator("#leaderboard tbody a").evaluate_all("links => links.map(link => link.href)")
    assert len(links) == 15
    for link in links:
        assert json.loads(Path(link.removeprefix("file://")).read_text())["status"] == "done"


def test_what_a_device_told_is_drawn(opened: Opened, tmp_path: Path) -> None:
    """Power with its windows, temperature and clock, sustained load, and a task of several labels at once."""
    [record] = [each for each in synthetic.records(2) if each.cell.target == "jetson-nano"]
    cell = record.cell.model_copy(update={"mode": "sustained"})
    assert record.model
    curves = Curves(metric="auroc", epoch=(0, 1), loss=(2.5, 1.5), val_loss=(2.25, 1.75), val_metric=(0.5, 0.75))
    changes = {"task": "multi-label", "classes": ("left", "right"), "curves": curves, "metrics": {"best_epoch": 1.0}}
    model = record.model.model_copy(update=changes)
    sustained = Sustained(burst_ns=1e6, sustained_ns=1.2e6, slowdown=0.2, onset_seconds=30)
    record = record.model_copy(update={"cell": cell, "model": model, "sustained": sustained})
    chance = np.random.default_rng(0)
    labels, scores = chance.integers(0, 2, (50, 2)), chance.normal(0, 1, (50, 2)).astype("<f4")
    measured = synthetic.measurement(record, np.zeros(360, np.int64), 0)
    records.save(tmp_path, record, replace(measured, predictions=Predictions(50, 2, scores.tobytes())), labels)
    verbs.report(tmp_path, out=tmp_path / "report.html")
    page = opened(tmp_path / "report.html").page
    page.locator("#leaderboard tbody tr").click()
    page.wait_for_selector("dialog .training svg")
    drawn = {
        name: page.locator(f"dialog .{name} svg").text_content() for name in ("series", "power", "roc", "confusion", "training")
    }
    expected = {
        "series": ("temperature, °C", "clock, MHz", "+20.0 % at the end"),
        "power": ("idle", "trial 1", "trial 5", "ina3221 VDD_IN"),
        "roc": ("micro-average", "left", "right"),
        "confusion": ("left: absent", "right: present"),
        "training": ("training loss", "validation loss", "validation auroc"),
    }
    assert [word for name, words in expected.items() for word in words if word not in drawn[name]] == []
    page.get_by_label("as shares of each true class").check()
    page.wait_for_selector("dialog .confusion_normalised svg")


def test_energies_of_several_sources_are_drawn_apart(opened: Opened, tmp_path: Path) -> None:
    for index, rail in enumerate(("VDD_IN", "VDD_IN", "SOC")):
        joules = Interval(value=0.001 * (index + 1), low=0.001, high=0.01)
        energy = Energy(joules=joules, provenance="board", meter="ina3221", rail=rail, short=False)
        records.save(tmp_path, make_record(cell=make_cell(f"net{index}"), energy=energy), None)
    verbs.report(tmp_path, out=tmp_path / "report.html")
    page = opened(tmp_path / "report.html", "#axis=energy").page
    page.wait_for_function("() => document.querySelectorAll('[data-chart] .point').length === 1")
    page.locator(".source select").select_option("board VDD_IN")
    page.wait_for_function("() => document.querySelectorAll('[data-chart] .point').length === 2")


def test_charts_follow_the_axis_and_the_colours(opened: Opened, many: tuple[Path, Path]) -> None:
    tab = opened(many[1])
    tab.drawn(20)
    for axis, heading in (("size", "size, MiB"), ("energy", "energy of one inference, mJ")):
        tab.page.locator("#axis label", has_text=axis).click()
        tab.page.wait_for_function("text => document.querySelector('[data-chart] svg').textContent.includes(text)", arg=heading)
    tab.page.locator("#by select").select_option("role")
    tab.page.wait_for_function("() => document.querySelector('[data-chart] svg').textContent.includes('teacher')")


# ---------------------------------------------------------------- hostile names


def hostile_records(folder: Path) -> None:
    for index, text in enumerate(HOSTILE):
        dataset = DatasetRef(name="medmnist", options={"source": text})
        cell = make_cell(f"net{index}", dataset=dataset, runtime_version=text, options={"units": text})
        model = Model(
            name=f"net{index}",
            architecture=text,
            task="binary",
            classes=(text, "other"),
            inputs=(image_input(Preprocessing(height=8, width=8, channels=1, mean=(0.5,), std=(0.5,))),),
            sha256=f"{index}" * 64,
            parameters=1000,
            lineage=Lineage(recipe=text, options={text: text}, parents=(text, "9" * 64)),
        )
        joules = Interval(value=0.001, low=0.001, high=0.001)
        record = make_record(
            cell=cell,
            model=model,
            environment={"cpu": text, "os": text, "cores": 1, "threads": 1, text: text},
            energy=Energy(joules=joules, provenance="board", meter=text, rail=text, short=False),
            verdict=Verdict(word="UNSTABLE", reasons=(Reason(reason=text, recommendation=text),)),
            tools={text: text},
        )
        records.save(folder, record, make_measurement(), np.array([0, 1]))
        failed = make_cell(f"lost{index}", dataset=dataset)
        records.save(
            folder,
            make_record("failed", cell=failed, failure=Reason(reason=text, recommendation=text), failed_stage=text),
            None,
        )
    (folder / "records" / "cpu" / "<img src=x onerror=window.hacked=5>.json").write_text("{}")


def test_hostile_names_are_text_and_nothing_runs(opened: Opened, tmp_path: Path) -> None:
    folder = tmp_path / "<b>results"
    hostile_records(folder)
    made = verbs.report(folder, out=tmp_path / "report.html")
    assert (made.rows, made.failed, len(made.left_out)) == (7, 7, 1)
    tab = opened(tmp_path / "report.html")
    page = tab.page
    page.wait_for_selector("[data-chart] svg .point")
    text = page.locator("main").text_content()
    for name in HOSTILE:
        assert re.sub("[\u202e\u2066]", "", name) in text
    assert "\u202e" not in page.content()
    for index in range(7):
        page.evaluate("index => { document.querySelectorAll('#leaderboard tbody tr a')[index].click(); }", index)
        page.wait_for_selector("dialog[open] .violin svg")
        page.wait_for_selector("dialog[open] .confusion svg")
        page.keyboard.press("Escape")
    page.locator("#leaderboard .failed a").first.click()
    page.wait_for_selector("dialog[open] .part")
    page.keyboard.press("Escape")
    page.locator("[data-chart] .point").first.hover(force=True)
    page.locator("#limit-max_p99").fill("1ns")
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert grave(Axe().run(page)) == []
    assert page.evaluate("window.hacked") is None
    assert page.locator("main img, main script, dialog script, main svg[onload]").count() == 0
    dressed = page.evaluate("[...document.querySelectorAll('[aria-label]')].map(each => each.getAttribute('aria-label')).join()")
    assert "<script>window.hacked='script'</script>" in dressed


# ---------------------------------------------------------------- reading it


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_everybody_can_read_it(opened: Opened, committed: Path, width: int, scheme: str) -> None:
    """axe-core (WCAG 2.2 AA and best practices) finds nothing serious, and a phone needs not scroll sideways."""
    tab = opened(committed, "#max_p99=1ms", width, color_scheme=scheme)
    page = tab.page
    tab.drawn(15)
    for element in page.locator("details.family, details.excluded, details.notes").all():
        element.evaluate("each => { each.open = true; }")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert grave(Axe().run(page)) == []
    page.locator("#leaderboard tbody tr a").nth(2).click()
    page.wait_for_selector("dialog[open] .worst")
    page.wait_for_selector("dialog .precision_recall svg")
    for element in page.locator("dialog details").all():
        element.evaluate("each => { each.open = true; }")
    assert page.evaluate("document.querySelector('dialog').scrollWidth <= document.querySelector('dialog').clientWidth")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert grave(Axe().run(page)) == []


@pytest.fixture(scope="module")
def validated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("validated")
    groups, readers = clinic.tables(folder)
    paths = [
        next((COMMITTED / "records" / "cpu").glob(f"{name}.standard.*.json"))
        for name in ("resnet18.torch.fp32", "resnet18.onnx.int8")
    ]
    asked = ValidateOptions(groups=groups, by=("sex",), readers=readers, positive=("3",), work=folder)
    validate(paths, options=asked).write(folder / "validation.html")
    return folder / "validation.html"


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1440, "light")])
def test_everybody_can_read_a_validation(opened: Opened, validated: Path, width: int, scheme: str) -> None:
    """Groups and readers with their charts: axe-core finds nothing serious, and no chart is missing."""
    page = opened(validated, "", width, color_scheme=scheme).page
    assert page.locator(".drawn img").count() >= 9
    assert page.evaluate("[...document.querySelectorAll('.drawn img')].every(each => each.naturalWidth > 0 && each.alt)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert grave(Axe().run(page)) == []
    titles = page.locator("main h2").all_text_contents()
    assert {"Groups of patients", "Readers without and with aid", "What another file does to groups"} <= set(titles)


def grave(found: Any) -> list[str]:
    return [
        f"{each['id']}: {node['target']} {node['html'][:200]}"
        for each in found.response["violations"]
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"][:3]
    ]


def test_colours_can_be_chosen_and_charts_follow(opened: Opened, committed: Path) -> None:
    tab = opened(committed, color_scheme="light")
    tab.drawn(15)
    ground = "getComputedStyle(document.body).backgroundColor"
    before = (tab.page.evaluate(ground), tab.page.locator(".point").first.get_attribute("fill"))
    tab.page.get_by_role("button", name="Dark colours").click()
    tab.page.wait_for_function("fill => document.querySelector('.point').getAttribute('fill') !== fill", arg=before[1])
    assert tab.page.evaluate(ground) != before[0]
    assert tab.page.locator("#theme").text_content() == "Light colours"


@pytest.mark.parametrize("kind", ["empty", "failed alone", "one", "unjudged", "damaged samples"])
def test_little_or_nothing_is_shown_as_what_it_is(opened: Opened, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "results"
    (folder / "records").mkdir(parents=True)
    if kind == "failed alone":
        records.save(folder, make_record("failed", cell=make_cell("lost")), None)
    if kind in ("one", "damaged samples"):
        saved = records.save(folder, make_record(latency=make_latency(p99_ns=None)), make_measurement())
        if kind == "damaged samples":
            assert saved.samples
            (folder / "records" / "cpu" / saved.samples.file).write_bytes(b"broken")
    if kind == "unjudged":
        records.save(folder, make_unjudged(), make_measurement(predictions=False))
    verbs.report(folder, out=tmp_path / "report.html")
    page = opened(tmp_path / "report.html").page
    if kind == "unjudged":
        page.wait_for_function("() => document.querySelector('[data-chart] svg')?.textContent.includes('size, MiB')")
    if kind == "empty":
        assert "No records yet" in page.locator("main").text_content()
        return
    page.locator("[data-open]:visible").first.click()
    page.wait_for_selector("dialog[open] .part")
    shown = page.locator("dialog").text_content()
    assert {"failed alone": "killed by SIGKILL", "one": "too few samples to bound it", "unjudged": "no data set given"}.get(
        kind, "changed"
    ) in shown


def test_without_javascript_the_tables_are_there(browser: Any, committed: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(committed.as_uri())
    assert page.locator("#leaderboard tbody tr").count() == 15
    assert page.locator("#filters").is_hidden()
    context.close()
