"""Whole numbers added up by key: what a shard adds to the set, and the set itself.

A share, a probability or a correlation is counted in units of 2**-32 (an error of at most 2**-33 an
image), so that sums are integers: the same for every cut and order of the images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

UNIT_BITS: Final = 32
"""A share is counted in units of ``2**-UNIT_BITS``; int64 holds the sum of 2**31 images."""


def whole(values: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return numbers of about [-1, 1] in units of 2**-32; what is not a number counts as 0."""
    scaled = np.rint(np.asarray(values, dtype=np.float64) * 2.0**UNIT_BITS)
    return np.where(np.isnan(scaled), 0, scaled).astype(np.int64)


def share(total: int, count: int) -> float | None:
    """Return the mean of ``count`` numbers whose sum is ``total`` units; None of nothing.

    >>> share(3 << 32, 4)
    0.75
    """
    return total / (count << UNIT_BITS) if count else None


def spread(total: int, squares: int, count: int) -> float | None:
    """Return the standard deviation (of the population) from a sum and a sum of squares.

    Both are in units of 2**-32, whose rounding alone gives up to 2e-5; what is below that is 0.
    """
    if not count:
        return None
    # Whole numbers until the end: a difference of nearly equal floats would be noise.
    variance = (count * (squares << UNIT_BITS) - total**2) / (count << UNIT_BITS) ** 2
    return math.sqrt(variance) if variance > 2.0**-31 else 0.0


class Tally:
    """Rows of whole numbers by key, which can be sorted; memory grows with the keys alone.

    Attributes:
        width: numbers a row.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self._places: dict[Any, int] = {}
        self._sums = np.zeros((0, width), dtype=np.int64)

    def __len__(self) -> int:
        return len(self._places)

    def add(self, keys: Sequence[Any], values: NDArray[np.int64]) -> None:
        """Add rows (N, width) to those of their keys; a key may come several times."""
        if not len(keys):
            return
        places = [self._places.setdefault(key, len(self._places)) for key in keys]
        if len(self._places) > len(self._sums):
            more = max(len(self._places) - len(self._sums), len(self._sums))
            self._sums = np.concatenate([self._sums, np.zeros((more, self.width), np.int64)])
        np.add.at(self._sums, places, values)

    def sorted(self) -> tuple[list[Any], NDArray[np.int64]]:
        """Return the keys in order and their rows (K, width)."""
        keys = sorted(self._places)
        return keys, self._sums[[self._places[key] for key in keys]]

    def of(self, key: Any) -> list[int]:
        """Return a key's row as Python's integers; zeros where nothing was added."""
        place = self._places.get(key)
        return [0] * self.width if place is None else list(map(int, self._sums[place]))
