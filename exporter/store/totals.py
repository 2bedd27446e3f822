"""``run.json``: what a complete run adds up to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from exporter.records import Plan, Totals
from exporter.store.documents import AGAIN
from exporter.store.files import RunFiles
from exporter.store.layout import shard_file
from exporter.store.tables import read_parquet, reading

_COLUMNS = (
    "path",
    "label_index",
    "correct",
    "maps.list.element.method",
    "maps.list.element.layer",
    "maps.list.element.flags",
    "error",
)


def count_totals(run: RunFiles, plan: Plan, checksums: Mapping[str, str], seconds: float) -> Totals:
    """Add up the rows of a run, a shard at a time.

    Raises:
        RunError: if a shard has other columns than it should.
    """
    skipped: list[tuple[str, str]] = []
    labelled = correct = 0
    flagged: Counter[str] = Counter()
    for index in range(len(plan.shards)):
        # Its checksum fits, or the run would not be finished: to go on would leave it as it is.
        name = shard_file(index)
        table = read_parquet(run, name, _COLUMNS, AGAIN)
        with reading(run, name, AGAIN):
            bad = table.filter(pc.is_valid(table.column("error")))
            skipped.extend(
                zip(bad.column("path").to_pylist(), bad.column("error").to_pylist(), strict=True)
            )
            labelled += pc.sum(pc.is_valid(table.column("correct"))).as_py() or 0
            correct += pc.sum(table.column("correct")).as_py() or 0
            flagged.update(_flags(table))
    return Totals(
        images=len(plan.images),
        read=len(plan.images) - len(skipped),
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
