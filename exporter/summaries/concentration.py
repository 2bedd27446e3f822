"""How concentrated a map is: its entropy, and the share of its energy in the top 20 % of cells."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.records import MAP_LEVELS
from exporter.render.heatmaps import spread
from exporter.summaries.grids import Grid
from exporter.summaries.sums import BINS

TOP_PERCENT: Final = 20
"""Percent of a map's cells, rounded up, that the top share is taken of."""


def concentration(grid: Grid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Measure every map of a grid.

    A map v, as it is shown (not negative), is a distribution p = v / Σv over its cells. Its entropy
    is -Σ p log p / log(cells): 0 where one cell has all, 1 where all have the same. Its top share
    is the sum of p over the largest 20 % of the cells, from 0.2 to 1.

    Returns:
        Entropy and top share, float64 (n, M); NaN for a map that is not there, that is nowhere
        above zero, or that has a single cell.
    """
    shape = grid.there.shape
    entropy, share = np.full(shape, np.nan), np.full(shape, np.nan)
    if grid.cells < 2:
        return entropy, share
    top = -(-grid.cells * TOP_PERCENT // 100)
    for block in grid.blocks():
        zero = grid.zero[block][..., None]
        # Levels are ordered as values are, and integers are partitioned faster.
        largest = np.partition(grid.levels[block], grid.cells - top, axis=-1)[..., -top:]
        values = grid.shown(block)
        total = values.sum(axis=-1, dtype=np.float32)
        defined = grid.there[block] & (total > 0)
        scale = np.where(defined, total, 1)
        values /= scale[..., None]
        logs = np.maximum(values, np.float32(1e-30))
        np.log(logs, out=logs)
        logs *= values
        spread = -logs.sum(axis=-1, dtype=np.float32) / np.log(grid.cells)
        above = np.maximum(largest - zero, 0).sum(axis=-1, dtype=np.float32) / scale
        entropy[block] = np.where(defined, np.clip(spread, 0, 1), np.nan)
        share[block] = np.where(defined, np.clip(above, 0, 1), np.nan)
    return entropy, share


def histogram(entropy: NDArray[np.float64]) -> NDArray[np.int64]:
    """Count entropies (n,) in ``BINS`` equal bins of [0, 1], the last one closed; (BINS,)."""
    known = entropy[~np.isnan(entropy)]
    bins = np.minimum((known * BINS).astype(np.intp), BINS - 1)
    return np.bincount(bins, minlength=BINS).astype(np.int64)


def normalised(grid: Grid, block: slice) -> NDArray[np.uint32]:
    """Return maps as they are painted, 0 to 65535 between their own ends; (n, M, cells).

    That is what ``render.normalise`` gives, in levels: rectified, then scaled by its smallest and
    largest value; all 0 where it has one value.
    """
    values = grid.levels[block].astype(np.float64)
    zero = grid.zero[block].ravel()
    scaled = spread(
        values.reshape(len(zero), -1),
        np.zeros(len(zero)),
        np.full(len(zero), MAP_LEVELS),
        zero,
        True,
    ).reshape(values.shape)
    scaled[grid.flat[block] | ~grid.there[block]] = 0
    painted: NDArray[np.uint32] = np.rint(scaled * MAP_LEVELS).astype(np.uint32)
    return painted
