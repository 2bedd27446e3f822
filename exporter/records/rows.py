"""What is stored of one image: a row of ``shards/*.parquet``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAP_LEVELS = 65535
"""A stored map holds ``round((value - lo) / (hi - lo) * MAP_LEVELS)`` as little-endian uint16."""


FLAG_REASONS = {
    "zero": "every value is zero: no activation there, or no gradient",
    "constant": "every value is the same",
    "nan": "a value is not a finite number",
    "negative": "every value is negative, so that the method's ReLU leaves nothing",
}
"""Why a map that is flagged shows nothing, by flag; a map has at most one."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One of the top-k predictions; ``score`` is a probability (softmax) or the raw output."""

    index: int
    name: str
    score: float


@dataclass(frozen=True, slots=True)
class StoredMap:
    """One raw, signed map at its layer's own resolution.

    Attributes:
        method: registry name.
        layer: qualified layer name, ``""`` for a pixel method.
        target: ``class:281``, ``box:3``, ``mask`` or ``value``.
        height: rows.
        width: columns.
        lo: value of level 0.
        hi: value of level 65535.
        values: uint16 levels, little-endian, row-major.
        flags: a key of ``FLAG_REASONS``; ``""`` where nothing is wrong.
    """

    method: str
    layer: str
    target: str
    height: int
    width: int
    lo: float
    hi: float
    values: bytes
    flags: str = ""

    def array(self) -> NDArray[np.float32]:
        """Return float32 (height, width), within (hi - lo) / 131070 of what was computed."""
        levels = np.frombuffer(self.values, dtype="<u2").reshape(self.height, self.width)
        span = np.float64(self.hi) - np.float64(self.lo)
        return (np.float64(self.lo) + levels * (span / MAP_LEVELS)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class StoredActivation:
    """The strongest channels of one layer for one image.

    Attributes:
        layer: qualified layer name.
        channels: channel numbers, strongest (largest spatial mean) first.
        height: rows of a channel.
        width: columns of a channel.
        lo: a channel's smallest value, in the order of ``channels``.
        hi: a channel's largest value.
        values: uint8 levels between lo and hi, (channels, height, width) row-major.
    """

    layer: str
    channels: tuple[int, ...]
    height: int
    width: int
    lo: tuple[float, ...]
    hi: tuple[float, ...]
    values: bytes

    def array(self) -> NDArray[np.float32]:
        """Return the channels as float32 (K, height, width)."""
        levels = np.frombuffer(self.values, dtype=np.uint8).reshape(-1, self.height, self.width)
        lo = np.asarray(self.lo, dtype=np.float32)[:, None, None]
        hi = np.asarray(self.hi, dtype=np.float32)[:, None, None]
        return (lo + levels * ((hi - lo) / np.float32(255))).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Row:
    """One image of a run: what is in the run folder's shards, and what every writer reads.

    An image that could not be read has ``error`` set, no predictions and no maps.
    """

    id: str
    key: str
    path: str
    label: str | None = None
    label_index: int | None = None
    width: int | None = None
    height: int | None = None
    crop: tuple[float, float, float, float] | None = None
    predictions: tuple[Prediction, ...] = ()
    loss: float | None = None
    correct: bool | None = None
    image: bytes | None = None
    maps: tuple[StoredMap, ...] = ()
    activations: tuple[StoredActivation, ...] = ()
    boxes: tuple[tuple[float, float, float, float], ...] | None = None
    mask: str | None = None
    error: str | None = None

    @property
    def confidence(self) -> float | None:
        """Score of the first prediction, or None."""
        return self.predictions[0].score if self.predictions else None
