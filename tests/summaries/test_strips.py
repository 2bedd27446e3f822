from __future__ import annotations

from collections import Counter
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
        # Each strip takes two of eight. Of equals the smallest id.
        "most wrong": ["d", "y"],
        "least sure": ["w", "v"],
        "most disagreeing": ["c", "b"],
        # d, y, b and c, which would be typical, are shown above; class 5 has one image only.
        "most typical": ["z"],
        "one per class": ["x"],
    }


def test_what_is_typical_is_nearest_to_the_means_of_its_class() -> None:
    # Class 4 is more frequent. Of class 1, c is one deviation from the mean confidence, d is two
    # from the mean entropy.
    found = chosen(table(*(one | {"correct": None, "agreement": None} for one in IMAGES)))
    assert found["most typical"] == ["y", "c"]


def test_no_strip_has_more_than_two_of_a_class_and_no_image_is_in_two() -> None:
    many = [image(f"{n:02d}", n // 8, 0.5 + n / 100, correct=n % 2 == 0) for n in range(40)]
    classes = [seen(index, 8, 0.5, 0.1, None, None) for index in range(5)]
    found = strips(columns_of(table(*many)), classes)
    shown = [id for strip in found for id in strip.ids]
    assert len(shown) == len(set(shown)) == 8 * 2 + 3 * 5 - 1
    for strip in found:
        assert max(Counter(int(id) // 8 for id in strip.ids).values()) <= 2, strip.name
    assert [strip.of for strip in found] == [20, 40, 5, 5]


def test_any_cut_chooses_the_same() -> None:
    whole = chosen(table(*IMAGES))
    assert chosen(*(table(one) for one in IMAGES)) == whole
    assert chosen(table(*IMAGES[:4]), table(), table(*IMAGES[4:])) == whole


def test_a_strip_has_a_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices, "LENGTH", 1)
    found = strips(columns_of(table(*IMAGES)), CLASSES)
    assert [(strip.name, len(strip.ids), strip.of) for strip in found] == [
        ("most wrong", 1, 3),
        ("least sure", 1, 8),
        ("most disagreeing", 1, 3),
        ("most typical", 1, 2),
        ("one per class", 1, 3),
    ]


def test_nothing_to_choose() -> None:
    assert chosen(table({"id": "unread"})) == {}
