"""How much each method's maps change as the model is randomised, as means over the set."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import pyarrow as pa

from exporter.records import MethodSanity, SanityStep, ratio
from exporter.store import records_table, schema_of, table_records
from exporter.summaries.scope import Scope
from exporter.summaries.sums import merging

SANITY: Final = "sanity"
"""Name of the part of a shard (a row per image, method and step), and of the table of the set."""

UNMOVED: Final = 0.5
"""Mean rank correlation from which on a method's maps count as unmoved (see `overall`)."""


@merging()
def merge_sanity(tables: Iterable[pa.Table], scope: Scope) -> pa.Table:
    """Return the means of each method and step over all shards, methods in the order asked for.

    Raises:
        RunError: if another version wrote the tables.
    """
    counts: Counter[tuple[str, int, str]] = Counter()
    totals: defaultdict[tuple[str, int, str], float] = defaultdict(float)
    names: dict[tuple[str, int], tuple[str, str]] = {}
    for table in tables:
        for row in table_records(table, SanityStep):
            names[row.method, row.step] = row.layer, row.randomised
            for name, value in (("spearman", row.spearman), ("ssim", row.ssim)):
                if value is not None:
                    counts[row.method, row.step, name] += 1
                    totals[row.method, row.step, name] += value

    rows = []
    for method, step in sorted(names, key=lambda key: (scope.methods.index(key[0]), key[1])):
        spearman, ssim = (
            ratio(totals[method, step, name], counts[method, step, name])
            for name in ("spearman", "ssim")
        )
        layer, randomised = names[method, step]
        images = counts[method, step, "spearman"]
        rows.append(MethodSanity(method, layer, step, randomised, images, spearman, ssim))
    return records_table(rows, schema_of(MethodSanity))


def overall(rows: Sequence[MethodSanity]) -> Mapping[str, tuple[float | None, float | None]]:
    """Return by method the mean rank correlation and structural similarity over the steps.

    The last step is left out where there are others: nothing of the model is then as trained, and
    what still shows edges alone has moved, too.
    """
    by_method: defaultdict[str, list[MethodSanity]] = defaultdict(list)
    for row in rows:
        by_method[row.method].append(row)

    def mean(values: Iterable[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return ratio(sum(known), len(known))

    return {
        method: (
            mean(row.spearman for row in own[:-1] or own),
            mean(row.ssim for row in own[:-1] or own),
        )
        for method, own in by_method.items()
    }


def unmoved(rows: Sequence[MethodSanity]) -> tuple[str, ...]:
    """Return the methods whose maps hardly change as the model is randomised."""
    means = overall(rows).items()
    return tuple(method for method, (rank, _) in means if rank is not None and rank >= UNMOVED)
