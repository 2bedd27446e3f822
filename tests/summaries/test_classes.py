from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from exporter.summaries import classes
from exporter.summaries.predictions import outcomes
from exporter.summaries.tally import Tally

# (label, predicted)
SEEN = ((0, 0), (0, 0), (0, 1), (1, 1), (2, 1), (2, 1), (None, 1), (3, None))


@pytest.fixture
def tallies(making: Any) -> tuple[Tally, Tally]:
    rows = [
        making.row(f"{n}", predicted=predicted, label=label, confidence=0.5 + 0.25 * (n % 2))
        for n, (label, predicted) in enumerate(SEEN)
    ]
    seen = outcomes(rows, making.scope())
    tally, confusions = Tally(len(classes.COUNTS)), Tally(1)
    entropy = np.array([0.5, 1.0, *[np.nan] * 6])
    classes.add_classes(tally, seen, entropy, entropy / 2, np.full(len(rows), np.nan))
    classes.add_confusions(confusions, seen)
    return tally, confusions


def test_precision_and_recall_by_hand(making: Any, tallies: tuple[Tally, Tally]) -> None:
    cat, dog, cup = classes.class_rows(tallies[0], making.scope())
    assert (cat["index"], cat["name"], cat["support"], cat["predicted"]) == (0, "cat", 3, 2)
    assert (cat["precision"], cat["recall"]) == (1.0, 2 / 3)
    assert (cat["confidence"], cat["confidence_spread"]) == (0.625, 0.125)
    assert (cat["entropy"], cat["entropy_spread"], cat["top_share"]) == (0.75, 0.25, 0.375)
    # The image without a label counts for what is predicted, not for precision.
    assert (dog["predicted"], dog["precision"], dog["recall"]) == (5, 0.25, 1.0)
    assert (dog["entropy"], dog["agreement"]) == (None, None)
    assert (cup["precision"], cup["recall"], cup["confidence"]) == (None, 0.0, None)


def test_confused_pairs_by_hand(making: Any, tallies: tuple[Tally, Tally]) -> None:
    rows = classes.confusion_rows(tallies[1], making.scope())
    assert [(row["label_name"], row["predicted_name"], row["images"]) for row in rows] == [
        ("cup", "dog", 2),
        ("cat", "dog", 1),
    ]


def test_only_the_most_frequent_pairs_are_kept(
    making: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classes, "PAIRS", 2)
    tally = Tally(1)
    tally.add([(3, 1), (0, 2), (0, 1), (3, 1)], np.ones((4, 1), dtype=np.int64))
    rows = classes.confusion_rows(tally, making.scope())
    assert [(row["label"], row["predicted"]) for row in rows] == [(3, 1), (0, 1)]
