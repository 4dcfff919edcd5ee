"""The page of `edgebench serve` in a real browser: what it shows by click, drop and keyboard, and that it asks nobody else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import Client, digits, png, running

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
Axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed").Axe
CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
KEY = "a-key-of-no-less-than-16"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def client(tiny_bundles: dict[tuple[str, str], Path]) -> Iterator[Client]:
    with running(tiny_bundles["onnx", "int8"]) as found:
        yield found


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "<b>three.png"
    path.write_bytes(png(digits(4).images[3]))
    return path


def opened(browser: Any, client: Client, width: int = 1280, **options: Any) -> tuple[Any, list[str], list[str]]:
    """Open the page; returns it, what it asks for, and what it complains of."""
    page = browser.new_context(viewport={"width": width, "height": 900}, **options).new_page()
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
    page.goto(f"http://127.0.0.1:{client.port}/")
    sync_api.expect(page.locator("#served")).to_contain_text("10 classes")
    return page, asked, complaints


def answered(page: Any) -> None:
    sync_api.expect(page.locator("#map")).to_be_visible()
    sync_api.expect(page.locator("#again")).to_be_enabled()


def test_a_picture_is_answered_with_probabilities_and_a_heat_map(browser: Any, client: Client, picture: Path) -> None:
    page, asked, complaints = opened(browser, client)
    page.locator("#file").set_input_files(str(picture))
    answered(page)
    told = client.post("/predict", picture.read_bytes()).json
    assert page.locator("#said").text_content() == f"{told['prediction']}, held {100 * told['confidence']:.1f} % likely"
    assert page.locator("#likely tr").count() == 10
    first = page.locator("#likely tr").first
    assert (first.locator("th").text_content(), first.get_attribute("class")) == (told["prediction"], "decided")
    explained = client.post("/explain", picture.read_bytes()).json
    assert page.locator("#heat-map").get_attribute("src") == f"data:image/png;base64,{explained['heat_map_png']}"
    assert page.evaluate("document.getElementById('heat-map').naturalWidth") == 448
    assert page.locator("#map-caption").text_content().endswith("by occlusion, 65 inferences")
    own = f"http://127.0.0.1:{client.port}/"
    assert {url for url in asked if not url.startswith(("data:", f"blob:{own[:-1]}"))} == {
        own + path for path in ("", "model/info", "predict", "explain")
    }
    assert not complaints


def test_a_dropped_picture_and_another_class(browser: Any, client: Client, picture: Path) -> None:
    page, _, complaints = opened(browser, client)
    given = page.evaluate_handle(
        "content => { const held = new DataTransfer();"
        "held.items.add(new File([new Uint8Array(content)], 'a.png', {type: 'image/png'})); return held; }",
        list(picture.read_bytes()),
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": given})
    answered(page)
    page.locator("#class").select_option("5")
    page.locator("#again").press("Enter")
    sync_api.expect(page.locator("#heat-map")).to_have_attribute("alt", "Heat map for 5")
    assert not complaints


def test_what_is_no_picture_is_said_to_be_none(browser: Any, client: Client, tmp_path: Path) -> None:
    page, _, _ = opened(browser, client)
    (tmp_path / "a.txt").write_text("<img src=x onerror=alert(1)>")
    page.locator("#file").set_input_files(str(tmp_path / "a.txt"))
    sync_api.expect(page.locator("#error")).to_contain_text("415: ")
    assert page.locator("#answer").is_hidden()


def test_the_key_is_asked_for(browser: Any, tiny_bundles: dict[tuple[str, str], Path], picture: Path) -> None:
    with running(tiny_bundles["onnx", "fp32"], key=KEY) as client:
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{client.port}/")
        page.locator("#key").fill(KEY)
        page.locator("#key").press("Enter")
        sync_api.expect(page.locator("#served")).to_contain_text("10 classes")
        page.locator("#heat").uncheck()
        page.locator("#file").set_input_files(str(picture))
        sync_api.expect(page.locator("#answer")).to_be_visible()
        page.close()


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_everybody_can_use_it(browser: Any, client: Client, picture: Path, width: int, scheme: str) -> None:
    page, _, _ = opened(browser, client, width, color_scheme=scheme, bypass_csp=True)  # axe is a program of the test's own
    found = [Axe().run(page).response["violations"]]
    page.locator("#file").set_input_files(str(picture))
    answered(page)
    found.append(Axe().run(page).response["violations"])
    assert found == [[], []]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.locator("#file").focus()
    assert page.evaluate("document.activeElement.id") == "file"
