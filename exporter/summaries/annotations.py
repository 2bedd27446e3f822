"""Whether a map lies where it should, for images with given boxes or masks.

Only what of the boxes or the mask lies inside the model's view counts.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from exporter.records import Row
from exporter.summaries.grids import Grid

THRESHOLD: Final = 0.5
"""Share of a map's largest value from which on a cell belongs to the map's region."""

_POINTS = 112  # a view is looked at in about this many points per side

Mask = NDArray[np.bool_]
"""bool (height, width) of the original photograph: where the object is."""


class Hits(NamedTuple):
    """Measures of M maps, float64 (M,) each; NaN where there is no map.

    Attributes:
        pointing: 1 where the centre of the largest cell (of equals the first) is inside, else 0.
        energy: share of the map's energy inside.
        overlap: intersection over union with the cells from ``THRESHOLD`` of the largest on.
    """

    pointing: NDArray[np.float64]
    energy: NDArray[np.float64]
    overlap: NDArray[np.float64]


def coverage(
    row: Row, height: int, width: int, mask: Mask | None = None
) -> tuple[NDArray[np.float32], NDArray[np.bool_]] | None:
    """Lay an image's boxes or mask on a map's grid, through the geometry of the model's view.

    Args:
        row: the image, with its crop and boxes in original pixels.
        height: rows of the map.
        width: columns of the map.
        mask: where the object is in the original; it goes before the boxes.

    Returns:
        The share of each cell that is inside, float32 (height, width), and whether its centre is;
        None where the image has no annotation, or none of it is in the view.
    """
    if row.crop is None or (mask is None and not row.boxes):
        return None
    fine = max(1, _POINTS // max(height, width))
    points = _inside(row, mask, height * fine, width * fine)
    if not points.any():
        return None
    # Counts of points are whole, so that the product is exact.
    counts = _blocks(height, fine) @ points.astype(np.float32) @ _blocks(width, fine).T
    return counts / np.float32(fine * fine), _inside(row, mask, height, width)


def _blocks(cells: int, fine: int) -> NDArray[np.float32]:
    """Return the matrix (cells, cells · fine) that adds up the points of each cell."""
    return np.repeat(np.eye(cells, dtype=np.float32), fine, axis=1)


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


def hits(grid: Grid, place: int, covered: NDArray[np.float32], centres: NDArray[np.bool_]) -> Hits:
    """Measure the maps of one image against what ``coverage`` gave.

    The pointing game (Zhang et al. 2018, without its tolerance of 15 pixels), the energy-based
    pointing game (Wang et al. 2020, Score-CAM), and the intersection over union of regions. A map
    that is nowhere above zero points nowhere: 0 of each.

    Args:
        grid: the maps.
        place: place of the image in the grid.
        covered: share of each cell that is inside (height, width).
        centres: whether the centre of each cell is inside.
    """
    values = grid.shown(slice(place, place + 1))[0]
    area = covered.reshape(-1)
    total, largest = values @ np.ones_like(area), values.max(axis=1)
    some = largest > 0
    region = (values >= np.where(some, THRESHOLD * largest, np.inf)[:, None]).astype(np.float32)
    common = region @ area
    union = region @ np.ones_like(area) + area @ np.ones_like(area) - common
    pointed = centres.reshape(-1)[grid.levels[place].argmax(axis=1)] & some
    there = grid.there[place]
    energy = (values @ area) / np.where(some, total, 1)
    return Hits(
        np.where(there, pointed.astype(np.float64), np.nan),
        np.where(there, np.minimum(energy, 1), np.nan),
        np.where(there, common / union, np.nan),
    )
