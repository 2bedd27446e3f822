from __future__ import annotations

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from exporter.summaries.similarity import iou, ssim

FIRST, SECOND = np.array([0, 0, 1]), np.array([1, 2, 2])


@pytest.mark.parametrize("side", [3, 6, 7, 14, 28])
def test_ssim_is_scikit_images(side: int) -> None:
    images = np.random.default_rng(side).random((2, 3, side, side))
    window = min(7, side - 1 + side % 2)
    expected = [
        [
            structural_similarity(a[x], a[y], win_size=window, data_range=1)
            for x, y in zip(FIRST, SECOND, strict=True)
        ]
        for a in images
    ]
    np.testing.assert_allclose(ssim(images, FIRST, SECOND), expected, rtol=1e-7)


def test_ssim_of_maps_without_a_window_is_nothing() -> None:
    assert np.isnan(ssim(np.zeros((1, 2, 1, 5)), FIRST[:1], SECOND[:1])).all()


def test_iou_counts_cells() -> None:
    tops = np.array([[[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]]], dtype=bool)
    np.testing.assert_allclose(iou(tops, FIRST, SECOND), [[1 / 3, 0, 0]])
