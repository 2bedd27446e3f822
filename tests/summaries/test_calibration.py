from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from exporter.records import Row
from exporter.summaries import shard_parts
from exporter.summaries.classes import Columns, calibration_error, columns_of, diagram, numbers

# Confidences that are exact in binary; the bin is ceil(15 · confidence) - 1.
SIX = ((0.9375, True), (0.96875, False), (0.5, True), (0.5, True), (0.25, False), (0.125, False))


def columns(making: Any, rows: list[Row], **given: Any) -> Columns:
    return columns_of(shard_parts(rows, [], making.scope(**given))["images"])


def test_six_images_by_hand(making: Any) -> None:
    rows = [
        making.row(f"{n}", predicted=1, confidence=confidence, label=1 if right else 2)
        for n, (confidence, right) in enumerate(SIX)
    ]
    bins = diagram(columns(making, rows))
    assert {n: part.images for n, part in enumerate(bins) if part.images} == {
        14: 2,
        7: 2,
        3: 1,
        1: 1,
    }
    assert (bins[14].confidence, bins[14].accuracy) == (0.953125, 0.5)
    assert (bins[7].confidence, bins[7].accuracy) == (0.5, 1.0)
    assert bins[0].accuracy is None
    assert (bins[14].lower, bins[14].upper) == (14 / 15, 1.0)
    by_hand = (2 * (0.953125 - 0.5) + 2 * (1 - 0.5) + 0.25 + 0.125) / 6
    assert calibration_error(bins) == pytest.approx(by_hand, abs=1e-15)


def test_what_has_no_label_is_not_counted(making: Any) -> None:
    rows = [making.row(confidence=0.9), making.row(predicted=None, error="cut")]
    bins = diagram(columns(making, rows))
    assert [part.images for part in bins] == [0] * 15
    assert calibration_error(bins) is None


@pytest.mark.parametrize(("confidence", "place"), [(0.0, 0), (1.0, 14), (0.2, 3), (1.0000001, 14)])
def test_the_ends_of_bins(making: Any, confidence: float, place: int) -> None:
    # 0.2 as float32 is a little more than three fifteenths.
    row = making.row(confidence=float(np.float32(confidence)), label=0)
    bins = diagram(columns(making, [row]))
    assert {n: part.images for n, part in enumerate(bins) if part.images} == {place: 1}


def test_numbers_of_a_shard(making: Any) -> None:
    rows = [
        making.row("a", predicted=0, rest=(1, 2, 3, 4), label=0, loss=0.5),
        making.row("b", predicted=1, rest=(0, 2, 3, 4), label=4, loss=2.0),
        making.row("c", predicted=1, rest=(0, 2, 3, 4), label=5, loss=float("inf")),
        making.row("d", predicted=1, rest=(0,), label=0),
        making.row("e", predicted=2, confidence=0.25),
        making.row("f", predicted=None, error="cut"),
    ]
    told = numbers(columns(making, rows))
    assert {name: told[name] for name in list(told)[:8]} == {
        "images": 6,
        "read": 5,
        "labelled": 4,
        "correct": 1,
        "accuracy": 1 / 4,
        "top5_accuracy": 2 / 3,
        "confidence": (4 * 0.5 + 0.25) / 5,
        "loss": 2.5 / 2,
    }


def test_a_single_value_is_no_class(making: Any) -> None:
    seen = columns(making, [making.row(confidence=1000.0, label=0)], target="value")
    assert np.isnan([seen[name][0] for name in ("predicted", "confidence", "label")]).all()
    assert seen["read"].tolist() == [1]
