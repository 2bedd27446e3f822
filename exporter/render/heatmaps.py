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
    from numpy.typing import NDArray

    from exporter.records import Geometry

HATCH_LIGHT = 200
HATCH_DARK = 150
HATCH_PERIOD = 8


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
    own = np.asarray(values, dtype=np.float64)
    broken = ~np.isfinite(own)
    if rectify:
        # Minus infinity would become a zero, and a broken map would look whole.
        own = np.where(broken, np.nan, np.maximum(own, 0.0))
    lo, hi = _range(own)
    if centred:
        reach = max(-lo, hi)
        lo, hi = -reach, reach
    # The span is taken after halving, so that a map of the largest floats does not overflow.
    half = hi / 2 - lo / 2
    if not half > 0:
        flat = np.full(own.shape, 0.5 if centred else 0.0, dtype=np.float32)
        flat[broken] = np.nan
        return flat
    scaled = (own / 2 - lo / 2) / half
    scaled[broken] = np.nan
    return scaled.astype(np.float32)


def _range(values: NDArray[np.float64]) -> tuple[float, float]:
    if values.size == 0:
        return 0.0, 0.0
    lo, hi = float(values.min()), float(values.max())
    if np.isfinite(lo) and np.isfinite(hi):
        return lo, hi
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


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


def place(
    photograph: NDArray[np.uint8],
    heat: NDArray[np.uint8],
    geometry: Geometry,
    opacity: float = 0.5,
) -> NDArray[np.uint8]:
    """Blend a heatmap of the model's view over the original photograph, where the view lies in it.

    Args:
        photograph: uint8 (height, width, 3) RGB, after its EXIF rotation.
        heat: uint8 (h, w, 3) RGB, the whole view at any size.
        geometry: where the view lies; its crop may reach beyond the photograph.
        opacity: share of the heatmap, in [0, 1].

    Returns:
        uint8 (height, width, 3) RGB: the photograph, blended inside the crop (pixels whose centre
        lies in it) and untouched outside.
    """
    base = as_rgb(photograph)
    height, width = base.shape[:2]
    # The photograph may be a smaller copy of the original that the crop is given for.
    scale_x, scale_y = width / geometry.width, height / geometry.height
    left, right = geometry.crop[0] * scale_x, geometry.crop[2] * scale_x
    top, bottom = geometry.crop[1] * scale_y, geometry.crop[3] * scale_y
    rows, columns = heat.shape[:2]
    step_x, step_y = (right - left) / columns, (bottom - top) / rows
    # Pixel centres: x + 0.5 = left + (u + 0.5) step.
    affine = np.array(
        [[step_x, 0, left + step_x / 2 - 0.5], [0, step_y, top + step_y / 2 - 0.5]],
        dtype=np.float64,
    )
    spread = cv2.warpAffine(
        heat, affine, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    inside = np.outer((y >= top) & (y < bottom), (x >= left) & (x < right))
    return np.where(
        inside[:, :, None], overlay(base, np.asarray(spread, dtype=np.uint8), opacity), base
    )
