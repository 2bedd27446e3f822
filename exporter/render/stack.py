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
    levels = np.frombuffer(b"".join(one.values for one in maps), dtype="<u2")
    levels = levels.reshape(len(maps), -1)
    own = levels.astype(np.float32)
    lo = own.min(axis=1).astype(np.float64)
    hi = own.max(axis=1).astype(np.float64)
    flat = np.full(len(maps), np.float32(0))
    for k, (one, positive) in enumerate(zip(maps, rectify, strict=True)):
        span = float(one.hi) - float(one.lo)
        if span <= 0:
            lo[k] = hi[k] = 0.0
        if not positive and not centred:
            continue
        # Where zero lies among the levels; beyond them for a map of one sign.
        zero = -float(one.lo) * MAP_LEVELS / span if span > 0 else 0.0
        if positive:
            lo[k] = max(lo[k], zero)
        else:
            reach = max(zero - lo[k], hi[k] - zero)
            lo[k], hi[k] = zero - reach, zero + reach
            flat[k] = 0.5 + 0.5 * np.sign(one.lo) if span <= 0 else 0.0
    room = hi - lo
    alive = room > 0
    factor = np.where(alive, 1.0 / np.where(alive, room, 1.0), 0.0).astype(np.float32)
    own -= lo.astype(np.float32)[:, None]
    own *= factor[:, None]
    own += np.where(alive, np.float32(0), flat)[:, None]
    return np.clip(own, 0.0, 1.0, out=own).reshape(shape)


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
        for k, one in enumerate(maps):
            shapes.setdefault((one.height, one.width), []).append(k)
        for places in shapes.values():
            scaled = scale_stored(
                [maps[k] for k in places], [rectify[k] for k in places], centred=self._centred
            )
            scaled *= np.float32(255)
            scaled += np.float32(0.5)
            for k, small in zip(places, scaled, strict=True):
                cv2.resize(small, self.size, dst=self._smooth, interpolation=cv2.INTER_LINEAR)
                np.copyto(self._levels, self._smooth, casting="unsafe")
                tile = self.heat[k * height : (k + 1) * height]
                cv2.applyColorMap(self._levels, self._table, dst=tile)
        return tuple(self.heat[k * height : (k + 1) * height] for k in range(len(maps)))
