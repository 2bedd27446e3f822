"""What is stored of layers and their channels: statistics, kernels, maximised pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray

from exporter.records.columns import Column, Count, FileName, Float32, Int32

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
    shape: tuple[Count, ...]
    lo: float
    hi: float
    sheet: FileName
    values: FileName
    shown: Count
    total: Count


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


class Position(NamedTuple):
    """A spatial position, as fractions of the model's view in [0, 1]."""

    x: Float32
    y: Float32


@dataclass(frozen=True, slots=True)
class ChannelRow:
    """What images show of one channel: of a shard, or of the whole set."""

    layer: Annotated[str, Column("qualified name of the layer")]
    channel: Annotated[Int32, Column("channel number")]
    images: Annotated[int, Column("images counted")]
    mean: Annotated[float, Column("mean over images of the spatial mean; NaN if any is not finite")]
    maximum: Annotated[Float32, Column("largest activation over all images")]
    sparsity: Annotated[float, Column("mean share of exact zeros, 0 to 1")]
    dead: Annotated[bool, Column("whether it is zero for every image")]
    top: Annotated[
        tuple[str, ...],
        Column("ids of the at most 9 images with the largest maximum, largest first"),
    ] = ()
    top_values: Annotated[tuple[Float32, ...], Column("their maxima")] = ()
    top_places: Annotated[
        tuple[Position, ...], Column("where each maximum is, as fractions of the model's view")
    ] = ()


@dataclass(frozen=True, slots=True)
class MaximisedPicture:
    """A picture that excites a channel or a class."""

    layer: Annotated[str, Column("qualified name of the layer; output for a class")]
    channel: Annotated[Int32, Column("number of the channel or class")]
    name: Annotated[str, Column("name of the class; empty for a channel")]
    before: Annotated[float, Column("mean of the channel for the noise it began with")]
    after: Annotated[float, Column("mean of the channel over its positions for the picture")]
    peak: Annotated[float, Column("largest value of the channel for the picture")]
    prior: Annotated[str, Column("fourier, total-variation or none")]
    settings: Annotated[str, Column("steps, jitter, zoom and seed, in words")]
    height: Annotated[Int32, Column("rows of the picture", "pixels")]
    width: Annotated[Int32, Column("columns of the picture", "pixels")]
    picture: Annotated[bytes, Column("PNG, without loss", picture=True)]
