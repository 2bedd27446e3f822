"""Numbers of paired comparisons: intervals, exact tests, and their correction for many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

RESAMPLES: Final = 2000
"""Resamples of the bootstrap."""

DISTINCT: Final = 1000
"""Distinct differences up to which they are resampled."""

_SEED: Final = 0


class Interval(NamedTuple):
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float


def paired_interval(differences: NDArray[np.float64]) -> Interval:
    """Return the mean of paired differences, with its percentile interval of the bootstrap.

    Images are drawn with replacement, as many as there are, `RESAMPLES` times (Efron and
    Tibshirani, An Introduction to the Bootstrap, 1993). How often each distinct difference is
    drawn is multinomial, which is what is drawn here: right and wrong have three differences only.
    Of more than `DISTINCT` ones the bootstrap's limit is taken, the normal interval.

    Args:
        differences: (N,) finite, N at least 1.
    """
    values, counts = np.unique(differences, return_counts=True)
    count, mean = len(differences), float(differences.mean())
    if len(values) > DISTINCT:
        reach = 1.959963984540054 * float(differences.std()) / math.sqrt(count)
        return Interval(mean, mean - reach, mean + reach)
    drawn = np.random.default_rng(_SEED).multinomial(count, counts / count, RESAMPLES)
    low, high = np.quantile(drawn @ values / count, (0.025, 0.975))
    return Interval(mean, float(low), float(high))


def mcnemar(lost: int, won: int) -> float:
    """Return the exact two-sided p of McNemar's test.

    Of n = lost + won images that changed, ``lost`` is binomial with probability ½ where the runs
    are equally good: p = min(1, 2 Σ_{k ≤ min(lost, won)} C(n, k) / 2ⁿ) (McNemar 1947).

    >>> round(mcnemar(0, 5), 9), mcnemar(3, 3)
    (0.0625, 1.0)
    """
    n, fewer = lost + won, min(lost, won)
    logs = np.array([
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(fewer + 1)
    ])  # fmt: skip
    largest = logs.max()
    half = math.exp(largest - n * math.log(2)) * float(np.exp(logs - largest).sum())
    return min(1.0, 2 * half)


def holm(p: Sequence[float]) -> list[float]:
    """Correct p-values for being many (Holm, A simple sequentially rejective procedure, 1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    values = np.asarray(p, dtype=float)
    order = np.argsort(values, kind="stable")
    raised = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    corrected = np.empty(len(values))
    corrected[order] = np.minimum(raised, 1)
    return [float(value) for value in corrected]
