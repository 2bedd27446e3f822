"""Whether a map lies where it should, for images with given boxes or masks.

Only what of the boxes or the mask lies inside the model's view counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from exporter.records import GIVEN, REGION_CELLS, Region, Row, ratio
from exporter.summaries.grids import Grid

REGION: Final = 0.5
"""Share of a map's largest value from which on a cell belongs to the map's region."""

_POINTS = 112  # a view is looked at in about this many points per side

Mask = NDArray[np.bool_]
"""bool (height, width) of the original photograph: where the object is."""

Coverage = tuple[NDArray[np.float32], NDArray[np.bool_]]
"""Of a map's cells the share that is inside, and whether the centre is; (height, width) each."""


class Hits(NamedTuple):
    """Measures of maps, float64 of one shape; NaN where there is no map or no annotation.

    Attributes:
        pointing: 1 where the centre of the largest cell (of equals the first) is inside, else 0.
        box_energy: share of the map's energy inside.
        box_overlap: intersection over union with the cells from ``REGION`` of the largest on.
    """

    pointing: NDArray[np.float64]
    box_energy: NDArray[np.float64]
    box_overlap: NDArray[np.float64]


def coverage(row: Row, height: int, width: int, mask: Mask | None = None) -> Coverage | None:
    """Lay an image's boxes or mask on a map's grid, through the geometry of the model's view.

    Args:
        row: the image, with its crop and boxes in original pixels.
        height: rows of the map.
        width: columns of the map.
        mask: where the object is in the original; it goes before the boxes.

    Returns:
        None where the image has no annotation, or none of it is in the view.
    """
    if row.crop is None or (mask is None and not row.boxes):
        return None
    fine = max(1, _POINTS // max(height, width))
    points = _inside(row, mask, height * fine, width * fine)
    if not points.any():
        return None
    # Counts of points are whole, so that the mean is exact in any order.
    counts = points.reshape(height, fine, width, fine).sum(axis=(1, 3), dtype=np.float32)
    return counts / np.float32(fine * fine), _inside(row, mask, height, width)


def given_region(row: Row, mask: Mask, view: tuple[int, int]) -> Region | None:
    """Return an image's mask over the model's view; None where none of it is in the view."""
    if row.crop is None:
        return None
    share = min(1.0, REGION_CELLS / max(view))
    height, width = (max(1, round(side * share)) for side in view)
    inside = _inside(row, mask, height, width)
    return Region(GIVEN, height, width, np.packbits(inside).tobytes()) if inside.any() else None


def region_overlap(row: Row, mask: Mask | None) -> float | None:
    """Return the intersection over union of an image's first predicted region and its mask.

    Returns:
        None where there is no region or no mask, or both are empty in the view.
    """
    if mask is None or not row.regions or row.crop is None:
        return None
    region = row.regions[0]
    inside, predicted = _inside(row, mask, region.height, region.width), region.array()
    return ratio(int((inside & predicted).sum()), int((inside | predicted).sum()))


def region_cells(row: Row) -> tuple[float, float, float, float] | None:
    """Return which shares of the view an image's first predicted region and its mask cover.

    Returns:
        Both, the region alone, the mask alone, neither; None where no region is predicted.
    """
    region = next((region for region in row.regions if region.target != GIVEN), None)
    if region is None:
        return None
    predicted, inside = region.array(), np.zeros((region.height, region.width), dtype=np.bool_)
    for given in row.regions:
        if given.target == GIVEN:
            # Each cell of the region is compared with that of the mask in which its centre lies.
            i = (np.arange(region.height) * 2 + 1) * given.height // (2 * region.height)
            j = (np.arange(region.width) * 2 + 1) * given.width // (2 * region.width)
            inside = given.array()[i[:, None], j]
    cells = (predicted & inside, predicted & ~inside, ~predicted & inside, ~predicted & ~inside)
    both, alone, missed, neither = (float(part.mean()) for part in cells)
    return both, alone, missed, neither


def _inside(row: Row, mask: Mask | None, rows: int, columns: int) -> NDArray[np.bool_]:
    """Say of the centres of a grid laid over the view whether they are inside (rows, columns)."""
    assert row.crop is not None
    left, top, right, bottom = row.crop
    x = left + (np.arange(columns) + 0.5) * ((right - left) / columns)
    y = top + (np.arange(rows) + 0.5) * ((bottom - top) / rows)
    if mask is not None:
        height, width = mask.shape
        # A mask of another size than its photograph is stretched over it.
        i = np.floor(y * (height / (row.height or height))).astype(np.intp)
        j = np.floor(x * (width / (row.width or width))).astype(np.intp)
        known = ((i >= 0) & (i < height))[:, None] & ((j >= 0) & (j < width))
        covered: NDArray[np.bool_] = (
            mask[np.clip(i, 0, height - 1)[:, None], np.clip(j, 0, width - 1)] & known
        )
        return covered
    inside = np.zeros((rows, columns), dtype=np.bool_)
    for box in row.boxes or ():
        inside |= ((y >= box[1]) & (y < box[3]))[:, None] & ((x >= box[0]) & (x < box[2]))
    return inside


def hits(grid: Grid, covered: Mapping[tuple[int, int, int], Coverage]) -> Hits:
    """Measure the maps of a grid against the annotations of their images.

    The pointing game (Zhang et al. 2018, without its tolerance of 15 pixels), the energy-based
    pointing game (Wang et al. 2020, Score-CAM), and the intersection over union of regions. A map
    that is nowhere above zero points nowhere: 0 of each.

    Returns:
        Arrays (n, M).
    """
    measured = Hits(*(np.full(grid.there.shape, np.nan) for _ in Hits._fields))
    for place, number in enumerate(grid.rows.tolist()):
        inside = covered.get((number, grid.height, grid.width))
        if inside is None:
            continue
        area, centres = (part.reshape(-1) for part in inside)
        values = grid.shown(slice(place, place + 1))[0]
        ones = np.ones_like(area)
        largest = values.max(axis=1)
        some = largest > 0
        region = (values >= np.where(some, REGION * largest, np.inf)[:, None]).astype(np.float32)
        common = region @ area
        union = region @ ones + area @ ones - common
        energy = np.minimum((values @ area) / np.where(some, values @ ones, 1), 1)
        there = grid.there[place]
        pointed = centres[grid.levels[place].argmax(axis=1)] & some
        for of_images, of_image in zip(measured, (pointed, energy, common / union), strict=True):
            of_images[place] = np.where(there, of_image, np.nan)
    return measured
