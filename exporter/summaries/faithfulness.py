"""Deletion, insertion and ROAD of every map that was measured, and their means over the set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from exporter.records import Faithfulness, MethodFaithfulness
from exporter.store import records_table, schema_of
from exporter.summaries.scope import Scope
from exporter.summaries.tally import Tally, share, whole

FAITHFULNESS: Final = "faithfulness"
"""Name of the part of a shard, and of the table of the set."""

FAITHFULNESS_SCHEMA: Final = schema_of(Faithfulness)
"""Columns of ``summaries/*-faithfulness.parquet``: a row per image and method."""

METHOD_FAITHFULNESS_SCHEMA: Final = schema_of(MethodFaithfulness)
"""Columns of ``set/faithfulness.parquet``: methods in the order asked for."""

_MEASURES: Final = ("deletion", "insertion", "road")


def faithfulness_table(measured: Sequence[Faithfulness]) -> pa.Table:
    """Return what a shard's maps came to, in plan order."""
    return records_table(measured, FAITHFULNESS_SCHEMA)


def merge_faithfulness(tables: Iterable[pa.Table], scope: Scope) -> pa.Table:
    """Return the means of each method over all shards; the same for every cut of the images."""
    tally = Tally(1 + len(_MEASURES))
    for table in tables:
        known = table.drop_null().to_pydict()
        sums = [whole(np.asarray(known[name], dtype=np.float64)) for name in _MEASURES]
        values = np.stack([np.ones(len(known["id"]), dtype=np.int64), *sums], axis=1)
        tally.add(list(zip(known["method"], known["layer"], strict=True)), values)
    rows = []
    for method in scope.methods:
        images, *totals = tally.of((method, scope.deepest))
        means = {n: share(total, images) for n, total in zip(_MEASURES, totals, strict=True)}
        if method not in scope.pixel:
            rows.append({"method": method, "layer": scope.deepest, "images": images} | means)
    return pa.Table.from_pylist(rows, schema=METHOD_FAITHFULNESS_SCHEMA)
