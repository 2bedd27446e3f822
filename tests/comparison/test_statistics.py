from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from exporter.comparison.statistics import DISTINCT, holm, mcnemar, paired_interval


@pytest.mark.parametrize(
    ("lost", "won"), [(0, 0), (0, 1), (3, 9), (9, 3), (10, 10), (1400, 1600), (40_000, 40_300)]
)
def test_mcnemar_is_the_exact_binomial_test(lost: int, won: int) -> None:
    expected = stats.binomtest(lost, lost + won).pvalue if lost + won else 1
    assert mcnemar(lost, won) == pytest.approx(expected, rel=1e-6)


def test_mcnemar_keeps_what_is_very_small() -> None:
    assert mcnemar(0, 200) == pytest.approx(2.0**-199)


def test_holm_steps_down() -> None:
    # 4 × 0.005, then the larger of that and 3 × 0.01, 2 × 0.03, 1 × 0.04; never less than before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == [1, 1]
    assert holm([]) == []


@pytest.mark.parametrize("kind", ["flips", "values", "many"])
def test_the_interval_is_that_of_scipys_bootstrap(kind: str) -> None:
    generator = np.random.default_rng(1)
    count = 3 * DISTINCT if kind == "many" else 200
    before, after = generator.normal(size=(2, count))
    after += 0.3
    if kind == "flips":
        before, after = (before > 0).astype(float), (after > 0).astype(float)
    interval = paired_interval(after - before)
    expected = stats.bootstrap(
        (after - before,), np.mean, n_resamples=5000, method="percentile", rng=generator
    )
    width = expected.confidence_interval.high - expected.confidence_interval.low
    assert interval.mean == pytest.approx((after - before).mean())
    assert interval.low == pytest.approx(expected.confidence_interval.low, abs=0.06 * width)
    assert interval.high == pytest.approx(expected.confidence_interval.high, abs=0.06 * width)


def test_the_interval_is_the_same_each_time_and_of_one_difference_a_point() -> None:
    assert paired_interval(np.ones(5)) == (1, 1, 1)
    differences = np.random.default_rng(0).normal(size=50)
    assert paired_interval(differences) == paired_interval(differences)
