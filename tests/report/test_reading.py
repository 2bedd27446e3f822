"""A reader's ways through the report: every map has its place, nothing overlaps, nothing lies."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from exporter.store import open_run
from exporter.writers.html import images, index
from tests.report.desk import Desk

pytestmark = pytest.mark.browser

LONGEST = "−1.23e−4 to −5.68e−3"


@pytest.fixture
def mixed(
    page: Any, until: Callable[[Any, str], None], other_runs: Mapping[str, Path]
) -> Iterator[Desk]:
    """A report with pixel, attention and fused maps, in a window of a usual size."""
    page.set_viewport_size({"width": 1440, "height": 900})
    run = other_runs["mixed"]
    return Desk(page, run / "html", open_run(run), until, other_runs)


def columns(desk: Desk) -> list[list[bool]]:
    """Return, for each column of the matrix, which of its rows have a map."""
    rows = desk.page.evaluate("""[...document.querySelectorAll("#v-table tbody tr")].map(
      (row) => [...row.cells].slice(1).flatMap((cell) =>
        cell.colSpan > 1 ? [] : [cell.querySelector("canvas") !== null]))""")
    return [list(column) for column in zip(*(row for row in rows if row), strict=True)]


def test_a_method_that_is_at_no_layer_has_a_row_and_no_column(mixed: Desk) -> None:
    mixed.viewer(mixed.row)
    heads = mixed.page.locator("#v-table thead th").all_inner_texts()
    layers = list(mixed.run.plan.layers_of_the_model)
    titles = mixed.page.locator("#v-table thead th").evaluate_all("l => l.map((one) => one.title)")
    assert titles == [*layers, "fused"]
    # A long name keeps both its ends.
    assert all(len(head) <= 20 for head in heads)
    for head, name in zip(heads, titles, strict=True):
        begin, _, end = head.partition("…")
        assert name.startswith(begin)
        assert name.endswith(end)
    assert all(all(column) for column in columns(mixed))
    own = mixed.page.locator("#v-table tr.own")
    said = [" ".join(text.split()) for text in own.all_inner_texts()]
    assert [text.split()[1] for text in said] == ["saliency", "occlusion", "rollout"]
    assert said[1].endswith("at the input")
    assert said[2].endswith("over all blocks")
    own.nth(2).locator("button").click()
    assert mixed.text("#v-caption").startswith("rollout at attention for")


@pytest.mark.parametrize("name", ["scorecam", "occlusion"])
def test_a_perturbation_method_is_shown_like_any_other(mixed: Desk, name: str) -> None:
    mixed.images(f"#map={name}")
    mixed.wait("document.querySelector('button.tile canvas')?.width > 0")
    assert mixed.page.locator("button.tile canvas").count() > 5
    assert mixed.page.locator("#grid-caption").inner_text().startswith(name)


@pytest.mark.parametrize("measure", ["faithfulness", "pointing"])
def test_images_are_sorted_and_filtered_by_what_was_measured(mixed: Desk, measure: str) -> None:
    desk = mixed.at("measured")
    known = {row.id: row.insertion for row in desk.run.image_faithfulness()}
    if measure == "pointing":
        known = {row.id: float(bool(row.pointing)) for row in desk.run.measures()}
    assert len(set(known.values())) > 1
    values = {row.path: known[row.id] for row in desk.rows}
    for way, sign in (("", 1), ("-high", -1)):
        desk.images(f"#sort={measure}{way}")
        shown = [sign * values[name] for name in desk.names()]
        assert shown == sorted(shown)
    middle = sorted(values.values())[5]
    desk.control("measure").select_option(measure)
    desk.control("measure-from").fill(f"{middle - 1e-3:.3f}")
    desk.tiles(sum(value >= middle - 1e-3 for value in values.values()))
    desk.viewer(desk.rows[0])
    assert f"{known[desk.rows[0].id]:.3g} (" in desk.text("#v-facts")


def test_what_is_not_printed_or_without_its_map_is_said(
    mixed: Desk, writing: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (images, index):
        monkeypatch.setattr(module, "IMAGES_PER_SHARD", 8)
    shutil.copytree(mixed.run.path, tmp_path / "run", ignore=shutil.ignore_patterns("html"))
    desk = replace(mixed, report=writing(tmp_path / "run"))
    script = desk.report / "assets" / "grid.js"
    script.write_text(script.read_text("utf-8").replace("ON_PAPER = 1000;", "ON_PAPER = 90;"))
    desk.images()
    desk.wait("document.querySelector('button.tile canvas')?.width > 0")
    desk.wait("exporter.data.whole()")
    loaded, said = desk.page.evaluate("""() => {
      const loaded = [...Array(90).keys()].filter((at) => exporter.data.loaded(at >> 3)).length;
      dispatchEvent(new Event("beforeprint"));
      return [loaded, document.getElementById("grid-paper").innerText];
    }""")
    assert 0 < loaded < 90
    rest = "Only the first 90 of them are printed; filters choose others. "
    assert said.startswith(f"{rest}{90 - loaded} images of these are printed without the map")
    assert desk.page.locator("button.tile").count() == 90
    desk.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert not desk.page.locator("#grid-paper").is_visible()
    mixed.images()  # all are in one script
    mixed.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert not mixed.page.locator("#grid-paper").is_visible()


def test_a_pixel_map_is_shown_as_fine_as_it_is_stored(mixed: Desk) -> None:
    mixed.viewer(mixed.row, "&map=saliency")
    said = mixed.text("#v-caption")
    assert "56 × 56 cells" in said
    assert "averaged" not in said
    canvas = mixed.page.locator("#v-table tr.own canvas").first
    assert canvas.evaluate("one => one.width") >= 112


def test_neither_the_input_nor_a_fused_map_is_the_deepest_layer(mixed: Desk) -> None:
    deepest = mixed.run.plan.layers_of_the_model[-1]
    mixed.images()
    assert mixed.text("#grid-caption").startswith(f"Grad-CAM at {deepest}, each")
    mixed.open("index.html")
    captions = mixed.page.locator(".strip figcaption .muted").all_text_contents()
    assert captions
    assert all(caption.startswith(f"Grad-CAM at {deepest},") for caption in captions)
    summary = mixed.run.summary
    assert summary is not None
    assert summary.image_map == ("gradcam", deepest)
    assert {record.layer for record in mixed.run.class_maps()} == {deepest, ""}


def test_every_photograph_is_printed_whole_with_its_caption(mixed: Desk) -> None:
    from pypdf import PdfReader

    mixed.images()
    assert mixed.page.locator("button.tile").count() < len(mixed.rows)
    sheets = PdfReader(BytesIO(mixed.page.pdf(print_background=True))).pages
    names = []
    for sheet in sheets:
        words = sheet.extract_text()
        here = [row.path for row in mixed.rows if row.path.removeprefix("set/") in words]
        photographs = sum(picture.image.size == (224, 224) for picture in sheet.images)
        # One that is cut in two is among the pictures of two sheets.
        assert photographs == len(here), here
        names += here
    assert names == [row.path for row in mixed.rows]
    assert len(sheets) > 1
    # The window is as it was.
    mixed.page.evaluate("scrollTo(0, document.body.scrollHeight)")
    mixed.wait("[...document.querySelectorAll('.tile .file')].at(-1)?.textContent.includes(' 099')")
    assert mixed.page.locator("button.tile").count() < len(mixed.rows)


def test_a_printed_selection_is_what_was_selected(mixed: Desk) -> None:
    from pypdf import PdfReader

    mixed.images("#q=photograph 01")
    sheets = PdfReader(BytesIO(mixed.page.pdf(print_background=True))).pages
    words = "".join(sheet.extract_text() for sheet in sheets)
    assert words.count(".jpg") == 10
    assert "10 of 100 images" in words


def test_the_viewer_leaves_the_address_as_the_grid_shows_it(mixed: Desk) -> None:
    mixed.images("#map=scorecam&layer=1")
    shown = mixed.text("#grid-caption")
    mixed.page.locator("button.tile").first.click()
    mixed.wait("document.querySelector('#v-table canvas')?.width > 0")
    mixed.page.locator("#v-table tr.own button").first.click()
    mixed.control("viewer-compare").select_option("wipe")
    mixed.control("viewer-geometry").select_option("original")
    mixed.page.keyboard.press("f")
    inside = mixed.page.evaluate("location.hash")
    assert "map=saliency" in inside
    assert "compare=wipe" in inside
    mixed.page.keyboard.press("Escape")
    mixed.wait("location.hash === '#map=scorecam&layer=1'")
    assert mixed.text("#grid-caption") == shown
    assert mixed.control("map").input_value() == "scorecam"
    # What was copied while it was open shows the same there.
    mixed.images(inside)
    mixed.wait("document.getElementById('viewer').open")
    mixed.wait("document.getElementById('v-caption').textContent.startsWith('saliency at input')")
    assert mixed.control("viewer-compare").input_value() == "wipe"


def test_a_grid_without_maps_stays_without_them(mixed: Desk) -> None:
    mixed.images("#map=")
    mixed.page.locator("button.tile").first.click()
    mixed.wait("document.querySelector('#v-table canvas')?.width > 0")
    mixed.page.keyboard.press("Escape")
    mixed.wait("location.hash === '#map='")
    assert mixed.text("#grid-caption") == "Photographs as the model sees them."


def test_rounding_noise_is_painted_as_nothing(mixed: Desk) -> None:
    mixed.images()
    least = mixed.page.evaluate("""["noise", ""].map((flag) => {
      const canvas = document.createElement("canvas");
      const values = () => Float32Array.of(-1e-13, 1e-13);
      exporter.paint.draw(canvas, { flags: [flag], values, height: 1, width: 2 }, 8, 8,
        { rectify: false, colour: "viridis", fade: true });
      return Math.max(...canvas.getContext("2d").getImageData(0, 0, 8, 8).data);
    })""")
    assert least == [0, 255]


def test_an_address_holds_for_every_flag(mixed: Desk) -> None:
    for flag in ("zero", "constant", "nan", "negative", "flagged"):
        mixed.images(f"#maps={flag}")
        assert mixed.page.evaluate("location.hash") == f"#maps={flag}"
        assert mixed.names() == []


def test_what_is_chosen_is_read_whole(mixed: Desk) -> None:
    mixed.page.set_viewport_size({"width": 1280, "height": 900})
    mixed.images("")
    widths = mixed.page.evaluate("""[...document.querySelectorAll(".tools select")]
      .filter((list) => list.checkVisibility()).map((list) => {
        const longest = [...list.options].sort((a, b) => b.text.length - a.text.length)[0];
        longest.selected = true;
        const style = getComputedStyle(list), canvas = document.createElement("canvas");
        const pen = Object.assign(canvas.getContext("2d"), { font: style.font });
        const edges = parseFloat(style.paddingLeft) + parseFloat(style.paddingRight);
        return [longest.text, pen.measureText(longest.text).width, list.clientWidth - edges];
      })""")
    assert len(widths) == 5
    assert max(width for _, width, _ in widths) > 150
    assert [text for text, width, room in widths if width > room] == []


def test_skip_to_content_keeps_the_filters(mixed: Desk) -> None:
    mixed.images("#q=photograph 01&sort=high")
    mixed.tiles(10)
    mixed.control("skip").focus()
    mixed.page.keyboard.press("Enter")
    assert mixed.page.evaluate("document.activeElement.id") == "main"
    assert mixed.page.evaluate("location.hash") == "#q=photograph+01&sort=high"
    assert mixed.control("search").input_value() == "photograph 01"
    # Nor does any other place on the page, typed into the address.
    mixed.page.evaluate("location.hash = '#main'")
    mixed.wait("location.hash === '#q=photograph+01&sort=high'")
    mixed.tiles(10)


def lowest_control(desk: Desk) -> float:
    """Return how far above the viewer's end its lowest control ends, in pixels."""
    return float(
        desk.page.evaluate("""document.querySelector(".v-body").getBoundingClientRect().bottom -
          Math.max(...[...document.querySelectorAll(".v-controls *")]
          .filter((one) => one.checkVisibility())
          .map((one) => one.getBoundingClientRect().bottom))""")
    )


@pytest.mark.parametrize("mode", ["", "side", "wipe"])
@pytest.mark.parametrize(("other", "more"), [("boxes", "v-boxes"), ("wide", "v-target")])
def test_every_control_of_boxes_and_of_targets_is_in_sight(
    mixed: Desk, other: str, more: str, mode: str
) -> None:
    desk = mixed.at(other)
    desk.viewer(desk.row, f"&compare={mode}")
    assert desk.page.locator(f"#{more}").is_visible()
    assert desk.page.locator("#v-wipe").is_visible() is (mode == "wipe")
    assert lowest_control(desk) >= 0


@pytest.mark.parametrize("mode", ["", "side", "wipe"])
def test_every_column_and_every_control_is_in_sight(mixed: Desk, mode: str) -> None:
    mixed.viewer(mixed.row, f"&compare={mode}")
    mixed.page.evaluate(
        "(text) => { document.querySelector('.thumb .num').textContent = text; }", LONGEST
    )
    room = mixed.page.evaluate(
        "(({ scrollWidth, clientWidth }) => [scrollWidth, clientWidth])("
        "document.getElementById('v-scroll'))"
    )
    assert room[0] <= room[1]
    assert lowest_control(mixed) >= 0
    sides = mixed.page.evaluate("""[...document.querySelectorAll("#v-table tr:not(.own) .photo")]
      .map((one) => one.getBoundingClientRect()).map(({ width, height }) => [width, height])""")
    assert len(sides) == 8
    assert {(round(width, 1), round(height, 1)) for width, height in sides} == {
        (round(sides[0][0], 1), round(sides[0][0], 1))
    }


@pytest.mark.parametrize("mode", ["", "side"])
def test_the_picture_and_its_controls_stay_beside_the_channels(mixed: Desk, mode: str) -> None:
    mixed.viewer(mixed.row, f"&compare={mode}")
    body, places = mixed.page.evaluate("""(() => {
      const body = document.querySelector(".v-body"), box = (one) => one.getBoundingClientRect();
      body.scrollTop = 1e6;
      const [frame, last] = ["v-frame", "v-full"].map((id) => box(document.getElementById(id)));
      return [[box(body).top, box(body).bottom, body.scrollTop], [frame.top, last.bottom]];
    })()""")
    assert body[2] > 100
    assert body[0] <= places[0] < places[1] <= body[1]


def test_a_large_screen_is_used(mixed: Desk) -> None:
    mixed.page.set_viewport_size({"width": 3840, "height": 2160})
    mixed.images()
    tiles = mixed.page.locator("button.tile")
    sides = [tile.bounding_box() for tile in tiles.all()]
    assert sides[0]["width"] >= 300
    assert max(one["y"] + one["height"] for one in sides) > 2000
    mixed.viewer(mixed.row)
    frame, viewer = (mixed.page.locator(name).bounding_box() for name in ("#v-frame", "#viewer"))
    assert frame["height"] > 1300
    assert viewer["height"] > 2000
    assert viewer["width"] > 3600


def test_the_predicted_region_is_outlined_beside_the_map(mixed: Desk) -> None:
    regions = mixed.at("regions")
    regions.viewer(regions.row)
    assert regions.page.locator("#v-boxes").inner_text() == "Regions"
    lines = regions.page.locator("#v-outlines .region")
    place, heat = lines.bounding_box(), regions.page.locator("#v-heat").bounding_box()
    # Rows 1 and 2 of 4, columns 2 to 5 of 7, within the width of the line.
    assert abs(place["x"] - heat["x"] - heat["width"] * 2 / 7) < 5
    assert abs(place["y"] - heat["y"] - heat["height"] / 4) < 5
    assert abs(place["width"] - heat["width"] * 4 / 7) < 10
    assert abs(place["height"] - heat["height"] / 2) < 10
    # The outline of 2 × 4 cells is 12 sides long.
    assert lines.get_attribute("d").count("M") == 12
    # The given mask is the same from right to left.
    given = regions.page.locator("#v-outlines .given")
    assert abs(given.bounding_box()["x"] - heat["x"] - heat["width"] / 7) < 5
    assert given.get_attribute("d").count("M") == 12
    said = regions.page.locator("#v-boxes-legend span:visible").all_inner_texts()
    assert [text.strip() for text in said] == ["given", "predicted region"]
    # Both say their class, within the picture.
    row = regions.row
    written = regions.page.locator("#v-outlines text")
    assert written.all_text_contents() == [row.predictions[0].name, row.label]
    for box in (written.nth(0).bounding_box(), written.nth(1).bounding_box()):
        assert heat["y"] <= box["y"]
        assert box["y"] + box["height"] <= heat["y"] + heat["height"] + 2


def test_matched_unmatched_and_confused_boxes_are_counted(mixed: Desk) -> None:
    boxes = mixed.at("boxes")
    boxes.open("classes.html")
    section = boxes.page.locator("section[aria-labelledby=boxes]")
    assert section.locator(".note").first.inner_text().startswith("1 of 1 given box is matched")
    predicted, given = section.locator("table").all()
    rows = [text.split() for text in predicted.locator("tbody tr").all_inner_texts()]
    # 130 × 110 pixels are common to two boxes of 140 × 120.
    share = 130 * 110 / (2 * 140 * 120 - 130 * 110)
    assert sorted(row[-4:] for row in rows) == [
        ["1", "0", "1", "—"],
        ["1", "1", "0", f"{share:.3f}"],
    ]
    # The one given box is matched by the first prediction, which is its label.
    cells = given.locator("tbody :is(th, td)").all_inner_texts()
    assert cells == [boxes.row.label, "1", "1", "0", "0", "—"]


def test_the_cells_of_a_predicted_region_are_in_the_mask_or_not(mixed: Desk) -> None:
    regions = mixed.at("regions")
    regions.open("classes.html")
    cells = regions.page.locator("section[aria-labelledby=regions] tbody td")
    # Two rows of four among 4 × 7 cells, and the same from the right: three columns are common.
    shares = [f"{100 * part / 28:.1f} %" for part in (6, 2, 2, 18)]
    said = [text.replace("\xa0", " ") for text in cells.all_inner_texts()]
    assert said == ["1", "0.600", *shares]


def test_the_map_of_any_class_is_loaded_when_it_is_asked_for(mixed: Desk) -> None:
    live = mixed.at("live")
    requested: list[str] = []
    live.page.on("request", lambda request: requested.append(request.url))

    def scripts() -> list[str]:
        return [url.rpartition("/")[2] for url in requested if "/html/live/" in url]

    carried = {script.stem for script in (live.report / "live").glob("*.js")}
    row = next(row for row in live.rows if row.id in carried)
    live.images()
    live.viewer(row)
    assert any(url.endswith(f"/{row.id}.jpg") for url in requested)
    assert scripts() == []
    live.control("viewer-live").fill("teapot")
    live.page.keyboard.press("Enter")
    live.wait("document.getElementById('v-caption').textContent.includes('for teapot.')")
    assert scripts() == ["head.js", f"{row.id}.js"]


def test_captions_of_channels_stay_below_their_pictures(mixed: Desk) -> None:
    mixed.viewer(mixed.row)
    over = mixed.page.evaluate(
        """(text) => [...document.querySelectorAll(".acts li")].filter((item) => {
          const words = document.createRange(), box = item.getBoundingClientRect();
          for (const span of item.querySelectorAll(".num")) span.textContent = text;
          words.selectNodeContents(item.querySelector("figcaption"));
          return words.getBoundingClientRect().right > box.right + 0.5;
        }).length""",
        LONGEST,
    )
    assert mixed.page.locator(".acts li").count() > 4
    assert over == 0


def test_the_panel_closes_with_escape_and_with_a_click_beside_it(mixed: Desk) -> None:
    mixed.images()
    panel = mixed.page.locator("details.look")

    def opened() -> bool:
        return bool(panel.evaluate("one => one.open"))

    mixed.control("look").click()
    mixed.control("size").focus()
    assert opened()
    mixed.page.keyboard.press("Escape")
    assert not opened()
    assert mixed.page.evaluate("document.activeElement.dataset.control") == "look"
    mixed.control("look").click()
    mixed.control("opacity").click()
    assert opened()
    mixed.page.locator("h1").click()
    assert not opened()
