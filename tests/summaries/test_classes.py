from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from exporter.summaries import classes
from exporter.summaries.predictions import outcomes
from exporter.summaries.shards import Measures
from exporter.summaries.sums import ClassSums, ConfusionSums, add_up

# (label, predicted)
SEEN = ((0, 0), (0, 0), (0, 1), (1, 1), (2, 1), (2, 1), (None, 1), (3, None))


Sums = tuple[dict[Any, ClassSums], dict[Any, ConfusionSums]]


@pytest.fixture
def sums(making: Any) -> Sums:
    rows = [
        making.row(f"{n}", predicted=predicted, label=label, confidence=0.5 + 0.25 * (n % 2))
        for n, (label, predicted) in enumerate(SEEN)
    ]
    seen = outcomes(rows, making.scope())
    entropy, nothing = np.array([0.5, 1.0, *[np.nan] * 6]), np.full(len(rows), np.nan)
    measures = Measures(entropy, entropy / 2, nothing, nothing, nothing, nothing)
    return (
        add_up({}, classes.class_sums(seen, measures)),
        add_up({}, classes.confusion_sums(seen)),
    )


def test_precision_and_recall_by_hand(making: Any, sums: Sums) -> None:
    cat, dog, cup = classes.class_rows(sums[0], making.scope())
    assert (cat.index, cat.name, cat.support, cat.predicted) == (0, "cat", 3, 2)
    assert (cat.precision, cat.recall) == (1.0, 2 / 3)
    assert (cat.confidence, cat.confidence_spread) == (0.625, 0.125)
    assert (cat.entropy, cat.entropy_spread, cat.top_share) == (0.75, 0.25, 0.375)
    # The image without a label counts for what is predicted, not for precision.
    assert (dog.predicted, dog.precision, dog.recall) == (5, 0.25, 1.0)
    assert (dog.entropy, dog.agreement) == (None, None)
    assert (cup.precision, cup.recall, cup.confidence) == (None, 0.0, None)


def test_confused_pairs_by_hand(making: Any, sums: Sums) -> None:
    rows = classes.confusion_rows(sums[1], making.scope())
    assert [(row.label_name, row.predicted_name, row.images) for row in rows] == [
        ("cup", "dog", 2),
        ("cat", "dog", 1),
    ]


def test_only_the_most_frequent_pairs_are_kept(
    making: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classes, "PAIRS", 2)
    parts = [ConfusionSums(*pair, 1) for pair in ((3, 1), (0, 2), (0, 1), (3, 1))]
    rows = classes.confusion_rows(add_up({}, parts), making.scope())
    assert [(row.label, row.predicted) for row in rows] == [(3, 1), (0, 1)]
