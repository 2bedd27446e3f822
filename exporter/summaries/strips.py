"""Strips of images that matter, chosen by rules that are written beside them."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from exporter.records import ClassRow, Strip
from exporter.summaries.rules import (
    LEAST_SURE,
    MOST_DISAGREEING,
    MOST_TYPICAL,
    MOST_WRONG,
    ONE_PER_CLASS,
    name_of,
)

LENGTH: Final = 24
"""Images of a strip at most."""

_TYPICAL_OF = 3  # images of a class below which none is typical of it
_NARROW = 1e-3  # a spread below this is that of equal numbers, and of their rounding

Ranked = tuple[float, str]


class Strips:
    """Choose the strips while the set goes by, a shard's table at a time.

    Of equals the smallest id goes first: the choice depends on nothing but the images.

    Args:
        classes: what the set shows of each class, for what is typical of it.
    """

    def __init__(self, classes: Sequence[ClassRow]) -> None:
        self._classes = {row.index: row for row in classes}
        self._best: dict[str, list[Ranked]] = {
            MOST_WRONG: [],
            LEAST_SURE: [],
            MOST_DISAGREEING: [],
        }
        self._counts = dict.fromkeys(self._best, 0)
        self._typical: dict[int, Ranked] = {}
        self._sure: dict[int, Ranked] = {}

    def add(self, images: pa.Table) -> None:
        """Look at a shard's images, a table of ``IMAGES_SCHEMA``."""
        ids = images.column("id").to_pylist()
        predicted = images.column("predicted").fill_null(-1).to_numpy()
        correct = np.array(
            [value is False for value in images.column("correct").to_pylist()], dtype=np.bool_
        )
        confidence, entropy, agreement = (
            images.column(name).to_numpy().astype(np.float64)
            for name in ("confidence", "entropy", "agreement")
        )
        sure = predicted >= 0
        self._rank(MOST_WRONG, ids, -confidence, correct & sure)
        self._rank(LEAST_SURE, ids, confidence, sure)
        self._rank(MOST_DISAGREEING, ids, agreement, ~np.isnan(agreement))
        distance = self._distance(predicted, confidence, entropy)
        for place in np.flatnonzero(sure).tolist():
            index = int(predicted[place])
            _least(self._sure, index, (-float(confidence[place]), ids[place]))
            if self._classes[index].predicted >= _TYPICAL_OF:
                _least(self._typical, index, (float(distance[place]), ids[place]))

    def _rank(
        self, rule: str, ids: list[str], by: NDArray[np.float64], chosen: NDArray[np.bool_]
    ) -> None:
        positions = np.flatnonzero(chosen).tolist()
        self._counts[rule] += len(positions)
        ranked = [(float(by[position]), ids[position]) for position in positions]
        self._best[rule] = heapq.nsmallest(LENGTH, self._best[rule] + ranked)

    def _distance(
        self,
        predicted: NDArray[np.int64],
        confidence: NDArray[np.float64],
        entropy: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Return how far each image is from its class's means, in standard deviations (N,)."""
        total = np.zeros(len(predicted))
        for name, values in (("confidence", confidence), ("entropy", entropy)):
            known = [self._classes.get(index) for index in predicted.tolist()]
            mean, wide = (
                np.array([getattr(row, f"{name}{suffix}", None) for row in known], np.float64)
                for suffix in ("", "_spread")
            )
            away = ((values - mean) / np.maximum(wide, _NARROW)) ** 2
            total += np.where(np.isnan(away), 0, away)
        # Equal distances stay equal whatever the last bits of a mean are.
        return np.round(total, 9)

    def rows(self) -> tuple[Strip, ...]:
        """Return the strips that have images: name, rule, ids, and of how many they are chosen."""
        chosen = {rule: [id for _, id in best] for rule, best in self._best.items()}
        counts = dict(self._counts)
        for rule, best in ((MOST_TYPICAL, self._typical), (ONE_PER_CLASS, self._sure)):
            chosen[rule] = [best[index][1] for index in self._frequent(best)[:LENGTH]]
            counts[rule] = len(best)
        return tuple(
            Strip(name=name_of(rule), rule=rule, ids=tuple(ids), of=counts[rule])
            for rule, ids in chosen.items()
            if ids
        )

    def _frequent(self, classes: Mapping[int, Ranked]) -> list[int]:
        return sorted(classes, key=lambda index: (-self._classes[index].predicted, index))


def _least(best: dict[int, Ranked], index: int, ranked: Ranked) -> None:
    if index not in best or ranked < best[index]:
        best[index] = ranked
