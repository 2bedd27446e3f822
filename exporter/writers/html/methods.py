"""The page of methods: what each map is, what its colours mean in numbers, how far to trust it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from exporter.writers.html import text as words
from exporter.writers.html.report import Report
from exporter.writers.html.shards import CELLS


def methods(report: Report) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the page of methods."""
    index, rows = report.index, report.run.methods()
    sections = [
        {
            "record": record,
            "ranges": _ranges(report, record.name),
            "flagged": sum(maps for key, maps in index.flagged.items() if key[0] == record.name),
            "concentration": [row for row in rows if row.method == record.name],
        }
        for record in report.plan.methods
    ]
    sizes = dict.fromkeys((h, w) for _, _, h, w in index.ends if max(h, w) > CELLS)
    yield (
        "methods.html",
        {
            "methods": sections,
            "images": len(index.ids) - len(index.skipped),
            "agreement": _agreement(report),
            "faithfulness": _faithfulness(report),
            "cap": CELLS,
            "averaged": [words.shape(size) for size in sizes],
        },
    )


def _ranges(report: Report, method: str) -> list[dict[str, Any]]:
    """Return what the ends of a method's maps are at each layer."""
    ranges = []
    for (name, layer, height, width), values in report.index.ends.items():
        if name == method:
            lo, hi = np.asarray(values).reshape(-1, 2).T
            ranges.append(
                {
                    "layer": layer,
                    "height": height,
                    "width": width,
                    "maps": len(lo),
                    "lo": float(lo.min()),
                    "median_lo": float(np.median(lo)),
                    "median_hi": float(np.median(hi)),
                    "hi": float(hi.max()),
                }
            )
    return ranges


def _agreement(report: Report) -> list[dict[str, Any]]:
    """Return a symmetric matrix of rank correlations for each layer; None where there is none."""
    titles = {method.name: method.title for method in report.plan.methods}
    layers: dict[str, dict[tuple[str, str], float | None]] = {}
    images: dict[str, int] = {}
    for row in report.run.agreement():
        pairs = layers.setdefault(row.layer, {})
        pairs[row.first, row.second] = pairs[row.second, row.first] = row.correlation
        images[row.layer] = max(row.images, images.get(row.layer, 0))
    tables = []
    for layer, pairs in layers.items():
        names = [name for name in titles if any(name == first for first, _ in pairs)]
        matrix = [
            (titles[a], ["self" if a == b else pairs.get((a, b)) for b in names]) for a in names
        ]
        tables.append({"layer": layer, "images": images[layer], "rows": matrix})
    return tables


METRICS = {
    "deletion": (
        "Deletion AUC, 0 to 1, less is better",
        "Deletion: the area under the class's probability while the most salient pixels are "
        "replaced by the mean.",
    ),
    "insertion": (
        "Insertion AUC, 0 to 1, more is better",
        "Insertion: the area under it while they come back into the blurred image.",
    ),
    "road": (
        "ROAD, −0.5 to 0.5, more is better",
        "ROAD: half of how much more probability is lost by imputing the most relevant pixels "
        "than by imputing the least relevant ones, averaged over 20, 40, 60 and 80 % of the "
        "pixels.",
    ),
}
"""Heading and explanation of the metrics that every run measures; plug-ins say their own."""


def _faithfulness(report: Report) -> dict[str, Any] | None:
    """Return how faithful each method's maps are, a column per metric; None if not measured."""
    rows = report.run.faithfulness()
    if not rows:
        return None
    titles = {method.name: method.title for method in report.plan.methods}
    others = {metric.name: metric.about or metric.name for row in rows for metric in row.others}
    headings = {name: heading for name, (heading, _) in METRICS.items()} | others
    table = []
    for row in rows:
        added = {metric.name: metric.value for metric in row.others}
        means = [getattr(row, name) for name in METRICS] + [added.get(name) for name in others]
        table.append({"title": titles[row.method], "images": row.images, "means": means})
    return {
        "layer": rows[0].layer,
        "headings": headings,
        "explanations": [explanation for _, explanation in METRICS.values()],
        "rows": table,
    }
