"""``run.json`` and ``set/summary.json``: what a complete run adds up to."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from exporter.records import SCHEMA_VERSION, SetSummary, Totals
from exporter.store import layout
from exporter.store.plans import read_document, validated
from exporter.store.tables import damaged, read_parquet

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
        table = read_parquet(path, _COLUMNS)
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


def read_totals(path: Path) -> Totals:
    """Read ``run.json``.

    Raises:
        RunError: if it is damaged, or was written by a newer exporter.
    """
    return validated(Totals, read_document(path), path, "remove it and go on with --resume")


def read_summary(run: Path) -> SetSummary | None:
    """Return the numbers of the set; None where the run is partial or was made without them.

    Raises:
        RunError: if the file is damaged.
    """
    file = run / layout.SET / layout.SET_SUMMARY
    if not file.exists():
        return None
    try:
        values = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise damaged(file, error) from None
    return validated(SetSummary, values, file, "remove it and go on with --resume")
