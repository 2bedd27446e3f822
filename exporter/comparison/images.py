"""Each shared image in every run, in one pass over the maps, a few rows in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.comparison.differences import shared_classes
from exporter.comparison.joining import Joined
from exporter.comparison.predictions import Predictions, flips
from exporter.comparison.records import ImageComparison, Likeness, MapChange, Verdict
from exporter.comparison.similarity import alike
from exporter.records import Row
from exporter.summaries.grids import pairs

ROWS_AT_ONCE: Final = 256
"""Rows of maps in memory at a time, of all runs together."""

NUMBERS: Final = ("spearman", "ssim", "iou")

Key = tuple[str, str]
"""Name of a compared method, and of a stage."""


def blocks(joined: Joined, columns: Sequence[str]) -> Iterator[tuple[int, list[tuple[Row, ...]]]]:
    """Yield the shared images a few at a time: the place of the first, and each image's rows."""
    images = joined.rows(joined.ids, columns)
    step = max(8, ROWS_AT_ONCE // len(joined.runs))
    start = 0
    while block := list(islice(images, step)):
        yield start, block
        start += len(block)


class PairSums:
    """Sums over images of how alike the maps of every two runs are, by method and stage."""

    def __init__(self, joined: Joined) -> None:
        self.pairs = pairs(len(joined.runs))
        base, runs = joined.baseline, range(len(joined.runs))
        self.of_run = {
            run: self.pairs.index((min(run, base), max(run, base))) for run in runs if run != base
        }
        self._sums: dict[Key, NDArray[np.float64]] = {}
        self._counts: dict[Key, NDArray[np.int64]] = {}

    def add(self, key: Key, values: NDArray[np.float64]) -> None:
        """Take in (3, n, P) values of n images, NaN where there is none."""
        shape = (len(NUMBERS), len(self.pairs))
        self._sums.setdefault(key, np.zeros(shape))
        self._counts.setdefault(key, np.zeros(shape, np.int64))
        self._sums[key] += np.nansum(values, axis=1)
        self._counts[key] += (~np.isnan(values)).sum(axis=1)

    def means(self) -> Iterator[Likeness]:
        """Yield the means of every pair."""
        for key, counts in self._counts.items():
            for p, (first, second) in enumerate(self.pairs):
                means = (
                    float(total / count) if count else None
                    for total, count in zip(self._sums[key][:, p], counts[:, p], strict=True)
                )
                yield Likeness(first, second, *key, int(counts[0, p]), *means)


def compare_images(
    joined: Joined, predicted: Sequence[Predictions], sums: PairSums
) -> Iterator[list[ImageComparison]]:
    """Yield the shared images in order, a few at a time."""
    base = joined.baseline
    by_name = shared_classes(joined.plans)
    flip = [flips(own, predicted[base], by_name=by_name) for own in predicted]
    for start, images in blocks(joined, ("label", "crop", "maps")):
        told: dict[Key, NDArray[np.float64]] = {}
        for method in joined.methods:
            for stage, values in alike(images, method, joined.stages_of(method)):
                key = (method.name, stage.name)
                told[key] = np.stack([getattr(values, name) for name in NUMBERS])
                sums.add(key, told[key])
        rows = []
        for n, image in enumerate(images):
            verdicts = [
                _verdict(own, start + n, str(flip[run][start + n]))
                for run, own in enumerate(predicted)
            ]
            maps = [
                MapChange(run, *key, *(_number(value) for value in values[:, n, pair]))
                for key, values in told.items()
                for run, pair in sums.of_run.items()
                if not np.isnan(values[:, n, pair]).all()
            ]
            known = [change.spearman for change in maps if change.spearman is not None]
            likeness = float(np.mean(known)) if known else None
            own = image[base]
            rows.append(
                ImageComparison(own.id, own.path, own.label, tuple(verdicts), likeness, tuple(maps))
            )
        yield rows


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _verdict(own: Predictions, at: int, flip: str) -> Verdict:
    code, right = int(own.predicted[at]), own.correct[at]
    return Verdict(
        name=own.names[code] if code >= 0 else None,
        score=_number(own.score[at]),
        correct=None if np.isnan(right) else bool(right),
        flip=flip,
    )
