"""Rows to Arrow columns and back, a column at a time: dictionaries a row cost ten times it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, pairwise, repeat
from operator import attrgetter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from exporter.records import Prediction, Row, StoredActivation, StoredMap
from exporter.store.schema import (
    ACTIVATION_TYPE,
    IMAGE_TYPE,
    MAP_TYPE,
    PREDICTION_TYPE,
    ROW_SCHEMA,
)

_PLAIN = (
    "id",
    "key",
    "path",
    "label",
    "label_index",
    "width",
    "height",
    "loss",
    "correct",
    "mask",
    "error",
)


def rows_to_table(rows: Sequence[Row]) -> pa.Table:
    """Return the rows as a table of ``ROW_SCHEMA``, in their order.

    Args:
        rows: images; predictions, maps and activations of an image with ``error`` become null.
    """
    absent = np.array([row.error is not None for row in rows], dtype=bool)
    columns: dict[str, pa.Array] = {
        name: _plain([getattr(row, name) for row in rows], ROW_SCHEMA.field(name).type)
        for name in _PLAIN
    }
    columns["crop"] = _boxes([row.crop for row in rows])
    columns["predictions"] = _list_of_structs(
        "predictions", [row.predictions for row in rows], PREDICTION_TYPE, absent
    )
    columns["image"] = _images(rows)
    columns["maps"] = _list_of_structs("maps", [row.maps for row in rows], MAP_TYPE, absent)
    columns["activations"] = _list_of_structs(
        "activations", [row.activations for row in rows], ACTIVATION_TYPE, absent
    )
    columns["boxes"] = _list(
        ROW_SCHEMA.field("boxes").type,
        [row.boxes or () for row in rows],
        _boxes,
        np.array([row.boxes is None for row in rows], dtype=bool),
    )
    return pa.Table.from_arrays([columns[name] for name in ROW_SCHEMA.names], schema=ROW_SCHEMA)


def table_to_rows(table: pa.Table) -> Iterator[Row]:
    """Yield the rows of a table that has some or all columns of ``ROW_SCHEMA``.

    Args:
        table: whole columns; ``id``, ``key`` and ``path`` must be among them, others that are not
            are given their defaults.
    """
    readers: dict[str, Callable[[pa.Array], Iterable[Any]]] = {
        "crop": _read_boxes,
        "predictions": lambda array: _read_structs(array, Prediction),
        "image": lambda array: pc.struct_field(array, "bytes").to_pylist(),
        "maps": lambda array: _read_structs(array, StoredMap),
        "activations": lambda array: _read_structs(array, StoredActivation),
        "boxes": _read_lists_of_boxes,
    }
    names = [name for name in ROW_SCHEMA.names if name in table.column_names]
    columns = []
    for name in names:
        array = _one_chunk(table.column(name))
        columns.append(readers[name](array) if name in readers else array.to_pylist())
    for values in zip(*columns, strict=True):
        yield Row(**dict(zip(names, values, strict=True)))


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _plain(values: list[Any], kind: pa.DataType) -> pa.Array:
    try:
        return pa.array(values, kind)
    except UnicodeEncodeError:
        # A path that is not UTF-8 reaches us with surrogates; Arrow's strings can't hold those.
        return pa.array([_as_utf8(value) for value in values], kind)


def _as_utf8(text: str | None) -> str | None:
    return None if text is None else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _images(rows: Sequence[Row]) -> pa.Array:
    absent = pa.array([row.image is None for row in rows], pa.bool_())
    names = [None if row.image is None else f"{row.id}.jpg" for row in rows]
    return pa.StructArray.from_arrays(
        [pa.array([row.image for row in rows], pa.binary()), pa.array(names, pa.string())],
        fields=list(IMAGE_TYPE),
        mask=absent,
    )


def _boxes(boxes: Sequence[tuple[float, float, float, float] | None]) -> pa.Array:
    flat = np.array([box or (0.0, 0.0, 0.0, 0.0) for box in boxes], dtype=np.float32).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(
        pa.array(flat, pa.float32()),
        type=ROW_SCHEMA.field("crop").type,
        mask=pa.array([box is None for box in boxes], pa.bool_()),
    )


def _list(
    kind: pa.DataType,
    items: Sequence[Sequence[Any]],
    build: Callable[[list[Any]], pa.Array],
    absent: np.ndarray[Any, np.dtype[np.bool_]] | None = None,
) -> pa.Array:
    offsets = np.zeros(len(items) + 1, dtype=np.int32)
    np.cumsum([len(item) for item in items], out=offsets[1:])
    values = build(list(chain.from_iterable(items)))
    mask = None if absent is None or not absent.any() else pa.array(absent)
    return pa.ListArray.from_arrays(pa.array(offsets), values, type=kind, mask=mask)


def _list_of_structs(
    name: str,
    items: Sequence[Sequence[Any]],
    struct: pa.DataType,
    absent: np.ndarray[Any, np.dtype[np.bool_]],
) -> pa.Array:
    def build(flat: list[Any]) -> pa.Array:
        children = [_child(list(map(attrgetter(field.name), flat)), field) for field in struct]
        return pa.StructArray.from_arrays(children, fields=list(struct))

    return _list(ROW_SCHEMA.field(name).type, items, build, absent)


def _child(values: list[Any], field: pa.Field) -> pa.Array:
    if pa.types.is_list(field.type):
        return _list(field.type, values, lambda flat: pa.array(flat, field.type.value_type))
    return _plain(values, field.type)


def _read_structs(array: pa.Array, record: Callable[..., Any]) -> Iterator[tuple[Any, ...]]:
    structs = array.values
    # The fields of the struct are those of the record, in the same order: see the schema's test.
    children = [_read_child(structs.field(number)) for number in range(structs.type.num_fields)]
    records = list(map(record, *children))
    offsets = array.offsets.to_pylist()
    for start, stop in pairwise(offsets):
        yield tuple(records[start:stop])


def _read_child(array: pa.Array) -> Iterable[Any]:
    if pa.types.is_list(array.type):
        return map(tuple, array.to_pylist())
    return array.to_pylist()  # type: ignore[no-any-return]


def _read_boxes(array: pa.Array) -> Iterator[tuple[float, ...] | None]:
    return (None if box is None else tuple(box) for box in array.to_pylist())


def _read_lists_of_boxes(array: pa.Array) -> Iterator[tuple[tuple[float, ...], ...] | None]:
    if array.null_count == len(array):
        return iter(repeat(None, len(array)))
    return (None if boxes is None else tuple(map(tuple, boxes)) for boxes in array.to_pylist())
