from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from exporter.records import ClassRow
from exporter.summaries import IMAGES_SCHEMA, choices
from exporter.summaries.choices import strips
from exporter.summaries.classes import columns_of


def table(*rows: dict[str, Any]) -> pa.Table:
    empty = dict.fromkeys(IMAGES_SCHEMA.names)
    return pa.Table.from_pylist([empty | row for row in rows], schema=IMAGES_SCHEMA)


def image(id: str, predicted: int, confidence: float, **rest: Any) -> dict[str, Any]:
    return {"id": id, "predicted": predicted, "confidence": confidence, **rest}


def seen(index: int, predicted: int, *means: float | None) -> ClassRow:
    """Return a class with its confidence and entropy, each with its spread."""
    return ClassRow(index, "", 0, 0, predicted, None, None, *means, None, None)


CLASSES = [
    seen(1, 3, 0.5, 0.1, 0.8, 0.05),
    seen(4, 4, 0.5, 0.0, None, None),
    seen(5, 1, 0.3, 0.0, None, None),
]
IMAGES = [
    image("d", 1, 0.5, correct=False, entropy=0.9, agreement=0.9),
    image("c", 1, 0.6, correct=True, entropy=0.8, agreement=-0.5),
    image("b", 1, 0.4, correct=None, entropy=0.8, agreement=0.1),
    image("z", 4, 0.5, correct=False),
    image("y", 4, 0.5, correct=False),
    image("x", 4, 0.9, correct=True),
    image("w", 4, 0.2, correct=True),
    image("v", 5, 0.3),
    {"id": "unread"},
]


def chosen(*tables: pa.Table) -> dict[str, list[str]]:
    found = strips(columns_of(pa.concat_tables(tables)), CLASSES)
    assert all(strip.rule.startswith(f"{strip.name}: ") for strip in found)
    return {strip.name: list(strip.ids) for strip in found}


def test_by_hand() -> None:
    assert chosen(table(*IMAGES)) == {
        # Of equals the smallest id.
        "most wrong": ["d", "y", "z"],
        "least sure": ["w", "v", "b", "d", "y", "z", "c", "x"],
        "most disagreeing": ["c", "b", "d"],
        # Class 4 is more frequent. Of class 1, b and c are one deviation from the mean confidence,
        # d is two from the mean entropy; class 5 has one image only.
        "most typical": ["y", "b"],
        "one per class": ["x", "c", "v"],
    }


def test_any_cut_chooses_the_same() -> None:
    whole = chosen(table(*IMAGES))
    assert chosen(*(table(one) for one in IMAGES)) == whole
    assert chosen(table(*IMAGES[:4]), table(), table(*IMAGES[4:])) == whole


def test_a_strip_has_a_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices, "LENGTH", 2)
    found = strips(columns_of(table(*IMAGES)), CLASSES)
    assert [(strip.name, len(strip.ids), strip.of) for strip in found] == [
        ("most wrong", 2, 3),
        ("least sure", 2, 8),
        ("most disagreeing", 2, 3),
        ("most typical", 2, 2),
        ("one per class", 2, 3),
    ]


def test_nothing_to_choose() -> None:
    assert chosen(table({"id": "unread"})) == {}
