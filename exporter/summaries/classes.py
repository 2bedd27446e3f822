"""What the set shows of each class: precision, recall, confidence; and which are confused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import numpy as np

from exporter.records import ClassRow, ConfusedPair, ratio
from exporter.summaries.predictions import Outcomes
from exporter.summaries.scope import Scope
from exporter.summaries.sums import ClassSums, ConfusionSums, spread

if TYPE_CHECKING:
    from exporter.summaries.shards import Measures

PAIRS: Final = 10_000
"""Confused pairs kept at most, the most frequent first."""


def class_sums(seen: Outcomes, measures: Measures) -> list[ClassSums]:
    """Add up a shard's images by class: the label's ``support``, else the predicted class."""
    sums: dict[int, ClassSums] = {}
    for number in np.flatnonzero(seen.labelled).tolist():
        index = int(seen.label[number])
        of_label = sums.setdefault(index, ClassSums(index))
        of_label.support += 1
        of_label.correct += int(seen.right[number])
    for number in np.flatnonzero(seen.predicted >= 0).tolist():
        index = int(seen.predicted[number])
        predicted = sums.setdefault(index, ClassSums(index))
        predicted.predicted += 1
        predicted.predicted_labelled += int(seen.labelled[number])
        confidence, entropy, agreement = (
            float(values[number])
            for values in (seen.confidence, measures.entropy, measures.agreement)
        )
        predicted.confidence += confidence
        predicted.confidence_squares += confidence**2
        if not np.isnan(entropy):
            predicted.mapped += 1
            predicted.entropy += entropy
            predicted.entropy_squares += entropy**2
            predicted.top_share += float(measures.top_share[number])
        if not np.isnan(agreement):
            predicted.compared += 1
            predicted.agreement += agreement
    return sorted(sums.values(), key=lambda part: part.index)


def confusion_sums(seen: Outcomes) -> list[ConfusionSums]:
    """Count a shard's errors by label and prediction."""
    wrong = seen.labelled & ~seen.right
    pairs = Counter(zip(seen.label[wrong].tolist(), seen.predicted[wrong].tolist(), strict=True))
    return [ConfusionSums(*pair, images) for pair, images in sorted(pairs.items())]


def class_rows(sums: Mapping[tuple[int], ClassSums], scope: Scope) -> list[ClassRow]:
    """Return a row per class that is a label or a prediction of the set, by index."""
    return [
        ClassRow(
            index=n.index,
            name=scope.name(n.index),
            support=n.support,
            correct=n.correct,
            predicted=n.predicted,
            precision=ratio(n.correct, n.predicted_labelled),
            recall=ratio(n.correct, n.support),
            confidence=ratio(n.confidence, n.predicted),
            confidence_spread=spread(n.confidence, n.confidence_squares, n.predicted),
            entropy=ratio(n.entropy, n.mapped),
            entropy_spread=spread(n.entropy, n.entropy_squares, n.mapped),
            top_share=ratio(n.top_share, n.mapped),
            agreement=ratio(n.agreement, n.compared),
        )
        for _, n in sorted(sums.items())
    ]


def confusion_rows(
    sums: Mapping[tuple[int, int], ConfusionSums], scope: Scope
) -> list[ConfusedPair]:
    """Return the ``PAIRS`` most frequent confused pairs, of equals the smallest indices first."""
    order = sorted(sums.values(), key=lambda n: (-n.images, n.label, n.predicted))[:PAIRS]
    return [
        ConfusedPair(n.label, n.predicted, scope.name(n.label), scope.name(n.predicted), n.images)
        for n in order
    ]
