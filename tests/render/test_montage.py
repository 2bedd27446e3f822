from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from exporter.records import Prediction, Row
from exporter.render import (
    MontageLayout,
    captions,
    encode_jpeg,
    heatmap,
    layout_of,
    overlay_map,
)
from exporter.render.boxes import GIVEN, PREDICTED
from exporter.render.montage import EMPTY
from exporter.store import Run, open_run


@pytest.fixture(scope="module")
def run(sample_run: Path) -> Run:
    return open_run(sample_run)


@pytest.fixture(scope="module")
def row(run: Run) -> Row:
    return next(run.rows())


def test_the_default_run_of_twenty_maps_is_about_560_by_448(run: Run) -> None:
    methods = [replace(run.plan.methods[0], name=f"m{k}") for k in range(5)]
    width, height = MontageLayout(methods, ["a", "b", "c", "d"]).size
    assert 520 <= width <= 600
    assert 420 <= height <= 480


def test_a_tile_is_the_overlay_of_its_map_on_the_input(run: Run, row: Row) -> None:
    layout = layout_of(run.plan)
    picture = layout.draw(row).copy()
    x, y = layout._corner(2, 1)
    wide, high = layout.tile
    shown = picture[y : y + high, x : x + wide]
    x0, y0 = layout._corner(0, 0)
    image = picture[y0 : y0 + high, x0 : x0 + wide]
    one = next(m for m in row.maps if (m.method, m.layer) == ("layercam", "layer4"))
    expected = overlay_map(image, one, rectify=True)
    assert np.abs(shown.astype(int) - expected).mean() < 0.1
    lowest = (heatmap(one.array(), (wide, high), rectify=True, colormap="grey") == 0).all(2)
    assert lowest.any()
    assert np.array_equal(shown[lowest], image[lowest])


def test_drawing_twice_gives_the_same_and_leaves_nothing_of_the_row_before(run: Run) -> None:
    rows = list(run.rows())
    layout = layout_of(run.plan)
    alone = [layout_of(run.plan).draw(one).copy() for one in rows]
    for one, expected in zip(rows, alone, strict=True):
        assert np.array_equal(layout.draw(one), expected), one.path


@pytest.mark.parametrize(
    "change",
    [
        {"label": "another label"},
        {"path": "another/path.jpg"},
        {"predictions": (Prediction(1, "虎斑貓", 0.9),)},
        {"predictions": (Prediction(1, "虎斑猫", 0.8),)},
        {"correct": None},
    ],
)
def test_what_is_said_of_an_image_is_in_its_pixels(run: Run, row: Row, change: dict) -> None:
    layout = layout_of(run.plan)
    before = layout.draw(row).copy()
    assert not np.array_equal(layout.draw(replace(row, **change)), before)


def test_boxes_lie_on_the_input_where_the_crop_puts_them_and_are_explained_above_it(
    run: Run, row: Row
) -> None:
    layout = MontageLayout(run.plan.methods[:1], ["layer4"])
    stored = next(m for m in row.maps if (m.method, m.layer) == ("gradcam", "layer4"))
    image = encode_jpeg(np.full((224, 224, 3), 128, np.uint8))
    # The view shows 448 pixels of the original: two are one.
    detected = replace(
        row,
        image=image,
        label=None,
        crop=(100.0, 0.0, 548.0, 448.0),
        predictions=(Prediction(1, "cat", 0.9), Prediction(2, "dog", 0.4)),
        boxes=((140.0, 40.0, 260.0, 160.0),),
        predicted_boxes=((300.0, 200.0, 460.0, 360.0), (120.0, 240.0, 200.0, 320.0)),
        maps=(replace(stored, target="box:0"),),
    )

    def drawn(shown: Row, colour: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Return where the input and the line above it have a colour."""
        picture, (x, y) = layout.draw(shown), layout._corner(0, 0)
        coloured = (picture == np.array(colour)).all(2)[:, x : x + layout.tile[0]]
        return coloured[y : y + layout.tile[1]], coloured[y - 13 : y - 3]

    assert layout.tile == (224, 224)
    given, _ = drawn(detected, GIVEN)
    expected = np.zeros((224, 224), np.bool_)
    expected[20:80, 20:80] = True
    expected[21:79, 21:79] = False
    assert np.array_equal(given, expected)
    predicted, legend = drawn(detected, PREDICTED)
    # A thick line around (100, 100) to (179, 179), a thin one around (10, 120) to (49, 159).
    thick = predicted[140, 60:].nonzero()[0] + 60
    assert thick.tolist() == [*range(98, 103), *range(177, 182)]
    assert predicted[150, :60].nonzero()[0].tolist() == [10, 49]
    # The line of what is predicted is thin in the legend, that of the explained box thick.
    assert legend.sum() == 20 + 36
    _, unexplained = drawn(replace(detected, maps=(stored,)), PREDICTED)
    assert unexplained.sum() == 20
    _, none = drawn(replace(detected, boxes=None, predicted_boxes=None), PREDICTED)
    assert none.sum() == 0


def test_an_image_that_could_not_be_read_says_so(run: Run) -> None:
    layout = layout_of(run.plan)
    broken = next(one for one in run.rows() if one.error is not None)
    refused = layout.draw(broken).copy()
    assert refused.shape == (layout.size[1], layout.size[0], 3)
    assert not np.array_equal(layout.draw(replace(broken, error="another reason")), refused)
    # Bytes that turn out to be no picture, and rows read without their picture, are no surprise.
    assert layout.draw(replace(broken, error=None, image=b"no picture")).max() == 255
    assert layout.draw(replace(broken, error=None, image=None)).max() == 255


def test_maps_that_are_missing_leave_an_empty_tile_and_unknown_ones_are_ignored(
    run: Run, row: Row
) -> None:
    layout = layout_of(run.plan)
    stranger = replace(row.maps[0], method="unheard of")
    picture = layout.draw(replace(row, maps=(stranger,)))
    x, y = layout._corner(1, 0)
    assert np.all(picture[y : y + layout.tile[1], x : x + layout.tile[0]] == 236)


def test_a_map_that_is_not_a_number_is_hatched_and_a_zero_one_is_named(run: Run, row: Row) -> None:
    layout = layout_of(run.plan)
    plain = layout.draw(row).copy()
    hatched = layout.draw(replace(row, maps=(replace(row.maps[0], flags="nan"), *row.maps[1:])))
    line = list(run.plan.explained).index(row.maps[0].layer)
    x, y = layout._corner(1, line)
    tile = hatched[y : y + layout.tile[1] - 20, x : x + layout.tile[0]].copy()
    assert set(np.unique(tile)) == {150, 200}
    zero = layout.draw(replace(row, maps=(replace(row.maps[0], flags="zero"), *row.maps[1:])))
    changed = np.any(zero != plain, axis=2)
    assert changed.any()
    assert not changed[:, : x - 1].any()


def test_each_target_has_a_row_of_its_own(run: Run, row: Row) -> None:
    plan = replace(run.plan, target="top-2")
    layout = layout_of(plan)
    assert layout.size[1] > layout_of(run.plan).size[1] or layout.tile < layout_of(run.plan).tile
    second = [replace(one, target="class:7") for one in row.maps]
    both = tuple(one for pair in zip(row.maps, second, strict=True) for one in pair)
    picture = layout.draw(replace(row, maps=both))
    for line in range(4):
        x, y = layout._corner(1, line)
        tile = picture[y : y + layout.tile[1], x : x + layout.tile[0]]
        assert not np.all(tile == 236), line


def empty_tiles(picture: np.ndarray) -> np.ndarray:
    """Return where a picture has the colour of empty tiles, in patches larger than text's."""
    return cv2.erode((picture == EMPTY).all(2).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0


@pytest.mark.parametrize(
    ("target", "layers"), [("predicted", True), ("top-2", True), ("predicted", False)]
)
def test_methods_with_one_map_have_rows_of_their_own_and_no_tile_is_empty(
    run: Run, row: Row, target: str, layers: bool
) -> None:
    (cam, *_), stored = run.plan.methods, row.maps[0]
    single = [replace(cam, name=f"pixel{k}", pixel=True) for k in range(3)]
    single.append(replace(cam, name="rollout", attended=True))
    methods = [*(run.plan.methods if layers else ()), *single]
    explained = (*(run.plan.explained if layers else ()), "attention")
    plan = replace(run.plan, target=target, methods=tuple(methods), explained=explained)
    own = [replace(stored, method=m.name, layer="attention" if m.attended else "") for m in single]
    maps = [one for one in (*row.maps, *own) for _ in range(1 + (target == "top-2"))]
    layout = layout_of(plan)
    picture = layout.draw(replace(row, maps=tuple(maps)))
    assert not empty_tiles(picture).any()
    # Without their maps their tiles are empty, below those of the layers.
    empty = empty_tiles(layout.draw(row)).any(1).nonzero()[0]
    last = len(run.plan.explained) - 1 if layers else -1
    assert empty.min() > (layout._corner(0, last)[1] if layers else 0)
    assert picture.shape == (*layout.size[::-1], 3)


def test_the_target_is_named_as_people_do(row: Row) -> None:
    first = row.predictions[0]
    assert captions.target_text(f"class:{first.index}", row) == f"for {first.name}"
    assert captions.target_text("class:99999", row) == "for class 99999"
    assert captions.target_text("value", row) == "for value"
    bare = Row(id="a", key="a", path="a.jpg")
    assert captions.caption(bare) == "a.jpg"
