from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from exporter.records import Prediction, Region, Row
from exporter.render.boxes import GIVEN, PREDICTED, box_in_view, draw_boxes, draw_region

ROW = Row(
    id="a",
    key="a",
    path="a.jpg",
    width=400,
    height=200,
    crop=(100.0, 0.0, 300.0, 200.0),
    predictions=(Prediction(1, "cat", 0.9), Prediction(2, "dog", 0.4)),
    boxes=((120.0, 20.0, 180.0, 80.0),),
    predicted_boxes=((200.0, 100.0, 280.0, 180.0), (110.0, 120.0, 150.0, 160.0)),
)


def test_a_box_of_the_original_lies_where_the_view_shows_it() -> None:
    assert box_in_view(ROW, (100.0, 0.0, 300.0, 200.0), (50, 100)) == (0, 0, 50, 100)
    assert box_in_view(ROW, (120.0, 20.0, 180.0, 80.0), (100, 100)) == (10, 10, 40, 40)
    # Outside of the crop it is outside of the view, however far.
    assert box_in_view(ROW, (0.0, 0.0, 100.0, 1e30), (100, 100)) == (-50, 0, 0, 400)


def lines(row: Row, colour: tuple[int, int, int], explained: int | None = None) -> np.ndarray:
    view = np.full((200, 200, 3), 128, np.uint8)
    draw_boxes(view, row, explained, alone=colour is PREDICTED)
    return (view == np.array(colour)).all(2)


def test_given_and_explained_boxes_are_outlined_in_their_colours() -> None:
    given = lines(replace(ROW, predicted_boxes=None), GIVEN)
    ys, xs = np.nonzero(given)
    assert (xs.min(), ys.min(), xs.max(), ys.max()) == (20, 20, 79, 79)
    assert not given[30:70, 30:70].any()
    explained = lines(ROW, PREDICTED, 1)
    ys, xs = np.nonzero(explained)
    ends = np.array([xs.min(), ys.min(), xs.max(), ys.max()])
    # A thick line around (10, 120) to (49, 159).
    assert np.abs(ends - (10, 120, 49, 159)).max() == 2
    assert explained.sum() > 3 * 4 * 38
    assert not lines(ROW, PREDICTED, None).any()


def test_a_predicted_region_is_outlined_where_its_target_is_explained() -> None:
    cells = np.zeros((4, 5), np.bool_)
    cells[1:3, 1:4] = True
    region = Region("class:1", 4, 5, np.packbits(cells).tobytes())
    assert np.array_equal(region.array(), cells)
    row = replace(ROW, regions=(region,))
    view = np.full((80, 100, 3), 128, np.uint8)
    draw_region(view, row, "class:2")
    assert (view == 128).all()
    draw_region(view, row, "class:1", alone=True)
    ys, xs = np.nonzero((view == np.array(PREDICTED)).all(2))
    assert (xs.min(), ys.min(), xs.max(), ys.max()) == (20, 20, 79, 59)
    assert (view[30:50, 30:70] == 128).all()
    given = np.full((80, 100, 3), 128, np.uint8)
    draw_region(
        given, replace(ROW, regions=(replace(region, target="given"),)), "given", alone=True
    )
    assert np.array_equal((given == np.array(GIVEN)).all(2), (view == np.array(PREDICTED)).all(2))


def test_given_boxes_and_regions_are_named_unless_they_stand_alone() -> None:
    row = replace(ROW, predicted_boxes=None)
    plain, named = (np.full((200, 200, 3), 128, np.uint8) for _ in range(2))
    draw_boxes(plain, row)
    draw_boxes(named, replace(row, label="cat"))
    filled = (named == np.array(GIVEN)).all(2) & ~(plain == np.array(GIVEN)).all(2)
    ys, xs = np.nonzero(filled)
    assert (ys.min(), xs.min()) == (21, 21)  # at the box's corner
    assert filled.sum() > 100

    cells = np.zeros((4, 5), np.bool_)
    cells[1:3, 1:4] = True
    row = replace(row, regions=(Region("class:1", 4, 5, np.packbits(cells).tobytes()),))
    alone, named = (np.full((200, 250, 3), 128, np.uint8) for _ in range(2))
    draw_region(alone, row, "class:1", alone=True)
    draw_region(named, row, "class:1")
    ys, xs = np.nonzero((named != alone).any(2))
    assert (ys.min(), xs.min()) == (51, 51)
    assert (named == np.array(PREDICTED)).all(2).sum() > (alone == np.array(PREDICTED)).all(2).sum()


@pytest.mark.parametrize("missing", [{"crop": None}, {"boxes": None, "predicted_boxes": None}])
def test_nothing_is_drawn_where_there_is_none(missing: dict[str, None]) -> None:
    view = np.full((50, 50, 3), 128, np.uint8)
    draw_boxes(view, replace(ROW, **missing), 0)
    assert (view == 128).all()
