"""One row of lists of structs, as columns of arrays: how a shard's part of the set is laid out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Columns = Mapping[str, Any]


def one_row(schema: pa.Schema, lists: Mapping[str, Columns]) -> pa.Table:
    """Return a table of one row.

    Args:
        schema: its columns, each a list of structs.
        lists: by column, the structs' fields as arrays or lists of one length.
    """
    arrays = []
    for field in schema:
        struct = field.type.value_type
        parts = [_array(lists[field.name][one.name], one.type) for one in struct]
        flat = pa.StructArray.from_arrays(parts, fields=list(struct))
        offsets = pa.array([0, len(flat)], pa.int32())
        arrays.append(pa.ListArray.from_arrays(offsets, flat, type=field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    if pa.types.is_fixed_size_list(kind):
        flat = np.ascontiguousarray(values).reshape(-1)
        return pa.FixedSizeListArray.from_arrays(pa.array(flat, kind.value_type), type=kind)
    return pa.array(values, kind)


def fields_of(table: pa.Table, column: str) -> dict[str, Any]:
    """Return a column's structs as arrays by field: numbers of NumPy, lists of the rest.

    A fixed-size list of numbers is an array (N, size).
    """
    flat = table.column(column).combine_chunks().flatten()
    found: dict[str, Any] = {}
    for field, array in zip(flat.type, flat.flatten(), strict=True):
        if pa.types.is_fixed_size_list(field.type):
            values = array.flatten().to_numpy(zero_copy_only=False)
            found[field.name] = values.reshape(-1, field.type.list_size)
        elif pa.types.is_integer(field.type):
            found[field.name] = array.to_numpy(zero_copy_only=False)
        else:
            found[field.name] = array.to_pylist()
    return found


def stacked(columns: Columns, names: Sequence[str]) -> NDArray[np.int64]:
    """Return columns of whole numbers side by side, int64 (N, sum of their widths)."""
    parts = [np.asarray(columns[name], dtype=np.int64) for name in names]
    return np.concatenate([part[:, None] if part.ndim == 1 else part for part in parts], axis=1)
