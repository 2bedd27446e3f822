from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.summaries.sums import ConfusionSums, MethodSums, add_up, spread

SHARES = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=30)


@given(SHARES)
def test_spreads_are_those_of_numpy(values: list[float]) -> None:
    array = np.array(values)
    expected = array.std()
    # Below 2e-5 a spread counts as that of equal numbers.
    assert spread(array.sum(), (array**2).sum(), len(values)) == pytest.approx(
        expected if expected > 2.1e-5 else 0, abs=2.1e-5 if expected < 2.1e-5 else 1e-10
    )


def test_equal_numbers_have_no_spread() -> None:
    array = np.full(7, 0.1)
    assert spread(array.sum(), (array**2).sum(), 7) == 0


def test_where_there_is_nothing_there_is_no_spread() -> None:
    assert spread(0, 0, 0) is None


def test_equal_keys_add_up() -> None:
    parts = [ConfusionSums(0, 1, 2), ConfusionSums(1, 0, 3), ConfusionSums(0, 1, 5)]
    assert add_up({}, parts) == {(0, 1): ConfusionSums(0, 1, 7), (1, 0): ConfusionSums(1, 0, 3)}


def test_histograms_add_up_bin_by_bin() -> None:
    first, second = (
        MethodSums("gradcam", "deep", entropy=0.5, histogram=(n, *(0,) * 18, 1)) for n in (1, 2)
    )
    total = add_up({}, [first, second])["gradcam", "deep"]
    assert total.histogram == (3, *(0,) * 18, 2)
    assert total.entropy == 1.0
