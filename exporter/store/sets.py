"""Reading ``set/``: what the whole set shows. A run that was made without it has none."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from exporter.errors import RunError
from exporter.records import CalibrationBin, LayerRedundancy, SetSummary, Strip
from exporter.store import layout

Record = TypeVar("Record")


def read_summary(run: Path) -> SetSummary | None:
    """Return the numbers of the set; None where the run is partial or was made without them.

    Raises:
        RunError: if the file is damaged.
    """
    file = run / layout.SET / layout.SET_SUMMARY
    if not file.exists():
        return None
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        values.setdefault("image_map", values.pop("quality_map", None))
        return SetSummary(
            **values
            | {
                "bins": tuple(CalibrationBin(**one) for one in values["bins"]),
                "image_map": tuple(values["image_map"]),
                "redundancy": tuple(LayerRedundancy(**one) for one in values["redundancy"]),
                "strips": tuple(
                    Strip(**one | {"ids": tuple(one["ids"])}) for one in values["strips"]
                ),
            }
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(file, error) from None


def read_records(
    run: Path, name: str, record: type[Record], filters: list[tuple[str, str, Any]] | None = None
) -> tuple[Record, ...]:
    """Return the rows of a table of ``set/`` as records.

    Args:
        run: the run folder.
        name: of the table, such as ``classes``.
        record: a dataclass with the table's columns.
        filters: conditions on columns, as pyarrow takes them.

    Returns:
        Nothing where the run is partial or was made without it.

    Raises:
        RunError: if the file is damaged.
    """
    file = layout.as_written(layout.set_table(run, name))
    if not file.exists():
        return ()
    try:
        rows = pq.read_table(file, filters=filters, use_threads=False).to_pylist()
        return tuple(
            record(**{k: tuple(v) if isinstance(v, list) else v for k, v in row.items()})
            for row in rows
        )
    except (OSError, pa.ArrowException, TypeError) as error:
        raise _damaged(file, error) from None


def read_parts(run: Path, shards: Sequence[int], part: str) -> Iterator[pa.Table]:
    """Yield a part of the summaries, a table per shard; shards without it are left out.

    Args:
        run: the run folder.
        shards: numbers of the shards.
        part: ``images`` or ``faithfulness``.

    Raises:
        RunError: if a file is damaged.
    """
    for index in shards:
        file = layout.as_written(layout.summary_file(run, index, part))
        if not file.exists():
            continue
        try:
            with pq.ParquetFile(file) as parquet:
                yield parquet.read(use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise _damaged(file, error) from None


def _damaged(file: Path, error: Exception) -> RunError:
    reason = str(error).split("\n", 1)[0]
    return RunError(f"{str(file)!r} is damaged ({reason}); remove it and go on with --resume")
