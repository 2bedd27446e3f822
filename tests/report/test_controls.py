"""Every control of the report does what it says; one that has no test here fails the list.

A control carries its name in ``data-control``. ``CONTROLS`` has one function a name, given the desk
it works at: an open tab, the report and its run.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from exporter.records import Row, StoredMap
from exporter.render import COLORMAPS, heatmap, overlay
from exporter.store import Run

pytestmark = pytest.mark.browser

TEMPLATES = Path(__file__).parents[2] / "templates"
NAME = re.compile(r'(?:data-control="|"data-control": "|dataset\.control = ")([^"{]+)"')


@dataclass
class Desk:
    """What a control is tried at."""

    page: Any
    report: Path
    run: Run
    until: Callable[[Any, str], None]

    def open(self, name: str, state: str = "") -> None:
        self.page.goto("about:blank")
        self.page.goto((self.report / name).as_uri() + state)

    def images(self, state: str = "") -> None:
        self.open("images.html", state)
        self.wait(
            "document.querySelector('button.tile') || !document.getElementById('none').hidden"
        )

    def viewer(self, row: Row, state: str = "") -> None:
        self.open("images.html", f"#image={row.id}{state}")
        self.wait("document.querySelector('#v-table canvas')?.width > 0")

    def wait(self, condition: str) -> None:
        self.until(self.page, condition)

    def control(self, name: str) -> Any:
        return self.page.locator(f'[data-control="{name}"]').first

    def names(self) -> list[str]:
        return self.page.locator("button.tile .file").all_inner_texts()

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def slide(self, name: str, value: int) -> None:
        """Move a slider as a hand does: each step tells of itself, the end too."""
        self.control(name).evaluate(
            """(slider, value) => {
              slider.value = value;
              slider.dispatchEvent(new Event("input", { bubbles: true }));
              slider.dispatchEvent(new Event("change", { bubbles: true }));
            }""",
            value,
        )

    def tiles(self, number: int) -> None:
        self.wait(f"document.querySelectorAll('button.tile').length === {number}")

    @property
    def rows(self) -> list[Row]:
        return list(self.run.rows())

    @property
    def row(self) -> Row:
        return next(row for row in self.run.rows() if row.maps)


Try = Callable[[Desk], None]
CONTROLS: dict[str, Try] = {}


def control(*names: str) -> Callable[[Try], Try]:
    """Say which controls a function tries."""

    def note(function: Try) -> Try:
        CONTROLS.update(dict.fromkeys(names, function))
        return function

    return note


@pytest.fixture(scope="module")
def desk(
    chromium: Any, report: Path, run: Run, until: Callable[[Any, str], None]
) -> Iterator[Desk]:
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    yield Desk(page, report, run, until)
    context.close()
    assert trouble == []


def file(row: Row) -> str:
    return row.path.rpartition("/")[2]


# ------------------------------------------------------------ on every page


@control("skip")
def skip(desk: Desk) -> None:
    desk.open("index.html")
    desk.page.keyboard.press("Tab")
    assert desk.page.evaluate("document.activeElement.dataset.control") == "skip"
    desk.page.keyboard.press("Enter")
    desk.wait("document.activeElement.id === 'main'")


@control("brand")
def brand(desk: Desk) -> None:
    desk.open("layers.html")
    desk.control("brand").click()
    desk.wait("location.pathname.endsWith('/html/index.html')")


@control("page-link")
def page_link(desk: Desk) -> None:
    desk.open("index.html")
    links = desk.page.locator('[data-control="page-link"]').all()
    addresses = [link.get_attribute("href") for link in links]
    assert addresses[0] == "index.html"
    assert addresses[1] == "images.html"
    for address in addresses:
        desk.page.locator(f'nav [href="{address}"]').first.click()
        desk.wait(f"location.pathname.endsWith('/html/{address}')")
        here = desk.page.locator('[aria-current="page"]').first.get_attribute("href")
        assert here == address


@control("theme")
def theme(desk: Desk) -> None:
    desk.open("index.html")
    background = "getComputedStyle(document.documentElement).backgroundColor"
    seen = {}
    for _ in range(3):
        desk.control("theme").click()
        seen[desk.control("theme").inner_text()] = desk.page.evaluate(background)
    assert set(seen) == {"Theme: auto", "Theme: light", "Theme: dark"}
    assert seen["Theme: light"] != seen["Theme: dark"]
    desk.control("theme").click()
    chosen = desk.page.evaluate(background)
    desk.open("methods.html")
    assert desk.page.evaluate(background) == chosen
    desk.page.evaluate("localStorage.clear()")


# ------------------------------------------------------------ the images page


@control("search")
def search(desk: Desk) -> None:
    desk.images()
    desk.control("search").fill("chelsea")
    desk.tiles(1)
    assert desk.names() == ["chelsea.jpg"]


@control("class")
def of_class(desk: Desk) -> None:
    desk.images()
    index = desk.row.predictions[0].index
    desk.control("class").select_option(str(index))
    wanted = [file(r) for r in desk.rows if r.predictions and r.predictions[0].index == index]
    desk.tiles(len(wanted))
    assert desk.names() == wanted


@control("verdict")
def verdict(desk: Desk) -> None:
    desk.images()
    for value, correct in (("right", True), ("wrong", False), ("unknown", None)):
        desk.control("verdict").select_option(value)
        wanted = [file(row) for row in desk.rows if row.correct is correct]
        desk.tiles(len(wanted))
        assert [name for name in desk.names() if name in wanted] == wanted


@control("score-low", "score-high")
def score(desk: Desk) -> None:
    desk.images()
    scores = sorted(row.confidence for row in desk.rows if row.confidence is not None)
    low, high = 100 * scores[4] - 0.01, 100 * scores[-4] + 0.01
    desk.control("score-low").fill(f"{low:.3f}")
    desk.tiles(len(scores) - 4)
    desk.control("score-high").fill(f"{high:.3f}")
    desk.tiles(len(scores) - 7)


@control("flagged")
def flagged(desk: Desk) -> None:
    desk.images()
    desk.control("flagged").select_option("zero")
    wanted = [file(row) for row in desk.rows if any("zero" in one.flags for one in row.maps)]
    desk.tiles(len(wanted))
    assert desk.names() == wanted


@control("sort")
def sort(desk: Desk) -> None:
    desk.images("#sort=high")
    read = [row for row in desk.rows if row.confidence is not None]
    down = [file(row) for row in sorted(read, key=lambda row: -row.confidence)]
    assert desk.names()[: len(down)] == down
    desk.control("sort").select_option("low")
    desk.wait(f"document.querySelector('.tile .file').textContent === {down[-1]!r}")
    desk.control("sort").select_option("name")
    desk.wait("location.hash === '#sort=name'")
    names = desk.names()
    assert names.index("astronaut.jpg") < names.index("chelsea.jpg") < names.index("coffee.jpg")


def canvas(desk: Desk, selector: str) -> np.ndarray:
    url = desk.page.locator(selector).first.evaluate("c => c.toDataURL('image/png')")
    encoded = np.frombuffer(b64decode(url.partition(",")[2]), np.uint8)
    return cv2.cvtColor(cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA)


def changed(desk: Desk, selector: str, act: Callable[[], object]) -> bool:
    before = canvas(desk, selector)
    act()
    for _ in range(100):
        after = canvas(desk, selector)
        if after.shape != before.shape or (after != before).any():
            return True
        desk.page.wait_for_timeout(20)
    return False


def look(desk: Desk) -> None:
    desk.images()
    desk.control("look").click()
    desk.wait("document.querySelector('details.look').open")
    desk.wait("document.querySelector('.tile canvas')?.width > 0")


@control("look")
def look_opens(desk: Desk) -> None:
    desk.images()
    assert not desk.control("colour").is_visible()
    look(desk)
    assert desk.control("colour").is_visible()


@control("map")
def grid_map(desk: Desk) -> None:
    look(desk)
    assert changed(desk, ".tile canvas", lambda: desk.control("map").select_option("eigencam"))
    assert desk.text("#grid-caption").startswith("Eigen-CAM at layer4")
    desk.control("map").select_option("")
    desk.wait("document.querySelector('.tile canvas').width === 0")


@control("layer")
def grid_layer(desk: Desk) -> None:
    look(desk)
    assert changed(desk, ".tile canvas", lambda: desk.control("layer").select_option("0"))
    assert "layer3" in desk.text("#grid-caption")


@control("colour")
def grid_colour(desk: Desk) -> None:
    look(desk)
    assert changed(desk, ".tile canvas", lambda: desk.control("colour").select_option("jet"))
    assert desk.page.evaluate("location.hash") == "#colour=jet"


@control("opacity")
def grid_opacity(desk: Desk) -> None:
    look(desk)
    desk.slide("opacity", 80)
    desk.wait("document.querySelector('.tile canvas')?.style.opacity === '0.8'")


@control("size")
def size(desk: Desk) -> None:
    look(desk)
    before = desk.control("tile").bounding_box()["width"]
    desk.slide("size", 360)
    desk.wait("document.querySelector('.tile').offsetWidth > 300")
    assert desk.control("tile").bounding_box()["width"] > before


@control("clear")
def clear(desk: Desk) -> None:
    desk.images("#q=chelsea&sort=low")
    desk.tiles(1)
    desk.control("clear").click()
    desk.tiles(20)
    assert desk.control("search").input_value() == ""
    assert desk.page.evaluate("location.hash") == ""


@control("clear-none")
def clear_none(desk: Desk) -> None:
    desk.images("#q=no-such-image")
    desk.tiles(0)
    desk.control("clear-none").click()
    desk.tiles(20)


@control("tile")
def tile(desk: Desk) -> None:
    desk.images()
    desk.control("tile").click()
    desk.wait("document.getElementById('viewer').open")
    assert desk.text("#v-path") == desk.rows[0].path


# ------------------------------------------------------------ the viewer


@control("viewer-next", "viewer-previous")
def step(desk: Desk) -> None:
    wrong = [row for row in desk.rows if row.correct is False]
    desk.viewer(wrong[0], "&outcome=wrong")
    assert desk.control("viewer-previous").is_disabled()
    desk.control("viewer-next").click()
    desk.wait(f"document.getElementById('v-path').textContent === {wrong[1].path!r}")
    desk.control("viewer-previous").click()
    desk.wait(f"document.getElementById('v-path').textContent === {wrong[0].path!r}")


@control("viewer-close")
def close(desk: Desk) -> None:
    desk.viewer(desk.row)
    desk.control("viewer-close").click()
    desk.wait("!document.getElementById('viewer').open && !location.hash.includes('image')")


def stored(row: Row, method: str, layer: str) -> StoredMap:
    return next(one for one in row.maps if (one.method, one.layer) == (method, layer))


@control("viewer-map")
def viewer_map(desk: Desk) -> None:
    desk.viewer(desk.row)
    cells = desk.page.locator('[data-control="viewer-map"]')
    assert cells.count() == 6
    cells.nth(2).click()
    assert desk.text("#v-caption").startswith("LayerCAM at layer3")
    assert cells.nth(2).get_attribute("aria-pressed") == "true"


@control("viewer-opacity")
def overlay_equals_opencv(desk: Desk) -> None:
    """What is on the screen is the photograph under the map, as OpenCV blends it."""
    row = desk.row
    values = stored(row, "gradcam", "layer4").array()
    desk.page.set_viewport_size({"width": 1280, "height": 1400})
    desk.viewer(row)
    photograph = cv2.cvtColor(
        cv2.imdecode(np.frombuffer(row.image or b"", np.uint8), cv2.IMREAD_COLOR),
        cv2.COLOR_BGR2RGB,
    )
    # Pixel for pixel: the picture at the size of the model's view, on whole pixels.
    desk.page.evaluate("""() => {
      const box = { width: "224px", height: "224px", minWidth: "0", maxWidth: "none" };
      const place = { position: "fixed", left: "0", top: "0", zIndex: "9" };
      const plain = { border: "0", borderRadius: "0", overflow: "visible", margin: "0" };
      for (const id of ["v-placeholder", "v-frame"]) {
        Object.assign(document.getElementById(id).style, box, plain, place);
      }
    }""")
    heat = heatmap(values, (224, 224), rectify=True)
    for opacity in (0, 50, 100):
        desk.slide("viewer-opacity", opacity)
        desk.wait(f"document.getElementById('v-heat').style.opacity === '{opacity / 100:g}'")
        shot = desk.page.locator("#v-placeholder").screenshot(animations="disabled")
        shown = cv2.cvtColor(cv2.imdecode(np.frombuffer(shot, np.uint8), 1), cv2.COLOR_BGR2RGB)
        expected = overlay(photograph, heat, opacity / 100)
        off = np.abs(shown.astype(int) - expected)[2:-2, 2:-2]
        assert off.max() <= 6, (opacity, off.max())
    desk.page.set_viewport_size({"width": 1280, "height": 900})


@control("viewer-threshold")
def threshold(desk: Desk) -> None:
    desk.viewer(desk.row, "&map=eigencam")
    assert (canvas(desk, "#v-heat")[..., 3] == 255).all()
    desk.slide("viewer-threshold", 50)
    desk.wait("location.hash.includes('threshold=50')")
    values = cv2.resize(stored(desk.row, "eigencam", "layer4").array(), (224, 224))
    share = (values - values.min()) / (values.max() - values.min())
    clear_of_it = np.abs(share - 0.5) > 0.02
    assert ((canvas(desk, "#v-heat")[..., 3] == 255) == (share >= 0.5))[clear_of_it].all()


@control("viewer-colour")
def colours(desk: Desk) -> None:
    desk.viewer(desk.row)
    values = stored(desk.row, "gradcam", "layer4").array()
    for name in COLORMAPS:
        desk.control("viewer-colour").select_option(name)
        expected = heatmap(values, (224, 224), rectify=name != "diverging", colormap=name)
        off = np.abs(canvas(desk, "#v-heat")[..., :3].astype(int) - expected)
        # A level of 256 is at most one off; turbo steps by up to 8 a level.
        assert off.max() <= (8 if name == "turbo" else 6), (name, off.max())


@control("viewer-geometry")
def geometry(desk: Desk) -> None:
    row = next(row for row in desk.rows if row.crop and row.maps and row.width != row.height)
    desk.viewer(row)
    desk.control("viewer-geometry").select_option("original")
    desk.wait("location.hash.includes('geometry=original')")
    frame, view = (desk.page.locator(f"#v-{name}").bounding_box() for name in ("frame", "heat"))
    assert row.crop
    assert row.width
    scale = frame["width"] / row.width
    assert abs(view["x"] - frame["x"] - row.crop[0] * scale) < 1
    assert abs(view["width"] - (row.crop[2] - row.crop[0]) * scale) < 1


@control("viewer-target")
def target(desk: Desk) -> None:
    desk.viewer(desk.row)
    # The sample explains one class: nothing to choose, so nothing is offered.
    assert not desk.control("viewer-target").is_visible()
    options = desk.page.locator('[data-control="viewer-target"] option')
    assert options.all_inner_texts() == [desk.row.predictions[0].name]


@control("viewer-full")
def full(desk: Desk) -> None:
    desk.viewer(desk.row)
    before = desk.page.locator("#v-frame").bounding_box()["width"]
    desk.control("viewer-full").click()
    desk.wait("document.getElementById('viewer').classList.contains('full')")
    assert desk.control("viewer-full").get_attribute("aria-pressed") == "true"
    assert desk.page.locator("#v-frame").bounding_box()["width"] > before


@control("probe")
def probe(desk: Desk) -> None:
    desk.viewer(desk.row)
    values = cv2.resize(stored(desk.row, "gradcam", "layer4").array(), (224, 224))
    desk.control("probe").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        desk.page.keyboard.press(f"Shift+{key}")
    said = desk.text("#v-value").replace("−", "-")
    found = re.search(r"Value (\S+).* x (\d+), y (\d+) pixels", said)
    assert found, said
    x, y = int(found[2]), int(found[3])
    assert (x, y) == (112 + 16, 112 + 8)
    assert abs(float(found[1]) - values[y, x]) < np.ptp(values) / 100


# ------------------------------------------------------------ tables


@control("sort-column")
def sort_column(desk: Desk) -> None:
    desk.open("layers.html")
    desk.page.get_by_role("button", name="Parameters").click()
    numbers = [
        int(text.replace(",", "").replace("—", "0"))
        for text in desk.page.locator("#layers tbody td.num").all_inner_texts()
    ]
    assert numbers == sorted(numbers, reverse=True)
    assert desk.page.locator('[aria-sort="descending"]').count() == 1


@control("find-layer")
def find_layer(desk: Desk) -> None:
    desk.open("layers.html")
    desk.control("find-layer").fill("linear")
    assert desk.page.locator("#layers tbody tr:visible").count() == 1


@control("single-list")
def single_list(desk: Desk) -> None:
    desk.open("report.html")
    desk.control("single-list").click()
    desk.wait("document.querySelector('.leaf.shown').dataset.page === 'list'")
    assert desk.page.locator(".rows tbody tr:visible").count() == 20


# ------------------------------------------------------------ the list of them


@pytest.mark.parametrize("name", sorted(CONTROLS))
def test_a_control_does_what_it_says(desk: Desk, name: str) -> None:
    CONTROLS[name](desk)


def test_every_control_has_a_test_and_every_test_a_control() -> None:
    named = set()
    for template in TEMPLATES.iterdir():
        named |= set(NAME.findall(template.read_text("utf-8")))
    assert named == set(CONTROLS)


def test_nothing_can_be_operated_that_has_no_name(desk: Desk, pages: tuple[Path, ...]) -> None:
    unnamed = """[...document.querySelectorAll("button, input, select, summary, textarea")]
      .filter((one) => !one.dataset.control).map((one) => one.outerHTML.slice(0, 120))"""
    for page in pages:
        desk.open(page.relative_to(desk.report).as_posix())
        assert desk.page.evaluate(unnamed) == [], page.name
    desk.viewer(desk.row)
    assert desk.page.evaluate(unnamed) == []
