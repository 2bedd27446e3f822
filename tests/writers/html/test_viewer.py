"""Reading one image: comparing, pointing, touching, keys, and what the address keeps."""

from __future__ import annotations

import re
import time
from base64 import b64decode
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from torch import nn

import exporter
from exporter.render import heatmap
from exporter.store import Run

pytestmark = pytest.mark.browser


def open_images(page: Any, report: Path, state: str = "") -> None:
    page.goto("about:blank")
    page.goto((report / "images.html").as_uri() + state)
    chosen = "#v-table canvas" if "image=" in state else "button.tile"
    page.wait_for_selector(chosen, state="attached")


def until(page: Any, condition: str) -> None:
    """Wait for a condition; playwright's own waiting uses eval, which the page's policy forbids."""
    for _ in range(200):
        if page.evaluate(condition):
            return
        time.sleep(0.025)
    pytest.fail(f"it never came to {condition}")


def canvas_pixels(page: Any, selector: str) -> np.ndarray:
    url = page.locator(selector).evaluate("canvas => canvas.toDataURL('image/png')")
    encoded = np.frombuffer(b64decode(url.partition(",")[2]), np.uint8)
    return cv2.cvtColor(cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGB)


def first_row(run: Run) -> Any:
    return next(row for row in run.rows() if row.maps)


def drawn(row: Any, method: str, layer: str, *, relu: bool) -> np.ndarray:
    one = next(one for one in row.maps if (one.method, one.layer) == (method, layer))
    return heatmap(one.array(), (224, 224), rectify=relu, colormap="viridis").astype(int)


def swipe(page: Any, selector: str, by: tuple[int, int]) -> None:
    """Drag one finger over an element, as the browser's own touch events."""
    box = page.locator(selector).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    touch = page.context.new_cdp_session(page)
    for kind, share in (
        ("touchStart", 0),
        ("touchMove", 0.4),
        ("touchMove", 1),
        ("touchEnd", None),
    ):
        points = [] if share is None else [{"x": x + by[0] * share, "y": y + by[1] * share}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})


def test_two_maps_side_by_side_are_those_that_were_asked_for(
    page: Any, run: Run, report: Path
) -> None:
    row = first_row(run)
    open_images(page, report, f"#image={row.id}&fade=even")
    assert not page.locator("#w-frame").is_visible()
    page.select_option("#v-compare", "side")
    assert page.locator("#v-with option:checked").inner_text() == "LayerCAM at layer4"
    page.select_option("#v-with", label="Eigen-CAM at layer3")
    assert page.locator("#w-caption").inner_text().startswith("Eigen-CAM at layer3 for")
    for pane, expected in (
        ("v", drawn(row, "gradcam", "layer4", relu=True)),
        ("w", drawn(row, "eigencam", "layer3", relu=False)),
    ):
        off = np.abs(canvas_pixels(page, f"#{pane}-heat").astype(int) - expected)
        assert off.max() <= 6, pane
    left, right = (page.locator(f"#{name}-frame").bounding_box() for name in "vw")
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] <= right["x"]
    state = page.evaluate("location.hash")
    open_images(page, report, state)
    assert page.input_value("#v-compare") == "side"
    assert page.locator("#w-caption").inner_text().startswith("Eigen-CAM at layer3 for")
    page.locator("#v-swap").click()
    assert page.locator("#v-caption").inner_text().startswith("Eigen-CAM at layer3 for")
    assert page.locator("#w-caption").inner_text().startswith("Grad-CAM at layer4 for")
    assert "with Grad-CAM at layer4" in page.locator("#w-img").get_attribute("alt")


def test_both_values_are_read_at_the_same_place(page: Any, run: Run, report: Path) -> None:
    row = first_row(run)
    state = f"#image={row.id}&compare=side&with=eigencam&at=1"
    open_images(page, report, state)
    page.locator("#w-heat").hover(position={"x": 60, "y": 80})
    said = page.locator("#v-value").inner_text()
    found = re.fullmatch(
        r"Value (\S+) raw \(\d+ % of the bar\) left, (\S+) raw \(\d+ % of the bar\) right, "
        r"at x (\d+), y (\d+) pixels of the model's view",
        said,
    )
    assert found, said
    x, y = int(found[3]), int(found[4])
    for place, method in ((1, "gradcam"), (2, "eigencam")):
        one = next(one for one in row.maps if (one.method, one.layer) == (method, "layer4"))
        value = cv2.resize(one.array(), (224, 224), interpolation=cv2.INTER_LINEAR)[y, x]
        assert abs(float(found[place].replace("−", "-")) - value) < (one.hi - one.lo) / 60
    assert page.locator("#v-probe").is_visible()
    page.locator("#v-frame").focus()
    page.keyboard.press("Shift+ArrowRight")
    moved = re.search(r"at x (\d+)", page.locator("#v-value").inner_text())
    assert moved
    assert int(moved[1]) == x + 8


def test_a_wipe_shows_one_map_on_each_side(page: Any, run: Run, report: Path) -> None:
    row = first_row(run)
    state = f"#image={row.id}&compare=wipe&with=eigencam&at=1&wipe=25&opacity=100&fade=even"
    open_images(page, report, state)
    left, right = (page.locator(f"#{name}-frame").bounding_box() for name in "vw")
    assert left == right
    shot = cv2.imdecode(
        np.frombuffer(page.locator("#panes").screenshot(), np.uint8), cv2.IMREAD_COLOR
    )[..., ::-1].astype(int)
    panes = page.locator("#panes").bounding_box()
    scale = left["width"] / 224
    maps = [
        drawn(row, "gradcam", "layer4", relu=True),
        drawn(row, "eigencam", "layer4", relu=False),
    ]
    for x, shown in ((20, 0), (110, 1), (200, 1)):
        y = 40
        pixel = shot[
            round(left["y"] - panes["y"] + (y + 0.5) * scale),
            round(left["x"] - panes["x"] + (x + 0.5) * scale),
        ]
        assert np.abs(pixel - maps[shown][y, x]).max() < 16, (x, pixel.tolist())
    handle = page.locator("#v-divider").bounding_box()
    assert handle["width"] >= 24
    middle = handle["y"] + handle["height"] / 2
    page.mouse.move(handle["x"] + handle["width"] / 2, middle)
    page.mouse.down()
    page.mouse.move(left["x"] + 0.8 * left["width"], middle)
    page.mouse.up()
    assert abs(int(page.input_value("#v-wipe")) - 80) <= 1
    page.locator("#v-wipe").focus()
    page.keyboard.press("End")
    until(page, "location.hash.includes('wipe=100')")
    page.select_option("#v-with", label="the photograph alone")
    assert page.locator("#w-caption").inner_text().startswith("The photograph alone")


def test_a_finger_swipes_between_the_images_of_the_filter(
    page: Any, run: Run, report: Path
) -> None:
    rows = [row for row in run.index if row.error is None]
    filtered = [row for row in run.index if row.correct is False]
    page.set_viewport_size({"width": 390, "height": 844})
    open_images(page, report, f"#outcome=wrong&image={filtered[0].id}")
    assert page.locator("#v-place").inner_text() == f"1 of {len(filtered)} matching images"
    path = page.locator("#v-path")
    swipe(page, "#v-frame", (-120, 8))
    until(page, f"location.hash.includes('{filtered[1].id}')")
    assert path.inner_text() == filtered[1].path
    swipe(page, "#v-frame", (120, 8))
    until(page, f"location.hash.includes('{filtered[0].id}')")
    swipe(page, "#v-frame", (-20, 4))
    swipe(page, "#v-frame", (-60, 120))
    time.sleep(0.1)
    assert path.inner_text() == filtered[0].path
    assert len(filtered) < len(rows)


def test_kept_images_show_their_channels_and_others_say_why_not(
    page: Any, run: Run, report: Path
) -> None:
    rows = [row for row in run.rows() if row.maps]
    open_images(page, report, f"#image={rows[4].id}")
    page.wait_for_selector("#v-acts canvas")
    open_images(page, report, f"#image={rows[5].id}")
    until(page, "document.getElementById('v-acts').textContent !== ''")
    said = page.locator("#v-acts").inner_text()
    assert said.startswith("Shown only for the 5 of 20 images that --keep selects;")
    assert page.locator("#v-acts canvas").count() == 0


def test_every_target_is_large_enough_for_a_finger(page: Any, run: Run, report: Path) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    row = first_row(run)
    # A link within a sentence is as high as its line (WCAG 2.2, 2.5.8, "Inline").
    script = """() => [...document.querySelectorAll('[data-control]')]
        .filter((e) => e.getClientRects().length && getComputedStyle(e).visibility === 'visible')
        .filter((e) => !(e.matches('p > a, dd > a') && getComputedStyle(e).display === 'inline'))
        .map((e) => [e.dataset.control, e.getBoundingClientRect().width,
                     e.getBoundingClientRect().height])"""
    seen = set()
    for address in (
        "index.html",
        "layers.html",
        "layers/1.html",
        "kernels.html",
        "images.html",
        f"images.html#image={row.id}&compare=wipe",
    ):
        page.goto("about:blank")
        page.goto(f"{report.as_uri()}/{address}")
        if "image=" in address:
            page.wait_for_selector("#v-acts canvas")
        if address.startswith("layers/"):
            page.evaluate("document.querySelector('.channels').scrollIntoView()")
            page.wait_for_selector(".tops img")
        until(page, "[...document.images].every((i) => i.complete || i.loading === 'lazy')")
        for name, width, height in page.evaluate(script):
            seen.add(name)
            assert name == "skip" or (width >= 24 and height >= 23.5), (address, name, height)
    assert {"theme", "tile", "viewer-map", "viewer-channel", "wipe-handle", "top-image"} <= seen


def test_the_list_of_keys_opens_anywhere_and_leaves_things_as_they_were(
    page: Any, run: Run, report: Path
) -> None:
    open_images(page, report)
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    for word in ("opacity", "swap", "map method", "search"):
        assert word in page.locator("#help").inner_text()
    page.keyboard.press("Escape")
    assert not page.locator("#help").is_visible()
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "q"
    page.keyboard.type("?")
    assert page.input_value("#q") == "?"
    open_images(page, report, f"#image={first_row(run).id}")
    page.locator("#v-help").click()
    page.keyboard.press("c")
    page.locator("#help-close").click()
    assert page.locator("#viewer").is_visible()
    assert page.input_value("#v-colour") == "viridis"


def test_keys_compare_swap_and_place(page: Any, run: Run, report: Path) -> None:
    row = next(row for row in run.index if row.crop and row.width != row.height)
    open_images(page, report, f"#image={row.id}")
    for expected in ("side", "wipe", ""):
        page.keyboard.press("w")
        assert page.input_value("#v-compare") == expected
    page.keyboard.press("w")
    page.keyboard.press("x")
    assert page.locator("#v-caption").inner_text().startswith("LayerCAM")
    page.keyboard.press("g")
    assert page.input_value("#v-geometry") == "original"
    ratios = page.evaluate(
        "['v', 'w'].map((p) => { const b = document.getElementById(p + '-frame')"
        ".getBoundingClientRect(); return b.width / b.height; })"
    )
    for ratio in ratios:
        assert abs(ratio - row.width / row.height) < 0.02
    page.keyboard.press("f")
    until(page, "location.hash.includes('full=1')")
    open_images(page, report, page.evaluate("location.hash"))
    assert page.locator("#viewer").evaluate("d => d.classList.contains('full')")


def test_the_whole_view_is_in_the_address(page: Any, run: Run, report: Path) -> None:
    row = first_row(run)
    state = (
        f"#sort=high&map=layercam&layer=0&colour=turbo&opacity=70&fade=even&threshold=30&image={row.id}"
        "&geometry=original&compare=wipe&with=gradcam&at=0&wipe=33"
    )
    open_images(page, report, state)
    assert page.evaluate("location.hash") == state
    for selector, value in (
        ("#v-opacity", "70"),
        ("#v-threshold", "30"),
        ("#v-colour", "turbo"),
        ("#v-wipe", "33"),
        ("#v-geometry", "original"),
    ):
        assert page.input_value(selector) == value
    assert page.locator("#v-opacity").get_attribute("aria-valuetext") == "70 %"
    assert page.locator("#v-caption").inner_text().startswith("LayerCAM at layer3")


def test_the_label_is_a_filter(page: Any, run: Run, report: Path) -> None:
    open_images(page, report)
    page.select_option("#label", "wall clock")
    wanted = sum(row.label == "wall clock" for row in run.index)
    until(page, f"document.querySelectorAll('.tile').length === {wanted}")
    assert page.evaluate("location.hash") == "#label=wall+clock"


def test_a_fired_channel_leads_to_its_row_and_the_images_that_fire_it(
    page: Any, run: Run, report: Path
) -> None:
    row = first_row(run)
    open_images(page, report, f"#image={row.id}")
    link = page.locator("#v-acts [data-control=viewer-channel]").first
    channel = int(link.inner_text().removeprefix("channel "))
    layer = page.locator("#v-acts h4 code").first.inner_text()
    link.click()
    page.wait_for_selector(f"#c{channel} .tops img")
    assert page.locator("h1").inner_text() == layer
    assert page.locator("tr:target").get_attribute("id") == f"c{channel}"
    known = next(one for one in run.channels(layer) if one.channel == channel)
    shown = page.locator(f"#c{channel} .tops figcaption").all_inner_texts()
    assert [float(text) for text in shown] == [float(f"{v:.4g}") for v in known.top_values]
    ring = page.locator(f"#c{channel} circle").first
    x, y = known.top_places[0]
    assert abs(float(ring.get_attribute("cx")) - 100 * x) <= 0.5
    assert abs(float(ring.get_attribute("cy")) - 100 * y) <= 0.5
    picture = page.locator(f"#c{channel} .tops img").first
    assert f"channel {channel} of {layer}" in picture.get_attribute("alt")
    until(page, f"document.querySelector('#c{channel} img').naturalWidth === 224")
    page.locator("#close-up").click()
    assert page.locator("#close-up").get_attribute("aria-pressed") == "true"
    page.locator(f"#c{channel} .tops a").first.click()
    page.wait_for_selector("#v-table canvas")
    assert known.top[0] in page.url


def test_a_channel_is_found_by_its_number_and_the_dead_are_marked(page: Any, report: Path) -> None:
    page.goto((report / "layers" / "1.html").as_uri())
    page.fill("#go", "11")
    page.keyboard.press("Enter")
    page.wait_for_selector("tr:target")
    assert page.locator("tr:target").get_attribute("id") == "c11"
    page.fill("#go", "12")
    page.keyboard.press("Enter")
    assert page.locator("#go-said").inner_text() == "Channels are 0 to 11."
    assert "dead" in page.locator("#c3").inner_text()
    page.get_by_role("button", name="Maximum").click()
    values = [
        float(text.replace("−", "-"))
        for text in page.locator(".channels td:nth-child(3)").all_inner_texts()
    ]
    assert values == sorted(values, reverse=True)


def test_the_grid_shows_a_map_of_every_method_wherever_it_has_them(
    page: Any, tmp_path: Path
) -> None:
    """Of a method that is not at the deepest of all layers, and beside pixel methods."""
    photos = sorted((Path(__file__).parents[3] / "examples" / "photos").glob("*.jpg"))[:1]
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Conv2d(4, 4, 3, 2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
    )  # fmt: skip
    maps = ["gradcam", "saliency", "refinecam"]
    out = tmp_path / "run"
    exporter.export(model, photos, out=out, maps=maps, layers=["1", "3"], writers=["html"])
    open_images(page, out / "html")
    for method, caption in (
        ("gradcam", "Grad-CAM at layer 3, each"),
        ("saliency", "Saliency (gradient), each"),
        ("refinecam", "RefineCAM at fused, each"),
    ):
        page.evaluate("document.querySelector('details.look').open = true")
        page.select_option("#map", method)
        assert page.locator("#grid-caption").inner_text().startswith(caption)
        until(page, "document.querySelector('.tile canvas').width > 0")
    page.goto((out / "html" / "index.html").as_uri())
    said = " ".join(page.locator(".intro").inner_text().split())
    assert said == "2 map methods at 2 layers and 1 pixel method, over 1 image."
