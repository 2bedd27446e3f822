"""What does not fit in the shards' parts is one sentence; a fault of ours is not taken for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from exporter.errors import RunError
from exporter.summaries import Scope, merge_channels, merge_set, sets


def leaves(kind: pa.DataType, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to each value that a column's first row has, lists and structs among them."""
    yield path
    if pa.types.is_struct(kind):
        for field in kind:
            yield from leaves(field.type, (*path, field.name))
    elif pa.types.is_nested(kind):
        yield from leaves(kind.value_type, (*path, 0))


def without(table: pa.Table, column: str, path: tuple[Any, ...]) -> pa.Table | None:
    """Return the table with null at one place of its first row; None if that has no such place."""
    rows = table.column(column).to_pylist()
    place: Any = rows
    try:
        for step in (0, *path)[:-1]:
            place = place[step]
        place[(0, *path)[-1]] = None
    except (IndexError, TypeError):
        return None
    field = table.field(column)
    return table.set_column(table.column_names.index(column), field, pa.array(rows, field.type))


def test_a_value_that_is_missing_is_one_sentence_wherever_it_is(
    sample_run: Path, sampling: ModuleType
) -> None:
    scope = Scope.of(sampling.sample_plan())
    whole = {
        part: pq.ParquetFile(sample_run / f"summaries/00000{part and '-'}{part}.parquet").read()
        for part in ("", "set", "images")
    }
    refused = set()
    for part, table in whole.items():
        for field in table.schema:
            for path in leaves(field.type):
                harmed = without(table, field.name, path)
                if harmed is None:
                    continue
                parts = {**whole, part: harmed}

                def read(name: str, columns: Any) -> Iterator[pa.Table]:
                    del columns
                    return iter([parts[name]])  # noqa: B023

                try:
                    merge_set(read, scope)
                    merge_channels([parts[""], parts[""]])
                except RunError as error:
                    assert "written by another version (" in str(error)
                    refused.add((part, field.name, *path))
    assert {("", "dead"), ("", "top", 0), ("", "top_places", 0, "x"), ("images", "id")} <= refused
    assert {("set", "maps", 0, name) for name in ("sums", "height", "index")} <= refused
    assert {("set", "methods", 0, "histogram", 0), ("set", "pooled", 0, "means")} <= refused
    assert ("images", "loss") not in refused


@pytest.mark.parametrize("error", [AttributeError("ours"), TypeError("ours")])
def test_a_fault_of_ours_is_no_damage(
    sample_run: Path,
    sampling: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(sets, "class_rows", broken)

    def read(part: str, _: object) -> Iterator[pa.Table]:
        return iter([pq.ParquetFile(sample_run / f"summaries/00000-{part}.parquet").read()])

    with pytest.raises(type(error), match="ours"):
        merge_set(read, Scope.of(sampling.sample_plan()))
