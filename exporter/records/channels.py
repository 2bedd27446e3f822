"""What is stored of layers and their channels: statistics, kernels, maximised pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

OUTPUT = "output"
"""What pictures of classes have for a layer: the model's own output."""


def own_name(layer: str) -> str:
    """Return a layer's name in the model, where ``output#1`` is a layer called ``output``."""
    return OUTPUT if layer == f"{OUTPUT}#1" else layer


@dataclass(frozen=True, slots=True)
class KernelRecord:
    """One sheet of kernels.

    Attributes:
        name: layer or parameter name.
        type: class name of the module that holds them.
        shape: (O, I, kh, kw).
        lo: smallest weight.
        hi: largest weight.
        sheet: file name of the picture under ``kernels/``.
        values: file name of the raw float32 ``.npy`` under ``kernels/``.
        shown: how many kernels the sheet shows (a sheet stops at a stated number).
        total: how many there are.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    lo: float
    hi: float
    sheet: str
    values: str
    shown: int
    total: int


@dataclass(frozen=True, slots=True)
class ChannelBatch:
    """Per-image reductions of one layer, for the statistics of the whole set.

    Attributes:
        layer: qualified layer name.
        ids: the images, in plan order.
        mean: float32 (N, C), spatial mean.
        maximum: float32 (N, C), spatial maximum.
        zeros: float32 (N, C), share of exact zeros in [0, 1] (sparsity).
        place: int32 (N, C), flat position of the maximum in the (height, width) grid.
        height: rows of the grid.
        width: columns of the grid.
    """

    layer: str
    ids: tuple[str, ...]
    mean: NDArray[np.float32]
    maximum: NDArray[np.float32]
    zeros: NDArray[np.float32]
    place: NDArray[np.int32]
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class ChannelRow:
    """What the whole set shows of one channel (a row of ``channels.parquet``).

    Attributes:
        layer: qualified layer name.
        channel: channel number.
        images: how many images were seen.
        mean: mean over images of the spatial mean.
        maximum: largest activation over all images.
        sparsity: mean share of exact zeros, in [0, 1].
        dead: whether no image gave a non-zero activation.
        top: ids of the images with the largest maximum, first is largest.
        top_values: their maxima.
        top_places: (x, y) of each maximum as fractions of the model's view, in [0, 1].
    """

    layer: str
    channel: int
    images: int
    mean: float
    maximum: float
    sparsity: float
    dead: bool
    top: tuple[str, ...] = ()
    top_values: tuple[float, ...] = ()
    top_places: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class MaximisedPicture:
    """A picture that excites a channel or a class (``maximised/*.parquet``, ``--maximise``).

    Attributes:
        layer: qualified layer name; ``output`` for a class.
        channel: number of the channel or class.
        name: the class's name; ``""`` of a channel.
        before: the channel's mean over its places, of the noise it began with; NaN where it is not
            finite.
        after: the same of the picture.
        peak: the channel's largest place, of the picture.
        prior: what kept the picture from being noise: ``fourier``, ``total-variation``, ``none``.
        settings: the other settings in words, such as ``128 steps of 0.05, …``.
        height: rows in pixels.
        width: columns in pixels.
        picture: PNG.
    """

    layer: str
    channel: int
    name: str
    before: float
    after: float
    peak: float
    prior: str
    settings: str
    height: int
    width: int
    picture: bytes
