"""Deletion, insertion and ROAD of every map that was measured, and their means over the set."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

import pyarrow as pa

from exporter.records import Faithfulness, MethodFaithfulness, OtherMetric, ratio
from exporter.store import records_table, schema_of, table_records
from exporter.summaries.scope import Scope

FAITHFULNESS: Final = "faithfulness"
"""Name of the part of a shard, and of the table of the set."""

FAITHFULNESS_SCHEMA: Final = schema_of(Faithfulness)
"""Columns of ``summaries/*-faithfulness.parquet``: a row per image and method."""

METHOD_FAITHFULNESS_SCHEMA: Final = schema_of(MethodFaithfulness)
"""Columns of ``set/faithfulness.parquet``: methods in the order asked for."""

_BUILT_IN: Final = ("deletion", "insertion", "road")


def faithfulness_table(measured: Sequence[Faithfulness]) -> pa.Table:
    """Return what was measured of a shard's maps, in plan order."""
    return records_table(measured, FAITHFULNESS_SCHEMA)


def merge_faithfulness(tables: Iterable[pa.Table], scope: Scope) -> pa.Table:
    """Return the means of each method over all shards."""
    images: Counter[str] = Counter()
    counts: Counter[tuple[str, str]] = Counter()
    totals: defaultdict[tuple[str, str], float] = defaultdict(float)
    abouts: dict[str, str] = {}
    for table in tables:
        for row in table_records(table, Faithfulness):
            values = {name: getattr(row, name) for name in _BUILT_IN}
            values |= {metric.name: metric.value for metric in row.others}
            abouts |= {metric.name: metric.about for metric in row.others}
            known = {name: value for name, value in values.items() if value is not None}
            images[row.method] += bool(known)
            for name, value in known.items():
                counts[row.method, name] += 1
                totals[row.method, name] += value
    rows = []
    for method in scope.methods:
        if method in scope.pixel:
            continue
        means = {
            name: ratio(totals[method, name], counts[method, name])
            for name in (*_BUILT_IN, *abouts)
        }
        others = tuple(OtherMetric(name, about, means.pop(name)) for name, about in abouts.items())
        rows.append(
            MethodFaithfulness(method, scope.deepest, images[method], **means, others=others)
        )
    return records_table(rows, METHOD_FAITHFULNESS_SCHEMA)
