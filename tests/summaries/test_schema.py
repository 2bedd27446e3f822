"""The pages show what is written."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pyarrow as pa
import pytest

from exporter.records import (
    ClassMap,
    ClassRow,
    ConfusedPair,
    Faithfulness,
    ImageMeasures,
    MethodAgreement,
    MethodFaithfulness,
    MethodRow,
    RedundantPair,
    SetSummary,
)
from exporter.summaries import (
    FAITHFULNESS_SCHEMA,
    IMAGES_SCHEMA,
    METHOD_FAITHFULNESS_SCHEMA,
    SET_SCHEMA,
    SET_TABLES,
    SetTables,
    merge_set,
)
from exporter.summaries.sets import RULES

PAGE = Path(__file__).parents[2] / "docs" / "run-folder.md"
TABLES = {
    **{f"set/{name}.parquet": schema for name, schema in SET_TABLES.items()},
    "summaries/*-images.parquet": IMAGES_SCHEMA,
    "summaries/*-set.parquet": SET_SCHEMA,
    "set/faithfulness.parquet": METHOD_FAITHFULNESS_SCHEMA,
    "summaries/*-faithfulness.parquet": FAITHFULNESS_SCHEMA,
}
RECORDS = {
    "classes": ClassRow,
    "confusion": ConfusedPair,
    "methods": MethodRow,
    "agreement": MethodAgreement,
    "class-maps": ClassMap,
    "redundant": RedundantPair,
}


def lines(name: str, field: pa.Field) -> list[str]:
    metadata = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    kind = field.type
    structs = pa.types.is_list(kind) and pa.types.is_struct(kind.value_type)
    spelled = "list<struct>" if structs else str(kind).replace("float", "float32")
    spelled = spelled.replace("fixed_size_", "").replace("element: ", "")
    spelled = "float64" if spelled == "double" else spelled
    first = f"| `{name}` | {spelled} | {metadata.get('unit', '')} | {metadata['about']} |"
    inner = kind.value_type if structs else ()
    return [first, *(line for one in inner for line in lines(f"{name}[].{one.name}", one))]


@pytest.mark.parametrize("name", TABLES)
def test_the_page_shows_the_schema(name: str) -> None:
    text = PAGE.read_text(encoding="utf-8")
    section = text.split(f"## Columns of `{name}`\n")[1].split("\n## ")[0]
    shown = [line for line in section.splitlines() if line.startswith("| `")]
    assert shown == [line for field in TABLES[name] for line in lines(field.name, field)]


def test_columns_are_those_of_the_records() -> None:
    for name, record in RECORDS.items():
        assert SET_TABLES[name].names == [field.name for field in fields(record)], name
    assert IMAGES_SCHEMA.names == [field.name for field in fields(ImageMeasures)]


def test_the_summary_is_the_record(making: object) -> None:
    scope = making.scope(["a"])  # type: ignore[attr-defined]
    found: SetTables = merge_set(lambda part, columns: iter(()), scope)
    assert list(found.summary) == [field.name for field in fields(SetSummary)]
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in found.summary)


def test_every_rule_is_of_a_number() -> None:
    names = {field.name for record in (*RECORDS.values(), SetSummary) for field in fields(record)}
    assert set(RULES) <= names | {"class_maps", "redundant"}


def test_the_measures_on_request_are_those_of_their_records() -> None:
    assert FAITHFULNESS_SCHEMA.names == [field.name for field in fields(Faithfulness)]
    assert METHOD_FAITHFULNESS_SCHEMA.names == [field.name for field in fields(MethodFaithfulness)]
