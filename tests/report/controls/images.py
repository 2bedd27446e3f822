"""The controls of the images page."""

from __future__ import annotations

from tests.report.desk import Desk, canvas, changed, control, file


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


@control("measure", "measure-from", "measure-to")
def measure(desk: Desk) -> None:
    desk.images()
    said = desk.control("measure").locator("option").all_inner_texts()
    # What is measured of one method's maps names it.
    assert said[:3] == ["any", "Agreement", "Concentration (Grad-CAM)"]
    offered = desk.control("sort").locator("option").all_inner_texts()
    assert {"agreement, low first", "concentration (Grad-CAM), high first"} <= set(offered)
    assert not desk.control("measure-from").is_visible()
    agreement = {one.id: one.agreement for one in desk.run.measures() if one.agreement is not None}
    middle = sorted(agreement.values())[len(agreement) // 2]
    desk.control("measure").select_option("agreement")
    desk.tiles(len(agreement))
    desk.control("measure-from").fill(f"{middle - 1e-3:.3f}")
    wanted = [value for value in agreement.values() if value >= middle - 1e-3]
    desk.tiles(len(wanted))
    desk.control("measure-to").fill(f"{middle + 1e-3:.3f}")
    desk.wait("location.hash.includes('&to=')")
    desk.tiles(sum(value <= middle + 1e-3 for value in wanted))
    desk.control("sort").select_option("agreement")
    desk.images("#sort=agreement-high")
    order = [row.path for row in sorted(desk.rows, key=lambda row: -agreement.get(row.id, -9))]
    assert desk.names()[:3] == [path.rpartition("/")[2] for path in order[:3]]
    # The viewer says the number.
    best = max(desk.rows, key=lambda row: agreement.get(row.id, -9))
    desk.viewer(best)
    assert f"{agreement[best.id]:.3g} (rank correlation" in desk.text("#v-facts")


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


@control("fade")
def grid_fade(desk: Desk) -> None:
    look(desk)
    assert canvas(desk, ".tile canvas")[..., 3].min() == 0
    desk.control("fade").select_option("even")
    desk.wait("location.hash === '#fade=even'")
    desk.wait("document.querySelector('.tile canvas')?.width > 0")
    assert (canvas(desk, ".tile canvas")[..., 3] == 255).all()


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
