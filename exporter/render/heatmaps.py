"""From a raw map to colours: rectify, normalise, upsample, look up, blend.

The order is rectify, min-max over the *stored* map's own range, bilinear upsampling (pixel centres
aligned: ``cv2.INTER_LINEAR``, ``align_corners=False``), rounding to 256 levels, table. Upsampling
never leaves the range of what it interpolates and normalising is affine, so normalising first gives
what normalising by the stored range afterwards would: the ends of a legend are the numbers stored.
A page in JavaScript that does the same float arithmetic shows the same colours.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from exporter.records import StoredMap
from exporter.render.colormaps import get_colormap

HATCH_LIGHT = 200
HATCH_DARK = 150
HATCH_PERIOD = 8
OPACITY = 0.8
"""Opacity of an overlay where the map is largest."""


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
    known = exact[finite]
    lo, hi = (known.min(), known.max()) if known.size else (0.0, 0.0)
    if rectify:
        lo, hi = max(lo, 0.0), max(hi, 0.0)
    elif centred:
        lo, hi = min(lo, -hi), max(hi, -lo)
    # The span is taken after halving, so that a map of the largest floats does not overflow.
    half = hi / 2 - lo / 2
    if half > 0:
        scaled = np.clip((exact / 2 - lo / 2) / half, 0, 1)
    else:
        scaled = np.full(exact.shape, 0.5 if centred and not rectify else 0.0)
    scaled[~finite] = np.nan
    return scaled.astype(np.float32)


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
    levels = _levels(values, size, rectify=rectify, colormap=colormap)
    return hatch(size) if levels is None else _coloured(levels, colormap)


def painted(stored: StoredMap) -> NDArray[np.float32]:
    """Return the values of a stored map as they are drawn: rounding noise is zero everywhere."""
    values = stored.array()
    return np.zeros_like(values) if "noise" in stored.flags else values


def _levels(
    values: NDArray[np.floating], size: tuple[int, int], *, rectify: bool, colormap: str
) -> NDArray[np.uint8] | None:
    """Return the level of each pixel, (height, width); None where a value is not finite."""
    centred = colormap == "diverging" and not rectify
    scaled = normalise(values, rectify=rectify, centred=centred)
    if not np.isfinite(scaled).all():
        return None
    # 255 v + 0.5 before the interpolation: it is affine, and the map is small there.
    steps = scaled * np.float32(255) + np.float32(0.5)
    smooth = cv2.resize(steps, size, interpolation=cv2.INTER_LINEAR)
    return np.asarray(smooth.astype(np.uint8))


def _coloured(levels: NDArray[np.uint8], colormap: str) -> NDArray[np.uint8]:
    table = get_colormap(colormap)
    return np.asarray(cv2.applyColorMap(levels, table[:, None]), dtype=np.uint8)


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
    image: NDArray[np.uint8], heat: NDArray[np.uint8], opacity: float | NDArray[np.float32] = 0.5
) -> NDArray[np.uint8]:
    """Blend a heatmap over an image of the same size: round(image (1 - a) + heat a).

    Args:
        image: uint8 (H, W, 3) RGB, or (H, W, 1) grey.
        heat: uint8 (H, W, 3) RGB.
        opacity: share of the heatmap, in [0, 1]: the same everywhere, or (H, W).

    Returns:
        uint8 (H, W, 3) RGB.
    """
    if image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
    if isinstance(opacity, float):
        blended = cv2.addWeighted(image, 1.0 - opacity, heat, opacity, 0.0)
    else:
        blended = cv2.blendLinear(image, heat, 1 - opacity, opacity)
    return np.asarray(blended, dtype=np.uint8)


def overlay_map(
    view: NDArray[np.uint8],
    stored: StoredMap,
    *,
    rectify: bool,
    colormap: str = "viridis",
    opacity: float | None = None,
    uniform: bool = False,
    threshold: float = 0.0,
) -> NDArray[np.uint8]:
    """Draw a stored map over the model's view, which keeps its colours where the map is low.

    Args:
        view: uint8 (H, W, 3) RGB, or (H, W, 1) grey.
        stored: the map, at its layer's own resolution.
        rectify: set negative values to zero first.
        colormap: name of a table; with ``diverging`` the opacity follows the distance from zero.
        opacity: where the map is largest, in [0, 1]; elsewhere in proportion to its level. Where
            None, `OPACITY`, or half of a uniform one.
        uniform: whether the map is equally opaque everywhere.
        threshold: share of its range below which it is not drawn, in [0, 1].

    Returns:
        uint8 (H, W, 3) RGB; a grey hatch for a map that holds a value that is not finite.

    Raises:
        ConfigError: if there is no such colour map.
    """
    levels = _shown(stored, (view.shape[1], view.shape[0]), rectify=rectify, colormap=colormap)
    if levels is None:
        return hatch((view.shape[1], view.shape[0]))
    if opacity is None:
        opacity = 0.5 if uniform else OPACITY
    centred = colormap == "diverging" and not rectify
    kept, added = _mixture(colormap, opacity, threshold, centred=centred, uniform=uniform)
    below = np.repeat(view, 3, axis=2) if view.shape[2] == 1 else view
    dimmed = cv2.multiply(below, cv2.applyColorMap(levels, kept), scale=1 / 255)
    return np.asarray(cv2.add(dimmed, cv2.applyColorMap(levels, added)), dtype=np.uint8)


def fading_map(
    stored: StoredMap,
    size: tuple[int, int],
    *,
    rectify: bool,
    colormap: str = "viridis",
    uniform: bool = False,
    threshold: float = 0.0,
) -> NDArray[np.uint8] | None:
    """Colour a stored map, as opaque as it is high, to be laid over the model's view.

    Args:
        stored: the map, at its layer's own resolution.
        size: (width, height) of the picture in pixels.
        rectify: set negative values to zero first.
        colormap: name of a table; with ``diverging`` the opacity follows the distance from zero.
        uniform: whether it is equally opaque everywhere.
        threshold: share of its range below which it is transparent, in [0, 1].

    Returns:
        uint8 (height, width, 4) RGBA; None for a map that holds a value that is not finite.

    Raises:
        ConfigError: if there is no such colour map.
    """
    levels = _shown(stored, size, rectify=rectify, colormap=colormap)
    if levels is None:
        return None
    centred = colormap == "diverging" and not rectify
    opacity = _opacity(threshold, centred=centred, uniform=uniform)
    return np.dstack((_coloured(levels, colormap), opacity[levels]))


def _shown(
    stored: StoredMap, size: tuple[int, int], *, rectify: bool, colormap: str
) -> NDArray[np.uint8] | None:
    if "nan" in stored.flags:
        return None
    return _levels(painted(stored), size, rectify=rectify, colormap=colormap)


@lru_cache(64)
def _opacity(threshold: float, *, centred: bool, uniform: bool) -> NDArray[np.uint8]:
    """Return the opacity of each of the 256 levels."""
    levels = np.arange(256)
    high = np.abs(2 * levels - 255) if centred else levels
    shown = np.full(256, 255) if uniform else high
    return np.where((threshold > 0) & (high < 255 * threshold), 0, shown).astype(np.uint8)


@lru_cache(64)
def _mixture(
    colormap: str, opacity: float, threshold: float, *, centred: bool, uniform: bool
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return what each level leaves of a picture, of 255, and what it adds: (256, 1, 3) each.

    A pixel's opacity depends on its level alone, so an overlay is two tables, a product and a sum:
    within 1.5 of the mixture, in half the time of mixing by a picture of opacities.
    """
    share = _opacity(threshold, centred=centred, uniform=uniform)[:, None] * (opacity / 255)
    kept = np.repeat(255 * (1 - share), 3, axis=1)
    added = get_colormap(colormap) * share
    whole, part = (np.rint(table)[:, None].astype(np.uint8) for table in (kept, added))
    return whole, part
