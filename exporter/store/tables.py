"""Records to Arrow tables and back, and the one way in which Parquet is read.

Both go a column at a time: dictionaries per row took ten times as long.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from exporter.errors import RunError
from exporter.records import Row
from exporter.store.schema import PICTURE, ROW_SCHEMA, bare, hints_of, is_record, schema_of

Record = TypeVar("Record")

_LISTS = ("predictions", "maps", "activations")


def records_table(records: Sequence[Any], schema: pa.Schema) -> pa.Table:
    """Return records as a table, in their order."""
    columns = [
        _array([getattr(record, field.name) for record in records], field.type) for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def rows_to_table(rows: Sequence[Row]) -> pa.Table:
    """Return images as a table of ``ROW_SCHEMA``, in their order.

    Predictions, maps and activations of an image with ``error`` become null.
    """
    columns = {name: [getattr(row, name) for row in rows] for name in ROW_SCHEMA.names}
    for name in _LISTS:
        columns[name] = [
            None if row.error is not None else values
            for row, values in zip(rows, columns[name], strict=True)
        ]
    arrays = {name: _array(columns[name], ROW_SCHEMA.field(name).type) for name in columns}
    names = [None if row.image is None else f"{row.id}.jpg" for row in rows]
    arrays["image"] = _pictures(columns["image"], names)
    return pa.Table.from_arrays(list(arrays.values()), schema=ROW_SCHEMA)


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Return values as an Arrow array; None is null, and a record is a struct."""
    if kind.equals(PICTURE):
        return _pictures(values, [None] * len(values))
    if not pa.types.is_nested(kind):
        return _plain(values, kind)
    absent = [value is None for value in values]
    mask = pa.array(absent, pa.bool_()) if any(absent) else None
    if pa.types.is_fixed_size_list(kind):
        nothing = (0,) * kind.list_size
        flat = list(chain.from_iterable(nothing if v is None else v for v in values))
        return pa.FixedSizeListArray.from_arrays(
            _array(flat, kind.value_type), type=kind, mask=mask
        )
    if pa.types.is_list(kind):
        lists = [() if value is None else value for value in values]
        offsets = np.zeros(len(lists) + 1, dtype=np.int32)
        np.cumsum([len(part) for part in lists], out=offsets[1:])
        flat = list(chain.from_iterable(lists))
        return pa.ListArray.from_arrays(
            pa.array(offsets), _array(flat, kind.value_type), type=kind, mask=mask
        )
    children = [_array([getattr(value, f.name) for value in values], f.type) for f in kind]
    return pa.StructArray.from_arrays(children, fields=list(kind))


def _pictures(values: Sequence[bytes | None], names: Sequence[str | None]) -> pa.Array:
    return pa.StructArray.from_arrays(
        [pa.array(values, pa.binary()), pa.array(names, pa.string())],
        fields=list(PICTURE),
        mask=pa.array([value is None for value in values], pa.bool_()),
    )


def _plain(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    try:
        return pa.array(values, kind)
    except UnicodeEncodeError:
        # A path that is not UTF-8 reaches us with surrogates; Arrow's strings can't hold those.
        return pa.array([_as_utf8(value) for value in values], kind)


def _as_utf8(text: str | None) -> str | None:
    return None if text is None else text.encode("utf-8", "backslashreplace").decode("utf-8")


def table_records(table: pa.Table, record: type[Record]) -> Iterator[Record]:
    """Yield the rows of a table as records.

    Args:
        table: columns of the record's fields; those with a default need not be there.
        record: a dataclass whose fields say their ``Column``.

    Raises:
        TypeError: if a column is missing or of another type.
    """
    hints = hints_of(cast(Any, record))
    types = _types(cast(Any, record))
    names = [name for name in hints if name in table.column_names]
    columns = []
    for name in names:
        column = table.column(name)
        if column.type != types[name]:
            raise TypeError(f"the column {name!r} is of type {column.type}")
        columns.append(_values(column.combine_chunks(), hints[name]))
    for values in zip(*columns, strict=True):
        yield record(**dict(zip(names, values, strict=True)))


@cache
def _types(record: type) -> dict[str, pa.DataType]:
    return {field.name: field.type for field in schema_of(record)}


def table_to_rows(table: pa.Table) -> Iterator[Row]:
    """Yield the images of a table that has some or all columns of ``ROW_SCHEMA``."""
    return table_records(table, Row)


def _values(array: pa.Array, hint: Any) -> Iterable[Any]:
    """Return a column's values in Python; lists are tuples, and structs are records."""
    kind, optional = bare(hint)
    if array.type.equals(PICTURE):
        return pc.struct_field(array, "bytes").to_pylist()  # type: ignore[no-any-return]
    if is_record(kind):
        hints = hints_of(kind)
        children = [_values(pc.struct_field(array, name), hints[name]) for name in hints]
        return map(kind, *children)
    if not pa.types.is_nested(array.type):
        return array.to_pylist()  # type: ignore[no-any-return]
    element = get_args(kind)[0]
    if is_record(bare(element)[0]):
        flat = list(_values(array.values, element))
        return (tuple(flat[start:stop]) for start, stop in pairwise(array.offsets.to_pylist()))
    nothing = None if optional else ()
    return (nothing if value is None else _tuples(value) for value in array.to_pylist())


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def read_parquet(file: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a Parquet file, or columns of it, in this thread alone.

    Raises:
        RunError: if it is missing or damaged.
    """
    try:
        with pq.ParquetFile(file) as parquet:
            asked = None if columns is None else list(columns)
            return parquet.read(columns=asked, use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise damaged(file, error) from None


def read_records(file: Path, record: type[Record], **where: Any) -> Iterator[Record]:
    """Yield the rows of a Parquet file as records; nothing where the file is not there.

    Args:
        file: the file.
        record: a dataclass whose fields say their ``Column``.
        **where: only rows that have this value in this column; None is any.

    Raises:
        RunError: if the file is damaged, or was written with other columns.
    """
    if not file.exists():
        return
    table = read_parquet(file)
    try:
        for name, value in where.items():
            if value is not None:
                table = table.filter(pc.equal(table.column(name), value))
        yield from table_records(table, record)
    except (KeyError, TypeError, pa.ArrowException) as error:
        raise damaged(file, error) from None


def damaged(file: Path, error: object) -> RunError:
    """Return the error that says that a file is damaged, and what repairs it."""
    reason = str(error).split("\n", 1)[0]
    return RunError(f"{str(file)!r} is damaged ({reason}); remove it and go on with --resume")
