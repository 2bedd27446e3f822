"""Where a class is seen on average: the mean of the painted maps of the images predicted as it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.records import MAP_LEVELS, ClassMap, ratio
from exporter.summaries.concentration import normalised
from exporter.summaries.grids import Grid
from exporter.summaries.scope import Scope
from exporter.summaries.sums import MapSums

CELLS: Final = 4_000_000
"""Cells of all mean maps together at most (16 MB): 1,000 classes of 5 methods at 28 × 28 fit."""

Size = tuple[str, str, int, int]
"""Method, layer, height, width."""


def map_sums(
    grid: Grid,
    predicted: NDArray[np.int64],
    entropy: NDArray[np.float64],
    top: NDArray[np.float64],
) -> list[MapSums]:
    """Add up a grid's painted maps by predicted class and method.

    Args:
        grid: the maps of n images.
        predicted: class of each (n,), -1 for none.
        entropy: (n, M), NaN where undefined.
        top: top share (n, M).
    """
    painted = np.concatenate([normalised(grid, block) for block in grid.blocks()])
    measured = ~np.isnan(entropy)
    numbers = np.stack([grid.there, measured, np.nan_to_num(entropy), np.nan_to_num(top)], axis=-1)
    sums = []
    for index in np.unique(predicted[predicted >= 0]).tolist():
        rows = np.flatnonzero(predicted == index)
        levels = painted[rows].sum(axis=0, dtype=np.int64)
        totals = numbers[rows].sum(axis=0).tolist()
        for m, method in enumerate(grid.methods):
            images, with_entropy, entropies, shares = totals[m]
            if images:
                sums.append(
                    MapSums(
                        index=index,
                        method=method,
                        layer=grid.layer,
                        height=grid.height,
                        width=grid.width,
                        images=int(images),
                        measured=int(with_entropy),
                        entropy=entropies,
                        top_share=shares,
                        sums=levels[m].astype("<i8").tobytes(),
                    )
                )
    return sums


def choose_classes(predicted: Mapping[int, int], sizes: Iterable[Size]) -> tuple[int, ...]:
    """Choose whose mean maps are kept: the most frequent predicted classes, as many as fit.

    Args:
        predicted: images predicted as each class.
        sizes: every kind of map of the set.

    Returns:
        Classes, the most frequent first, of equals the smallest index.
    """
    cells = sum(height * width for _, _, height, width in sizes)
    order = sorted((-images, index) for index, images in predicted.items() if images)
    return tuple(index for _, index in order[: CELLS // cells if cells else 0])


class MeanMaps:
    """The mean maps of chosen classes; memory is bounded by ``CELLS``."""

    def __init__(self, chosen: Iterable[int]) -> None:
        self._chosen = frozenset(chosen)
        self._levels: dict[tuple[int, Size], NDArray[np.int64]] = {}
        self._totals: dict[tuple[int, Size], MapSums] = {}

    def add(self, parts: Iterable[MapSums]) -> None:
        """Add a shard's sums; those of other classes are passed over."""
        for part in parts:
            if part.index not in self._chosen:
                continue
            key = (part.index, (part.method, part.layer, part.height, part.width))
            levels = np.frombuffer(part.sums, dtype="<i8")
            if key not in self._totals:
                self._totals[key], self._levels[key] = part, levels.astype(np.int64)
                continue
            self._levels[key] += levels
            total = self._totals[key]
            total.images += part.images
            total.measured += part.measured
            total.entropy += part.entropy
            total.top_share += part.top_share

    def rows(self, scope: Scope) -> list[ClassMap]:
        """Return a row per class, method and size: by class, methods in the order asked for."""
        order = {name: place for place, name in enumerate(scope.methods)}
        keys = sorted(self._totals, key=lambda key: (key[0], order[key[1][0]], key[1][1:]))
        return [
            ClassMap(
                index=total.index,
                method=total.method,
                layer=total.layer,
                images=total.images,
                height=total.height,
                width=total.width,
                values=(levels / (total.images * MAP_LEVELS)).astype("<f4").tobytes(),
                entropy=ratio(total.entropy, total.measured),
                top_share=ratio(total.top_share, total.measured),
            )
            for total, levels in ((self._totals[key], self._levels[key]) for key in keys)
        ]
