from __future__ import annotations

import pytest

from exporter.records import Box, Prediction, Row
from exporter.summaries.boxes import BoxCounts, match_boxes, overlap


def row(
    given: tuple[Box, ...] | None, *predicted: tuple[int, Box], label: int | None = None
) -> Row:
    return Row(
        id="a",
        key="a",
        path="a",
        label=None if label is None else f"label {label}",
        label_index=label,
        boxes=given,
        predictions=tuple(Prediction(index, f"class {index}", 0.5) for index, _ in predicted),
        predicted_boxes=tuple(box for _, box in predicted),
    )


def test_overlaps_by_hand() -> None:
    assert overlap((0, 0, 4, 4), (2, 2, 6, 6)) == pytest.approx(4 / 28)
    assert overlap((0, 0, 4, 4), (0, 0, 4, 4)) == 1
    assert overlap((0, 0, 1, 1), (1, 0, 2, 1)) == 0
    assert overlap((1, 1, 1, 1), (1, 1, 1, 1)) == 0


def test_the_surest_box_takes_the_given_one_and_others_what_is_left() -> None:
    given: list[Box] = [(0, 0, 10, 10), (0, 0, 10, 8)]
    # The first is nearer to the second given box, and takes it; the third finds nothing.
    predicted: list[Box] = [(0, 0, 10, 8), (0, 0, 10, 8), (0, 0, 10, 8)]
    assert match_boxes(given, predicted) == [1.0, pytest.approx(0.8), None]


def test_counts_by_class() -> None:
    counts = BoxCounts()
    square: Box = (0, 0, 10, 10)
    counts.add(row((square, (50, 50, 60, 60)), (1, (0, 0, 10, 9)), (2, square), (1, square)))
    counts.add(row((square,), (1, square)))
    counts.add(row(None, (1, square)))
    assert (counts.given, counts.matched) == (3, 2)
    one, two = counts.classes[1], counts.classes[2]
    assert (one.predicted, one.matched, two.predicted, two.matched) == (3, 2, 1, 0)
    assert one.overlap == pytest.approx(0.9 + 1)


def test_what_the_given_boxes_of_a_label_are_taken_for() -> None:
    counts = BoxCounts()
    one: Box = (0, 0, 10, 10)
    two: Box = (50, 50, 60, 60)
    far: Box = (90, 90, 99, 99)
    counts.add(row((one, two, far), (7, one), (3, two), (3, (70, 0, 80, 10)), label=7))
    counts.add(row((one,), (3, one), label=7))
    counts.add(row((one,), label=5))
    counts.add(row((one,), (5, one)))
    assert counts.confusion == {
        "label 7": {"label 7": 1, "class 3": 2, None: 1},
        "label 5": {None: 1},
    }
