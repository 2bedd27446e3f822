from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.summaries.tally import Tally, share, spread, whole

SHARES = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=30)


@given(SHARES)
def test_means_and_spreads_are_those_of_numpy(values: list[float]) -> None:
    array = np.array(values)
    sums = int(whole(array).sum()), int(whole(array**2).sum())
    assert share(sums[0], len(values)) == pytest.approx(array.mean(), abs=1e-9)
    assert spread(*sums, len(values)) == pytest.approx(array.std(), abs=5e-5)


def test_equal_numbers_have_no_spread() -> None:
    array = np.full(7, 0.1)
    assert spread(int(whole(array).sum()), int(whole(array**2).sum()), 7) == 0


def test_nothing_has_no_mean() -> None:
    assert share(0, 0) is None
    assert spread(0, 0, 0) is None
    assert whole(np.array([np.nan, -1.0])).tolist() == [0, -(2**32)]


def test_keys_add_up() -> None:
    tally = Tally(2)
    tally.add(["b", "a", "b"], np.array([[1, 2], [3, 4], [5, 6]]))
    tally.add([], np.zeros((0, 2), dtype=np.int64))
    tally.add(["c"], np.array([[7, 8]]))
    keys, sums = tally.sorted()
    assert keys == ["a", "b", "c"]
    assert sums.tolist() == [[3, 4], [6, 8], [7, 8]]
    assert (tally.of("b"), tally.of("z"), len(tally)) == ([6, 8], [0, 0], 3)
