from __future__ import annotations

from types import ModuleType

import numpy as np
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.records import Prediction, Row, StoredActivation, StoredMap
from exporter.store.schema import ROW_SCHEMA, parquet_options
from exporter.store.tables import parquet_bytes, rows_to_table, table_records

text = st.text(st.characters(codec="utf-8"), max_size=12)
real = st.floats(width=32, allow_nan=False)
box = st.tuples(real, real, real, real)
stored_maps = st.builds(
    lambda method, layer, target, side, lo, hi, flags: StoredMap(
        method, layer, target, side, side, lo, hi, bytes(2 * side * side), flags
    ),
    text,
    text,
    text,
    st.integers(1, 4),
    real,
    real,
    text,
)
stored_activations = st.builds(
    lambda layer, ends: StoredActivation(
        layer, tuple(range(len(ends))), 2, 1, tuple(ends), tuple(ends), bytes(2 * len(ends))
    ),
    text,
    st.lists(real, max_size=3),
)
rows = st.builds(
    Row,
    id=text,
    key=text,
    path=text,
    label=st.none() | text,
    label_index=st.none() | st.integers(0, 999),
    width=st.none() | st.integers(1, 9999),
    height=st.none() | st.integers(1, 9999),
    crop=st.none() | box,
    predictions=st.lists(st.builds(Prediction, st.integers(0, 9), text, real), max_size=2).map(
        tuple
    ),
    loss=st.none() | real,
    correct=st.none() | st.booleans(),
    image=st.none() | st.binary(max_size=9),
    maps=st.lists(stored_maps, max_size=3).map(tuple),
    activations=st.lists(stored_activations, max_size=2).map(tuple),
    boxes=st.none() | st.lists(box, max_size=2).map(tuple),
    mask=st.none() | text,
)
failed = st.builds(Row, id=text, key=text, path=text, error=text)


@settings(deadline=None, max_examples=60)
@given(st.lists(rows | failed, max_size=6))
def test_rows_come_back_from_the_file(given_rows: list[Row]) -> None:
    import io

    content = parquet_bytes(rows_to_table(given_rows), **parquet_options())
    table = pq.ParquetFile(io.BytesIO(content)).read()
    assert table.schema.equals(ROW_SCHEMA, check_metadata=True)
    assert list(table_records(table, Row)) == given_rows
    # A part of a table must not be taken for the whole.
    assert list(table_records(table.slice(1, 2), Row)) == given_rows[1:3]


def test_absent_is_null(sampling: ModuleType) -> None:
    table = rows_to_table([Row("a", "a", "a.jpg", error="empty file")])
    present = {"id", "key", "path", "error"}
    for name in ROW_SCHEMA.names:
        assert table.column(name).null_count == (0 if name in present else 1), name


def test_same_rows_give_the_same_bytes(sampling: ModuleType) -> None:
    plan = sampling.sample_plan()
    first, second = (
        bytes(
            parquet_bytes(
                rows_to_table(sampling.sample_rows(plan, sampling.SAMPLE_IMAGES, 2)),
                **parquet_options(),
            )
        )
        for _ in range(2)
    )
    assert first == second


def test_a_path_that_is_not_utf8_is_written_with_escapes() -> None:
    path = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    assert next(table_records(rows_to_table([Row("a", "a", path)]), Row)).path == "caf\\udce9.jpg"


def test_values_are_little_endian_row_major() -> None:
    levels = np.arange(6, dtype="<u2").reshape(2, 3)
    stored = StoredMap("m", "l", "value", 2, 3, 0.0, 65535.0, levels.tobytes())
    np.testing.assert_array_equal(stored.array(), levels)
