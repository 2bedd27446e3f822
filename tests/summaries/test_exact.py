from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from exporter.summaries.exact import UNIT_BITS, exact_sums, from_bytes, mean_of, to_bytes

FLOATS = arrays.arrays(
    np.float32,
    st.tuples(st.integers(0, 8), st.integers(1, 4)),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
)


@given(FLOATS)
def test_sums_are_those_of_fractions(values: NDArray[np.float32]) -> None:
    expected = [sum((Fraction(float(v)) for v in column), Fraction()) for column in values.T]
    assert [Fraction(total, 1 << UNIT_BITS) for total in exact_sums(values)] == expected


def test_extremes() -> None:
    tiny, huge = np.float32(2.0**-149), np.finfo(np.float32).max
    column = np.array([[huge], [tiny], [-huge], [tiny]], dtype=np.float32)
    assert exact_sums(column) == [2]
    assert mean_of(2, 4) == 2.0**-150


def test_what_is_not_finite_counts_as_zero() -> None:
    assert exact_sums(np.array([[np.nan], [np.inf], [-np.inf]], dtype=np.float32)) == [0]


def test_many_large_addends_do_not_overflow() -> None:
    values = np.full((70_000, 1), 1.9999999, dtype=np.float32)
    assert exact_sums(values) == [70_000 * int(Fraction(float(values[0, 0])) * (1 << UNIT_BITS))]


@given(st.integers(-(2**300), 2**300))
def test_bytes_come_back(total: int) -> None:
    assert from_bytes(to_bytes(total)) == total


@given(FLOATS.filter(len))
def test_means_are_rounded_once(values: NDArray[np.float32]) -> None:
    column = values[:, 0]
    expected = float(sum((Fraction(float(v)) for v in column), Fraction()) / len(column))
    assert mean_of(exact_sums(values)[0], len(column)) == expected


def test_the_mean_of_nothing() -> None:
    assert np.isnan(mean_of(0, 0))
