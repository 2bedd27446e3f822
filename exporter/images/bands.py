"""A picture's bands in its own numbers, and how they become values from black, 0, to white, 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from exporter.errors import ImageError, counted
from exporter.images.sources import Box
from exporter.records import Preprocessing

_T = TypeVar("_T", bound=np.generic)

MAX_PIXELS = 250_000_000
"""A picture of more pixels is refused: a few kilobytes can claim to be gigabytes."""

_MAX_VALUES = 3 * MAX_PIXELS


@dataclass(frozen=True, slots=True)
class Bands:
    """A picture of any number of bands.

    Attributes:
        values: (H, W, B) of integers or floating-point numbers.
        window: the numbers that its file says are black and white, or None where it does not.
        inverted: whether low numbers are bright.
    """

    values: NDArray[Any]
    window: tuple[float, float] | None = None
    inverted: bool = False


def unit_values(bands: Bands, steps: Preprocessing) -> NDArray[np.float32]:
    """Bring the bands that the model is given to [0, 1].

    Numbers beyond black and white are cut off, and those that are none (NaN) are black.

    Returns:
        float32 (H, W, C), C being the model's channels, or 1 or 3 of which those can be made.

    Raises:
        ImageError: if there are other bands than the model takes, or nothing says which numbers are
            black and white.
    """
    refuse_bands(bands.values.shape[2], steps)
    low, high = steps.range or bands.window or _whole_range(bands.values, steps.bits)
    if bands.inverted:
        low, high = high, low
    chosen = bands.values[:, :, list(steps.given)] if steps.given else bands.values
    unit = chosen.astype(np.float32)
    unit -= np.float32(low)
    unit /= np.float32(high - low)
    unit.clip(0, 1, out=unit)
    unit[np.isnan(unit)] = 0
    return unit


def takes(count: int, steps: Preprocessing) -> bool:
    """Say whether a picture of so many bands can be given to the model."""
    if steps.given:
        return count > max(steps.given)
    return count == steps.channels or (count in (1, 3) and steps.channels in (1, 3))


def refuse_bands(count: int, steps: Preprocessing) -> None:
    """Raise ``ImageError`` where a picture of so many bands cannot be given to the model."""
    if takes(count, steps):
        return
    has = f"the picture has {counted(count, 'band')}"
    if steps.given:
        raise ImageError(f"{has}, and [preprocessing] bands asks for {max(steps.given) + 1}")
    needs = f"{has} and the model takes {counted(steps.channels, 'channel')}"
    if count > steps.channels:
        numbers = ", ".join(map(str, range(min(steps.channels, 3), 0, -1)))
        more = ", …" if steps.channels > 3 else ""
        raise ImageError(f"{needs}; say which with [preprocessing] bands = [{numbers}{more}]")
    raise ImageError(f"{needs}; give pictures of as many bands")


def refuse_size(width: int, height: int, bands: int = 1) -> None:
    """Raise ``ImageError`` where a picture is too large, before memory is taken for it."""
    if width * height > MAX_PIXELS or width * height * bands > _MAX_VALUES:
        of = f" of {bands} bands" if bands > 3 else ""
        raise ImageError(
            f"the picture claims {width:,} × {height:,} pixels{of}; at most {MAX_PIXELS:,}"
            f"{of and f', and {_MAX_VALUES:,} numbers,'} are read"
        )


def upright(pixels: NDArray[_T], orientation: int) -> NDArray[_T]:
    """Turn a picture as its EXIF orientation, 1 to 8, says."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def upright_box(box: Box, orientation: int, size: tuple[int, int]) -> Box:
    """Turn a box of a stored picture, of (width, height) pixels, as `upright` turns the picture.

    >>> upright_box((0, 0, 2, 1), 6, (8, 6))
    (5, 0, 6, 2)
    """
    (left, top, right, bottom), (width, height) = box, size
    if orientation >= 5:
        left, top, right, bottom, width, height = top, left, bottom, right, height, width
    if orientation in (3, 4, 7, 8):
        top, bottom = height - bottom, height - top
    if orientation in (2, 3, 6, 7):
        left, right = width - right, width - left
    return left, top, right, bottom


def _whole_range(values: NDArray[Any], bits: int) -> tuple[float, float]:
    kind, size = values.dtype.kind, values.dtype.itemsize
    if kind == "b":
        return 0.0, 1.0
    if kind == "u" and size <= 2:
        return 0.0, float(2 ** (8 if size == 1 else bits) - 1)
    if kind not in "iuf":
        raise ImageError(f"the pixels are {values.dtype} numbers; give integers or real numbers")
    called = {"f": "floating-point numbers", "i": "signed integers", "u": "integers"}[kind]
    numbers = values[np.isfinite(values)] if kind == "f" else values
    ends = f" from {numbers.min():g} to {numbers.max():g}" if numbers.size else ""
    raise ImageError(
        f"the pixels are {8 * size}-bit {called}{ends}, whose black and white are not known; state "
        "them as [preprocessing] range = [black, white]"
    )
