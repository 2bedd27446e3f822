"""The controls of the viewer."""

from __future__ import annotations

import re
import shlex
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from urllib.parse import unquote

import cv2
import numpy as np

from exporter.cli import main
from exporter.records import Row, StoredMap
from exporter.render import COLORMAPS, decode_image, heatmap, overlay, overlay_map
from exporter.writers.html.text import figure
from tests.report.desk import Desk, canvas, changed, control


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
    desk.viewer(row, "&fade=even")
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
    desk.page.keyboard.press("u")
    desk.wait("!location.hash.includes('fade')")
    shot = desk.page.locator("#v-placeholder").screenshot(animations="disabled")
    shown = cv2.cvtColor(cv2.imdecode(np.frombuffer(shot, np.uint8), 1), cv2.COLOR_BGR2RGB)
    expected = overlay_map(photograph, stored(row, "gradcam", "layer4"), rectify=True, opacity=1.0)
    assert np.abs(shown.astype(int) - expected)[2:-2, 2:-2].max() <= 6
    desk.page.set_viewport_size({"width": 1280, "height": 900})


@control("viewer-threshold")
def threshold(desk: Desk) -> None:
    desk.viewer(desk.row, "&map=eigencam&fade=even")
    assert (canvas(desk, "#v-heat")[..., 3] == 255).all()
    desk.slide("viewer-threshold", 50)
    desk.wait("location.hash.includes('threshold=50')")
    values = cv2.resize(stored(desk.row, "eigencam", "layer4").array(), (224, 224))
    share = (values - values.min()) / (values.max() - values.min())
    clear_of_it = np.abs(share - 0.5) > 0.02
    assert ((canvas(desk, "#v-heat")[..., 3] == 255) == (share >= 0.5))[clear_of_it].all()


@control("viewer-colour")
def colours(desk: Desk) -> None:
    desk.viewer(desk.row, "&fade=even")
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
    desk.viewer(desk.row, "&map=gradcam&fade=even")
    desk.control("viewer-compare").select_option("side")
    desk.wait("!document.getElementById('w-frame').hidden")
    desk.control("viewer-with").select_option("2 0")
    desk.wait("document.getElementById('w-caption').textContent.startsWith('Eigen-CAM at layer3')")
    return stored(desk.row, "eigencam", "layer3")


@control("viewer-ranges")
def ranges(desk: Desk) -> None:
    desk.viewer(desk.row)
    shown = desk.page.locator("#v-table .num").first
    assert not shown.is_visible()
    first = stored(desk.row, "gradcam", "layer3")
    said = f"Raw values {figure(first.lo)} to {figure(first.hi)}"
    assert desk.control("viewer-map").get_attribute("title") == said
    desk.control("viewer-ranges").click()
    assert shown.is_visible()
    assert desk.control("viewer-ranges").get_attribute("aria-pressed") == "true"


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


@control("viewer-photo")
def viewer_photo(desk: Desk) -> None:
    desk.viewer(desk.row)
    desk.control("viewer-photo").click()
    desk.wait(f"location.pathname.endsWith('/photos/00/{desk.row.id}.jpg')")


@control("viewer-tensorboard")
def viewer_tensorboard(desk: Desk) -> None:
    desk.viewer(desk.row)
    address, _, tags = desk.control("viewer-tensorboard").get_attribute("href").partition("=")
    assert address == "http://localhost:6006/#images&tagFilter"
    # A stage comes first, and the image's id last where another has its path.
    assert re.search(unquote(tags), f"deepest/{desk.row.path}")
    assert re.search(unquote(tags), f"stage-4/{desk.row.path}@{desk.row.id}")
    assert not re.search(unquote(tags), f"deepest/more/{desk.row.path}")


@control("viewer-channel")
def viewer_channel(desk: Desk) -> None:
    desk.viewer(desk.row)
    number = re.search(r"\d+", desk.control("viewer-channel").inner_text())
    assert number
    desk.control("viewer-channel").click()
    desk.wait(f"location.hash === '#c{number[0]}' && document.querySelector('#c{number[0]}')")


@control("viewer-figure")
def figure_command(desk: Desk) -> None:
    """The command that is copied, or shown where copying is not allowed, draws the view."""
    row = next(row for row in desk.rows if row.maps and row.predictions[0].name.isascii())
    desk.viewer(row)
    method, layer = desk.page.evaluate(
        "[exporter.index.methods[exporter.now.current.method].name,"
        " exporter.index.layers[exporter.now.current.layer]]"
    )
    desk.slide("viewer-opacity", 65)
    desk.slide("viewer-threshold", 20)
    desk.page.keyboard.press("u")
    desk.control("viewer-figure").click()
    desk.wait("document.getElementById('v-taken').textContent.includes('exporter figure')")
    words = shlex.split(desk.text("#v-taken").removeprefix("Copied: "))
    assert words[:3] == ["exporter", "figure", str(desk.report.parent)]
    assert words[words.index("--image") + 1] == row.id
    assert words[words.index("--maps") + 1] == f"{method}@{layer}"
    assert words[words.index("--opacity") + 1] == "0.65"
    assert words[words.index("--threshold") + 1] == "0.2"
    assert "--uniform-opacity" in words
    with TemporaryDirectory() as folder:
        out = Path(folder) / "figure.png"
        assert main([*words[1:-1], str(out)]) == 0
        assert out.stat().st_size > 0


@control("viewer-save")
def save(desk: Desk) -> None:
    """A served report saves what is shown; from a disk the browser keeps photographs to itself."""
    desk.viewer(desk.row)
    desk.control("viewer-save").click()
    desk.wait("document.getElementById('v-taken').textContent.includes('exporter figure')")
    handler = partial(QuietHandler, directory=str(desk.report))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/images.html#image={desk.row.id}"
        desk.page.goto(address)
        desk.wait("document.querySelector('#v-table canvas')?.width > 0")
        with desk.page.expect_download() as download:
            desk.control("viewer-save").click()
        name = download.value.suggested_filename
        contents = np.frombuffer(Path(download.value.path()).read_bytes(), np.uint8)
        method = desk.page.evaluate("exporter.index.methods[exporter.now.current.method].name")
        desk.page.goto("about:blank")
        server.shutdown()
    assert name == f"{Path(desk.row.path).stem}-{method}.png"
    picture = cv2.imdecode(contents, cv2.IMREAD_COLOR_RGB)
    stored = desk.run.stored(desk.row, method)
    view = decode_image(desk.row.image or b"")
    assert picture.shape == (4 * view.shape[0], 4 * view.shape[1], 3)
    relu = next(known.relu for known in desk.run.plan.methods if known.name == method)
    expected = overlay_map(view, stored, rectify=relu)
    small = cv2.resize(picture, view.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - expected).mean() < 4


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves a report without a line per request."""

    def log_message(self, *_: object) -> None:
        pass


@control("viewer-boxes")
def boxes(desk: Desk) -> None:
    desk.viewer(desk.row)
    assert not desk.control("viewer-boxes").is_visible()
    desk = desk.at("boxes")
    row = desk.row
    desk.viewer(row)
    assert row.boxes
    assert row.predicted_boxes
    assert row.crop
    kinds = ("given", "predicted", "explained")
    shown = [desk.page.locator(f"#v-outlines rect.{kind}") for kind in kinds]
    assert [rects.count() for rects in shown] == [1, 2, 1]
    # Each lies where it does in the original, and says its class and score.
    left, top, right, bottom = row.crop
    heat = desk.page.locator("#v-heat").bounding_box()
    for rect, box in ((shown[0].first, row.boxes[0]), (shown[2].first, row.predicted_boxes[1])):
        place = rect.bounding_box()
        x, y = heat["width"] / (right - left), heat["height"] / (bottom - top)
        assert abs(place["x"] - heat["x"] - (box[0] - left) * x) < 4
        assert abs(place["y"] - heat["y"] - (box[1] - top) * y) < 4
        assert abs(place["width"] - (box[2] - box[0]) * x) < 8
    names = desk.page.locator("#v-outlines text").all_text_contents()
    predicted = [f"{said.name} {100 * said.score:.1f}\xa0%" for said in row.predictions[:2]]
    assert names == [row.label, *predicted]
    desk.control("viewer-boxes").click()
    desk.wait("location.hash.includes('boxes=off')")
    assert desk.page.locator("#v-outlines rect").count() == 0
    desk.page.keyboard.press("b")
    desk.wait("document.querySelectorAll('#v-outlines rect').length === 6")
    said = desk.page.locator("#v-boxes-legend span:visible").all_inner_texts()
    assert [text.strip() for text in said] == ["given", "predicted", "explained"]


@control("viewer-live", "viewer-live-less")
def any_class(desk: Desk) -> None:
    """A class is typed, then another is taken off; the address brings both back."""
    desk = desk.at("live")
    carried = {script.stem for script in (desk.report / "live").glob("*.js")}
    head = desk.run.head()
    assert head is not None
    row, without = (
        next(row for row in desk.rows if (row.id in carried) is there) for there in (True, False)
    )
    stage = next(stage for stage in desk.run.stages() if stage.id == row.id)
    desk.viewer(row)
    desk.control("viewer-live").fill("TEA")
    desk.page.keyboard.press("Enter")
    desk.wait(
        "document.getElementById('v-caption').textContent.startsWith('CAM at layer 3 for teapot.')"
    )
    means = stage.activation.array().mean((1, 2))
    logits = head[:, :-1] @ means + head[:, -1]
    said = desk.text("#v-live-said")
    assert said.startswith("Logit of teapot: ")
    number = float(re.findall(r"[−\d.]+", said)[0].replace("−", "-"))
    assert abs(number - logits[3]) < 0.02
    parts = np.abs(head[3, :-1] * means)
    strongest = [f"channel {n}" for n in np.argsort(-parts)[:5].tolist()]
    assert desk.page.locator("#v-live-channels .name").all_inner_texts()[:5] == strongest
    desk.control("viewer-live-less").fill("2")
    desk.page.keyboard.press("Enter")
    desk.wait("location.hash.includes('live=3-2')")
    desk.wait("document.getElementById('v-live-said').textContent.includes('less that of tiger:')")
    link = desk.page.locator("#v-live-channels a").first
    assert re.search(r"layers/\d+\.html#c\d$", link.get_attribute("href"))
    desk.viewer(row, "&live=3-2")
    desk.wait(
        "document.getElementById('v-caption').textContent.includes('teapot rather than tiger')"
    )
    desk.control("viewer-live").fill("aardvark")
    desk.page.keyboard.press("Enter")
    desk.wait("document.getElementById('v-live-said').textContent.includes('No class is called')")
    desk.viewer(without)
    assert desk.control("viewer-live").is_disabled()
    assert desk.text("#v-live-said") == "Available only for the 2 images that --keep selects."


@control("viewer-near")
def near(desk: Desk) -> None:
    """Of two images that are kept, each is the other's neighbour."""
    desk = desk.at("live")
    carried = {script.stem for script in (desk.report / "live").glob("*.js")}
    first, second = (row for row in desk.rows if row.id in carried)
    desk.viewer(first)
    desk.wait("document.querySelectorAll('#v-near button').length === 1")
    assert 0 < float(desk.control("viewer-near").inner_text()) <= 1
    desk.control("viewer-near").click()
    desk.wait(f"document.getElementById('v-path').textContent === {second.path!r}")
