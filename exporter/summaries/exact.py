"""Sums that do not depend on how the addends are cut or ordered: integers of 2**-149.

Every finite float32 is a whole number of 2**-149, so that a sum of them is a whole number too, and
adding those is exact. Floating-point sums of shards would differ in their last bits from one cut of
the set to another.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

UNIT_BITS: Final = 149
"""A sum is an integer of ``2**-UNIT_BITS``, the smallest float32."""

_BITS = 40
_COLUMNS = 256  # what is worked on at once stays in the cache
_ADDENDS = 1 << 53 - _BITS  # so many numbers of 40 bits add up within float64's 53


def exact_sums(values: NDArray[np.float32]) -> list[int]:
    """Return the exact sum over the first axis, a channel each, in units of 2**-149.

    Args:
        values: float32 (N, C); what is not finite counts as 0.
    """
    sums: list[int] = []
    for first in range(0, values.shape[1], _COLUMNS):
        columns = values[:, first : first + _COLUMNS]
        finite = np.where(np.isfinite(columns), columns, 0)
        part = [0] * columns.shape[1]
        for start in range(0, len(values), _ADDENDS):
            _add(part, finite[start : start + _ADDENDS].astype(np.float64))
        sums += part
    return sums


def _add(sums: list[int], values: NDArray[np.float64]) -> None:
    """Add the columns to the sums, the upper 40 bits of each first: mostly there is no more."""
    unit = np.frexp(np.abs(values).max(axis=0))[1] - _BITS
    rest = values * np.ldexp(1.0, -unit)
    columns = np.arange(values.shape[1])
    while columns.size:
        whole = np.rint(rest)
        parts = whole.sum(axis=0).tolist()
        for column, part, power in zip(columns.tolist(), parts, unit.tolist(), strict=True):
            shift = power + UNIT_BITS
            # Below the smallest float32 there are only zeros to be shifted out.
            sums[column] += int(part) << shift if shift >= 0 else int(part) >> -shift
        rest -= whole
        more = rest.any(axis=0)
        columns, unit, rest = columns[more], unit[more] - _BITS, rest[:, more] * 2.0**_BITS


def to_bytes(total: int) -> bytes:
    """Return the integer as little-endian two's complement, as short as it goes."""
    return total.to_bytes(total.bit_length() // 8 + 1, "little", signed=True)


def from_bytes(content: bytes) -> int:
    """Return the integer that ``to_bytes`` wrote."""
    return int.from_bytes(content, "little", signed=True)


def mean_of(total: int, count: int) -> float:
    """Return the mean, correctly rounded to float64; NaN of nothing."""
    # Division of two integers is rounded once, however large they are.
    return total / (count << UNIT_BITS) if count else float("nan")
