from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from skimage.metrics import structural_similarity

from exporter.comparison.records import Compared, Stage
from exporter.comparison.similarity import alike, fitted
from exporter.records import Box, Row
from exporter.render import normalise
from exporter.summaries.similarity import Alike
from tests.packing import pack_map

FIRST, SECOND = np.array([0, 0, 1]), np.array([1, 2, 2])


def rows(maps: list[np.ndarray], crops: list[Box] | None = None) -> list[Row]:
    """Return one image in so many runs."""
    view = (0.0, 0.0, 10.0, 10.0)
    return [
        Row("id", "id", "p", crop=view if crops is None else crops[n],
            maps=(pack_map(values, "gradcam", f"layer{n}", "value"),))
        for n, values in enumerate(maps)
    ]  # fmt: skip


def compared(*images: list[Row], relu: bool = True) -> Alike:
    runs = len(images[0])
    method = Compared("gradcam", "Grad-CAM", ("gradcam",) * runs, (relu,) * runs)
    stage = Stage("deepest", tuple(f"layer{n}" for n in range(runs)))
    ((_, values),) = alike(images, method, [stage])
    return values


@pytest.mark.parametrize("relu", [True, False])
def test_maps_are_compared_as_stored_and_as_painted(relu: bool) -> None:
    maps = list(np.random.default_rng(5).normal(size=(3, 7, 7)).astype(np.float32))
    told = compared(rows(maps), relu=relu)
    for p, (a, b) in enumerate(zip(FIRST, SECOND, strict=True)):
        first, second = maps[a], maps[b]
        rank = stats.spearmanr(first.ravel(), second.ravel()).statistic
        painted = [normalise(m, rectify=relu).astype(float) for m in (first, second)]
        tops = [set(np.argsort(-m.ravel())[:10]) for m in (first, second)]
        assert told.spearman[0, p] == pytest.approx(rank, abs=1e-9)
        assert told.ssim[0, p] == pytest.approx(
            structural_similarity(*painted, win_size=7, data_range=1), abs=1e-3
        )
        assert told.iou[0, p] == pytest.approx(
            len(tops[0] & tops[1]) / len(tops[0] | tops[1]), abs=1e-9
        )


def test_a_map_of_one_value_is_like_no_other() -> None:
    some = np.arange(49, dtype=np.float32).reshape(7, 7)
    told = compared(rows([some, np.full((7, 7), 2, np.float32), some]))
    for values in (told.spearman, told.ssim, told.iou):
        np.testing.assert_allclose(values, [[np.nan, 1, np.nan]])


def test_maps_of_two_sizes_are_averaged_to_the_smaller() -> None:
    small = np.random.default_rng(0).random((7, 7)).astype(np.float32)
    told = compared(rows([small, np.kron(small, np.ones((2, 2), np.float32))]))
    assert told.spearman[0, 0] == pytest.approx(1)
    assert told.iou[0, 0] == 1


def test_other_views_are_compared_over_what_both_see() -> None:
    # The same scene, seen whole and from x = 2 to 10: a slope stays a slope.
    x = (np.arange(10, dtype=np.float32) + 0.5)[None].repeat(10, axis=0)
    whole, part = x, 2 + 0.8 * x
    told = compared(rows([whole, part], [(0, 0, 10, 10), (2, 0, 10, 10)]), relu=False)
    assert told.spearman[0, 0] == pytest.approx(1)
    stored = pack_map(whole, "gradcam", "layer", "value")
    levels = fitted(stored, (0, 0, 10, 10), (2, 0, 10, 10), (10, 10))
    values = stored.lo + levels * (stored.hi - stored.lo) / 65535
    np.testing.assert_allclose(values[:, :-1], part[:, :-1], atol=1e-3)


def test_images_without_a_map_are_left_out() -> None:
    maps = list(np.random.default_rng(5).random((2, 7, 7)).astype(np.float32))
    with_maps, without = rows(maps), [rows(maps)[0], Row("id", "id", "p")]
    told = compared(without, with_maps)
    assert np.isnan(told.spearman[0, 0])
    assert not np.isnan(told.spearman[1, 0])
