from __future__ import annotations

import numpy as np
import pytest

from exporter.records import StoredMap
from exporter.render import COLORMAPS, TileStack, heatmap, normalise, scale_stored


def stored(values: np.ndarray) -> StoredMap:
    lo, hi = float(np.float32(values.min())), float(np.float32(values.max()))
    span = hi - lo
    levels = np.rint((values - lo) / span * 65535) if span > 0 else np.zeros(values.shape)
    content = np.clip(levels, 0, 65535).astype("<u2").tobytes()
    return StoredMap("m", "l", "class:0", *values.shape, lo, hi, content)


def some_maps() -> list[StoredMap]:
    generator = np.random.default_rng(5)
    signed = [generator.normal(size=(7, 9)) * 10.0**power for power in (-7, 0, 5)]
    one_sign = [generator.random((7, 9)) + 3, -generator.random((7, 9)) - 3]
    return [stored(one) for one in (*signed, *one_sign, np.zeros((7, 9)), np.full((7, 9), -2.0))]


@pytest.mark.parametrize("rectify", [True, False])
@pytest.mark.parametrize("centred", [True, False])
def test_scaling_by_levels_is_normalising_each_map(rectify: bool, centred: bool) -> None:
    maps = some_maps()
    together = scale_stored(maps, [rectify] * len(maps), centred=centred)
    for one, scaled in zip(maps, together, strict=True):
        alone = normalise(one.array(), rectify=rectify, centred=centred and not rectify)
        assert np.allclose(scaled, alone, atol=3e-5), (one.lo, one.hi)


@pytest.mark.parametrize("colormap", ["viridis", "diverging"])
def test_a_stack_paints_what_heatmap_paints(colormap: str) -> None:
    maps = [*some_maps()[:5], stored(np.random.default_rng(1).normal(size=(14, 14)))]
    relu = [k % 2 == 0 for k in range(len(maps))]
    stack = TileStack(len(maps), (50, 40), colormap)
    for one, tile, positive in zip(maps, stack.colour(maps, relu), relu, strict=True):
        alone = heatmap(one.array(), (50, 40), rectify=positive, colormap=colormap)
        table = {tuple(rgb): k for k, rgb in enumerate(COLORMAPS[colormap].tolist())}
        apart = [
            abs(table[tuple(a)] - table[tuple(b)])
            for a, b in zip(
                tile.reshape(-1, 3).tolist(), alone.reshape(-1, 3).tolist(), strict=True
            )
        ]
        assert max(apart) <= 1
        assert np.mean(apart) < 0.02


def test_a_stack_can_be_used_again_with_fewer_maps() -> None:
    maps = some_maps()
    stack = TileStack(len(maps), (16, 16))
    first = stack.colour(maps[:1], [False])[0].copy()
    stack.colour(maps, [True] * len(maps))
    assert np.array_equal(stack.colour(maps[:1], [False])[0], first)
    assert stack.colour([], []) == ()
