from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from exporter.render import normalise
from exporter.summaries import SET_TABLES, merge_set, shard_parts
from exporter.summaries.grids import concentration, grids, normalised

EVERYWHERE = np.ones((5, 5))
ONE = np.zeros((5, 5))
ONE[1, 2] = 3
TWO = np.zeros((5, 5))
TWO[0, 0] = TWO[4, 4] = 2


def measured(making: Any, values: NDArray[Any], method: str = "gradcam") -> tuple[float, float]:
    (grid,) = grids([making.row(maps={(method, "deep"): values})], making.scope())
    entropy, top = concentration(grid)
    place = grid.methods.index(method)
    assert np.isnan(entropy[0, 1 - place])
    return float(entropy[0, place]), float(top[0, place])


@pytest.mark.parametrize(
    ("values", "entropy", "share"),
    [
        (EVERYWHERE, 1.0, 0.2),
        (ONE, 0.0, 1.0),
        (TWO, np.log(2) / np.log(25), 1.0),
        # Of 25 cells 5 are the top 20 %: here they are as many as any others.
        (EVERYWHERE + 1e-3 * np.eye(5), 1.0, 0.2),
        # What a ReLU cuts off has no energy.
        (np.where(ONE > 0, 3, -5), 0.0, 1.0),
    ],
)
def test_known_maps(making: Any, values: NDArray[Any], entropy: float, share: float) -> None:
    assert measured(making, values) == pytest.approx((entropy, share), abs=1e-3)


def test_a_map_without_relu_is_shifted_to_its_smallest_value(making: Any) -> None:
    assert measured(making, ONE - 7, "eigencam") == pytest.approx((0, 1), abs=1e-6)
    assert measured(making, TWO + 7, "eigencam")[0] == pytest.approx(np.log(2) / np.log(25))


def test_a_map_with_relu_is_not_shifted(making: Any) -> None:
    values = 1 + np.arange(25).reshape(5, 5) / 24
    share = values / values.sum()
    expected = -(share * np.log(share)).sum() / np.log(25), share.reshape(-1)[-5:].sum()
    assert measured(making, values) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("values", "method"),
    [
        (np.zeros((5, 5)), "gradcam"),
        (-EVERYWHERE, "gradcam"),
        (-EVERYWHERE - ONE, "gradcam"),
        (EVERYWHERE, "eigencam"),
        (np.full((5, 5), np.nan), "gradcam"),
        (np.ones((1, 1)), "gradcam"),
    ],
)
def test_what_has_no_energy_is_not_measured(making: Any, values: Any, method: str) -> None:
    assert np.isnan(measured(making, values, method)).all()


def test_random_maps_against_the_definition(making: Any) -> None:
    generator = np.random.default_rng(0)
    rows = [
        making.row(
            f"{n}",
            maps={(m, "deep"): generator.normal(size=(9, 6)) for m in ("gradcam", "eigencam")},
        )
        for n in range(40)
    ]
    (grid,) = grids(rows, making.scope())
    entropy, top = concentration(grid)
    for n, row in enumerate(rows):
        for m, stored in enumerate(row.maps):
            raw = stored.array().astype(np.float64)
            shown = np.maximum(raw, 0) if m == 0 else raw - raw.min()
            p = np.sort((shown / shown.sum()).reshape(-1))
            assert top[n, m] == pytest.approx(p[-11:].sum(), abs=1e-5)
            p = p[p > 0]
            assert entropy[n, m] == pytest.approx(-(p * np.log(p)).sum() / np.log(54), abs=1e-5)


def test_painted_maps_are_those_that_render_paints(making: Any) -> None:
    generator = np.random.default_rng(1)
    shifts = (-9, -0.3, 0, 0.4, 9)
    rows = [
        making.row(
            f"{shift}",
            maps={
                ("gradcam", "deep"): generator.normal(size=(4, 4)) + shift,
                ("eigencam", "deep"): generator.normal(size=(4, 4)) + shift,
            },
        )
        for shift in shifts
    ]
    (grid,) = grids(rows, making.scope())
    painted = normalised(grid, slice(None)) / 65535
    for n, row in enumerate(rows):
        for m, stored in enumerate(row.maps):
            expected = normalise(stored.array(), rectify=m == 0)
            np.testing.assert_allclose(painted[n, m].reshape(4, 4), expected, atol=1e-5)


def test_histogram(making: Any) -> None:
    # Of 25 cells with n equal ones and zeros the entropy is log n / log 25.
    counts = (1, 1, 2, 25, 5)
    rows = [
        making.row(f"{n}", {("gradcam", "deep"): (np.arange(25) < cells).reshape(5, 5)})
        for n, cells in enumerate(counts)
    ]
    scope = making.scope([row.id for row in rows], methods=("gradcam",))
    parts = shard_parts(rows, [], scope)
    (row,) = merge_set(lambda part, _: iter([parts[part]]), scope).tables["methods"].to_pylist()
    assert len(row["histogram"]) == SET_TABLES["methods"].field("histogram").type.list_size == 20
    expected = {0: 2, int(20 * np.log(2) / np.log(25)): 1, 10: 1, 19: 1}
    assert {n: count for n, count in enumerate(row["histogram"]) if count} == expected
