"""Channels that say the same: pairs whose pooled activations go together over sampled images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.records import ChannelBatch, LayerRedundancy, RedundantPair
from exporter.summaries.scope import Scope
from exporter.summaries.sums import PooledMeans

THRESHOLD: Final = 0.98
"""Magnitude of the correlation from which on two channels count as redundant."""

FEWEST: Final = 16
"""Sampled images below which nothing is said: chance alone would correlate channels."""

PAIRS: Final = 200
"""Pairs kept a layer."""

_AT_ONCE = 256  # channels whose correlations with all the others are held


def pooled_means(channels: Sequence[ChannelBatch], scope: Scope) -> list[PooledMeans]:
    """Return the pooled activations of a shard's sampled images."""
    return [
        PooledMeans(batch.layer, id, batch.mean[number].astype("<f4").tobytes())
        for batch in channels
        for number, id in enumerate(batch.ids)
        if id in scope.sample
    ]


class Pooled:
    """Pooled activations of the sampled images, at most ``SAMPLE`` vectors per layer."""

    def __init__(self) -> None:
        self._vectors: dict[str, list[NDArray[np.float32]]] = {}

    def add(self, parts: Iterable[PooledMeans]) -> None:
        """Add a shard's pooled activations, in plan order."""
        for part in parts:
            vector = np.frombuffer(part.means, dtype="<f4")
            self._vectors.setdefault(part.layer, []).append(vector)

    def rows(self, scope: Scope) -> tuple[list[RedundantPair], tuple[LayerRedundancy, ...]]:
        """Return the strongest pairs of every layer, and how many there are per layer."""
        rows: list[RedundantPair] = []
        layers = []
        for layer in scope.recorded:
            vectors = self._vectors.get(layer, [])
            channels = len(vectors[0]) if vectors else 0
            pairs, count, paired = (
                redundant(np.stack(vectors)) if len(vectors) >= FEWEST else ([], 0, 0)
            )
            rows += [RedundantPair(layer, *pair) for pair in pairs]
            layers.append(LayerRedundancy(layer, len(vectors), channels, count, paired))
        return rows, tuple(layers)


def redundant(vectors: NDArray[np.float32]) -> tuple[list[tuple[int, int, float]], int, int]:
    """Find the pairs of channels that are correlated over images.

    Args:
        vectors: float32 (N, C), spatial mean a channel.

    Returns:
        At most ``PAIRS`` of (first, second, correlation), the strongest first, of equals the
        smallest channels; how many pairs there are; and how many channels are in one. Channels that
        do not vary, or hold what is not a number, are in none. Correlations are rounded to 1e-6.
    """
    values = vectors.astype(np.float64)
    usable = np.flatnonzero(np.isfinite(values).all(axis=0))
    values = values[:, usable]
    # Scaled first: squares of the largest float32 are fine in float64, those of the smallest not.
    values /= np.maximum(np.abs(values).max(axis=0), np.finfo(np.float32).tiny)
    values -= values.mean(axis=0)
    length = np.sqrt((values**2).sum(axis=0))
    # What is left of a constant channel is rounding.
    varied = length > 1e-9
    usable, values = usable[varied], values[:, varied] / length[varied]
    kept: list[tuple[int, int, float]] = []
    count = 0
    paired = np.zeros(len(usable), dtype=np.bool_)
    for start in range(0, len(usable), _AT_ONCE):
        block = np.round(values[:, start : start + _AT_ONCE].T @ values[:, start:], 6)
        first, second = np.nonzero(np.triu(np.abs(block) >= THRESHOLD, 1))
        strength = block[first, second]
        count += len(first)
        paired[start + first] = paired[start + second] = True
        order = np.lexsort((second, first, -np.abs(strength)))[:PAIRS]
        kept += zip(
            usable[start + first[order]].tolist(),
            usable[start + second[order]].tolist(),
            np.clip(strength[order], -1, 1).tolist(),
            strict=True,
        )
        kept = sorted(kept, key=lambda pair: (-abs(pair[2]), pair[0], pair[1]))[:PAIRS]
    return kept, count, int(paired.sum())
