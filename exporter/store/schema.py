"""Arrow schemas, derived from the records: a column is written in ``exporter.records`` alone."""

from __future__ import annotations

import json
from dataclasses import is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Final,
    NamedTuple,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import pyarrow as pa

from exporter.records import SCHEMA_VERSION, Column, Row

ROWS_PER_GROUP: Final = 8
"""Rows per Parquet row group: few, so that one map is read without reading its shard."""

PICTURE: Final = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
"""A picture as Hugging Face's ``datasets`` wants it."""

_PLAIN: Final = {
    int: pa.int64(),
    float: pa.float64(),
    str: pa.string(),
    bool: pa.bool_(),
    bytes: pa.binary(),
}


class Field(NamedTuple):
    """What a record's field is stored as: its bare type, whether it may be None, its Arrow type."""

    kind: Any
    optional: bool
    arrow: pa.DataType
    column: Column | None

    @property
    def record(self) -> bool:
        """Whether its values are stored as structs."""
        return is_dataclass(self.kind) or hasattr(self.kind, "_fields")


@cache
def fields_of(record: type) -> dict[str, Field]:
    """Return the fields of a record, in order."""
    hints = get_type_hints(record, include_extras=True)
    return {n: field_of(hint) for n, hint in hints.items() if get_origin(hint) is not ClassVar}


def field_of(hint: Any) -> Field:
    """Return what a type hint, with what is written beside it, is stored as."""
    marks: tuple[Any, ...] = ()
    optional = False
    while True:
        if get_origin(hint) is Annotated:
            hint, *more = get_args(hint)
            marks += tuple(more)
        elif get_origin(hint) in (Union, UnionType):
            hint = next(kind for kind in get_args(hint) if kind is not NoneType)
            optional = True
        else:
            break
    column = next((mark for mark in marks if isinstance(mark, Column)), None)
    narrower = next((mark for mark in marks if isinstance(mark, str)), None)
    arrow = pa.type_for_alias(narrower) if narrower else _arrow(hint, column)
    return Field(hint, optional, arrow, column)


def _arrow(kind: Any, column: Column | None) -> pa.DataType:
    if column is not None and column.picture:
        return PICTURE
    if get_origin(kind) is tuple:
        first, *rest = get_args(kind)
        size = column.size if column else None
        if rest != [Ellipsis]:
            size = 1 + len(rest)
        return pa.list_(pa.field("element", field_of(first).arrow), size or -1)
    return _PLAIN[kind] if kind in _PLAIN else pa.struct(_columns(kind))


def _columns(record: type) -> list[pa.Field]:
    columns = []
    for name, field in fields_of(record).items():
        said = field.column
        metadata = None
        if said is not None:
            metadata = {"about": said.about} | ({"unit": said.unit} if said.unit else {})
        nullable = said is None or not said.required
        columns.append(pa.field(name, field.arrow, nullable=nullable, metadata=metadata))
    return columns


@cache
def schema_of(record: type) -> pa.Schema:
    """Return the schema of the tables that hold such records."""
    columns = _columns(record)
    pictures = {field.name: {"_type": "Image"} for field in columns if field.type.equals(PICTURE)}
    told = {"huggingface": json.dumps({"info": {"features": pictures}})} if pictures else {}
    return pa.schema(columns, metadata=told or None)


ROW_SCHEMA: Final = schema_of(Row).with_metadata(
    {"exporter.schema": str(SCHEMA_VERSION), **schema_of(Row).metadata}
)
"""Columns of ``shards/*.parquet``, in order."""

LATER_COLUMNS: Final = frozenset({"predicted_boxes", "regions"})
"""Columns that runs of earlier versions do not have."""

HEAVY_COLUMNS: Final = frozenset({"image", "maps", "activations"})

LIGHT_COLUMNS: Final = tuple(name for name in ROW_SCHEMA.names if name not in HEAVY_COLUMNS)
"""Every column but pictures, maps and activations: what fits in memory for a whole set."""

_REPEATED_TEXT = (
    "label",
    "predictions.list.element.name",
    "maps.list.element.method",
    "maps.list.element.layer",
    "maps.list.element.target",
    "maps.list.element.flags",
    "activations.list.element.layer",
)


def parquet_options() -> dict[str, Any]:
    """Return how a shard is written: the same bytes for the same rows.

    Levels of maps and JPEG bytes are left uncompressed (zstd gains a few percent and costs more
    than the rest of the writing); repeated names are dictionaries.
    """
    return {
        "row_group_size": ROWS_PER_GROUP,
        "compression": "NONE",
        "use_dictionary": list(_REPEATED_TEXT),
        "write_statistics": False,
        "version": "2.6",
        "data_page_version": "1.0",
        "store_schema": True,
    }
