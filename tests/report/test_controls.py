"""Every control of the report does what it says; one that has no test here fails the list.

A control carries its name in ``data-control``. ``CONTROLS`` has one function a name, given the desk
it works at: an open tab, the report and its run.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import cv2
import numpy as np
import pytest

from exporter.records import Row, StoredMap
from exporter.render import COLORMAPS, heatmap, overlay
from exporter.store import Run, open_run
from exporter.writers.html_text import figure

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
    others: Mapping[str, Path]

    def at(self, other: str) -> Desk:
        """Return the desk with another report: ``wide`` or ``partial``."""
        run = open_run(self.others[other])
        return replace(self, report=self.others[other] / "html", run=run)

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
    chromium: Any,
    report: Path,
    run: Run,
    until: Callable[[Any, str], None],
    other_runs: Mapping[str, Path],
) -> Iterator[Desk]:
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    yield Desk(page, report, run, until, other_runs)
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


@control("label")
def label(desk: Desk) -> None:
    desk.images()
    desk.control("label").select_option("espresso")
    wanted = [file(row) for row in desk.rows if row.label == "espresso"]
    desk.tiles(len(wanted))
    assert desk.names() == wanted


@control("help", "help-close")
def keys(desk: Desk) -> None:
    desk.images()
    desk.control("help").click()
    desk.wait("document.getElementById('help').open")
    assert "opacity" in desk.text("#help")
    desk.control("help-close").click()
    desk.wait("!document.getElementById('help').open")


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
    # Where one class is explained there is nothing to choose.
    desk.viewer(desk.row)
    assert not desk.control("viewer-target").is_visible()
    desk = desk.at("wide")
    row = desk.row
    desk.viewer(row)
    first, second = (one.name for one in row.predictions[:2])
    options = desk.page.locator('[data-control="viewer-target"] option')
    assert options.all_inner_texts() == [first, second]
    assert first in desk.text("#v-caption")
    act = lambda: desk.control("viewer-target").select_option(label=second)  # noqa: E731
    assert changed(desk, "#v-heat", act)
    assert second in desk.text("#v-caption")
    target = f"class:{row.predictions[1].index}"
    same = [one for one in row.maps if (one.method, one.layer) == ("gradcam", "layer4")]
    shown = next(one for one in same if one.target == target)
    assert [desk.text("#v-lo"), desk.text("#v-hi")] == ["0", figure(shown.hi)]


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


@control("viewer-help")
def viewer_keys(desk: Desk) -> None:
    desk.viewer(desk.row)
    desk.control("viewer-help").click()
    desk.wait("document.getElementById('help').open && document.getElementById('viewer').open")


def right(desk: Desk) -> StoredMap:
    """Compare the first map with Eigen-CAM at layer3."""
    desk.viewer(desk.row, "&map=gradcam")
    desk.control("viewer-compare").select_option("side")
    desk.wait("!document.getElementById('w-frame').hidden")
    desk.control("viewer-with").select_option("2 0")
    desk.wait("document.getElementById('w-caption').textContent.startsWith('Eigen-CAM at layer3')")
    return stored(desk.row, "eigencam", "layer3")


@control("viewer-compare", "viewer-with")
def compare(desk: Desk) -> None:
    other = right(desk)
    for pane, values, rectify in (
        ("v", stored(desk.row, "gradcam", "layer4").array(), True),
        ("w", other.array(), False),
    ):
        expected = heatmap(values, (224, 224), rectify=rectify)
        assert np.abs(canvas(desk, f"#{pane}-heat")[..., :3].astype(int) - expected).max() <= 6
    left, beside = (desk.page.locator(f"#{pane}-frame").bounding_box() for pane in "vw")
    assert left["x"] + left["width"] <= beside["x"]
    desk.control("viewer-compare").select_option("")
    desk.wait("document.getElementById('w-frame').hidden")


@control("viewer-swap")
def swap(desk: Desk) -> None:
    right(desk)
    desk.control("viewer-swap").click()
    desk.wait("document.getElementById('v-caption').textContent.startsWith('Eigen-CAM at layer3')")
    assert desk.text("#w-caption").startswith("Grad-CAM at layer4")


@control("viewer-wipe", "wipe-handle")
def wipe(desk: Desk) -> None:
    right(desk)
    desk.control("viewer-compare").select_option("wipe")
    desk.wait("!document.getElementById('v-divider').hidden")
    desk.slide("viewer-wipe", 25)
    desk.wait("document.getElementById('w-frame').style.clipPath.includes('25%')")
    frame = desk.page.locator("#v-frame").bounding_box()
    grip = desk.control("wipe-handle").bounding_box()
    middle = frame["y"] + frame["height"] / 2
    desk.page.mouse.move(grip["x"] + grip["width"] / 2, middle)
    desk.page.mouse.down()
    desk.page.mouse.move(frame["x"] + 0.6 * frame["width"], middle, steps=4)
    desk.page.mouse.up()
    desk.wait("document.getElementById('w-frame').style.clipPath.includes('60%')")
    desk.wait("location.hash.includes('wipe=60')")


@control("probe-right")
def probe_right(desk: Desk) -> None:
    other = right(desk)
    values = cv2.resize(other.array(), (224, 224))
    desk.control("probe-right").focus()
    desk.page.keyboard.press("Shift+ArrowLeft")
    said = desk.text("#v-value").replace("−", "-")
    found = re.search(r"(\S+) raw \(\d+ % of the bar\) right, at x (\d+), y (\d+)", said)
    assert found, said
    assert abs(float(found[1]) - values[int(found[3]), int(found[2])]) < np.ptp(values) / 100


@control("viewer-class")
def viewer_class(desk: Desk) -> None:
    desk.viewer(desk.row)
    number = desk.row.predictions[0].index
    if not (desk.report / f"classes/{number}.html").exists():
        assert desk.page.locator('[data-control="viewer-class"]').count() == 0
        return
    desk.control("viewer-class").click()
    desk.wait(f"location.pathname.endsWith('/classes/{number}.html')")


# ------------------------------------------------------------ the overview and the classes


@control("strip-image")
def strip_image(desk: Desk) -> None:
    desk.open("index.html")
    address = desk.control("strip-image").get_attribute("href")
    desk.control("strip-image").click()
    desk.wait("document.getElementById('viewer')?.open")
    id = address.partition("image=")[2]
    assert desk.page.evaluate("location.hash").startswith(f"#image={id}")
    assert desk.text("#v-path") == next(row.path for row in desk.rows if row.id == id)


@control("bins")
def bins(desk: Desk) -> None:
    desk.open("index.html")
    if desk.control("bins").count() == 0:
        pytest.fail("the sample has labels, so there is a calibration diagram")
    table = desk.page.locator("details:has([data-control=bins]) table")
    assert not table.is_visible()
    desk.control("bins").click()
    assert table.is_visible()
    assert table.locator("tbody tr").count() > 0


@control("find-class")
def find_class(desk: Desk) -> None:
    desk.open("classes.html")
    desk.control("find-class").fill("espresso")
    assert desk.page.locator("#classes tbody tr:visible").count() == 1


@control("class-page")
def class_page(desk: Desk) -> None:
    desk.open("classes.html")
    name = desk.control("class-page").inner_text()
    address = desk.control("class-page").get_attribute("href")
    desk.control("class-page").click()
    desk.wait(f"location.pathname.endsWith('/{address}')")
    assert name in desk.text("h1")


def class_of_the_most(desk: Desk) -> tuple[int, int]:
    """Open the page of the class that is predicted most; return its index and how often."""
    first = [row.predictions[0].index for row in desk.rows if row.predictions]
    index = max(set(first), key=first.count)
    desk.open(f"classes/{index}.html")
    return index, first.count(index)


@control("class-images")
def class_images(desk: Desk) -> None:
    index, number = class_of_the_most(desk)
    desk.control("class-images").click()
    desk.wait("location.pathname.endsWith('/images.html')")
    desk.tiles(number)
    assert desk.control("class").input_value() == str(index)


@control("class-image")
def class_image(desk: Desk) -> None:
    class_of_the_most(desk)
    desk.control("class-image").click()
    desk.wait("document.getElementById('viewer')?.open")


@control("pair-images")
def pair_images(desk: Desk) -> None:
    desk.open("index.html")
    link = desk.control("pair-images")
    said = int(re.sub(r"\D", "", link.text_content()))
    link.click()
    desk.wait("location.pathname.endsWith('/images.html')")
    desk.tiles(said)


@control("viewer-photo")
def viewer_photo(desk: Desk) -> None:
    desk.viewer(desk.row)
    desk.control("viewer-photo").click()
    desk.wait(f"location.pathname.endsWith('/photos/00/{desk.row.id}.jpg')")


@control("viewer-tensorboard")
def viewer_tensorboard(desk: Desk) -> None:
    desk.viewer(desk.row)
    address = f"http://localhost:6006/#images&tagFilter=%40{desk.row.id}%24"
    assert desk.control("viewer-tensorboard").get_attribute("href") == address


@control("viewer-channel")
def viewer_channel(desk: Desk) -> None:
    desk.viewer(desk.row)
    number = re.search(r"\d+", desk.control("viewer-channel").inner_text())
    assert number
    desk.control("viewer-channel").click()
    desk.wait(f"location.hash === '#c{number[0]}' && document.querySelector('#c{number[0]}')")


# ------------------------------------------------------------ tables


def layer_page(desk: Desk) -> str:
    desk.open("layers.html")
    desk.page.locator("#layers").get_by_role("link", name="layer4").click()
    # The table lies below the maximised pictures, and its images are loaded when it is near.
    desk.wait("document.querySelector('table.channels')")
    desk.page.evaluate("document.querySelector('table.channels').scrollIntoView()")
    desk.wait("document.querySelector('.tops img')")
    return str(desk.page.evaluate("location.pathname.split('/').pop()"))


@control("channel-go")
def channel_go(desk: Desk) -> None:
    layer_page(desk)
    desk.control("channel-go").fill("17")
    desk.page.keyboard.press("Enter")
    desk.wait("location.hash === '#c17'")
    assert desk.page.locator("#c17").bounding_box()["y"] < 900
    desk.control("channel-go").fill("99")
    desk.page.keyboard.press("Enter")
    desk.wait("document.getElementById('go-said').textContent === 'Channels are 0 to 19.'")


@control("close-up")
def close_up(desk: Desk) -> None:
    layer_page(desk)
    picture = "document.querySelector('.tops img').getBoundingClientRect().width"
    before = desk.page.evaluate(picture)
    desk.control("close-up").click()
    desk.wait(f"{picture} > {before}")
    assert desk.control("close-up").get_attribute("aria-pressed") == "true"


@control("made")
def made(desk: Desk) -> None:
    layer_page(desk)
    address = desk.control("made").get_attribute("href")
    desk.control("made").click()
    desk.wait(f"location.href.endsWith('{address}')")
    shown = desk.page.locator("tr:target .made-small")
    assert shown.bounding_box()["y"] < 900
    assert shown.get_attribute("alt") == desk.page.locator(".made img").first.get_attribute("alt")


@control("top-image")
def top_image(desk: Desk) -> None:
    layer_page(desk)
    address = desk.control("top-image").get_attribute("href")
    desk.control("top-image").click()
    desk.wait("document.getElementById('viewer')?.open")
    assert desk.page.evaluate("location.hash").startswith("#" + address.partition("#")[2])


@control("channel-part")
def channel_part(desk: Desk) -> None:
    wide = desk.at("wide")
    name = layer_page(wide)
    parts = wide.page.locator('[data-control="channel-part"]')
    assert parts.all_inner_texts() == ["0–255", "256–299"]
    parts.last.click()
    wide.wait(f"location.pathname.endsWith('/{name.removesuffix('.html')}-2.html')")
    channels = wide.page.locator("table.channels tbody tr").evaluate_all("l => l.map(r => r.id)")
    assert channels == [f"c{number}" for number in range(256, 300)]


@control("like-channel")
def like_channel(desk: Desk) -> None:
    wide = desk.at("wide")
    layer_page(wide)
    link = wide.page.locator('#c1 [data-control="like-channel"]')
    assert link.inner_text() == "299"
    link.click()
    wide.wait("location.pathname.endsWith('-2.html') && location.hash === '#c299'")
    wide.wait("document.getElementById('c299').getBoundingClientRect().bottom < innerHeight")


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


# ------------------------------------------------------------ links from page to page

LINKS = {
    "all-classes": ("index.html", "Classes"),
    "flagged-images": ("index.html", "Images"),
    "layer-page": ("layers.html", None),
    "list-image": ("list/00000.html", "Images"),
    "method-page": ("index.html", "Methods"),
    "kernel-layer": ("kernels.html", "conv1"),
    "pair-class": ("index.html", None),
}
"""The page a link is on, and the heading of the page it leads to; its own text where None."""


@control(*LINKS)
def link(desk: Desk) -> None:
    for name, (page, heading) in LINKS.items():
        desk.open(page)
        one = desk.control(name)
        wanted, said = one.evaluate("a => a.href"), one.text_content()
        one.click()
        desk.wait(f"location.href.startsWith({wanted.partition('#')[0]!r})")
        assert desk.text("h1") == (heading or said), name
        if "#" in wanted:
            assert desk.page.evaluate("location.hash").startswith(wanted[wanted.index("#") :])


@control("up")
def up(desk: Desk) -> None:
    index, _ = class_of_the_most(desk)
    for page, above in (
        (f"classes/{index}.html", "Classes"),
        ("layers/0.html", "Layers"),
        ("list/00000.html", "Images"),
    ):
        desk.open(page)
        desk.control("up").click()
        desk.wait(f"document.querySelector('h1')?.textContent === {above!r}")


@control("neighbour")
def neighbour(desk: Desk) -> None:
    layer_page(desk)
    before = desk.text("h1")
    back = desk.page.locator('[data-control="neighbour"][rel="prev"]')
    name = back.inner_text().removeprefix("← ")
    back.click()
    desk.wait(f"document.querySelector('h1')?.textContent === {name!r}")
    desk.page.locator('[data-control="neighbour"][rel="next"]').click()
    desk.wait(f"document.querySelector('h1')?.textContent === {before!r}")


@control("image-list")
def image_list(desk: Desk) -> None:
    browser = desk.page.context.browser
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto((desk.report / "images.html").as_uri())
    tab.locator('[data-control="image-list"]').click()
    assert tab.locator("h1").inner_text() == "Images 1 to 20"
    context.close()


@control("kept-image", "all-images")
def kept(desk: Desk) -> None:
    partial = desk.at("partial")
    partial.open("index.html")
    address = partial.control("kept-image").get_attribute("href")
    partial.control("kept-image").click()
    partial.wait("document.getElementById('viewer')?.open")
    assert partial.page.evaluate("location.hash").startswith("#" + address.partition("#")[2])
    partial.open("index.html")
    said = partial.control("all-images").inner_text()
    partial.control("all-images").click()
    partial.wait("document.querySelector('button.tile')")
    assert said == f"All {partial.text('#count')}" == "All 16 images"


@control("shards-folder", "sink-folder")
def folders(desk: Desk) -> None:
    partial = desk.at("partial")
    for name, folder in (("shards-folder", "shards"), ("sink-folder", "tensorboard")):
        partial.open("index.html")
        address = partial.control(name).evaluate("a => a.href")
        assert Path(unquote(urlsplit(address).path)) == partial.run.path / folder
        assert (partial.run.path / folder).is_dir()


@control("tensorboard-server", "paper")
def elsewhere(desk: Desk) -> None:
    # There is no network here: where they would lead is what can be said.
    desk.open("index.html")
    assert desk.control("tensorboard-server").get_attribute("href") == "http://localhost:6006"
    desk.open("methods.html")
    method = desk.run.plan.methods[0]
    assert desk.control("paper").get_attribute("href") == method.url
    assert desk.control("paper").inner_text() == method.paper
    assert desk.control("paper").get_attribute("rel") == "noreferrer"


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
    unnamed = """[...document.querySelectorAll("a[href], button, input, select, summary, textarea")]
      .filter((one) => !one.dataset.control).map((one) => one.outerHTML.slice(0, 120))"""
    for page in pages:
        desk.open(page.relative_to(desk.report).as_posix())
        assert desk.page.evaluate(unnamed) == [], page.name
    desk.viewer(desk.row)
    assert desk.page.evaluate(unnamed) == []
