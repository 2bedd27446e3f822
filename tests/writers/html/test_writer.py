"""The report in a real browser, from ``file://`` and a path with spaces and other letters."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
import time
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote

import cv2
import numpy as np
import pytest

from exporter.console import say_written
from exporter.render import COLORMAPS, decode_image, heatmap
from exporter.store import Run, open_run
from exporter.writers import write
from exporter.writers.html import HtmlOptions
from exporter.writers.html.index import (
    IMAGES_PER_SHARD,
    Entry,
    SetIndex,
    columns_script,
    index_script,
)
from exporter.writers.links import image_link

FIREFOX = shutil.which("firefox-esr")
TENSORBOARD = "http://localhost:6006"
browser_test = pytest.mark.browser
CAMS = ("gradcam", "layercam", "eigencam", "hirescam")
STAGES = {"layer1": 56, "layer2": 28, "layer3": 14, "layer4": 7}


def pages_of(report: Path) -> list[Path]:
    return sorted(report.rglob("*.html"))


# ------------------------------------------------------------ what is written


def test_the_photographs_are_the_stored_bytes(run: Run, report: Path) -> None:
    for row in run.rows(["image", "error"]):
        file = report / "photos" / "00" / f"{row.id}.jpg"
        assert file.exists() == (row.error is None)
        assert row.image is None or file.read_bytes() == row.image


def test_every_link_and_picture_inside_the_report_exists(report: Path) -> None:
    found = 0
    for page in pages_of(report):
        for address in re.findall(r'(?:href|src)="([^"]+)"', page.read_text("utf-8")):
            if address.startswith(("http://", "https://", "data:", "#")):
                continue
            file = address.partition("#")[0]
            if file.startswith("../tensorboard") or (
                page.parent == report and file.startswith("../")
            ):
                continue
            assert (page.parent / file).exists(), (page.name, address)
            found += 1
    assert found > 100


def test_no_page_has_inline_code_styles_or_anything_from_elsewhere(report: Path) -> None:
    for page in pages_of(report):
        text = page.read_text("utf-8")
        assert "default-src 'none'" in html.unescape(text)
        assert not re.search(r"<script(?![^>]*\bsrc=)|\sstyle=|\son\w+=|<style", text), page
        assert not re.search(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="https?:', text), page


def test_what_comes_from_outside_is_escaped(report: Path) -> None:
    text = (report / "list" / "00000.html").read_text("utf-8")
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;.jpg" in text
    assert "<script>" not in (report / "data" / "index.js").read_text("utf-8")


def test_the_overview_says_what_ran(run: Run, report: Path) -> None:
    text = (report / "index.html").read_text("utf-8")
    totals = run.totals
    assert totals is not None
    assert run.plan.command in text
    assert f"{100 * totals.correct / totals.labelled:.1f}\xa0%" in text
    assert not re.search(r"\d\.\d %", text)  # in one piece on every line
    assert "the JPEG data end after 512 bytes" in text
    assert "tensorboard --logdir tensorboard" in text
    assert "cd wandb &amp;&amp; wandb sync offline-run-20260101_000000-abc" in text
    assert ": the errors with the highest confidence" in text
    for version in run.plan.versions.values():
        assert version in text


def test_what_keep_leaves_out_is_told_apart_from_what_cannot_be_read(
    sample_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = open_run(shutil.copytree(sample_run, tmp_path / "run"))
    kept = tuple(row.id for row in run.index if row.error is None)
    for number, said in (
        (19, "TensorBoard, W&amp;B and this report show every image that could be read."),
        (5, "W&amp;B show 5 of 19 images that could be read (<code>--keep</code>); this report"),
    ):
        written = write(run, "html", HtmlOptions(kept=kept[:number]))
        say_written(run, (written,), ())
        assert "(19 of 20 images; 1 could not be read)" in capsys.readouterr().out
        text = (run.path / "html/index.html").read_text("utf-8")
        assert said in text
        assert ("<code>--keep</code>" in text) == (number < 19)


def test_a_partial_run_says_so_and_shows_what_is_there(
    make_run: Callable[..., Path], tmp_path: Path
) -> None:
    partial = open_run(make_run(tmp_path / "run", shards=1))
    written = write(partial, "html", HtmlOptions(kept=()))
    assert (written.shown, written.total) == (8, 20)
    assert written.notes == ("the run is not complete: 8 of 20 images",)
    text = (tmp_path / "run" / "html" / "index.html").read_text("utf-8")
    assert "not complete" in text
    assert "Some of the images" not in text


@pytest.mark.parametrize(
    ("methods", "layers", "said"),
    [
        ((*CAMS, "xgradcam"), STAGES, "28 × 28, 1.0 kB"),
        pytest.param(
            ("saliency", "inputxgradient", *CAMS),
            STAGES,
            "40 × 40, 2.1 kB",
            marks=pytest.mark.slow,
        ),
        pytest.param(CAMS, dict.fromkeys("abcde", 60), "22 × 22, 0.6 kB", marks=pytest.mark.slow),
    ],
)
def test_20_maps_an_image_stay_under_32_kilobytes(
    make_run: Callable[..., Path],
    sampling: ModuleType,
    tmp_path: Path,
    *,
    methods: tuple[str, ...],
    layers: dict[str, int],
    said: str,
) -> None:
    photos = 2 * [image for image in sampling.SAMPLE_IMAGES if image.photo]
    path = make_run(tmp_path / "run", images=photos, methods=methods, layers=layers)
    run = open_run(path)
    write(run, "html", HtmlOptions(kept=[row.id for row in run.index]))
    maps = max(len(row.maps) for row in run.rows())
    assert maps in (18, 20)
    grows = [*(path / "html" / "data").glob("*"), *(path / "html" / "list").glob("*")]
    beside = sum(file.stat().st_size for file in grows) / len(photos)
    # A photograph is 12 kB.
    assert beside < 20_000
    text = html.unescape((path / "html" / "methods.html").read_text("utf-8"))
    assert f"to at most {said} per map" in text


def test_no_table_of_methods_stands_without_a_number(
    make_run: Callable[..., Path], tmp_path: Path
) -> None:
    methods, layers = ("gradcam", "saliency", "rollout"), {"layer3": 14, "layer4": 7}
    run = open_run(
        make_run(tmp_path / "run", methods=methods, layers=layers, combined=("attention",))
    )
    write(run, "html", HtmlOptions(kept=()))
    text = (run.path / "html" / "methods.html").read_text("utf-8")
    # Each method has its own places, so that no two are there to be compared.
    assert "Agreement at" not in text
    concentrated = re.findall(r"How concentrated the maps of [^>]*>.*?</table>", text, re.DOTALL)
    assert [table.count("<code>") for table in concentrated] == [2, 1, 1]
    assert "made from several layers" in (run.path / "html" / "layers.html").read_text("utf-8")


# ------------------------------------------------------------ in the browser


def open_images(page: Any, report: Path, state: str = "") -> None:
    page.goto("about:blank")
    page.goto((report / "images.html").as_uri() + state)
    page.wait_for_selector("button.tile, #none:not([hidden])")


def until(page: Any, condition: str) -> None:
    """Wait for a condition; playwright's own waiting uses eval, which the page's policy forbids."""
    for _ in range(200):
        if page.evaluate(condition):
            return
        time.sleep(0.025)
    pytest.fail(f"it never came to {condition}")


def names(page: Any) -> list[str]:
    return page.locator("button.tile .file").all_inner_texts()


@browser_test
def test_every_page_opens_quietly_at_a_phones_width(page: Any, report: Path) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    for file in pages_of(report):
        page.goto(file.as_uri())
        page.wait_for_load_state("load")
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 360, f"{file.name} is {width} pixels wide"
        assert page.locator("h1").count() == 1
        assert page.locator("img:not([alt])").count() == 0


@browser_test
def test_files_of_one_name_are_told_apart_by_their_folders(
    page: Any, make_run: Callable[..., Path], sampling: ModuleType, tmp_path: Path
) -> None:
    paths = ("a/cats/0.png", "a/dogs/0.png", "a/dogs/1.png")
    run = open_run(make_run(tmp_path / "run", images=[sampling.SampleImage(p) for p in paths]))
    write(run, "html", HtmlOptions(kept=[row.id for row in run.index]))
    open_images(page, run.path / "html")
    assert sorted(names(page)) == ["1.png", "cats/0.png", "dogs/0.png"]


@browser_test
def test_hostile_names_are_text_in_the_grid_and_the_viewer(page: Any, report: Path) -> None:
    open_images(page, report, "#q=alert(1)")
    assert names(page) == ["script>.jpg"]
    page.locator("button.tile").click()
    page.wait_for_selector("#v-table canvas")
    assert page.locator("#v-path").inner_text() == "<script>alert(1)</script>.jpg"
    assert "zero" in page.locator("#v-caption").inner_text()
    open_images(page, report, "#q=quoted%22%20%3Cb")
    assert 'a "quoted" <b>class</b> & more' in page.locator("body").inner_text()
    assert page.locator("#grid b, #viewer b:not(figcaption b)").count() == 0


@browser_test
def test_filters_sorting_and_search_are_in_the_address(page: Any, run: Run, report: Path) -> None:
    open_images(page, report)
    rows = list(run.index)
    assert len(names(page)) == len(rows)
    page.select_option("#outcome", "wrong")
    wrong = [row.path.rpartition("/")[2] for row in rows if row.correct is False]
    until(page, f"document.querySelectorAll('.tile').length === {len(wrong)}")
    assert names(page) == wrong
    page.select_option("#sort", "high")
    until(page, "location.hash.includes('sort=high')")
    by_score = sorted((row for row in rows if row.correct is False), key=lambda r: -r.confidence)
    ordered = [row.path.rpartition("/")[2] for row in by_score]
    assert names(page) == ordered
    middle = 100 * by_score[2].confidence
    page.fill("#max", f"{middle + 0.01:.2f}")
    until(page, "location.hash.includes('max=')")
    assert names(page) == ordered[2:]
    state = page.evaluate("location.hash")
    open_images(page, report, state)
    assert names(page) == ordered[2:]
    assert page.input_value("#outcome") == "wrong"
    page.get_by_role("button", name="Clear").click()
    until(page, f"document.querySelectorAll('.tile').length === {len(rows)}")
    assert page.evaluate("location.hash") == ""
    page.select_option("#maps", "flagged")
    until(page, "document.querySelectorAll('.tile').length === 1")
    page.select_option("#maps", "")
    page.fill("#q", "no such name")
    page.wait_for_selector("#none:not([hidden])")


@browser_test
def test_an_address_that_makes_no_sense_shows_everything(page: Any, report: Path) -> None:
    state = "#sort=constructor&colour=__proto__&outcome=toString&maps=valueOf&map=%3Cb%3E&image=x"
    open_images(page, report, state + "&__proto__=1&layer=99&size=wide&opacity=none")
    assert len(names(page)) == 20


@browser_test
def test_the_viewer_by_keyboard(page: Any, run: Run, report: Path) -> None:
    open_images(page, report)
    paths = [row.path for row in run.index]
    page.locator("button.tile").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_selector("#v-table canvas")
    title = page.locator("#v-path")
    assert title.inner_text() == paths[1]
    page.keyboard.press("ArrowRight")
    assert title.inner_text() == paths[2]
    page.keyboard.press("ArrowLeft")
    until(page, "document.querySelector('#v-caption').textContent.includes('Grad-CAM')")
    assert title.inner_text() == paths[1]
    caption = page.locator("#v-caption")
    page.keyboard.press("2")
    assert caption.inner_text().startswith("LayerCAM at layer4")
    page.keyboard.press("[")
    assert caption.inner_text().startswith("LayerCAM at layer3")
    page.keyboard.press("c")
    assert page.input_value("#v-colour") == "inferno"
    page.keyboard.press("o")
    assert page.locator("#v-heat").evaluate("c => c.style.opacity") == "1"
    page.keyboard.press("f")
    assert page.locator("#viewer").evaluate("d => d.classList.contains('full')")
    page.keyboard.press("f")
    state = page.evaluate("location.hash")
    page.keyboard.press("Escape")
    assert not page.locator("#viewer").is_visible()
    assert page.evaluate("document.activeElement.className") == "tile"
    assert page.evaluate("document.activeElement.dataset.place") == "1"
    open_images(page, report, state)
    page.wait_for_selector("#v-table canvas")
    assert title.inner_text() == paths[1]
    assert caption.inner_text().startswith("LayerCAM at layer3")


def canvas_pixels(page: Any, selector: str) -> np.ndarray:
    url = page.locator(selector).evaluate("canvas => canvas.toDataURL('image/png')")
    encoded = np.frombuffer(b64decode(url.partition(",")[2]), np.uint8)
    return cv2.cvtColor(cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA)


@browser_test
def test_painted_maps_equal_opencv(page: Any, run: Run, report: Path) -> None:
    relu = {method.name: method.relu for method in run.plan.methods}
    rows = [row for row in run.rows() if row.maps and row.path.endswith(".jpg")]
    for number, row in enumerate(rows[:4]):
        open_images(page, report, f"#image={row.id}&fade=even")
        page.wait_for_selector("#v-table canvas")
        for colour in list(COLORMAPS)[number::4]:
            page.select_option("#v-colour", colour)
            for one in row.maps:
                method = list(relu).index(one.method)
                layer = run.plan.explained.index(one.layer)
                cell = page.locator("#v-table tbody tr").nth(method).locator("button").nth(layer)
                cell.click()
                painted = canvas_pixels(page, "#v-heat")
                rectify = relu[one.method] and colour != "diverging"
                expected = heatmap(one.array(), (224, 224), rectify=rectify, colormap=colour)
                off = np.abs(painted[..., :3].astype(int) - expected)
                assert (painted[..., 3] == 255).all()
                # Eight bits are at most one level off; turbo steps by up to 8 of 255 a level.
                step = np.abs(np.diff(COLORMAPS[colour].astype(int), axis=0)).max()
                assert off.max() <= step, (one.method, one.layer, colour, off.max())
                assert step <= 6 or colour == "turbo"
                assert off.mean() < 1


@browser_test
def test_threshold_hides_and_the_pointer_reads(page: Any, run: Run, report: Path) -> None:
    row = next(row for row in run.rows() if row.maps)
    one = next(one for one in row.maps if (one.method, one.layer) == ("eigencam", "layer4"))
    open_images(page, report, f"#image={row.id}&map=eigencam&threshold=50&fade=even")
    page.wait_for_selector("#v-table canvas")
    painted = canvas_pixels(page, "#v-heat")
    values = cv2.resize(one.array(), (224, 224), interpolation=cv2.INTER_LINEAR)
    share = (values - one.lo) / (one.hi - one.lo)
    clear = np.abs(share - 0.5) > 0.01
    assert ((painted[..., 3] == 255) == (share >= 0.5))[clear].all()
    page.locator("#v-heat").hover(position={"x": 30, "y": 40})
    said = page.locator("#v-value").inner_text()
    found = re.fullmatch(
        r"Value (\S+) raw \((\d+) % of the bar\), at x (\d+), y (\d+) pixels of the model's view",
        said,
    )
    assert found, said
    value, x, y = float(found[1].replace("−", "-")), int(found[3]), int(found[4])
    assert abs(value - values[y, x]) < (one.hi - one.lo) / 250
    assert abs(int(found[2]) / 100 - share[y, x]) < 0.011
    assert page.locator("#v-lo").inner_text().replace("−", "-") == f"{one.lo:.4g}"


@browser_test
def test_the_map_lies_where_the_view_lies_in_the_original(
    page: Any, run: Run, report: Path
) -> None:
    row = next(row for row in run.index if row.crop and row.width != row.height)
    open_images(page, report, f"#image={row.id}&geometry=original")
    page.wait_for_selector("#v-table canvas")
    frame, view = (page.locator(f"#{name}").bounding_box() for name in ("v-frame", "v-heat"))
    assert row.crop and row.width and row.height
    scale = frame["width"] / row.width
    assert abs(frame["height"] - row.height * scale) < 1
    assert abs(view["x"] - frame["x"] - row.crop[0] * scale) < 1
    assert abs(view["width"] - (row.crop[2] - row.crop[0]) * scale) < 1


@browser_test
def test_a_kept_image_links_to_its_cards_in_tensorboard(page: Any, run: Run, report: Path) -> None:
    row = next(row for row in run.index if row.error is None)
    open_images(page, report, f"#image={row.id}")
    link = page.get_by_role("link", name="In TensorBoard")
    assert unquote(link.get_attribute("href")) == unquote(image_link(TENSORBOARD, row))


@browser_test
def test_without_javascript_numbers_tables_and_photographs_are_there(
    chromium: Any, run: Run, report: Path
) -> None:
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((report / "images.html").as_uri())
    assert page.locator(".still img").count() == 19
    assert page.locator(".still img").first.evaluate("i => i.naturalWidth") == 224
    page.get_by_role("link", name="1–20").click()
    page.wait_for_selector(".foot")
    assert page.locator(".rows tbody tr").count() == 20
    assert "the JPEG data end after 512 bytes" in page.locator(".rows").text_content()
    page.goto((report / "index.html").as_uri())
    assert "Accuracy" in page.locator("main").inner_text()
    page.goto((report / "layers.html").as_uri())
    page.get_by_role("link", name="layer4").first.click()
    page.wait_for_selector(".foot")
    assert page.locator(".channels tbody tr").count() == 20
    assert "dead" in page.locator(".channels #c3").text_content()
    context.close()


@browser_test
def test_the_table_of_layers_sorts_and_finds(page: Any, report: Path) -> None:
    page.goto((report / "layers.html").as_uri())
    page.get_by_role("button", name="Parameters").click()
    first = page.locator("#layers tbody th").first
    assert first.inner_text() == "conv1"
    page.fill("#find", "linear")
    assert page.locator("#layers tbody tr:visible").count() == 1


@browser_test
def test_of_100_000_images_only_the_visible_are_built(
    page: Any, run: Run, report: Path, tmp_path: Path
) -> None:
    large = tmp_path / "large"
    shutil.copytree(report, large)
    count = 100_000
    row = next(row for row in run.rows() if row.maps)
    index = SetIndex(run.plan, names=dict(enumerate(run.plan.model.classes)))
    for number in range(count):
        name = f"folder {number % 100}/photograph {number:06d}.jpg"
        label, score = ("cat", "dog")[number % 2], round(number % 997 / 997, 5)
        said = (number % 8, "", score, None, number % 3 > 0)
        index.images.append(Entry(number, f"{number:032x}", name, label, *said, 0))
    script = index_script(index, HtmlOptions(kept=()), {}, (), first=IMAGES_PER_SHARD)
    (large / "data" / "index.js").write_text(script, "utf-8")
    (large / "data" / "columns.js").write_text(columns_script(index), "utf-8")
    assert row.image is not None
    page.route("**/photos/**", lambda route: route.fulfill(body=row.image))
    shard = (large / "data" / "00000.js").read_text("utf-8")
    page.route(
        re.compile(r"data/\d+\.js$"),
        lambda route: route.fulfill(
            body=shard.replace("(0,", f"({int(route.request.url[-8:-3])},", 1)
        ),
    )
    page.goto((large / "images.html").as_uri())
    page.wait_for_selector("button.tile")
    assert page.locator("#count").inner_text() == "100,000 images"
    assert page.locator("#grid li").first.get_attribute("aria-setsize") == "100000"
    assert page.locator("button.tile").count() < 150
    # All columns are read once the page is there.
    until(page, "exporter.grid.order().length === 100000")
    assert page.locator("#class option").count() == 9
    page.fill("#q", "photograph 054321")
    until(page, "document.querySelectorAll('.tile').length === 1")
    page.fill("#q", "")
    until(page, "document.querySelectorAll('.tile').length > 1")
    page.locator("button.tile").first.focus()
    page.keyboard.press("End")
    until(page, "document.activeElement.innerText.includes('photograph 099999')")
    assert page.locator("button.tile").count() < 200
    # An address that asks for more than the beginning is answered in full at once.
    page.goto("about:blank")
    page.goto((large / "images.html").as_uri() + "#q=photograph+054321")
    page.wait_for_selector("button.tile")
    assert page.locator("#count").inner_text() == "1 of 100,000 images"


@pytest.mark.slow
@browser_test
@pytest.mark.skipif(FIREFOX is None, reason="no firefox-esr")
def test_firefox_paints_maps_from_a_file(run: Run, report: Path, tmp_path: Path) -> None:
    row = next(row for row in run.rows() if row.maps)
    shot = tmp_path / "shot.png"
    address = (report / "images.html").as_uri() + f"#image={row.id}&opacity=100&fade=even"
    command = [
        str(FIREFOX), "--headless", "--no-remote", "--profile", str(tmp_path / "profile"),
        "--window-size", "1280,900", "--screenshot", str(shot), address,
    ]  # fmt: skip
    (tmp_path / "profile").mkdir()
    subprocess.run(command, check=True, timeout=80, capture_output=True)
    pixels = decode_image(shot.read_bytes()).reshape(-1, 3).astype(int)
    for colour in COLORMAPS["viridis"][[0, 255]].astype(int):
        near = (np.abs(pixels - colour).max(axis=1) <= 3).sum()
        assert near > 200, f"{near} pixels of {colour.tolist()}"
