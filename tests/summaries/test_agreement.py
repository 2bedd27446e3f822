from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from exporter.summaries.grids import SIDE, agreement, grids, pairs

METHODS = ("gradcam", "eigencam", "layercam")


@pytest.mark.parametrize("shape", [(7, 7), (3, 14), (1, 2)])
@pytest.mark.parametrize("ties", [False, True])
def test_correlations_are_those_of_scipy(making: Any, shape: tuple[int, int], ties: bool) -> None:
    generator = np.random.default_rng(0)
    rows = []
    for n in range(9):
        maps = {(m, "deep"): generator.normal(size=shape) for m in METHODS}
        if ties:
            maps = {key: np.maximum(values, 0).round(1) for key, values in maps.items()}
        rows.append(making.row(f"{n}", maps=maps))
    (grid,) = grids(rows, making.scope(methods=METHODS))
    found = agreement(grid)
    assert found.shape == (9, 3)
    for n, row in enumerate(rows):
        for column, (a, b) in enumerate(pairs(3)):
            x, y = (row.maps[m].array().reshape(-1) for m in (a, b))
            if np.ptp(x) == 0 or np.ptp(y) == 0:
                assert np.isnan(found[n, column])
            else:
                assert found[n, column] == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)


def test_known_correlations(making: Any) -> None:
    rising = np.arange(9.0).reshape(3, 3)
    rows = [
        making.row("same", maps={("gradcam", "deep"): rising, ("eigencam", "deep"): rising**3}),
        making.row("turned", maps={("gradcam", "deep"): rising, ("eigencam", "deep"): -rising}),
        making.row("flat", maps={("gradcam", "deep"): rising, ("eigencam", "deep"): rising * 0}),
        making.row("alone", maps={("gradcam", "deep"): rising}),
        making.row(
            "nan", maps={("gradcam", "deep"): rising, ("eigencam", "deep"): rising + np.nan}
        ),
    ]
    (grid,) = grids(rows, making.scope())
    found = agreement(grid)[:, 0]
    assert found[:2].tolist() == [1.0, -1.0]
    assert np.isnan(found[2:]).all()


def test_of_large_maps_every_second_cell_is_taken(making: Any) -> None:
    generator = np.random.default_rng(0)
    side = 2 * SIDE
    values = [generator.normal(size=(side, side)) for _ in range(2)]
    row = making.row(
        maps=dict(zip([("gradcam", "deep"), ("eigencam", "deep")], values, strict=True))
    )
    (grid,) = grids([row], making.scope())
    x, y = (stored.array()[1::2, 1::2].reshape(-1) for stored in row.maps)
    assert agreement(grid)[0, 0] == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)


def test_one_method_agrees_with_nobody(making: Any) -> None:
    row = making.row(maps={("gradcam", "deep"): np.eye(3)})
    (grid,) = grids([row], making.scope(methods=("gradcam",)))
    assert agreement(grid).shape == (1, 0)
