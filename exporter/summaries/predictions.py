"""How a model did on a shard: its predictions as arrays, and what they add to the set's numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.records import Row
from exporter.summaries.scope import Scope
from exporter.summaries.sums import NumberSums

TOP: Final = 5
"""Predictions among which the label counts as found for the top-5 accuracy."""


@dataclass(frozen=True)
class Outcomes:
    """The predictions of N images; an image that was not read has none.

    Attributes:
        predicted: int64 (N,), class of the first prediction, -1 where there is none.
        label: int64 (N,), class of the label, -1 where it is not known.
        right: bool (N,), whether the first prediction is the label.
        ranked: bool (N,), whether enough predictions are kept for the top-5 accuracy.
        found: bool (N,), whether the label is among the first five.
        confidence: float64 (N,), probability of the first prediction, NaN where there is none.
        loss: float32 (N,), cross-entropy, NaN where there is none.
        read: bool (N,), whether the image was read and the output holds numbers.
    """

    predicted: NDArray[np.int64]
    label: NDArray[np.int64]
    right: NDArray[np.bool_]
    ranked: NDArray[np.bool_]
    in_first: NDArray[np.bool_]
    confidence: NDArray[np.float64]
    loss: NDArray[np.float32]
    read: NDArray[np.bool_]

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Whether there is both a label and a prediction, (N,)."""
        return (self.label >= 0) & (self.predicted >= 0)


def outcomes(rows: Sequence[Row], scope: Scope) -> Outcomes:
    """Return the predictions of rows as arrays; a single value is no class and no confidence."""
    told = [row if scope.classifies and row.predictions else None for row in rows]
    enough = min(TOP, scope.outputs or TOP)
    label = np.array(
        [-1 if r is None or r.label_index is None else r.label_index for r in told], np.int64
    )
    predicted = np.array([-1 if r is None else r.predictions[0].index for r in told], np.int64)
    return Outcomes(
        predicted=predicted,
        label=label,
        right=(label >= 0) & (label == predicted),
        ranked=np.array([r is not None and len(r.predictions) >= enough for r in told], np.bool_),
        in_first=np.array(
            [
                r is not None and r.label_index in [p.index for p in r.predictions[:TOP]]
                for r in told
            ],
            np.bool_,
        ),
        confidence=np.array([np.nan if r is None else r.predictions[0].score for r in told], float),
        loss=np.array([np.nan if r is None or r.loss is None else r.loss for r in told], "f4"),
        read=np.array([row.error is None for row in rows], np.bool_),
    )


def number_sums(seen: Outcomes) -> NumberSums:
    """Return what a shard's images add to the numbers of the set."""
    ranked = seen.labelled & seen.ranked
    losses = seen.loss[np.isfinite(seen.loss)]
    confidence = seen.confidence[~np.isnan(seen.confidence)]
    return NumberSums(
        images=len(seen.read),
        read=int(seen.read.sum()),
        labelled=int(seen.labelled.sum()),
        correct=int(seen.right.sum()),
        top5_images=int(ranked.sum()),
        top5_correct=int((ranked & seen.in_first).sum()),
        losses=len(losses),
        confident=len(confidence),
        confidence=float(confidence.sum()),
        loss=float(losses.sum(dtype=np.float64)),
    )
