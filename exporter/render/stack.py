"""Colour many stored maps of one image at once, into one stack of equal tiles.

Maps of one size are normalised together, and the buffers are kept from image to image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

from exporter.records import MAP_LEVELS, StoredMap
from exporter.render.colormaps import get_colormap
from exporter.render.heatmaps import spread

if TYPE_CHECKING:
    from numpy.typing import NDArray


def scale_stored(
    maps: Sequence[StoredMap], rectify: Sequence[bool], *, centred: bool = False
) -> NDArray[np.float32]:
    """Normalise stored maps of one size together, as `normalise` does each.

    Works on the stored levels: a map is affine in them, so the range in levels is the map's range.

    Args:
        maps: K maps of the same height and width.
        rectify: for each, whether negative values become zero first.
        centred: map zero to 0.5, for the maps that are not rectified.

    Returns:
        float32 (K, height, width) in [0, 1]; all zeros where a map is constant (if centred: 0,
            0.5 or 1 by its sign).
    """
    shape = (len(maps), maps[0].height, maps[0].width)
    levels = np.frombuffer(b"".join(stored.values for stored in maps), dtype="<u2")
    values = levels.reshape(len(maps), -1).astype(np.float32)
    lo, hi = np.array([(stored.lo, stored.hi) for stored in maps], dtype=np.float64).T
    # A constant map has the level 0 everywhere: zero lies on the side that its sign says.
    span = hi - lo
    zero = np.where(span > 0, -lo * MAP_LEVELS / np.where(span > 0, span, 1), -np.sign(lo))
    scaled = spread(values, values.min(1), values.max(1), zero, rectify, centred=centred)
    return scaled.astype(np.float32, copy=False).reshape(shape)


class TileStack:
    """Reused buffers for up to ``count`` tiles of one size; not for several threads at once.

    Attributes:
        size: (width, height) of a tile in pixels.
        heat: uint8 (count * height, width, 3) RGB: the tiles of the last `colour`, one below the
            other.
    """

    def __init__(self, count: int, size: tuple[int, int], colormap: str = "viridis") -> None:
        width, height = size
        self.size = size
        self.heat = np.zeros((count * height, width, 3), dtype=np.uint8)
        # One tile's worth, so that they stay in the processor's cache from map to map.
        self._smooth = np.zeros((height, width), dtype=np.float32)
        self._levels = np.zeros((height, width), dtype=np.uint8)
        self._table = np.ascontiguousarray(get_colormap(colormap)[:, None, :])
        self._centred = colormap == "diverging"

    def colour(
        self, maps: Sequence[StoredMap], rectify: Sequence[bool]
    ) -> tuple[NDArray[np.uint8], ...]:
        """Colour maps of any sizes.

        Args:
            maps: at most ``count`` maps.
            rectify: for each, whether negative values become zero first.

        Returns:
            A view (height, width, 3) of `heat` for each map, overwritten by the next call.
        """
        if not maps:
            return ()
        height = self.size[1]
        shapes: dict[tuple[int, int], list[int]] = {}
        for k, stored in enumerate(maps):
            shapes.setdefault((stored.height, stored.width), []).append(k)
        for numbers in shapes.values():
            scaled = scale_stored(
                [maps[k] for k in numbers], [rectify[k] for k in numbers], centred=self._centred
            )
            scaled *= np.float32(255)
            scaled += np.float32(0.5)
            for k, small in zip(numbers, scaled, strict=True):
                cv2.resize(small, self.size, dst=self._smooth, interpolation=cv2.INTER_LINEAR)
                np.copyto(self._levels, self._smooth, casting="unsafe")
                tile = self.heat[k * height : (k + 1) * height]
                cv2.applyColorMap(self._levels, self._table, dst=tile)
        return tuple(self.heat[k * height : (k + 1) * height] for k in range(len(maps)))
