"""Records to Arrow tables and back, and the one way in which Parquet is read.

Tables are read a column at a time: a dictionary per row took ten times as long.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import MISSING, fields
from itertools import accumulate, chain, pairwise
from operator import attrgetter
from typing import Any, TypeVar, cast, get_args

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from exporter.records import Row
from exporter.store.documents import RESUME, damaged
from exporter.store.files import RunFiles
from exporter.store.schema import PICTURE, ROW_SCHEMA, Field, field_of, fields_of

Record = TypeVar("Record")

_LISTS = ("predictions", "maps", "activations", "regions")


def records_table(records: Sequence[Any], schema: pa.Schema) -> pa.Table:
    """Return records as a table, in their order."""
    columns = [
        _array([getattr(record, field.name) for record in records], field.type) for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def rows_to_table(rows: Sequence[Row]) -> pa.Table:
    """Return images as a table of ``ROW_SCHEMA``, in their order.

    Predictions, maps, activations and regions of an image with ``error`` become null.
    """
    columns: dict[str, list[Any]] = {n: [getattr(row, n) for row in rows] for n in ROW_SCHEMA.names}
    for number, row in enumerate(rows):
        if row.error is not None:
            for name in _LISTS:
                columns[name][number] = None
        if row.image is not None:
            columns["image"][number] = (row.image, f"{row.id}.jpg")
    arrays = [_array(columns[field.name], field.type) for field in ROW_SCHEMA]
    return pa.Table.from_arrays(arrays, schema=ROW_SCHEMA)


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Return values as an array, a column at a time: as tuples structs would take twice as long."""
    if kind.equals(PICTURE):
        pairs = [(value, None) if isinstance(value, bytes) else value for value in values]
        return pa.array(pairs, kind)
    if pa.types.is_struct(kind):
        columns = [_array([*map(attrgetter(f.name), values)], f.type) for f in kind]
        return pa.StructArray.from_arrays(columns, fields=list(kind))
    if pa.types.is_list(kind) and pa.types.is_nested(kind.value_type):
        ends = accumulate((len(value or ()) for value in values), initial=0)
        missing = pa.array([value is None for value in values], pa.bool_())
        elements = list(chain.from_iterable(value or () for value in values))
        return pa.ListArray.from_arrays(
            pa.array(ends, pa.int32()), _array(elements, kind.value_type), kind, mask=missing
        )
    try:
        return pa.array(values, kind)
    except UnicodeEncodeError:
        # A path that is not UTF-8 reaches us with surrogates; Arrow's strings can't hold those.
        return pa.array(_as_utf8(values), kind)


def _as_utf8(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    return tuple(map(_as_utf8, value)) if isinstance(value, list | tuple) else value


def table_records(table: pa.Table, record: type[Record]) -> Iterator[Record]:
    """Yield the rows of a table as records.

    Raises:
        ValueError: if a column is missing, of another type, or has no value where one has to be.
    """
    refuse_unfit(table, record)
    known = fields_of(cast(Any, record))
    names = [name for name in known if name in table.column_names]
    columns = [_values(table.column(name).combine_chunks(), known[name]) for name in names]
    for values in zip(*columns, strict=True):
        yield record(**dict(zip(names, values, strict=True)))


def refuse_unfit(table: pa.Table, record: type[Record]) -> None:
    """Refuse a table that does not hold records.

    Columns of fields with a default need not be there.

    Raises:
        ValueError: if a column is missing, of another type, or has no value where one has to be.
    """
    defaults = {f.name: (f.default, f.default_factory) for f in fields(cast(Any, record))}
    for name, field in fields_of(cast(Any, record)).items():
        if name not in table.column_names:
            if set(defaults[name]) == {MISSING}:
                raise ValueError(f"it has no column {name!r}")
            continue
        column = table.column(name)
        if column.type != field.arrow:
            raise ValueError(f"the column {name!r} is of type {column.type}")
        _refuse_nulls(column.combine_chunks(), field)


def _refuse_nulls(array: pa.Array, field: Field) -> None:
    """Refuse what has no value where one has to be; a list without one is an empty list."""
    if field.arrow.equals(PICTURE):
        array = pc.struct_field(array, "bytes")
    if not pa.types.is_nested(array.type):
        if array.null_count and not field.optional:
            raise ValueError("a value is missing")
    elif field.record:
        for name, child in fields_of(field.kind).items():
            _refuse_nulls(pc.struct_field(array, name), child)
    elif (element := field_of(get_args(field.kind)[0])).record:
        _refuse_nulls(array.flatten(), element)
    else:
        inner = pc.list_flatten(array)
        while pa.types.is_nested(inner.type) and not inner.null_count:
            inner = pc.list_flatten(inner)
        if inner.null_count:
            raise ValueError("a value is missing")


def _values(array: pa.Array, field: Field) -> Iterable[Any]:
    """Return a column's values in Python; lists are tuples, and structs are records."""
    if field.arrow.equals(PICTURE):
        array = pc.struct_field(array, "bytes")
    if not pa.types.is_nested(array.type):
        return array.to_pylist()  # type: ignore[no-any-return]
    if field.record:
        children = fields_of(field.kind).items()
        return map(field.kind, *(_values(pc.struct_field(array, n), f) for n, f in children))
    element = field_of(get_args(field.kind)[0])
    if element.record:
        flat = list(_values(array.values, element))
        return (tuple(flat[start:stop]) for start, stop in pairwise(array.offsets.to_pylist()))
    nothing = None if field.optional else ()
    turn = _tuples if pa.types.is_nested(array.type.value_type) else tuple
    return (nothing if value is None else turn(value) for value in array.to_pylist())


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


@contextmanager
def reading(run: RunFiles, name: str, remedy: str = RESUME) -> Iterator[None]:
    """Turn what is wrong with a Parquet file into one sentence, a `RunError`, with its remedy."""
    try:
        yield
    except (OSError, LookupError, TypeError, ValueError, OverflowError, pa.ArrowException) as error:
        raise damaged(run, name, error, remedy) from None


@contextmanager
def open_parquet(
    run: RunFiles,
    name: str,
    metadata: pq.FileMetaData | None = None,
    remedy: str = RESUME,
) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file.

    Raises:
        RunError: if it is missing or damaged.
    """
    with (
        run.open(name) as file,
        reading(run, name, remedy),
        pq.ParquetFile(file, metadata=metadata) as parquet,
    ):
        # No table of ours has less than a byte per row; runs of equal values would fill the memory.
        if parquet.metadata.num_rows > file.seek(0, os.SEEK_END):
            raise ValueError(f"it has {parquet.metadata.num_rows} rows, and too few bytes")
        yield parquet


def parquet_bytes(table: pa.Table, **options: Any) -> memoryview:
    """Return the table as the bytes of a Parquet file: the same for the same table."""
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, **options)
    return memoryview(buffer.getvalue())


def read_parquet(
    run: RunFiles, name: str, columns: Sequence[str] | None = None, remedy: str = RESUME
) -> pa.Table:
    """Read a Parquet file, or columns of it, in this thread alone.

    Raises:
        RunError: if it is missing or damaged, or lacks a column.
    """
    with open_parquet(run, name, remedy=remedy) as file:
        table = file.read(columns=None if columns is None else list(columns), use_threads=False)
        for column in columns or ():
            if column.split(".")[0] not in table.column_names:
                raise ValueError(f"it has no column {column!r}")
        return table


def read_records(run: RunFiles, name: str, record: type[Record], **where: Any) -> Iterator[Record]:
    """Yield the rows of a Parquet file as records; nothing where the file is not there.

    Args:
        run: the run folder.
        name: the file.
        record: a dataclass whose fields say their ``Column``.
        **where: only rows that have this value in this column, or one of a set; None is any.

    Raises:
        RunError: if the file is damaged, or was written with other columns.
    """
    if not run.exists(name):
        return
    table = read_parquet(run, name)
    with reading(run, name):
        for column, value in where.items():
            if value is not None:
                accepted = value if isinstance(value, Set) else (value,)
                cells = table.column(column)
                table = table.filter(pc.is_in(cells, pa.array(accepted, cells.type)))
        yield from table_records(table, record)


def wrong_sizes(table: pa.Table) -> Iterator[str]:
    """Yield a sentence for every map and activation without height × width values.

    Args:
        table: columns of ``ROW_SCHEMA``, ``id`` among them; maps and activations may be missing
            or be parts of themselves.
    """
    for column, level in (("maps", 2), ("activations", 1)):
        if not any(field.equals(ROW_SCHEMA.field(column)) for field in table.schema):
            continue
        lists = table.column(column).combine_chunks()
        flat = pa.Table.from_struct_array(pc.list_flatten(lists))
        height, width = (pc.cast(flat.column(side), pa.int64()) for side in ("height", "width"))
        expected = pc.multiply(pc.multiply(height, width), level)
        right = pc.and_(pc.greater(height, 0), pc.greater(width, 0))
        if column == "activations":
            channels = pc.list_value_length(flat.column("channels"))
            expected = pc.multiply(expected, channels)
            for ends in ("lo", "hi"):
                same = pc.equal(pc.list_value_length(flat.column(ends)), channels)
                right = pc.and_(right, same)
        right = pc.and_(right, pc.equal(expected, pc.binary_length(flat.column("values"))))
        parents = pc.list_parent_indices(lists).to_pylist()
        for number, is_right in enumerate(right.to_pylist()):
            if not is_right:
                id = table.column("id")[parents[number]].as_py()
                layer = flat.column("layer")[number].as_py()
                yield (
                    f"the {column.removesuffix('s')} of {id!r} at {layer!r} does not have height × "
                    "width values"
                )
