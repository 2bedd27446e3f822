from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pyarrow as pa
import pytest

from exporter.records import Prediction, Row, StoredActivation, StoredMap
from exporter.store.maximised import MAXIMISED_SCHEMA
from exporter.store.schema import (
    ACTIVATION_TYPE,
    HEAVY_COLUMNS,
    LIGHT_COLUMNS,
    MAP_TYPE,
    PREDICTION_TYPE,
    ROW_SCHEMA,
)

PAGE = Path(__file__).parents[2] / "docs" / "run-folder.md"


def leaves(name: str, field: pa.Field) -> list[str]:
    kind, cell = field.type, f"`{name}`"
    metadata = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    about, unit = metadata.get("about", ""), metadata.get("unit", "")
    line = f"| {cell} | {spelled(kind)} | {unit} | {about} |"
    inner, suffix = (kind.value_type, "[]") if pa.types.is_list(kind) else (kind, "")
    if not pa.types.is_struct(inner):
        return [line]
    return [line, *(part for one in inner for part in leaves(f"{name}{suffix}.{one.name}", one))]


def spelled(kind: pa.DataType) -> str:
    if pa.types.is_fixed_size_list(kind):
        return f"list<{spelled(kind.value_type)}>[{kind.list_size}]"
    if pa.types.is_list(kind):
        return f"list<{spelled(kind.value_type)}>"
    if pa.types.is_struct(kind):
        return "struct"
    return "float32" if kind == pa.float32() else str(kind)


@pytest.mark.parametrize(
    ("files", "schema"), [("shards", ROW_SCHEMA), ("maximised", MAXIMISED_SCHEMA)]
)
def test_the_page_shows_the_schema(files: str, schema: pa.Schema) -> None:
    text = PAGE.read_text(encoding="utf-8").split(f"## Columns of `{files}/*.parquet`")[1]
    text = text.split("\n## ")[0]
    table = [line for line in text.splitlines() if line.startswith("| `")]
    assert table == [line for field in schema for line in leaves(field.name, field)]


def test_columns_are_those_of_the_records() -> None:
    assert ROW_SCHEMA.names == [field.name for field in fields(Row)]
    for kind, record in (
        (MAP_TYPE, StoredMap),
        (ACTIVATION_TYPE, StoredActivation),
        (PREDICTION_TYPE, Prediction),
    ):
        assert [field.name for field in kind] == [field.name for field in fields(record)]


def test_every_column_is_light_or_heavy() -> None:
    assert {*LIGHT_COLUMNS, *HEAVY_COLUMNS} == set(ROW_SCHEMA.names)
    assert len(LIGHT_COLUMNS) + len(HEAVY_COLUMNS) == len(ROW_SCHEMA.names)


@pytest.mark.parametrize("name", ["id", "key", "path"])
def test_identity_is_never_null(name: str) -> None:
    assert not ROW_SCHEMA.field(name).nullable


@pytest.mark.parametrize(("schema", "name"), [(ROW_SCHEMA, "image"), (MAXIMISED_SCHEMA, "picture")])
def test_hugging_face_is_told_which_column_holds_pictures(schema: pa.Schema, name: str) -> None:
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert features == {name: {"_type": "Image"}}
