"""How alike maps of the same image are: rank correlation, structural similarity and overlap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.records import MAP_LEVELS, Row
from exporter.summaries.grids import TOP_PERCENT, Grid, agreement, grids, normalised, pairs
from exporter.summaries.scope import Scope

WINDOW: Final = 7
"""Rows and columns of the windows of SSIM; of smaller maps the largest odd number that fits."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Alike:
    """How alike the maps of some images are.

    Attributes:
        spearman: (n, P), a column per pair of sources; NaN where one has no map, or a flat one.
        ssim: likewise.
        iou: likewise.
    """

    spearman: Floats
    ssim: Floats
    iou: Floats


def similarity(
    rows: Sequence[Row], relu: Sequence[bool], layers: Sequence[str]
) -> Mapping[str, Alike]:
    """Compare the maps that several sources have of the same images.

    Args:
        rows: n images, each with the maps of every source; a map's method is its source's number.
        relu: of each of R sources, whether its maps are rectified when they are shown.
        layers: where.

    Returns:
        By layer, how alike they are; columns are the pairs of ``pairs(R)``.
    """
    names = tuple(map(str, range(len(relu))))
    scope = Scope(
        methods=names,
        rectified=frozenset(name for name in names if relu[int(name)]),
        pixel=frozenset(),
        explained=tuple(layers),
        deepest="",
        recorded=(),
        classes=(),
        classifies=False,
        outputs=0,
        sample=frozenset(),
    )
    shape = (len(rows), len(pairs(len(names))))
    measured = {layer: Alike(*(np.full(shape, np.nan) for _ in range(3))) for layer in layers}
    for grid in grids(rows, scope):
        told = measured[grid.layer]
        told.spearman[grid.rows] = agreement(grid)
        told.ssim[grid.rows], told.iou[grid.rows] = _overlaps(grid)
    return measured


def _overlaps(grid: Grid) -> tuple[Floats, Floats]:
    """Return SSIM and IoU of every pair of sources, (n, P) each."""
    first, second = np.array(pairs(len(grid.methods))).T
    unknown = grid.flat | ~grid.there
    shape = (len(grid.rows), len(first))
    similar, overlap = np.full(shape, np.nan), np.full(shape, np.nan)
    top = -(-grid.cells * TOP_PERCENT // 100)
    for block in grid.blocks():
        painted = normalised(grid, block) / MAP_LEVELS
        images = painted.reshape(*painted.shape[:2], grid.height, grid.width)
        similar[block] = ssim(images, first, second)
        levels = grid.levels[block]
        least = np.partition(levels, grid.cells - top, axis=-1)[..., grid.cells - top, None]
        overlap[block] = iou(levels >= least, first, second)
    for values in (similar, overlap):
        values[unknown[:, first] | unknown[:, second]] = np.nan
    return similar, overlap


def ssim(images: Floats, first: NDArray[np.intp], second: NDArray[np.intp]) -> Floats:
    """Return the mean structural similarity of pairs of maps in [0, 1].

    Windows of 7 × 7 cells, C₁ = 0.01², C₂ = 0.03², sample covariances, mean over all windows that
    lie inside (Wang et al., Image Quality Assessment, IEEE TIP 2004).

    Args:
        images: (n, R, H, W) in [0, 1].
        first: (P,) places of the first of each pair.
        second: (P,) places of the second.

    Returns:
        (n, P), -1 to 1; NaN for maps of a single row or column of less than three cells.
    """
    side = min(WINDOW, *images.shape[-2:])
    side -= 1 - side % 2
    n = side * side
    if n < 2:
        return np.full((len(images), len(first)), np.nan)
    mean = _windows(images, side)
    spread = (_windows(images * images, side) - mean * mean) * n / (n - 1)
    both = _windows(images[:, first] * images[:, second], side)
    a, b = mean[:, first], mean[:, second]
    covariance = (both - a * b) * n / (n - 1)
    c1, c2 = 0.01**2, 0.03**2
    value = ((2 * a * b + c1) * (2 * covariance + c2)) / (
        (a * a + b * b + c1) * (spread[:, first] + spread[:, second] + c2)
    )
    means: Floats = value.mean(axis=(-2, -1))
    return means


def _windows(images: Floats, side: int) -> Floats:
    """Return the mean of every window that lies inside, (…, H - side + 1, W - side + 1)."""
    sums = np.pad(images, [(0, 0)] * (images.ndim - 2) + [(1, 0), (1, 0)]).cumsum(-2).cumsum(-1)
    inside: Floats = (
        sums[..., side:, side:]
        - sums[..., :-side, side:]
        - sums[..., side:, :-side]
        + sums[..., :-side, :-side]
    )
    return inside / (side * side)


def iou(tops: NDArray[np.bool_], first: NDArray[np.intp], second: NDArray[np.intp]) -> Floats:
    """Return the intersection over union of pairs of sets of cells.

    Args:
        tops: (n, R, cells).
        first: (P,) places of the first of each pair.
        second: (P,) places of the second.

    Returns:
        (n, P), 0 to 1.
    """
    cells = tops.astype(np.float64)
    both = np.matmul(cells, cells.transpose(0, 2, 1))
    size = np.einsum("nrr->nr", both)
    inside = both[:, first, second]
    union = size[:, first] + size[:, second] - inside
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(union > 0, inside / union, np.nan)
