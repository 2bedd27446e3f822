"""Every page of the report, opened as a person would open it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser

BROKEN = "[...document.images].filter(i => i.src && i.complete && !i.naturalWidth).map(i => i.src)"
AXE_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
# What is out of sight is not laid out; axe would pass over it.
ALL_LAID_OUT = """() => {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync("* { content-visibility: visible !important; }");
  document.adoptedStyleSheets = [sheet];
}"""


def one_of_each(pages: tuple[Path, ...]) -> list[Path]:
    """Return the pages, of those made from one template in a folder only the first."""
    folders: set[str] = set()
    found = []
    for page in pages:
        deeper = page.parent.name != "html"
        if not (deeper and page.parent.name in folders):
            found.append(page)
        if deeper:
            folders.add(page.parent.name)
    return found


def test_chromium_opens_every_page_without_a_word(page: Any, pages: tuple[Path, ...]) -> None:
    assert len(pages) >= 10
    for file in pages:
        page.goto(file.as_uri())
        assert page.locator("h1").first.is_visible(), file.name
        assert page.evaluate(BROKEN) == [], file.name


def test_firefox_opens_every_page_without_a_word(firefox: Any, pages: tuple[Path, ...]) -> None:
    for file in pages:
        firefox.console.clear()
        firefox.goto(file.as_uri())
        firefox.until("document.querySelector('h1')")
        assert firefox.console == [], file.name
        assert firefox.requests == []
        assert firefox.evaluate(BROKEN) == [], file.name


def test_firefox_shows_the_grid_and_the_viewer(firefox: Any, report: Path) -> None:
    firefox.console.clear()
    firefox.size(1280, 900)
    firefox.goto((report / "images.html").as_uri())
    firefox.until("document.querySelectorAll('button.tile canvas').length > 10")
    firefox.evaluate("document.querySelector('button.tile').click()")
    firefox.until("document.querySelector('#v-table canvas')?.width > 0")
    before = firefox.evaluate("document.getElementById('v-path').textContent")
    firefox.press("\ue014")  # →
    firefox.until(f"document.getElementById('v-path').textContent !== {before!r}")
    colour = firefox.evaluate("document.getElementById('v-colour').value")
    firefox.press("c")
    firefox.until(f"document.getElementById('v-colour').value !== {colour!r}")
    assert firefox.console == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(
    chromium: Any, pages: tuple[Path, ...], until: Callable[[Any, str], None], scheme: str
) -> None:
    from axe_playwright_python.base import AXE_SCRIPT

    context = chromium.new_context(
        viewport={"width": 1280, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    tab = context.new_page()
    options = {"runOnly": AXE_TAGS, "resultTypes": ["violations"]}
    found = []
    for file in one_of_each(pages):
        states = [""]
        if file.name == "images.html":
            states.append("#image=" + next((file.parent / "photos").rglob("*.jpg")).stem)
        for state in states:
            tab.goto("about:blank")
            tab.goto(file.as_uri() + state)
            if file.name == "images.html":
                wanted = "#v-table canvas" if state else "button.tile"
                until(tab, f"document.querySelector('{wanted}')")
            tab.evaluate(ALL_LAID_OUT)
            tab.evaluate(AXE_SCRIPT)
            said = tab.evaluate("options => axe.run(document, options)", options)
            found += [
                (file.name + state[:6], one["id"], one["nodes"][0]["html"][:160])
                for one in said["violations"]
                if one["impact"] in ("serious", "critical")
            ]
    context.close()
    assert found == []


def test_printed_pages_have_their_pictures(
    page: Any, report: Path, until: Callable[[Any, str], None]
) -> None:
    from io import BytesIO

    from pypdf import PdfReader

    id = next((report / "photos").rglob("*.jpg")).stem
    least = {
        "index.html": 4,
        "images.html": 8,
        f"images.html#image={id}": 4,
        "kernels.html": 2,
        "classes.html": 2,
        "methods.html": 1,
        "list/00000.html": 15,
        "report.html": 4,
    }
    for name, pictures in least.items():
        file, _, state = name.partition("#")
        page.goto("about:blank")
        page.goto((report / file).as_uri() + (f"#{state}" if state else ""))
        if file == "images.html":
            wanted = "#v-table canvas" if state else "button.tile canvas"
            until(page, f"document.querySelector('{wanted}')?.width > 0")
        content = page.pdf(print_background=True)
        found = PdfReader(BytesIO(content))
        drawn = sum(len(list(sheet.images)) for sheet in found.pages)
        assert drawn >= pictures, f"{name}: {drawn} pictures in {len(found.pages)} printed pages"
        assert found.pages[0].extract_text().strip(), name


def test_a_printed_strip_stands_on_the_sheet_of_its_heading(page: Any, report: Path) -> None:
    from io import BytesIO

    from pypdf import PdfReader

    page.goto((report / "index.html").as_uri())
    titles = page.locator("section.chosen h2").all_text_contents()
    assert len(titles) > 1
    for centimetres in range(22, 34):
        content = page.pdf(print_background=True, width="21cm", height=f"{centimetres}cm")
        sheets = [sheet.extract_text() for sheet in PdfReader(BytesIO(content)).pages]
        for title in titles:
            (after,) = [words.partition(title)[2] for words in sheets if title in words]
            assert " at layer" in after, f"{title} is alone at the end of a sheet"


def test_what_ran_is_printed_across_the_sheet_and_strips_in_rows_of_five(
    page: Any, report: Path
) -> None:
    page.goto((report / "index.html").as_uri())
    page.set_viewport_size({"width": 794, "height": 1123})
    page.emulate_media(media="print")
    facts, main = (
        page.locator(name).first.bounding_box()["width"] for name in (".record .facts", "main")
    )
    assert facts > 0.9 * main
    tracks = "e => getComputedStyle(e).gridTemplateColumns.split(' ').length"
    assert page.locator(".chosen .strip").first.evaluate(tracks) == 5
    page.emulate_media(media="screen")
    page.set_viewport_size({"width": 1440, "height": 900})


def test_without_javascript_tables_and_photographs_are_there(
    chromium: Any, report: Path, pages: tuple[Path, ...]
) -> None:
    context = chromium.new_context(java_script_enabled=False)
    tab = context.new_page()
    for file in one_of_each(pages):
        tab.goto(file.as_uri())
        assert tab.locator("h1").first.is_visible(), file.name
        # What needs scripts is not offered: everything that can be seen works.
        controls = "main button:visible, main input:visible, main select:visible"
        assert tab.locator(controls).count() == 0, file.name
    for name, pictures in (
        ("index.html", ".strip img"),
        ("images.html", ".still img"),
        ("list/00000.html", ".rows img"),
        ("report.html", ".rows img"),
    ):
        tab.goto((report / name).as_uri())
        shown = tab.locator(pictures)
        assert shown.count() >= 4, name
        shown.first.scroll_into_view_if_needed()
        assert shown.first.evaluate("i => i.decode().then(() => i.naturalWidth)") == 224, name
    for name in ("layers.html", "list/00000.html", "methods.html"):
        tab.goto((report / name).as_uri())
        assert tab.locator("table tbody tr:visible").count() >= 2, name
    context.close()


# The contrast of WCAG 2.2 (1.4.3 and 1.4.11), of colours as they are painted.
CONTRAST = """() => {
  const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const luminance = (colour) => {
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    const parts = [...context.getImageData(0, 0, 1, 1).data].slice(0, 3).map((one) => one / 255);
    const [r, g, b] = parts.map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (one, other) => {
    const [high, low] = [luminance(one), luminance(other)].sort((a, b) => b - a);
    return (high + 0.05) / (low + 0.05);
  };
  const paper = getComputedStyle(document.documentElement).backgroundColor;
  const found = [];
  for (const mark of document.querySelectorAll(".diagram :is(rect, circle)")) {
    const { fill, opacity } = getComputedStyle(mark);
    found.push([mark.getAttribute("class") || "circle", opacity === "1" ? ratio(fill, paper) : 0]);
  }
  for (const cell of document.querySelectorAll(".agree td:not(:empty)")) {
    const { color, backgroundColor } = getComputedStyle(cell);
    const behind = backgroundColor === "rgba(0, 0, 0, 0)" ? paper : backgroundColor;
    found.push([cell.className, ratio(color, behind)]);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figures_have_the_contrast_that_reading_needs(
    chromium: Any, report: Path, scheme: str
) -> None:
    context = chromium.new_context(color_scheme=scheme)
    tab = context.new_page()
    for name, least, marks in (("index.html", 3, 3), ("methods.html", 4.5, 6)):
        tab.goto((report / name).as_uri())
        found = tab.evaluate(CONTRAST)
        assert len(found) >= marks, name
        assert [one for one in found if one[1] < least] == [], name
    context.close()
