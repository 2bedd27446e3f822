"""The summary and its rules are those of the records."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from exporter.records import (
    ClassMap,
    ClassRow,
    ConfusedPair,
    MethodAgreement,
    MethodRow,
    RedundantPair,
    SetSummary,
)
from exporter.summaries import SetTables, merge_set
from exporter.summaries.sets import RULES

PAGE = Path(__file__).parents[2] / "docs" / "run-folder.md"
RECORDS = (ClassRow, ConfusedPair, MethodRow, MethodAgreement, ClassMap, RedundantPair)


def test_the_summary_is_the_record(making: object) -> None:
    scope = making.scope(["a"])  # type: ignore[attr-defined]
    found: SetTables = merge_set(lambda part, columns: iter(()), scope)
    assert list(found.summary) == [field.name for field in fields(SetSummary)]
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in found.summary)


def test_every_rule_is_of_a_number() -> None:
    names = {field.name for record in (*RECORDS, SetSummary) for field in fields(record)}
    assert set(RULES) <= names | {"class_maps", "redundant"}
