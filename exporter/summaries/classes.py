"""What the set shows of each class: precision, recall, confidence; and which are confused."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from exporter.summaries.predictions import Outcomes
from exporter.summaries.scope import Scope
from exporter.summaries.tally import Tally, share, spread, whole

COUNTS: Final = (
    "support",
    "correct",
    "predicted",
    "predicted_labelled",
    "confidence",
    "confidence_squares",
    "mapped",
    "entropy",
    "entropy_squares",
    "top_share",
    "compared",
    "agreement",
)
"""Whole numbers of a class; shares in units of 2**-32."""

PAIRS: Final = 10_000
"""Confused pairs kept at most, the most frequent first."""


def add_classes(
    tally: Tally,
    seen: Outcomes,
    entropy: NDArray[np.float64],
    top_share: NDArray[np.float64],
    agreement: NDArray[np.float64],
) -> None:
    """Add a shard's images to their classes: the label's ``support``, else the predicted class.

    Args:
        tally: rows of ``COUNTS`` by class.
        seen: the predictions of N images.
        entropy: of the map that stands for each image (N,), NaN where there is none.
        top_share: of the same map.
        agreement: of the image's methods (N,), NaN where there is none.
    """
    labelled = seen.labelled
    values = np.zeros((int(labelled.sum()), len(COUNTS)), dtype=np.int64)
    values[:, 0] = 1
    values[:, 1] = seen.right[labelled]
    tally.add(seen.label[labelled].tolist(), values)
    known = seen.predicted >= 0
    mapped, compared = ~np.isnan(entropy[known]), ~np.isnan(agreement[known])
    values = np.zeros((int(known.sum()), len(COUNTS)), dtype=np.int64)
    values[:, 2] = 1
    values[:, 3] = labelled[known]
    values[:, 4] = whole(seen.confidence[known])
    values[:, 5] = whole(seen.confidence[known] ** 2)
    values[:, 6] = mapped
    values[:, 7] = whole(entropy[known])
    values[:, 8] = whole(entropy[known] ** 2)
    values[:, 9] = whole(top_share[known])
    values[:, 10] = compared
    values[:, 11] = whole(agreement[known])
    tally.add(seen.predicted[known].tolist(), values)


def add_confusions(tally: Tally, seen: Outcomes) -> None:
    """Add a shard's errors to the counts of (label, predicted)."""
    wrong = seen.labelled & ~seen.right
    pairs = list(zip(seen.label[wrong].tolist(), seen.predicted[wrong].tolist(), strict=True))
    tally.add(pairs, np.ones((len(pairs), 1), dtype=np.int64))


def class_rows(tally: Tally, scope: Scope) -> list[dict[str, Any]]:
    """Return a row a class that is a label or a prediction of the set, by index."""
    keys, sums = tally.sorted()
    return [
        _class_row(index, dict(zip(COUNTS, counts, strict=True)), scope)
        for index, counts in zip(keys, sums.tolist(), strict=True)
    ]


def _class_row(index: int, n: dict[str, int], scope: Scope) -> dict[str, Any]:
    return {
        "index": index,
        "name": scope.name(index),
        "support": n["support"],
        "correct": n["correct"],
        "predicted": n["predicted"],
        "precision": _ratio(n["correct"], n["predicted_labelled"]),
        "recall": _ratio(n["correct"], n["support"]),
        "confidence": share(n["confidence"], n["predicted"]),
        "confidence_spread": spread(n["confidence"], n["confidence_squares"], n["predicted"]),
        "entropy": share(n["entropy"], n["mapped"]),
        "entropy_spread": spread(n["entropy"], n["entropy_squares"], n["mapped"]),
        "top_share": share(n["top_share"], n["mapped"]),
        "agreement": share(n["agreement"], n["compared"]),
    }


def _ratio(part: int, count: int) -> float | None:
    return part / count if count else None


def confusion_rows(tally: Tally, scope: Scope) -> list[dict[str, Any]]:
    """Return the ``PAIRS`` most frequent confused pairs, of equals the smallest indices first."""
    keys, sums = tally.sorted()
    counts = sums[:, 0]
    order = np.argsort(-counts, kind="stable")[:PAIRS].tolist()
    rows = []
    for place in order:
        label, predicted = keys[place]
        rows.append(
            {
                "label": label,
                "predicted": predicted,
                "label_name": scope.name(label),
                "predicted_name": scope.name(predicted),
                "images": int(counts[place]),
            }
        )
    return rows
