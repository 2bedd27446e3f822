"""An image on its way from the set to the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exporter.records.columns import Count, Pixels

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where the model's view lies in the original photograph.

    Attributes:
        width: original width in pixels, after EXIF rotation.
        height: original height in pixels, after EXIF rotation.
        crop: left, top, right, bottom of the model's view in original pixels; it may reach beyond
            the photograph where the preprocessing pads.
    """

    width: int
    height: int
    crop: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """One image of the set, as planned.

    Attributes:
        id: unique in the run: ``key``, then ``key-2``, ``key-3`` … for repeated contents.
        key: hash of the file's bytes (hexadecimal); a hash of the path where it could not be read.
        path: relative to the image set, as text.
        label: as given (folder name, column), or None.
        mask: path of a given mask relative to the image set, or None.
        boxes: given boxes as (left, top, right, bottom) in original pixels.
        error: why the bytes could not be read while planning, or None.
    """

    id: str
    key: str
    path: str
    label: str | None = None
    mask: str | None = None
    boxes: tuple[tuple[float, float, float, float], ...] | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """From a photograph to the model's input: resize, crop, scale to [0, 1], normalise.

    Attributes:
        size: (height, width) of the model's input in pixels.
        resize: shorter side after resizing (int), exact (height, width), or None for no resizing.
        crop: ``center`` (cut ``size`` out of the middle, padding with zeros where it is smaller)
            or ``none`` (the resized image is the view).
        interpolation: ``nearest``, ``bilinear`` or ``bicubic``.
        antialias: whether downsampling is low-pass filtered, as PIL does.
        mean: one value per channel, in [0, 1] units.
        std: one value per channel, in [0, 1] units.
        channels: 1 (grey), 3 (RGB), or another number for data sets that give tensors.
        source: where the values come from, in words, for the report.
        bits: bits per channel that pictures of 16 bits use; the highest eight of them are kept.
    """

    size: tuple[Pixels, Pixels]
    resize: Count | tuple[Count, Count] | None
    crop: str = "center"
    interpolation: str = "bilinear"
    antialias: bool = True
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    channels: Count = 3
    source: str = "default"
    bits: Count = 16


@dataclass(frozen=True, slots=True)
class Prepared:
    """One image, ready for the model.

    Attributes:
        view: the model's view, uint8 (H, W, 3) RGB or (H, W, 1) grey.
        geometry: where that view lies in the original.
        tensor: float32 (C, H, W), already normalised, where a data set gives model-ready tensors;
            otherwise None and the input is ``view``, normalised on the device.
    """

    view: NDArray[np.uint8]
    geometry: Geometry
    tensor: NDArray[np.float32] | None = None
