"""What is stored of one image: a row of ``shards/*.parquet``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from exporter.records.columns import COLUMNS, LAYER, ROWS, Box, Column, Float32, Int32

MAP_LEVELS = 65535
"""A stored map holds ``round((value - lo) / (hi - lo) * MAP_LEVELS)`` as little-endian uint16."""


FLAG_REASONS = {
    "zero": "every value is zero: no activation there, or no gradient",
    "constant": "every value is the same",
    "noise": "no value is larger than rounding alone explains",
    "nan": "a value is not a finite number",
    "negative": "every value is negative, so the method's ReLU leaves nothing",
}
"""Why a map that is flagged shows nothing, by flag; a map has at most one."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One of the top-k predictions."""

    index: Annotated[Int32, Column("number of the output")]
    name: Annotated[str, Column("name of the class")]
    score: Annotated[Float32, Column("softmax probability, or the raw value of a single output")]


@dataclass(frozen=True, slots=True)
class StoredMap:
    """One raw, signed map at its layer's own resolution."""

    method: Annotated[str, Column("name of the map method")]
    layer: Annotated[str, LAYER]
    target: Annotated[str, Column("what is explained: class:281, box:3, mask or value")]
    height: Annotated[Int32, ROWS]
    width: Annotated[Int32, COLUMNS]
    lo: Annotated[Float32, Column("value of level 0")]
    hi: Annotated[Float32, Column(f"value of level {MAP_LEVELS}")]
    values: Annotated[
        bytes,
        Column(
            f"little-endian uint16, row-major; value = lo + level * (hi - lo) / {MAP_LEVELS}",
            "levels",
        ),
    ]
    flags: Annotated[
        str,
        Column(
            "zero, constant, noise (no more than rounding), nan or negative (its ReLU leaves "
            "nothing); empty if nothing is wrong"
        ),
    ] = ""

    def array(self) -> NDArray[np.float32]:
        """Return float32 (height, width), within (hi - lo) / 131070 of what was computed."""
        levels = np.frombuffer(self.values, dtype="<u2").reshape(self.height, self.width)
        span = np.float64(self.hi) - np.float64(self.lo)
        return (np.float64(self.lo) + levels * (span / MAP_LEVELS)).astype(np.float32)


REGION_CELLS = 56
"""Rows and columns of a region at most."""

GIVEN = "given"
"""What a region is of that is the image's given mask."""


@dataclass(frozen=True, slots=True)
class Region:
    """Over the model's view: where a segmentation predicts what is explained, or the given mask."""

    target: Annotated[
        str, Column("what is explained, written as in the maps; 'given' for the given mask")
    ]
    height: Annotated[Int32, Column("rows", "cells")]
    width: Annotated[Int32, Column("columns", "cells")]
    values: Annotated[
        bytes, Column("one bit per cell, row-major, highest bit first: 1 is inside", "bits")
    ]

    def array(self) -> NDArray[np.bool_]:
        """Return bool (height, width)."""
        bits = np.unpackbits(np.frombuffer(self.values, np.uint8), count=self.height * self.width)
        return bits.reshape(self.height, self.width).astype(np.bool_)


@dataclass(frozen=True, slots=True)
class StoredActivation:
    """The strongest channels of one layer for one image."""

    layer: Annotated[str, Column("qualified name of the layer")]
    channels: Annotated[tuple[Int32, ...], Column("channel numbers, largest spatial mean first")]
    height: Annotated[Int32, Column("rows of a channel", "cells")]
    width: Annotated[Int32, Column("columns of a channel", "cells")]
    lo: Annotated[tuple[Float32, ...], Column("value of level 0, per channel")]
    hi: Annotated[tuple[Float32, ...], Column("value of level 255, per channel")]
    values: Annotated[
        bytes,
        Column(
            "uint8, (channels, height, width) row-major; value = lo + level * (hi - lo) / 255",
            "levels",
        ),
    ]

    def array(self) -> NDArray[np.float32]:
        """Return the channels as float32 (K, height, width)."""
        levels = np.frombuffer(self.values, dtype=np.uint8).reshape(-1, self.height, self.width)
        lo = np.asarray(self.lo, dtype=np.float32)[:, None, None]
        hi = np.asarray(self.hi, dtype=np.float32)[:, None, None]
        return (lo + levels * ((hi - lo) / np.float32(255))).astype(np.float32)


@dataclass(frozen=True, slots=True)
class ImageStage:
    """All channels of one image at the layer whose spatial means the linear head is given."""

    id: Annotated[str, Column("the image")]
    activation: Annotated[StoredActivation, Column("every channel of the layer, in order")]


@dataclass(frozen=True, slots=True)
class Row:
    """One image of a run: what is in the run folder's shards, and what every writer reads.

    An image that could not be read has ``error`` set, no predictions and no maps.
    """

    id: Annotated[str, Column("unique in the run: the key, then key-2, key-3 …", required=True)]
    key: Annotated[str, Column("hash of the file's bytes, stable across runs", required=True)]
    path: Annotated[str, Column("relative to the image set", required=True)]
    label: Annotated[str | None, Column("as given")] = None
    label_index: Annotated[Int32 | None, Column("class of the model, only where it is known")] = (
        None
    )
    width: Annotated[Int32 | None, Column("of the original, after EXIF rotation", "pixels")] = None
    height: Annotated[Int32 | None, Column("of the original, after EXIF rotation", "pixels")] = None
    crop: Annotated[
        Box | None, Column("left, top, right, bottom of the view in the original", "pixels")
    ] = None
    predictions: Annotated[tuple[Prediction, ...], Column("the top ones, best first")] = ()
    loss: Annotated[Float32 | None, Column("cross-entropy, where the label is a class", "nat")] = (
        None
    )
    correct: Annotated[bool | None, Column("whether the first prediction is the label")] = None
    image: Annotated[bytes | None, Column("the model's view, JPEG", picture=True)] = None
    maps: Annotated[
        tuple[StoredMap, ...], Column("raw and signed, at the layer's own resolution")
    ] = ()
    activations: Annotated[
        tuple[StoredActivation, ...], Column("the strongest channels of recorded layers")
    ] = ()
    boxes: Annotated[
        tuple[Box, ...] | None, Column("given boxes: left, top, right, bottom", "pixels")
    ] = None
    mask: Annotated[str | None, Column("given mask, relative to the image set")] = None
    predicted_boxes: Annotated[
        tuple[Box, ...] | None,
        Column("boxes that a detector predicts: left, top, right, bottom", "pixels"),
    ] = None
    regions: Annotated[
        tuple[Region, ...],
        Column("where a segmentation predicts what is explained; last the given mask"),
    ] = ()
    error: Annotated[str | None, Column("why the image was not read")] = None

    @property
    def confidence(self) -> float | None:
        """Score of the first prediction, or None."""
        return self.predictions[0].score if self.predictions else None
