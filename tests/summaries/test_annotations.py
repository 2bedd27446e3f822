from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike

from exporter.records import Region, Row
from exporter.summaries.annotations import (
    Hits,
    coverage,
    given_region,
    hits,
    region_cells,
    region_overlap,
)
from exporter.summaries.grids import grids

# The view is the middle 300 × 300 of a photograph of 400 × 300: cells of a 3 × 3 map are 100 wide,
# and the first begins at x = 50.
CORNER = (50.0, 0.0, 150.0, 100.0)


def measured(making: Any, values: ArrayLike, **given: Any) -> Hits | None:
    mask = given.pop("mask", None)
    row = making.row(maps={("gradcam", "deep"): values}, **given)
    (grid,) = grids([row], making.scope(methods=("gradcam",)))
    laid = coverage(row, grid.height, grid.width, mask)
    return None if laid is None else hits(grid, {(0, grid.height, grid.width): laid})


def numbers(found: Hits | None) -> tuple[float, ...]:
    assert found is not None
    return tuple(float(values[0, 0]) for values in found)


MAP = [[4, 2.5, 0], [0, 1.5, 0], [0, 0, -8]]
NEAR = 1e-3  # maps are stored in levels


def test_by_hand(making: Any) -> None:
    # The cells from half of the largest value on are the first two; one of them is in the box.
    assert numbers(measured(making, MAP, boxes=(CORNER,))) == pytest.approx(
        (1, 4 / 8, 1 / 2), abs=NEAR
    )


def test_the_largest_cell_is_outside(making: Any) -> None:
    found = numbers(measured(making, MAP, boxes=((150.0, 0.0, 250.0, 200.0),)))
    # Energy 2.5 + 1.5 of 8; region {0, 1} and box {1, 4}: one common, three together.
    assert found == pytest.approx((0, 4 / 8, 1 / 3), abs=NEAR)


def test_half_a_cell_counts_half(making: Any) -> None:
    found = numbers(measured(making, MAP, boxes=((50.0, 0.0, 100.0, 100.0),)))
    assert found == pytest.approx((0, 2 / 8, 0.5 / 2), abs=0.02)


def test_boxes_are_united(making: Any) -> None:
    twice = measured(making, MAP, boxes=(CORNER, CORNER, (60.0, 10.0, 90.0, 50.0)))
    assert numbers(twice) == pytest.approx((1, 4 / 8, 1 / 2), abs=NEAR)


def test_what_lies_outside_the_view_does_not_count(making: Any) -> None:
    assert measured(making, MAP, boxes=((0.0, 0.0, 50.0, 300.0),)) is None
    wide = (0.0, -40.0, 150.0, 100.0)
    assert numbers(measured(making, MAP, boxes=(wide,))) == pytest.approx(
        (1, 4 / 8, 1 / 2), abs=NEAR
    )


def test_a_view_that_reaches_beyond_the_photograph(making: Any) -> None:
    # 600 wide and padded: cells are 200 wide and the photograph begins in the middle of the first.
    given = {"crop": (-100.0, -150.0, 500.0, 450.0), "boxes": ((0.0, -150.0, 100.0, 50.0),)}
    laid = coverage(making.row(**given), 3, 3)
    assert laid is not None
    np.testing.assert_allclose(laid[0], [[0.5, 0, 0], [0, 0, 0], [0, 0, 0]], atol=0.02)


@pytest.mark.parametrize("size", [(300, 400), (150, 200)])
def test_a_mask_is_as_its_box(making: Any, size: tuple[int, int]) -> None:
    mask = np.zeros(size, dtype=np.bool_)
    mask[: size[0] // 3, size[1] // 8 : size[1] * 3 // 8] = True
    found = numbers(measured(making, MAP, mask=mask, boxes=((0.0, 0.0, 9.0, 9.0),)))
    assert found == pytest.approx((1, 4 / 8, 1 / 2), abs=0.02)


def test_a_mask_does_not_reach_into_the_padding(making: Any) -> None:
    mask = np.ones((300, 400), dtype=np.bool_)
    laid = coverage(making.row(crop=(-400.0, 0.0, 400.0, 300.0)), 1, 2, mask)
    assert laid is not None
    assert laid[0].tolist() == [[0, 1]]


def test_a_map_without_energy_points_nowhere(making: Any) -> None:
    assert numbers(measured(making, -np.eye(3), boxes=(CORNER,))) == (0, 0, 0)


def test_a_map_that_is_not_there_is_not_measured(making: Any) -> None:
    assert np.isnan(numbers(measured(making, np.eye(3) * np.nan, boxes=(CORNER,)))).all()


def test_no_annotation(making: Any) -> None:
    assert measured(making, MAP) is None
    assert measured(making, MAP, boxes=()) is None


@pytest.mark.parametrize(("crop", "share"), [((0, 0, 8, 8), 1 / 3), ((4, 0, 8, 8), 0.0)])
def test_a_predicted_region_is_compared_with_the_mask(
    crop: tuple[float, float, float, float], share: float
) -> None:
    """The region is the upper half of the view, the mask the left half of the original."""
    cells = np.zeros((4, 4), np.bool_)
    cells[:2] = True
    region = Region("class:1", 4, 4, np.packbits(cells).tobytes())
    row = Row(id="a", key="a", path="a", width=8, height=8, crop=crop, regions=(region,))
    mask = np.zeros((8, 8), np.bool_)
    mask[:, :4] = True
    assert region_overlap(row, mask) == pytest.approx(share)
    assert region_overlap(row, None) is None
    assert region_overlap(replace(row, regions=()), mask) is None


def test_cells_of_a_region_are_in_the_mask_or_not() -> None:
    """The region is the upper half of the view, the mask its left quarter, on a finer grid."""
    upper, left = np.zeros((4, 4), np.bool_), np.zeros((8, 16), np.bool_)
    upper[:2] = left[:, :4] = True
    region = Region("class:1", 4, 4, np.packbits(upper).tobytes())
    given = Region("given", 8, 16, np.packbits(left).tobytes())
    row = Row(id="a", key="a", path="a", regions=(region, given))
    assert region_cells(row) == (1 / 8, 3 / 8, 1 / 8, 3 / 8)
    assert region_cells(replace(row, regions=(region,))) == (0, 1 / 2, 0, 1 / 2)
    assert region_cells(replace(row, regions=(given,))) is None


def test_a_given_mask_is_kept_as_it_lies_in_the_view() -> None:
    """The view is the right half of the original and as much padding beside it."""
    row = Row(id="a", key="a", path="a", width=8, height=8, crop=(4, 0, 12, 8))
    mask = np.zeros((8, 8), np.bool_)
    mask[2:, 6:] = True
    region = given_region(row, mask, (4, 4))
    assert region is not None
    expected = np.zeros((4, 4), np.bool_)
    expected[1:, 1] = True
    assert (region.target, region.array().tolist()) == ("given", expected.tolist())
    large = given_region(row, mask, (448, 224))
    assert large is not None
    assert (large.height, large.width) == (56, 28)
    assert given_region(row, ~mask & (np.arange(8) < 4), (4, 4)) is None
