"""An image on its way from the set to the model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exporter.records.columns import Count, Pixels


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
        bands: numbers of a picture's bands, from 1. As many as the model has channels are given to
            it; of a model with other than 1 or 3 channels, 1 or 3 of them are shown, and it is
            given all. Empty for all, of which the first three are shown.
        range: numbers of a picture that become black and white, or None for its type's or file's.
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
    bands: tuple[Count, ...] = ()
    range: tuple[float, float] | None = None

    @property
    def in_bands(self) -> bool:
        """Whether pictures are read in their own numbers, and not as 8-bit RGB."""
        return bool(self.bands or self.range or self.channels not in (1, 3))

    @property
    def given(self) -> tuple[int, ...]:
        """Indices of a picture's bands that the model is given; empty for all."""
        shown = self.channels not in (1, 3) and len(self.bands) != self.channels
        return () if shown else tuple(number - 1 for number in self.bands)

    @property
    def shown(self) -> tuple[int, ...]:
        """Indices of the model's channels that are shown as red, green and blue, or as grey."""
        if self.bands and not self.given:
            return tuple(number - 1 for number in self.bands)
        return (0, 1, 2) if self.channels >= 3 else (0,)

    @property
    def shown_as(self) -> str:
        """Which bands are shown from which number to which; ``""`` for 8-bit RGB.

        >>> Preprocessing((64, 64), None, channels=13, bands=(3, 2, 1), range=(0, 4000)).shown_as
        'bands 3, 2, 1 from 0 to 4000'
        """
        numbers = self.bands
        if self.channels not in (1, 3) and not (self.bands and not self.given):
            numbers = (self.bands or tuple(range(1, self.channels + 1)))[: len(self.shown)]
        said = f"band{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}" if numbers else ""
        if self.range is not None:
            said += " from {:g} to {:g}".format(*self.range)
        return said.strip()


@dataclass(frozen=True, slots=True)
class Prepared:
    """One image, ready for the model.

    Attributes:
        view: the model's view, uint8 (H, W, 3) RGB or (H, W, 1) grey.
        geometry: where that view lies in the original.
        tensor: float32 (C, H, W), already normalised, where a data set gives model-ready tensors,
            or pictures are read in their own numbers (``Preprocessing.in_bands``); otherwise None
            and the input is ``view``, normalised on the device.
        key: hash of what was read, where the plan has the key of a listing.
    """

    view: NDArray[np.uint8]
    geometry: Geometry
    tensor: NDArray[np.float32] | None = None
    key: str = ""
