from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from exporter.summaries import classes, merge_set, shard_parts
from exporter.summaries.classes import Columns, columns_of

# (label, predicted)
SEEN = ((0, 0), (0, 0), (0, 1), (1, 1), (2, 1), (2, 1), (None, 1), (3, None))


@pytest.fixture
def seen(making: Any) -> Columns:
    rows = [
        making.row(f"{n}", predicted=predicted, label=label, confidence=0.5 + 0.25 * (n % 2))
        for n, (label, predicted) in enumerate(SEEN)
    ]
    entropy = np.array([0.5, 1.0, *[np.nan] * 6])
    columns = columns_of(shard_parts(rows, [], making.scope())["images"])
    return {**columns, "entropy": entropy, "top_share": entropy / 2}


def test_precision_and_recall_by_hand(making: Any, seen: Columns) -> None:
    cat, dog, cup = classes.class_rows(seen, making.scope())
    assert (cat.index, cat.name, cat.support, cat.predicted) == (0, "cat", 3, 2)
    assert (cat.precision, cat.recall) == (1.0, 2 / 3)
    assert (cat.confidence, cat.confidence_spread) == (0.625, 0.125)
    assert (cat.entropy, cat.entropy_spread, cat.top_share) == (0.75, 0.25, 0.375)
    # The image without a label counts for what is predicted, not for precision.
    assert (dog.predicted, dog.precision, dog.recall) == (5, 0.25, 1.0)
    assert (dog.entropy, dog.agreement) == (None, None)
    assert (cup.precision, cup.recall, cup.confidence) == (None, 0.0, None)


def test_confused_pairs_by_hand(making: Any, seen: Columns) -> None:
    rows = classes.confusion_rows(seen, making.scope())
    assert [(row.label_name, row.predicted_name, row.images) for row in rows] == [
        ("cup", "dog", 2),
        ("cat", "dog", 1),
    ]


def test_only_the_most_frequent_pairs_are_kept(
    making: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exporter.summaries.sets.PAIRS", 2)
    pairs = ((3, 1), (0, 2), (0, 1), (3, 1))
    rows = [making.row(f"{n}", label=a, predicted=b) for n, (a, b) in enumerate(pairs)]
    parts = shard_parts(rows, [], making.scope())
    merged = merge_set(lambda part, _: iter([parts[part]]), making.scope())
    kept = merged.tables["confusion"].to_pylist()
    assert [(row["label"], row["predicted"]) for row in kept] == [(3, 1), (0, 1)]
    assert merged.summary["confused_pairs"] == 3
