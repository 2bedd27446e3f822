from __future__ import annotations

import numpy as np
import pytest

from exporter.comparison.drift import correlations, cosines, linear_cka


def test_cosines_of_kernels() -> None:
    first = np.array([[[1.0, 0]], [[1, 1]], [[0, 0]], [[2, 0]]])
    second = np.array([[[0.0, 1]], [[2, 2]], [[1, 0]], [[-1, 0]]])
    np.testing.assert_allclose(cosines(first, second), [0, 1, np.nan, -1])


def test_correlations_of_channels_are_pearsons() -> None:
    first, second = np.random.default_rng(0).normal(size=(2, 30, 4)).astype(np.float32)
    second[:, 3] = 7.1
    expected = [np.corrcoef(first[:, c], second[:, c])[0, 1] for c in range(3)]
    np.testing.assert_allclose(correlations(first, second), [*expected, np.nan], rtol=1e-6)


@pytest.mark.parametrize("channels", [3, 30])
def test_cka_is_that_of_gram_matrices(channels: int) -> None:
    first, second = (np.random.default_rng(n).normal(size=(20, channels + n)) for n in range(2))
    centre = np.eye(20) - 1 / 20
    k, m = (centre @ x @ x.T @ centre for x in (first, second))
    expected = np.trace(k @ m) / np.sqrt(np.trace(k @ k) * np.trace(m @ m))
    assert linear_cka(first, second) == pytest.approx(expected)


def test_cka_does_not_see_rotation_scale_and_shift() -> None:
    first = np.random.default_rng(0).normal(size=(20, 5))
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))
    assert linear_cka(first, 3 * first @ turn + 2) == pytest.approx(1)
    assert linear_cka(first, np.ones((20, 4))) is None
