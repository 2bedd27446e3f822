"""Deletion, insertion and ROAD of every map that was measured, and their means over the set."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Final

import pyarrow as pa

from exporter.records import Faithfulness, MethodFaithfulness, OtherMetric, ratio
from exporter.store import records_table, schema_of, table_records
from exporter.summaries.scope import Scope
from exporter.summaries.sums import merging

FAITHFULNESS: Final = "faithfulness"
"""Name of the part of a shard (a row per image and method), and of the table of the set."""

_BUILT_IN: Final = ("deletion", "insertion", "road")


@merging()
def merge_faithfulness(tables: Iterable[pa.Table], scope: Scope) -> pa.Table:
    """Return the means of each method over all shards, methods in the order asked for.

    Raises:
        RunError: if another version wrote the tables.
    """
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
    for method in (method for method in scope.methods if method not in scope.pixel):
        means = {
            name: ratio(totals[method, name], counts[method, name])
            for name in (*_BUILT_IN, *abouts)
        }
        others = tuple(OtherMetric(name, about, means.pop(name)) for name, about in abouts.items())
        rows.append(
            MethodFaithfulness(method, scope.deepest, images[method], **means, others=others)
        )
    return records_table(rows, schema_of(MethodFaithfulness))
