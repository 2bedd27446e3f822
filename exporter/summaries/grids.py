"""The maps of a shard as arrays, those of one layer and size together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.records import MAP_LEVELS, Row, StoredMap
from exporter.summaries.scope import Scope

CELLS_AT_ONCE: Final = 1 << 16
"""Cells that are worked on at once: they stay in the processor's cache."""


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
        flat: bool (n, M), maps of one value, whose levels say nothing.
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
    slots = {
        (method, layer): place
        for layer in scope.layers
        for place, method in enumerate(scope.methods_at(layer))
    }
    sizes: dict[tuple[str, int, int], dict[int, list[StoredMap | None]]] = {}
    for number, row in enumerate(rows):
        for stored in row.maps:
            layer = stored.layer
            place = slots.get((stored.method, layer))
            if place is None:
                continue
            images = sizes.setdefault((layer, stored.height, stored.width), {})
            maps = images.get(number)
            if maps is None:
                maps = images[number] = [None] * len(scope.methods_at(layer))
            if maps[place] is None:
                maps[place] = stored
    order = {layer: place for place, layer in enumerate(scope.layers)}
    return [
        _grid(*key, sizes[key], scope)
        for key in sorted(sizes, key=lambda key: (order[key[0]], key[1:]))
    ]


def _grid(
    layer: str, height: int, width: int, images: dict[int, list[StoredMap | None]], scope: Scope
) -> Grid:
    methods = scope.methods_at(layer)
    maps = [stored for part in images.values() for stored in part]
    shape = (len(images), len(methods))
    nothing = bytes(2 * height * width)
    levels = np.frombuffer(
        b"".join([nothing if stored is None else stored.values for stored in maps]), dtype="<u2"
    ).reshape(*shape, height * width)
    lo, hi = (
        np.array([np.nan if stored is None else getattr(stored, end) for stored in maps]).reshape(
            shape
        )
        for end in ("lo", "hi")
    )
    numbers = np.array([stored is not None and "nan" not in stored.flags for stored in maps])
    there = np.isfinite(lo) & np.isfinite(hi) & numbers.reshape(shape)
    lo, hi = np.where(there, lo, 0), np.where(there, hi, 0)
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
        levels=levels,
        there=there,
        # Beyond this a float32 no longer tells one level from the next: the map is uniform.
        zero=np.clip(zero, -1e12, MAP_LEVELS).astype(np.float32),
        flat=flat,
    )
