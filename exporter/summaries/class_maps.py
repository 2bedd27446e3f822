"""Where a class is seen on average: the mean of the painted maps of the images predicted as it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from exporter.records import MAP_LEVELS
from exporter.summaries.concentration import normalised
from exporter.summaries.grids import Grid
from exporter.summaries.scope import Scope
from exporter.summaries.tally import share, whole

CELLS: Final = 4_000_000
"""Cells of all mean maps together at most (16 MB): 1,000 classes of 5 methods at 28 × 28 fit."""

Size = tuple[str, str, int, int]
"""Method, layer, height, width."""


def map_entries(
    grid: Grid,
    predicted: NDArray[np.int64],
    entropy: NDArray[np.float64],
    top: NDArray[np.float64],
) -> list[dict[str, Any]]:
    """Add up a grid's painted maps by predicted class.

    Args:
        grid: the maps of n images.
        predicted: class of each (n,), -1 for none.
        entropy: (n, M), NaN where undefined.
        top: top share (n, M).

    Returns:
        A dict a class and method of the ``maps`` of ``SET_SCHEMA``.
    """
    order = np.argsort(predicted, kind="stable")
    order = order[predicted[order] >= 0]
    if not len(order):
        return []
    classes, starts = np.unique(predicted[order], return_index=True)
    painted = np.concatenate([normalised(grid, block) for block in grid.blocks()])
    sums = np.add.reduceat(painted[order].astype(np.int64), starts, axis=0)
    counts = [
        np.add.reduceat(values[order], starts, axis=0).tolist()
        for values in (
            grid.there.astype(np.int64),
            (~np.isnan(entropy)).astype(np.int64),
            whole(entropy),
            whole(top),
        )
    ]
    entries = []
    for c, index in enumerate(classes.tolist()):
        for m, method in enumerate(grid.methods):
            images, measured, total_entropy, total_top = (part[c][m] for part in counts)
            if images:
                entries.append(
                    {
                        "index": index,
                        "method": method,
                        "layer": grid.layer,
                        "height": grid.height,
                        "width": grid.width,
                        "images": images,
                        "measured": measured,
                        "entropy": total_entropy,
                        "top_share": total_top,
                        "sums": sums[c, m].astype("<i8").tobytes(),
                    }
                )
    return entries


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
        self._sums: dict[tuple[int, Size], NDArray[np.int64]] = {}
        self._counts: dict[tuple[int, Size], list[int]] = {}

    def add(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Add a shard's entries; those of other classes are passed over."""
        for one in entries:
            if one["index"] not in self._chosen:
                continue
            key = (one["index"], (one["method"], one["layer"], one["height"], one["width"]))
            more = [one[name] for name in ("images", "measured", "entropy", "top_share")]
            sums = np.frombuffer(one["sums"], dtype="<i8")
            if key in self._sums:
                self._sums[key] += sums
                self._counts[key] = [a + b for a, b in zip(self._counts[key], more, strict=True)]
            else:
                self._sums[key], self._counts[key] = sums.astype(np.int64), more

    def rows(self, scope: Scope) -> list[dict[str, Any]]:
        """Return a row a class, method and size: by class, methods in the order asked for."""
        order = {name: place for place, name in enumerate(scope.methods)}
        rows = []
        for index, size in sorted(
            self._sums, key=lambda key: (key[0], order[key[1][0]], key[1][1:])
        ):
            images, measured, entropy, top = self._counts[index, size]
            mean = self._sums[index, size] / (images * MAP_LEVELS)
            rows.append(
                {
                    "index": index,
                    "method": size[0],
                    "layer": size[1],
                    "images": images,
                    "height": size[2],
                    "width": size[3],
                    "values": mean.astype("<f4").tobytes(),
                    "entropy": share(entropy, measured),
                    "top_share": share(top, measured),
                }
            )
        return rows
