"""The report of a comparison, opened from a file as a person would open it."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import exporter
from exporter.comparison import Comparison, compare
from exporter.comparison.html import strips, title
from exporter.records import Plan, Row
from exporter.render import COLORMAPS
from tests.packing import pack_map

TEMPLATES = Path(__file__).parents[2] / "templates"
PAGES = ("index", "images", "classes", "layers", "runs")
NAMED = re.compile(r'data-control="([^"{]+)"|dataset\.control = "([^"]+)"')
SHARED = {"skip", "brand", "page-link", "theme"}
"""Controls of the header, which the run's report has too."""
BROKEN = "[...document.images].filter(i => i.src && i.complete && !i.naturalWidth).map(i => i.src)"

CUT_NAMES = """[...document.querySelectorAll(".chart text")].filter((text) => {
    const own = text.getBoundingClientRect(), all = text.ownerSVGElement.getBoundingClientRect();
    return own.left < all.left - 1 || own.right > all.right + 1;
}).map((text) => text.textContent)"""
CUT_OPTIONS = """["flip", "sort", "order"].flatMap((id) => {
    const menu = document.getElementById(id), style = getComputedStyle(menu);
    const pen = document.createElement("canvas").getContext("2d");
    pen.font = style.font;
    return [...menu.options].filter((option) => {
        option.selected = true;  // a menu is as wide as what is chosen in it
        const sides = parseFloat(style.paddingLeft) + parseFloat(style.paddingRight);
        return pen.measureText(option.text).width > menu.clientWidth - sides;
    }).map((option) => option.text);
})"""


@pytest.fixture(scope="module")
def html(comparison: Comparison) -> Path:
    return comparison.path / "html"


@pytest.mark.slow
def test_links_lead_to_pages_and_pictures_that_are_there(html: Path) -> None:
    for name in PAGES:
        text = (html / f"{name}.html").read_text("utf-8")
        for address in re.findall(r'(?:href|src)="([^"#]+)', text):
            assert address.startswith("data:") or (html / address).is_file(), (name, address)
        assert "<b>image</b>" not in text


def test_the_title_names_one_model_only_where_there_is_one(comparison: Comparison) -> None:
    told = comparison.contents
    runs = [replace(run, step=None, model=name) for run, name in zip(told.runs, "aab", strict=True)]
    several = replace(told, axis="model", runs=tuple(runs))
    assert title(Comparison(comparison.files, several)) == "3 runs of 2 models"
    alone = replace(several, axis="seed", runs=(*runs[:2], replace(runs[2], model="a")))
    assert title(Comparison(comparison.files, alone)) == "3 runs of a"


def test_all_that_differs_in_the_runs_is_marked(html: Path) -> None:
    text = (html / "runs.html").read_text("utf-8")
    rows = re.findall(r'<tr( class="marked")?><th scope="row">([^<]*[^< ])', text)
    marked = {name: bool(mark) for mark, name in rows}
    assert (marked["Name of the model"], marked["Number of images"]) == (False, False)
    assert marked["Weights"]
    assert marked["Checkpoint"]
    assert marked["Created"]
    every = [name.casefold() for _, name in rows]
    assert len(set(every)) == len(every)
    index = (html / "index.html").read_text("utf-8")
    assert "Comparison of checkpoints" in index
    heads = re.findall(r"<thead><tr>(.*?)</tr></thead>", index)
    for names in (re.findall(r"<th[^>]*>([^<]+)</th>", head) for head in heads):
        assert len(set(names)) == len(names), names


@pytest.mark.browser
def test_a_map_that_shows_nothing_is_flagged(
    page: Any, build: Any, tmp_path: Path, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    drifted = build.__globals__["drifted"]

    def negative(row: Row, plan: Plan, step: int) -> Row:
        maps = drifted(row, plan, step).maps
        if step:
            packed = (
                pack_map(-1 - abs(own.array()), own.method, own.layer, own.target) for own in maps
            )
            maps = tuple(replace(own, flags="negative") for own in packed)
        return replace(drifted(row, plan, step), maps=maps)

    monkeypatch.setitem(build.__globals__, "drifted", negative)
    runs = [build(tmp_path / str(step), step=step) for step in (0, 1)]
    compare(*runs, out=tmp_path / "CMP", writers=("html",))
    page.goto((tmp_path / "CMP/html/images.html").as_uri())
    until(page, "document.querySelector('#sheet .flag')")
    said = "[...document.querySelector('#sheet tbody tr').querySelectorAll('.num')]"
    flagged = page.evaluate(f"{said}.map(num => num.querySelector('.flag')?.title ?? '')")
    assert flagged == ["", "negative"]


@pytest.mark.parametrize("base", [0, 1])
def test_strips_begin_with_what_the_baseline_and_the_last_run_are_sure_of(
    comparison: Comparison, base: int
) -> None:
    held = Comparison(comparison.files, replace(comparison.contents, baseline=base))
    chosen = strips(held)
    assert sum(len(chosen[name]) > 1 for name in ("lost", "won", "changed"))
    for name in ("lost", "won", "changed"):
        scores = [min(row.verdicts[n].score or 0 for n in (base, -1)) for row in chosen[name]]
        assert scores == sorted(scores, reverse=True)


@pytest.mark.slow
def test_photographs_are_kept_once_and_an_image_takes_little(
    build: Callable[..., Path], tmp_path: Path
) -> None:
    shape = {
        "methods": ("gradcam", "layercam", "eigencam", "xgradcam", "hirescam"),
        "layers": {"layer1": 56, "layer2": 28, "layer3": 14, "layer4": 7},
        "names": [f"image {n}" for n in range(3)],
    }
    runs = [build(tmp_path / f"run-{step}", step=step, **shape) for step in range(3)]
    folder = compare(*runs, out=tmp_path / "CMP", writers=("html",)).path / "html"
    photographs = list((folder / "photos").rglob("*.jpg"))
    assert len(photographs) == 3
    files = [*photographs, *(folder / "data").iterdir()]
    ramps = 1030 * len(COLORMAPS)  # once in a report, whatever the number of images
    assert (sum(file.stat().st_size for file in files) - ramps) / 3 <= 40_000


@pytest.mark.browser
def test_every_page_opens_without_a_word(page: Any, html: Path) -> None:
    for name in PAGES:
        page.goto((html / f"{name}.html").as_uri())
        assert page.locator("h1").is_visible(), name
        assert page.evaluate(BROKEN) == [], name
        if name != "images":
            continue
        page.set_viewport_size({"width": 390, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.browser
def test_names_in_charts_and_menus_are_whole(page: Any, html: Path) -> None:
    page.set_viewport_size({"width": 1440, "height": 900})
    for name in ("index", "layers"):
        page.goto((html / f"{name}.html").as_uri())
        assert page.locator(".chart text").count() > 4, name
        assert page.evaluate(CUT_NAMES) == [], name
    page.goto((html / "images.html").as_uri())
    page.locator("#tools").wait_for()
    assert page.evaluate(CUT_OPTIONS) == []


@pytest.mark.browser
def test_firefox_opens_every_page_and_shows_an_image_in_all_runs(
    firefox: Any, html: Path, comparison: Comparison
) -> None:
    firefox.console.clear()
    firefox.size(1280, 900)
    for name in PAGES:
        firefox.goto((html / f"{name}.html").as_uri())
        firefox.until("document.querySelector('h1')")
        assert firefox.evaluate(BROKEN) == [], name
    row = next(iter(comparison.images()))
    firefox.goto((html / "images.html").as_uri() + f"#image={row.id}&mode=difference")
    firefox.until("document.querySelector('#v-panes canvas')?.width > 0")
    assert firefox.evaluate("document.querySelectorAll('#v-runs tbody tr').length") == 3
    firefox.press("s")
    firefox.until("document.querySelectorAll('#v-panes figure').length === 3")
    assert firefox.evaluate("document.querySelectorAll('#sheet .tile').length") == 36
    assert firefox.console == []
    assert firefox.requests == []


@pytest.mark.browser
def test_without_javascript_predictions_and_photographs_are_there(
    chromium: Any, html: Path, comparison: Comparison
) -> None:
    context = chromium.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto((html / "images.html").as_uri())
    assert tab.locator("noscript tbody tr").count() == comparison.contents.images
    assert tab.locator("noscript td:has-text('%')").count() == 3 * comparison.contents.images
    assert tab.locator("main button:visible, main select:visible").count() == 0
    context.close()


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(chromium: Any, html: Path, until: Any, scheme: str) -> None:
    from axe_playwright_python.base import AXE_SCRIPT

    context = chromium.new_context(color_scheme=scheme, reduced_motion="reduce")
    tab = context.new_page()
    image = "#image=" + next((html / "photos").rglob("*.jpg")).stem
    found = []
    for name, state in [*((name, "") for name in PAGES), ("images", image)]:
        tab.goto("about:blank")
        tab.goto((html / f"{name}.html").as_uri() + state)
        if name == "images":
            until(tab, f"document.querySelector('{'#v-panes canvas' if state else '.tile'}')")
        tab.evaluate("document.adoptedStyleSheets = [new CSSStyleSheet()]")
        rule = "* { content-visibility: visible !important; }"
        tab.evaluate(f"document.adoptedStyleSheets[0].replaceSync('{rule}')")
        tab.evaluate(AXE_SCRIPT)
        options = {"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"]}
        said = tab.evaluate("options => axe.run(document, options)", options)
        found += [
            (name + state[:6], rule["id"], rule["nodes"][0]["html"][:160])
            for rule in said["violations"]
            if rule["impact"] in ("serious", "critical")
        ]
    context.close()
    assert found == []


# ---------------------------------------------------------------- every control


class Desk:
    """An open tab with the images page, and what its controls are tried with."""

    def __init__(self, tab: Any, html: Path, until: Any, comparison: Comparison) -> None:
        self.tab, self.html, self.wait_until, self.comparison = tab, html, until, comparison
        self.rows = list(comparison.images())

    def open(self, state: str = "", name: str = "images") -> None:
        self.tab.goto("about:blank")
        self.tab.goto((self.html / f"{name}.html").as_uri() + state)
        if name == "images":
            self.wait("document.querySelector('.tile') || !document.getElementById('none').hidden")

    def viewer(self, state: str = "", at: int = 3) -> None:
        self.open(f"#image={self.rows[at].id}{state}")
        self.wait("document.querySelector('#v-panes canvas')?.width > 0")

    def wait(self, condition: str) -> None:
        self.wait_until(self.tab, condition)

    def control(self, name: str) -> Any:
        return self.tab.locator(f'[data-control="{name}"]').first

    def names(self) -> list[str]:
        heads = self.tab.locator("#sheet tbody th").all_inner_texts()
        return [text.split("\n")[0] for text in heads]

    def slide(self, name: str, value: int) -> None:
        self.control(name).fill(str(value))

    def pixels(self, selector: str) -> np.ndarray:
        """Return a canvas as uint8 (N, 4), red, green, blue and opacity."""
        address = self.tab.evaluate("s => document.querySelector(s).toDataURL()", selector)
        content = np.frombuffer(b64decode(address.partition(",")[2]), np.uint8)
        picture = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
        return picture.reshape(-1, 4)[:, [2, 1, 0, 3]]


def links(desk: Desk) -> None:
    for name in ("finding", "flips", "all-images", "compared-image"):
        desk.open(name="index")
        desk.control(name).click()
        desk.wait("document.readyState === 'complete' && document.querySelector('h1')")
    assert "image=" in desk.tab.url


def disclosures(desk: Desk) -> None:
    desk.open(name="index")
    desk.control("more-numbers").click()
    assert desk.tab.locator("details[open] .agree").first.is_visible()
    desk.viewer()
    desk.control("viewer-keys").click()
    assert desk.tab.locator("kbd:visible").count() > 10


def tables(desk: Desk) -> None:
    desk.open(name="classes")
    desk.control("find-class").fill("espresso")
    desk.wait("document.querySelectorAll('#classes tbody tr:not([hidden])').length === 1")
    desk.open(name="classes")
    desk.tab.locator("#classes .sorter").first.click()
    first = desk.tab.locator("#classes tbody th").all_inner_texts()
    assert first == sorted(first)


def filters(desk: Desk) -> None:
    everything = [row.path for row in desk.rows]
    desk.open()
    assert desk.names() == everything
    desk.control("search").fill("image 07")
    assert desk.names() == ["image 07.jpg"]
    desk.control("clear").click()
    assert desk.names() == everything
    label = desk.rows[2].label
    desk.control("label").select_option(label)
    assert desk.names() == [row.path for row in desk.rows if row.label == label]
    desk.control("clear").click()
    desk.control("flip").select_option("won")
    desk.control("run").select_option("2")
    won = [row.path for row in desk.rows if row.verdicts[2].flip == "won"]
    assert won
    assert desk.names() == won
    assert "flip=won&run=2" in desk.tab.url
    desk.open("#flip=any&run=1")
    assert desk.names() == [row.path for row in desk.rows if row.verdicts[1].flip]


def sorting(desk: Desk) -> None:
    desk.open()
    desk.control("sort").select_option("mean")
    order = sorted(desk.rows, key=lambda row: row.likeness)
    assert desk.names() == [row.path for row in order]
    desk.control("method").select_option("1")
    desk.control("stage").select_option("0")
    desk.control("sort").select_option("moved")
    key = ("eigencam", "layer3")
    moved = {
        row.path: np.mean([c.spearman for c in row.maps if (c.method, c.stage) == key])
        for row in desk.rows
    }
    likeness = [moved[name] for name in desk.names()]
    assert all(after > before - 0.01 for before, after in pairwise(likeness))
    assert "Eigen-CAM at layer3" in desk.tab.locator("#caption").inner_text()


def of_map(row: Any, name: str) -> float:
    key = ("eigencam", "layer3")
    return float(np.mean([getattr(c, name) for c in row.maps if (c.method, c.stage) == key]))


def numbers(desk: Desk) -> None:
    """Sort by whatever is known of an image, both ways."""
    folder = desk.comparison.path / desk.comparison.contents.runs[1].path
    first = {row.id: row for row in exporter.open_run(folder).measures()}
    known: dict[str, Callable[[Any], float]] = {
        "disagreement": lambda row: len({said.name for said in row.verdicts}),
        "flips": lambda row: sum(bool(said.flip) for said in row.verdicts),
        "score": lambda row: row.verdicts[1].score,
        "ssim": lambda row: -of_map(row, "ssim"),
        "iou": lambda row: -of_map(row, "iou"),
        "energy inside of Grad-CAM": lambda row: first[row.id].box_energy,
        "agreement of the methods": lambda row: first[row.id].agreement,
    }
    rows = {row.path: row for row in desk.rows}
    desk.open("#run=1&method=1&stage=0")
    for name, value in known.items():
        option = {"label": name} if " " in name else {"value": name}
        desk.control("order").select_option("")
        desk.control("sort").select_option(**option)
        values = [value(rows[path]) for path in desk.names()]
        assert all(a >= b - 0.01 for a, b in pairwise(values)), name
        assert max(values) > min(values), name
        desk.control("order").select_option("reverse")
        values = [value(rows[path]) for path in desk.names()]
        assert all(a <= b + 0.01 for a, b in pairwise(values)), name
    assert "sort=n" in desk.tab.url
    assert "order=reverse" in desk.tab.url


def display(desk: Desk) -> None:
    desk.open()
    desk.wait("document.querySelector('#sheet canvas')?.width > 0")
    desk.control("look").click()
    before = desk.pixels("#sheet canvas")
    desk.control("colour").select_option("turbo")
    desk.wait("document.querySelector('#sheet canvas')")
    desk.tab.wait_for_timeout(200)
    assert (desk.pixels("#sheet canvas")[:, :3] != before[:, :3]).any()
    desk.slide("opacity", 30)
    desk.wait("document.querySelector('#sheet canvas').style.opacity === '0.3'")
    desk.slide("size", 240)
    desk.wait("document.querySelector('#sheet .photo').clientWidth === 240")


def turning(desk: Desk) -> None:
    """The slider over the grid turns to one run, with its maps, and back to all."""
    desk.open()
    desk.wait("document.querySelector('#sheet tr:last-child canvas')?.width > 0")
    shown = desk.tab.locator("#sheet td:visible")
    every = shown.count()
    assert every == 3 * len(desk.rows)
    for number, run in ((2, "step 3"), (3, "step 5")):
        desk.slide("only", number)
        assert desk.tab.locator("#only-out").inner_text() == run
        assert shown.count() == len(desk.rows)
        alts = shown.locator("img").evaluate_all("all => all.map((one) => one.alt)")
        assert all(f" in {run}" in alt for alt in alts)
        assert f"only={number}" in desk.tab.url
    tiles = shown.evaluate_all("all => all.map((one) => one.getBoundingClientRect().top)")
    assert len(set(tiles)) < len(tiles)  # beside one another, and not in a column
    desk.open("#only=2")
    assert shown.count() == len(desk.rows)
    desk.slide("only", 0)
    assert shown.count() == every
    assert desk.tab.locator("#only-out").inner_text() == "all runs"


def paging(desk: Desk) -> None:
    # A window of eight rows: as with thirty runs.
    desk.open()
    assert desk.tab.locator("#pager").is_hidden()
    desk.tab.evaluate("exporter.index.runs.length")
    desk.open("#page=5")
    assert desk.names() == [row.path for row in desk.rows]
    for name in ("page-before", "page-after"):
        assert desk.control(name).is_disabled()


def moving(desk: Desk) -> None:
    desk.open()
    desk.control("tile").click()
    desk.wait("document.querySelector('#v-panes canvas')?.width > 0")
    title = desk.tab.locator("#v-title")
    assert title.inner_text() == desk.rows[0].path
    desk.control("viewer-next").click()
    assert title.inner_text() == desk.rows[1].path
    desk.tab.keyboard.press("ArrowRight")
    assert title.inner_text() == desk.rows[2].path
    desk.control("viewer-previous").click()
    assert title.inner_text() == desk.rows[1].path
    desk.control("viewer-close").click()
    desk.wait("!location.hash.includes('image=')")


def modes(desk: Desk) -> None:
    desk.viewer()
    panes = desk.tab.locator("#v-panes figure")
    assert panes.count() == 3
    desk.control("viewer-mode").select_option("single")
    assert panes.count() == 1
    assert panes.inner_text().startswith("step 5")
    desk.slide("viewer-slider", 1)
    assert panes.inner_text().startswith("step 3")
    desk.tab.locator("#viewer").press(",")
    assert panes.inner_text().startswith("step 1")
    desk.control("viewer-mode").select_option("wipe")
    desk.control("viewer-right").select_option("2")
    desk.slide("viewer-wipe", 25)
    clip = "document.querySelector('.over-right').style.clipPath"
    assert "25%" in desk.tab.evaluate(clip)
    box = desk.tab.locator("#v-panes .photo").first.bounding_box()
    desk.tab.mouse.click(box["x"] + 0.75 * box["width"], box["y"] + 9)
    assert "75%" in desk.tab.evaluate(clip)
    desk.control("viewer-mode").select_option("blink")
    animated = "getComputedStyle(document.querySelector('.over-right')).animationName"
    assert desk.tab.evaluate(animated) == "blink"
    desk.control("viewer-left").select_option("1")
    desk.tab.locator("#viewer").press("x")
    assert "left=2" in desk.tab.url
    assert "right=1" in desk.tab.url


def difference(desk: Desk) -> None:
    """Blue where only the left map is, red where only the right; nothing where they agree."""
    desk.viewer("&mode=difference&left=0&right=0")
    assert (desk.pixels("#v-panes canvas")[:, 3] <= 1).all()
    desk.viewer("&mode=difference&left=0&right=2")
    forth = desk.pixels("#v-panes canvas")
    desk.viewer("&mode=difference&left=2&right=0")
    back = desk.pixels("#v-panes canvas")
    assert forth[:, 3].max() > 40
    assert np.abs(forth[:, 3].astype(int) - back[:, 3]).max() <= 2
    strong = forth[:, 3] > 40
    turned = (forth[strong, 0] > forth[strong, 2]) != (back[strong, 0] > back[strong, 2])
    assert turned.all()


def looks(desk: Desk) -> None:
    desk.viewer()
    before = desk.pixels("#v-panes canvas")
    for name, value in (("viewer-method", "1"), ("viewer-stage", "0"), ("viewer-colour", "turbo")):
        desk.control(name).select_option(value)
        after = desk.pixels("#v-panes canvas")
        assert after.shape != before.shape or (after != before).any(), name
        before = after
    desk.slide("viewer-opacity", 20)
    assert desk.tab.evaluate("document.querySelector('#v-panes canvas').style.opacity") == "0.2"
    row = desk.tab.locator("#v-runs tbody tr").nth(2).inner_text()
    change = next(
        c for c in desk.rows[3].maps if (c.run, c.method, c.stage) == (2, "eigencam", "layer3")
    )
    assert f"{change.spearman:.2f}".replace("-", "−") in row


TRIED: dict[Callable[[Desk], None], set[str]] = {
    links: {"finding", "flips", "all-images", "compared-image"},
    disclosures: {"more-numbers", "viewer-keys"},
    tables: {"find-class"},
    filters: {"search", "label", "flip", "run", "clear"},
    sorting: {"sort", "method", "stage"},
    numbers: {"order"},
    display: {"look", "colour", "opacity", "size"},
    turning: {"only"},
    paging: {"page-before", "page-after"},
    moving: {"tile", "viewer-next", "viewer-previous", "viewer-close"},
    modes: {"viewer-mode", "viewer-slider", "viewer-right", "viewer-left", "viewer-wipe"},
    difference: set(),
    looks: {"viewer-method", "viewer-stage", "viewer-colour", "viewer-opacity"},
}


@pytest.fixture(scope="module")
def desk(chromium: Any, html: Path, until: Any, comparison: Comparison) -> Iterator[Desk]:
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    tab = context.new_page()
    trouble: list[str] = []
    tab.on("console", lambda message: trouble.append(message.text))
    tab.on("pageerror", lambda error: trouble.append(str(error)))
    yield Desk(tab, html, until, comparison)
    context.close()
    assert trouble == []


@pytest.mark.browser
@pytest.mark.parametrize("check", TRIED, ids=lambda check: check.__name__)
def test_controls_do_what_they_say(desk: Desk, check: Callable[[Desk], None]) -> None:
    check(desk)


@pytest.mark.slow
def test_every_control_is_tried() -> None:
    named = {
        one or other
        for template in TEMPLATES.glob("compare*")
        for one, other in NAMED.findall(template.read_text("utf-8"))
    }
    assert named == set().union(*TRIED.values())
