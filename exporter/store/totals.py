"""``run.json``: what a complete run adds up to."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from exporter.errors import RunError
from exporter.records import SCHEMA_VERSION, Totals
from exporter.store.plans import Document

_COLUMNS = (
    "path",
    "label_index",
    "correct",
    "maps.list.element.method",
    "maps.list.element.layer",
    "maps.list.element.flags",
    "error",
)


def count_totals(
    images: int, shards: Iterable[Path], checksums: Mapping[str, str], seconds: float
) -> Totals:
    """Add up the rows of a run, a shard at a time.

    Args:
        images: planned images.
        shards: every shard's file, in order.
        checksums: SHA-256 by path relative to the run.
        seconds: wall-clock time of this session's computing.
    """
    skipped: list[tuple[str, str]] = []
    labelled = correct = 0
    flagged: Counter[str] = Counter()
    for path in shards:
        with pq.ParquetFile(path) as file:
            table = file.read(columns=list(_COLUMNS), use_threads=False)
        bad = table.filter(pc.is_valid(table.column("error")))
        skipped.extend(
            zip(bad.column("path").to_pylist(), bad.column("error").to_pylist(), strict=True)
        )
        labelled += pc.sum(pc.is_valid(table.column("correct"))).as_py() or 0
        correct += pc.sum(table.column("correct")).as_py() or 0
        flagged.update(_flags(table))
    return Totals(
        images=images,
        read=images - len(skipped),
        skipped=tuple(skipped),
        labelled=labelled,
        correct=correct,
        flagged=dict(sorted(flagged.items())),
        checksums=dict(sorted(checksums.items())),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=seconds,
    )


def _flags(table: pa.Table) -> Iterable[str]:
    maps = pa.Table.from_struct_array(pc.list_flatten(table.column("maps")))
    raised = maps.filter(pc.not_equal(maps.column("flags"), ""))
    for row in raised.to_pylist():
        for flag in row["flags"].split(","):
            yield f"{row['method']} {row['layer']} {flag}"


def totals_bytes(totals: Totals) -> bytes:
    """Return the text of ``run.json``."""
    return (json.dumps({"schema": SCHEMA_VERSION} | asdict(totals), indent=1) + "\n").encode()


def read_totals(document: Document, path: Path) -> Totals:
    """Build the totals from JSON values.

    Raises:
        RunError: if something is missing or malformed.
    """
    values = {name: value for name, value in document.items() if name != "schema"}
    try:
        values["skipped"] = tuple((image, reason) for image, reason in values["skipped"])
        return Totals(**values)
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{str(path)!r} is damaged ({error}); remove it and go on with --resume"
        ) from None
