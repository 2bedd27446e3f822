"""Arrow schemas, derived from the records: a column is written in ``exporter.records`` alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Final, Union, get_args, get_origin, get_type_hints

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


def schema_of(record: type, metadata: Mapping[str, str] | None = None) -> pa.Schema:
    """Return the schema of the tables that hold such records.

    Args:
        record: a dataclass whose fields say their ``Column``.
        metadata: more of the file's metadata.
    """
    fields = _fields(record)
    pictures = {field.name: {"_type": "Image"} for field in fields if field.type.equals(PICTURE)}
    told = {"huggingface": json.dumps({"info": {"features": pictures}})} if pictures else {}
    return pa.schema(fields, metadata={**(metadata or {}), **told} or None)


def _fields(record: type) -> list[pa.Field]:
    fields = []
    for name, hint in hints_of(record).items():
        column = column_of(hint)
        metadata = None
        if column is not None:
            metadata = {"about": column.about} | ({"unit": column.unit} if column.unit else {})
        nullable = column is None or not column.required
        fields.append(pa.field(name, _type(hint), nullable=nullable, metadata=metadata))
    return fields


@cache
def hints_of(record: type) -> dict[str, Any]:
    """Return the types of a record's fields, in order, with what is written beside them."""
    hints = get_type_hints(record, include_extras=True)
    return {name: hint for name, hint in hints.items() if get_origin(hint) is not ClassVar}


def column_of(hint: Any) -> Column | None:
    """Return what a field says of its column, if anything."""
    marks = getattr(hint, "__metadata__", ())
    return next((mark for mark in marks if isinstance(mark, Column)), None)


def bare(hint: Any) -> tuple[Any, bool]:
    """Return a field's type without what is written beside it, and whether it may be None."""
    if get_origin(hint) is Annotated:
        return bare(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        return bare(next(kind for kind in get_args(hint) if kind is not NoneType))[0], True
    return hint, False


def is_record(kind: Any) -> bool:
    """Say whether values of a type are stored as structs."""
    return is_dataclass(kind) or hasattr(kind, "_fields")


def _type(hint: Any, column: Column | None = None) -> pa.DataType:
    if get_origin(hint) is Annotated:
        kind, *marks = get_args(hint)
        narrower = [mark for mark in marks if isinstance(mark, str)]
        return pa.type_for_alias(narrower[0]) if narrower else _type(kind, column_of(hint))
    if get_origin(hint) in (Union, UnionType):
        return _type(next(kind for kind in get_args(hint) if kind is not NoneType), column)
    if column is not None and column.picture:
        return PICTURE
    if get_origin(hint) is tuple:
        first, *rest = get_args(hint)
        size = column.size if column else None
        if rest != [Ellipsis]:
            size = 1 + len(rest)
        return pa.list_(pa.field("element", _type(first)), size or -1)
    return pa.struct(_fields(hint)) if is_record(hint) else _PLAIN[hint]


ROW_SCHEMA: Final = schema_of(Row, {"exporter.schema": str(SCHEMA_VERSION)})
"""Columns of ``shards/*.parquet``, in order."""

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
