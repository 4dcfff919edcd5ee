"""The report of 500 records is 5 MB at most, and a browser shows it within 2 s.

Each record has samples in the shape of real ones: trials, conditions, power and predictions.
Exits 1 where a bound is broken.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import synthetic
from figures import state

from edgebench.report import leaderboard

DEPENDS = (
    "edgebench/report/",
    "edgebench/store/",
    "edgebench/schema/",
    "tests/synthetic.py",
    "tests/factory.py",
)

RECORDS, MEGABYTES, SECONDS, OPENINGS = 500, 5.0, 2.0, 5


def main() -> int:
    """Print what was found; 0 where the bounds hold."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        synthetic.save(folder / "results", RECORDS)
        began = time.monotonic()
        made = leaderboard.report(folder / "results", out=folder / "report.html")
        print(f"{made.rows} rows and {made.failed} failed cells, collected and written in {time.monotonic() - began:.1f} s")
        paints = sorted(_paints(folder / "report.html"))
    megabytes, paint = made.size / 1e6, paints[-1]
    text = (
        f"{made.rows + made.failed} records are {megabytes:.2f} MB, first painted after {paints[len(paints) // 2]:.2f} s, "
        f"the slowest of {OPENINGS} after {paint:.2f} s"
    )
    whole = made.rows + made.failed == RECORDS and not made.left_out
    bound = f"{RECORDS} records, {MEGABYTES:g} MB, {SECONDS:g} s"
    return state(whole and megabytes < MEGABYTES and paint < SECONDS, text, bound)


def _paints(page: Path) -> list[float]:
    """Open the page several times, each in a browser of its own; returns seconds to the first contentful paint."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    found = []
    with sync_playwright() as playwright:
        for _ in range(OPENINGS):
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            found.append(_paint(browser.new_page(viewport={"width": 1440, "height": 900}), page))
            browser.close()
    return found


def _paint(tab: Any, page: Path) -> float:
    tab.goto(page.as_uri())
    tab.wait_for_selector("[data-chart] svg .point")
    drawn = tab.evaluate("performance.now()")
    [milliseconds] = tab.evaluate("performance.getEntriesByName('first-contentful-paint').map(each => each.startTime)")
    print(f"  first paint after {milliseconds / 1e3:.2f} s, the first chart after {drawn / 1e3:.2f} s")
    return float(milliseconds) / 1e3


if __name__ == "__main__":
    sys.exit(main())
