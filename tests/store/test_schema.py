"""The tables of docs/run-folder.md and docs/compare.md are those of the records.

``python tests/store/test_schema.py`` writes them again.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pytest

from exporter.comparison.folder import TABLES
from exporter.comparison.records import ImageComparison
from exporter.records import (
    ChannelRow,
    Faithfulness,
    ImageStage,
    MaximisedPicture,
    MethodFaithfulness,
    MethodSanity,
    SanityStep,
)
from exporter.store.schema import HEAVY_COLUMNS, LIGHT_COLUMNS, ROW_SCHEMA, schema_of
from exporter.summaries import IMAGES_SCHEMA, SET_SCHEMA, SET_TABLES

DOCS = Path(__file__).parents[2] / "docs"
RUN_TABLES = {
    "shards/*.parquet": ROW_SCHEMA,
    "channels.parquet": schema_of(ChannelRow),
    "maximised/*.parquet": schema_of(MaximisedPicture),
    **{f"set/{name}.parquet": schema for name, schema in SET_TABLES.items()},
    "set/faithfulness.parquet": schema_of(MethodFaithfulness),
    "set/sanity.parquet": schema_of(MethodSanity),
    "summaries/*-images.parquet": IMAGES_SCHEMA,
    "summaries/*-stage.parquet": schema_of(ImageStage),
    "summaries/*-faithfulness.parquet": schema_of(Faithfulness),
    "summaries/*-sanity.parquet": schema_of(SanityStep),
    "summaries/*-set.parquet": SET_SCHEMA,
}
COMPARISON_TABLES = {
    "images.parquet": schema_of(ImageComparison),
    **{f"{name}.parquet": schema_of(record) for name, record in TABLES.items()},
}
PAGES = {"run-folder.md": RUN_TABLES, "compare.md": COMPARISON_TABLES}


def leaves(name: str, field: pa.Field) -> list[str]:
    kind = field.type
    metadata = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    line = f"| `{name}` | {spelled(kind)} | {metadata.get('unit', '')} | "
    line += f"{metadata.get('about', '')} |"
    inner, suffix = (kind.value_type, "[]") if pa.types.is_list(kind) else (kind, "")
    if not pa.types.is_struct(inner):
        return [line]
    return [line, *(part for leaf in inner for part in leaves(f"{name}{suffix}.{leaf.name}", leaf))]


def spelled(kind: pa.DataType) -> str:
    if pa.types.is_fixed_size_list(kind):
        return f"list<{spelled(kind.value_type)}>[{kind.list_size}]"
    if pa.types.is_list(kind):
        return f"list<{spelled(kind.value_type)}>"
    if pa.types.is_struct(kind):
        return "struct"
    return {pa.float32(): "float32", pa.float64(): "float64"}.get(kind, str(kind))


def table(schema: pa.Schema) -> str:
    lines = [line for field in schema for line in leaves(field.name, field)]
    return "\n".join(["| column | type | unit | |", "|---|---|---|---|", *lines]) + "\n"


def page(name: str) -> str:
    """Return a page of docs with the tables that it should have."""
    text = (DOCS / name).read_text(encoding="utf-8")
    sections = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    for number, section in enumerate(sections):
        of = re.match(r"## Columns of `(.+)`", section)
        if of:
            before, _, rest = section.partition("| column |")
            after = rest.split("\n\n", 1)[1]
            sections[number] = f"{before}{table(PAGES[name][of[1]])}\n{after}"
    return "".join(sections)


@pytest.mark.parametrize("name", PAGES)
def test_the_page_shows_the_schemas(name: str) -> None:
    text = (DOCS / name).read_text(encoding="utf-8")
    assert all(f"## Columns of `{of}`\n" in text for of in PAGES[name])
    assert text.count("| column | type |") == len(PAGES[name])
    assert text == page(name), "run: python tests/store/test_schema.py"


def test_every_column_is_light_or_heavy() -> None:
    assert {*LIGHT_COLUMNS, *HEAVY_COLUMNS} == set(ROW_SCHEMA.names)
    assert len(LIGHT_COLUMNS) + len(HEAVY_COLUMNS) == len(ROW_SCHEMA.names)


@pytest.mark.parametrize("name", ["id", "key", "path"])
def test_identity_is_never_null(name: str) -> None:
    assert not ROW_SCHEMA.field(name).nullable


@pytest.mark.parametrize(
    ("schema", "name"), [(ROW_SCHEMA, "image"), (schema_of(MaximisedPicture), "picture")]
)
def test_hugging_face_is_told_which_column_holds_pictures(schema: pa.Schema, name: str) -> None:
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert features == {name: {"_type": "Image"}}


if __name__ == "__main__":
    for name in PAGES:
        (DOCS / name).write_text(page(name), encoding="utf-8")
