"""The maps of a shard as arrays, those of one layer and size together, and what they measure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.records import MAP_LEVELS, Row, StoredMap
from exporter.summaries.scope import Scope

CELLS_AT_ONCE: Final = 1 << 16
"""Cells that are worked on at once: they stay in the processor's cache."""

TOP_PERCENT: Final = 20
"""Percent of a map's cells, rounded up, that the top share is taken of."""

SIDE: Final = 14
"""Rows and columns compared at most: of a larger map every second, third … cell is taken."""


@dataclass(frozen=True)
class Grid:
    """Maps of one layer and one size: n images, M methods.

    Attributes:
        layer: qualified name of the layer.
        height: rows of a map.
        width: columns of a map.
        methods: names of the M methods.
        rows: positions of the n images in the shard.
        levels: uint16 (n, M, cells), the stored levels.
        there: bool (n, M), whether the image has this map and it holds numbers.
        zero: float32 (n, M), the level at which the shown map is 0, which may lie below level 0.
        flat: bool (n, M), maps of one value or of rounding noise, whose levels say nothing.
    """

    layer: str
    height: int
    width: int
    methods: tuple[str, ...]
    rows: NDArray[np.intp]
    levels: NDArray[np.uint16]
    there: NDArray[np.bool_]
    zero: NDArray[np.float32]
    flat: NDArray[np.bool_]

    @property
    def cells(self) -> int:
        """Cells of a map."""
        return self.height * self.width

    def blocks(self) -> Iterator[slice]:
        """Yield slices of the images, so many at once as stay in the cache."""
        step = max(1, CELLS_AT_ONCE // (self.cells * len(self.methods)))
        for start in range(0, len(self.rows), step):
            yield slice(start, start + step)

    def shown(self, block: slice) -> NDArray[np.float32]:
        """Return the maps as they are shown, in levels, not negative: float32 (n, M, cells).

        Negative values are 0 where the method's definition ends in a ReLU; elsewhere the smallest
        value is. A map of one value is all 0, or all positive where a ReLU leaves it.
        """
        values = self.levels[block].astype(np.float32)
        values -= self.zero[block][..., None]
        return np.maximum(values, 0, out=values)


def grids(rows: Sequence[Row], scope: Scope) -> list[Grid]:
    """Lay out the maps of a shard.

    Of a (method, layer) with several targets, the first counts.

    Returns:
        A grid per layer and size, in the order of the layers; none for layers without maps.
    """
    wanted = {(method, layer) for layer in scope.layers for method in scope.methods_at(layer)}
    sizes: dict[tuple[str, int, int], dict[int, dict[str, StoredMap]]] = {}
    for number, row in enumerate(rows):
        for stored in row.maps:
            if (stored.method, stored.layer) in wanted:
                images = sizes.setdefault((stored.layer, stored.height, stored.width), {})
                images.setdefault(number, {}).setdefault(stored.method, stored)
    keys = sorted(sizes, key=lambda key: (scope.layers.index(key[0]), key[1:]))
    return [_grid(*key, sizes[key], scope) for key in keys]


def _grid(
    layer: str,
    height: int,
    width: int,
    images: Mapping[int, Mapping[str, StoredMap]],
    scope: Scope,
) -> Grid:
    methods = scope.methods_at(layer)
    absent = StoredMap("", layer, "", height, width, np.nan, np.nan, bytes(2 * height * width))
    maps = [stored.get(name, absent) for stored in images.values() for name in methods]
    shape = (len(images), len(methods))
    ends = np.array([(stored.lo, stored.hi) for stored in maps], float).reshape(*shape, 2)
    broken, noise = (
        np.array([flag in stored.flags for stored in maps]).reshape(shape)
        for flag in ("nan", "noise")
    )
    there = np.isfinite(ends).all(axis=-1) & ~broken
    # Rounding noise counts as a map that is zero everywhere.
    lo, hi = np.moveaxis(np.where((there & ~noise)[..., None], ends, 0), -1, 0)
    rectified = np.array([name in scope.rectified for name in methods])
    span = hi - lo
    flat = ~(span > 0)
    zero = np.where(rectified, -lo / np.where(flat, 1, span) * MAP_LEVELS, 0)
    zero = np.where(flat, np.where(rectified & (lo > 0), -1, MAP_LEVELS), zero)
    return Grid(
        layer=layer,
        height=height,
        width=width,
        methods=methods,
        rows=np.fromiter(images, dtype=np.intp),
        levels=np.frombuffer(b"".join([stored.values for stored in maps]), dtype="<u2").reshape(
            *shape, height * width
        ),
        there=there,
        # Beyond this a float32 no longer tells one level from the next: the map is uniform.
        zero=np.clip(zero, -1e12, MAP_LEVELS).astype(np.float32),
        flat=flat,
    )


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
        even = -logs.sum(axis=-1, dtype=np.float32) / np.log(grid.cells)
        above = np.maximum(largest - zero, 0).sum(axis=-1, dtype=np.float32) / scale
        entropy[block] = np.where(defined, np.clip(even, 0, 1), np.nan)
        share[block] = np.where(defined, np.clip(above, 0, 1), np.nan)
    return entropy, share


def normalised(grid: Grid, block: slice) -> NDArray[np.uint32]:
    """Return maps as they are painted, 0 to 65535 between their own ends; (n, M, cells).

    That is what ``render.normalise`` gives, in levels: rectified, then scaled by its smallest and
    largest value; all 0 where it has one value.
    """
    values = grid.levels[block].astype(np.float64)
    first = np.maximum(grid.zero[block], 0).reshape(*values.shape[:2], 1)
    span = MAP_LEVELS - first
    scaled = np.clip((values - first) / np.where(span > 0, span, 1), 0, 1)
    scaled[grid.flat[block] | ~grid.there[block]] = 0
    painted: NDArray[np.uint32] = np.rint(scaled * MAP_LEVELS).astype(np.uint32)
    return painted


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
        images = grid.levels[block].reshape(-1, count, grid.height, grid.width)
        levels = images[:, :, step // 2 :: step, step // 2 :: step].reshape(len(images), count, -1)
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


def row_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of each row's numbers, NaN where it has none."""
    known = ~np.isnan(values)
    count = known.sum(axis=1)
    total = np.where(known, values, 0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


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
    np.put_along_axis(ranks, (keys & 0xFFFF).astype(np.intp), doubled.reshape(keys.shape), axis=1)
    return ranks
