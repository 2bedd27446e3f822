"""Deletion, insertion and ROAD of every map that was measured, and their means over the set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from exporter.records import Faithfulness, MethodFaithfulness, OtherMetric
from exporter.store import records_table, schema_of, table_records
from exporter.summaries.scope import Scope
from exporter.summaries.tally import Tally, share, whole

FAITHFULNESS: Final = "faithfulness"
"""Name of the part of a shard, and of the table of the set."""

FAITHFULNESS_SCHEMA: Final = schema_of(Faithfulness)
"""Columns of ``summaries/*-faithfulness.parquet``: a row per image and method."""

METHOD_FAITHFULNESS_SCHEMA: Final = schema_of(MethodFaithfulness)
"""Columns of ``set/faithfulness.parquet``: methods in the order asked for."""

_BUILT_IN: Final = ("deletion", "insertion", "road")


def faithfulness_table(measured: Sequence[Faithfulness]) -> pa.Table:
    """Return what a shard's maps came to, in plan order."""
    return records_table(measured, FAITHFULNESS_SCHEMA)


def merge_faithfulness(tables: Iterable[pa.Table], scope: Scope) -> pa.Table:
    """Return the means of each method over all shards; the same for every cut of the images."""
    images, tally = Tally(1), Tally(2)
    abouts: dict[str, str] = {}
    for table in tables:
        for row in table_records(table, Faithfulness):
            values = {name: getattr(row, name) for name in _BUILT_IN}
            values |= {metric.name: metric.value for metric in row.others}
            abouts |= {metric.name: metric.about for metric in row.others}
            known = {name: value for name, value in values.items() if value is not None}
            images.add([row.method], np.asarray([[1 if known else 0]]))
            for name, value in known.items():
                tally.add([(row.method, name)], np.asarray([[1, whole(np.asarray(value))]]))
    rows = []
    for method in scope.methods:
        if method in scope.pixel:
            continue
        means = {}
        for name in (*_BUILT_IN, *abouts):
            count, total = tally.of((method, name))
            means[name] = share(total, count)
        others = tuple(OtherMetric(name, about, means.pop(name)) for name, about in abouts.items())
        (number,) = images.of(method)
        rows.append(MethodFaithfulness(method, scope.deepest, number, **means, others=others))
    return records_table(rows, METHOD_FAITHFULNESS_SCHEMA)
