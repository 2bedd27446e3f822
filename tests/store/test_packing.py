from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from tests.packing import pack_activation, pack_map

SHAPES = arrays.array_shapes(min_dims=2, max_dims=2, max_side=9)
REAL = st.floats(-(2.0**99), 2.0**99, width=32, allow_subnormal=False)


@given(arrays.arrays(np.float32, SHAPES, elements=REAL))
def test_a_map_comes_back_within_half_a_level(values: NDArray[np.float32]) -> None:
    stored = pack_map(values, "gradcam", "layer4", "value")
    lo, hi = float(values.min()), float(values.max())
    assert (stored.lo, stored.hi) == (lo, hi)
    half_a_level = (hi - lo) / 131070
    rounding = np.spacing(np.float32(max(abs(lo), abs(hi))))
    error = np.abs(stored.array().astype(np.float64) - values.astype(np.float64))
    assert error.max() <= half_a_level * (1 + 1e-9) + rounding


@pytest.mark.slow
@given(arrays.arrays(np.float32, SHAPES, elements=REAL), st.integers(0, 20))
def test_levels_do_not_depend_on_the_scale(values: NDArray[np.float32], exponent: int) -> None:
    power = np.float32(2.0**exponent)
    assert (
        pack_map(values, "m", "l", "value").values == pack_map(values * power, "m", "l", "v").values
    )


@pytest.mark.parametrize("tiny", [1e-7, 1e-14, 1e-30])
def test_tiny_maps_keep_their_shape(tiny: float) -> None:
    ramp = np.linspace(-1, 1, 49, dtype=np.float32).reshape(7, 7)
    np.testing.assert_allclose(
        pack_map(ramp * np.float32(tiny), "m", "l", "value").array() / np.float32(tiny),
        ramp,
        atol=2e-5,
    )


@pytest.mark.parametrize(
    ("values", "flags"),
    [
        ([[0, 0]], "zero"),
        ([[2, 2]], "constant"),
        ([[np.nan, 1]], "nan"),
        ([[np.inf, 0]], "zero,nan"),
        ([[0, 1]], ""),
    ],
)
def test_flags(values: list[list[float]], flags: str) -> None:
    stored = pack_map(np.array(values, dtype=np.float32), "m", "l", "value")
    assert stored.flags == flags
    assert np.isfinite(stored.array()).all()


def test_a_constant_map_is_exact() -> None:
    values = np.full((3, 3), 0.1, dtype=np.float32)
    np.testing.assert_array_equal(pack_map(values, "m", "l", "value").array(), values)


def test_the_strongest_channels_come_first() -> None:
    means = np.array([1, 5, 3, 5], dtype=np.float32)
    values = means[:, None, None] + np.linspace(-1, 1, 4, dtype=np.float32).reshape(2, 2)
    stored = pack_activation(values, "layer4", 3)
    assert stored.channels == (1, 3, 2)
    np.testing.assert_allclose(stored.array(), values[[1, 3, 2]], atol=2 / 255 / 2 + 1e-6)
