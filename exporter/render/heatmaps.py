"""From a raw map to colours: rectify, normalise, upsample, look up, blend.

The order is rectify, min-max over the *stored* map's own range, bilinear upsampling (pixel centres
aligned: ``cv2.INTER_LINEAR``, ``align_corners=False``), rounding to 256 levels, table. Upsampling
never leaves the range of what it interpolates and normalising is affine, so normalising first gives
what normalising by the stored range afterwards would: the ends of a legend are the numbers stored.
A page in JavaScript that does the same float arithmetic shows the same colours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from exporter.render.colormaps import get_colormap

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

HATCH_LIGHT = 200
HATCH_DARK = 150
HATCH_PERIOD = 8


def spread(
    values: NDArray[np.floating],
    lo: ArrayLike,
    hi: ArrayLike,
    zero: ArrayLike,
    rectify: ArrayLike,
    *,
    centred: bool = False,
) -> NDArray[np.floating]:
    """Spread maps over [0, 1] between their own ends: the one place where maps are normalised.

    Args:
        values: K maps in any unit that is affine in theirs, (K, …) in floating point.
        lo: the smallest value of each, (K,).
        hi: the largest value of each, (K,).
        zero: where zero lies, (K,).
        rectify: whether values below zero become zero first, (K,).
        centred: spread a map that is not rectified so that zero is at 0.5.

    Returns:
        As ``values`` in shape and type; 0 (0.5 where zero is) where a map has one value.
    """
    lo, hi, zero = (np.asarray(end, dtype=np.float64) for end in (lo, hi, zero))
    positive = np.asarray(rectify, dtype=bool)
    first, last = np.where(positive, np.maximum((lo, hi), zero), (lo, hi))
    flat = np.zeros_like(first)
    if centred:
        reach = np.maximum(zero - lo, hi - zero)
        first, last = np.where(positive, (first, last), (zero - reach, zero + reach))
        flat = np.where(positive, 0.0, 0.5)
    # The span is taken after halving, so that a map of the largest floats does not overflow.
    half = last / 2 - first / 2
    alive = half > 0
    shape = (-1, *(1,) * (values.ndim - 1))
    scaled: NDArray[np.floating] = values / 2
    scaled -= (first / 2).astype(values.dtype).reshape(shape)
    scaled /= np.where(alive, half, 1).astype(values.dtype).reshape(shape)
    # Where there is no span every value is at the one end, and zero is in the middle.
    scaled += np.where(alive, 0, flat).astype(values.dtype).reshape(shape)
    return np.clip(scaled, 0, 1, out=scaled)


def normalise(
    values: NDArray[np.floating], *, rectify: bool, centred: bool = False
) -> NDArray[np.float32]:
    """Scale a map to [0, 1] by its own smallest and largest value.

    Args:
        values: raw map (H, W).
        rectify: set negative values to zero first (a method whose definition ends in a ReLU).
        centred: map zero to 0.5 and the largest magnitude to 0 or 1, for signed maps.

    Returns:
        float32 (H, W) in [0, 1]; all zeros (0.5 if centred) where every value is the same (zero).
        Values that are not finite stay NaN and do not count for the range.

    >>> normalise(np.array([[-1.0, 0.0], [1.0, 3.0]]), rectify=True).tolist()
    [[0.0, 0.0], [0.3333333432674408, 1.0]]
    """
    exact = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(exact)
    lo, hi = (exact[finite].min(), exact[finite].max()) if finite.any() else (0.0, 0.0)
    scaled = spread(np.where(finite, exact, 0)[None], [lo], [hi], [0], [rectify], centred=centred)
    return np.where(finite, scaled[0], np.nan).astype(np.float32)


def levels(
    normalised: NDArray[np.float32], size: tuple[int, int], out: NDArray[np.float32] | None = None
) -> NDArray[np.uint8]:
    """Upsample a map in [0, 1] to a size and round it to the 256 levels of a table.

    Args:
        normalised: float32 (H, W) in [0, 1].
        size: (width, height) in pixels.
        out: a float32 (height, width) buffer to interpolate into.

    Returns:
        uint8 (height, width): floor(255 v + 0.5) of the bilinear interpolation.
    """
    # 255 v + 0.5 before the interpolation: it is affine, and the map is small there.
    smooth = cv2.resize(
        normalised * np.float32(255) + np.float32(0.5),
        size,
        dst=out,
        interpolation=cv2.INTER_LINEAR,
    )
    return smooth.astype(np.uint8)


def heatmap(
    values: NDArray[np.floating],
    size: tuple[int, int],
    *,
    rectify: bool,
    colormap: str = "viridis",
) -> NDArray[np.uint8]:
    """Colour a raw map at a size.

    Args:
        values: raw map (H, W), at its layer's own resolution.
        size: (width, height) of the picture in pixels.
        rectify: set negative values to zero first.
        colormap: name of a table; ``diverging`` without ``rectify`` is centred on zero.

    Returns:
        uint8 (height, width, 3) RGB; a grey hatch where the map holds a value that is not finite.

    Raises:
        ConfigError: if there is no such colour map.
    """
    table = get_colormap(colormap)
    centred = colormap == "diverging" and not rectify
    scaled = normalise(values, rectify=rectify, centred=centred)
    if not np.isfinite(scaled).all():
        return hatch(size)
    return table[levels(scaled, size)]


def hatch(size: tuple[int, int]) -> NDArray[np.uint8]:
    """Draw the grey diagonal hatch that stands for a map that is not a number.

    Args:
        size: (width, height) in pixels.

    Returns:
        uint8 (height, width, 3) RGB.
    """
    width, height = size
    diagonal = np.add.outer(np.arange(height), np.arange(width)) % HATCH_PERIOD
    grey = np.where(diagonal < HATCH_PERIOD // 2, HATCH_LIGHT, HATCH_DARK).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def overlay(
    image: NDArray[np.uint8], heat: NDArray[np.uint8], opacity: float = 0.5
) -> NDArray[np.uint8]:
    """Blend a heatmap over an image of the same size: round(image (1 - a) + heat a).

    Args:
        image: uint8 (H, W, 3) RGB, or (H, W, 1) grey.
        heat: uint8 (H, W, 3) RGB.
        opacity: share of the heatmap, in [0, 1].

    Returns:
        uint8 (H, W, 3) RGB.
    """
    blended = cv2.addWeighted(as_rgb(image), 1.0 - opacity, heat, opacity, 0.0)
    return np.asarray(blended, dtype=np.uint8)


def as_rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image as (H, W, 3): grey (H, W) or (H, W, 1) is repeated."""
    if image.ndim == 3 and image.shape[2] == 3:
        return image
    return np.repeat(image.reshape(image.shape[0], image.shape[1], 1), 3, axis=2)
