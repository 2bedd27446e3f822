from __future__ import annotations

import numpy as np
import pytest

from exporter.summaries import neighbours
from exporter.summaries.neighbours import alike, nearest


@pytest.mark.parametrize("block", [2, 512])
def test_the_nearest_are_those_of_the_largest_cosine(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "_BLOCK", block)
    degrees = np.radians([0, 5, 90, 60, 100])
    values = np.stack([np.cos(degrees), np.sin(degrees)], 1).astype(np.float32)
    values *= np.array([[1], [7], [0.1], [3], [2]], np.float32)  # lengths do not matter
    places, cosines = nearest(values, 2)
    assert places.tolist() == [[1, 3], [0, 3], [4, 3], [2, 4], [2, 3]]
    np.testing.assert_allclose(cosines[0], np.cos(np.radians([5, 60])), atol=1e-6)
    assert [(a, b) for a, b, _ in alike(values, 0.98)] == [(0, 1), (2, 4)]
    assert alike(values, 0.98)[1][2] == pytest.approx(np.cos(np.radians(10)), abs=1e-6)


def test_no_image_is_its_own_neighbour_and_zeros_are_like_none() -> None:
    values = np.array([[1, 0], [1, 0], [0, 0]], np.float32)
    places, cosines = nearest(values, 9)
    assert places.tolist() == [[1, 2], [0, 2], [0, 1]]
    assert cosines.tolist() == [[1, 0], [1, 0], [0, 0]]
    assert alike(values) == [(0, 1, 1.0)]
