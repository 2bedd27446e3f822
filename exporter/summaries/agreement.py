"""Whether methods agree: Spearman's rank correlation of their maps of one image and layer."""

from __future__ import annotations

from itertools import combinations
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.summaries.grids import Grid

SIDE: Final = 14
"""Rows and columns compared at most: of a larger map every second, third … cell is taken."""


def agreement(grid: Grid) -> NDArray[np.float64]:
    """Correlate the ranks of every two methods' cells, image by image.

    The raw, signed maps are ranked, equal cells sharing the mean of their ranks (Spearman 1904).

    Returns:
        float64 (n, P), a column a pair of ``pairs(M)``; NaN where a map is not there or has one
        value.
    """
    count = len(grid.methods)
    correlations = np.full((len(grid.rows), count * (count - 1) // 2), np.nan)
    if count < 2 or grid.cells < 2:
        return correlations
    first, second = np.array(pairs(count)).T
    step = -(-max(grid.height, grid.width) // SIDE)
    for block in grid.blocks():
        levels = grid.levels[block]
        if step > 1:
            images = levels.reshape(*levels.shape[:2], grid.height, grid.width)
            levels = images[:, :, step // 2 :: step, step // 2 :: step]
            levels = levels.reshape(*levels.shape[:2], -1)
        ranks = _ranks(levels.reshape(-1, levels.shape[-1])).reshape(levels.shape)
        ranks[grid.flat[block] | ~grid.there[block]] = 0
        # Ranks are whole, so that these sums are exact in any order.
        products = np.matmul(ranks, ranks.transpose(0, 2, 1))
        own = np.einsum("nmm->nm", products)
        # The root of the product, not the product of roots: 1 is then 1.
        size = np.sqrt(own[:, first] * own[:, second])
        with np.errstate(invalid="ignore", divide="ignore"):
            correlations[block] = np.where(size > 0, products[:, first, second] / size, np.nan)
    return correlations


def pairs(methods: int) -> list[tuple[int, int]]:
    """Return the pairs of so many methods, in order."""
    return list(combinations(range(methods), 2))


def _ranks(levels: NDArray[np.uint16]) -> NDArray[np.float64]:
    """Return twice the rank of each cell less its mean, whole numbers (R, cells)."""
    cells = levels.shape[1]
    # One integer orders by level and remembers the cell: a plain sort is the fastest there is.
    keys = levels.astype(np.uint32) << 16
    keys |= np.arange(cells, dtype=np.uint32)
    keys.sort(axis=1)
    begins = np.ones(keys.shape, dtype=np.bool_)
    begins[:, 1:] = (keys[:, 1:] ^ keys[:, :-1]) >> 16 != 0
    starts = np.flatnonzero(begins)
    lengths = np.diff(starts, append=keys.size)
    doubled = np.repeat(2.0 * (starts % cells) + lengths - cells, lengths)
    ranks = np.empty(keys.shape)
    positions = (keys & 0xFFFF).astype(np.intp)
    positions += np.arange(len(keys))[:, None] * cells
    ranks.reshape(-1)[positions.reshape(-1)] = doubled
    return ranks
