"""How a detector's boxes fit the given ones: matched, unmatched and confused, class by class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from exporter.records import Box, Row

IOU: Final = 0.5
"""Intersection over union from which on a predicted box matches a given one."""


@dataclass(slots=True)
class ClassBoxes:
    """The predicted boxes of one class, on images with given boxes.

    Attributes:
        name: of the class.
        predicted: boxes.
        matched: of these, those that match a given box.
        overlap: sum of the matched boxes' intersections over union.
    """

    name: str
    predicted: int = 0
    matched: int = 0
    overlap: float = 0.0


@dataclass(slots=True)
class BoxCounts:
    """The same of a set, class by class.

    Attributes:
        classes: by class index.
        given: given boxes of images whose boxes a detector predicted.
        matched: of these, those that a predicted box matches.
        confusion: given boxes of labelled images by (label, name of the class predicted for them),
            which is None where no box matches. The label is that of all boxes of an image.
    """

    classes: dict[int, ClassBoxes] = field(default_factory=dict)
    given: int = 0
    matched: int = 0
    confusion: dict[str, Counter[str | None]] = field(default_factory=dict)

    def add(self, row: Row) -> None:
        """Take in one image; one without given or predicted boxes says nothing."""
        if not row.boxes or row.predicted_boxes is None:
            return
        overlaps = match_boxes(row.boxes, row.predicted_boxes)
        self.given += len(row.boxes)
        for said, overlap in zip(row.predictions, overlaps, strict=False):
            counts = self.classes.setdefault(said.index, ClassBoxes(said.name))
            counts.predicted += 1
            if overlap is not None:
                counts.matched += 1
                counts.overlap += overlap
                self.matched += 1
        if row.label is not None and row.label_index is not None:
            matched = [
                row.label if said.index == row.label_index else said.name
                for said, overlap in zip(row.predictions, overlaps, strict=False)
                if overlap is not None
            ]
            missed = [None] * (len(row.boxes) - len(matched))
            self.confusion.setdefault(row.label, Counter()).update([*matched, *missed])


def match_boxes(given: Sequence[Box], predicted: Sequence[Box]) -> list[float | None]:
    """Match predicted boxes, the surest first, to the given box that each overlaps most.

    A given box is matched once. Given boxes have no class, so that the class plays no part.

    Returns:
        For each predicted box the intersection over union with its given box; None where that
        would be below `IOU`.

    Examples:
        >>> match_boxes([(0, 0, 2, 2)], [(0, 0, 2, 1), (0, 0, 2, 2), (5, 5, 6, 6)])
        [0.5, None, None]
    """
    free = list(given)
    matches: list[float | None] = []
    for box in predicted:
        best = max(free, key=lambda other: overlap(box, other), default=None)
        share = 0.0 if best is None else overlap(box, best)
        if best is not None and share >= IOU:
            free.remove(best)
        matches.append(share if share >= IOU else None)
    return matches


def overlap(first: Box, second: Box) -> float:
    """Return the intersection over union of two boxes; 0 where neither has an area."""
    wide = min(first[2], second[2]) - max(first[0], second[0])
    high = min(first[3], second[3]) - max(first[1], second[1])
    common = max(0.0, wide) * max(0.0, high)
    areas = ((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second))
    union = sum(areas) - common
    return common / union if union > 0 else 0.0
