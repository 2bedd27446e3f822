"""The page of methods: what each map is, what its colours mean in numbers, how far to trust it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from exporter.summaries.sanity import UNMOVED, overall, unmoved
from exporter.writers.html import text as words
from exporter.writers.html.report import Report


def methods(report: Report) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the page of methods."""
    index, rows = report.index, report.run.methods()
    sections = [
        {
            "record": record,
            "ranges": _ranges(report, record.name),
            "flagged": sum(maps for key, maps in index.flagged.items() if key[0] == record.name),
            "concentration": [row for row in rows if row.method == record.name and row.images],
        }
        for record in report.plan.methods
    ]
    most = {record.name: index.most.get(record.pixel, 0) for record in report.plan.methods}
    sizes = dict.fromkeys(
        (h, w, most[method])
        for method, _, h, w in index.ends
        if max(h, w) > most.get(method, max(h, w))
    )
    yield (
        "methods.html",
        {
            "methods": sections,
            "images": len(index.images) - len(index.skipped),
            "agreement": _agreement(report),
            "faithfulness": _faithfulness(report),
            "sanity": _sanity(report),
            "averaged": [
                f"{words.shape((h, w))} to at most {cap} × {cap}, "
                f"{4 * cap**2 / 3000:.1f} kB per map"
                for h, w, cap in sizes
            ],
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
    """Return a symmetric matrix of rank correlations for each layer that has one of two methods."""
    layers: dict[str, dict[tuple[str, str], float | None]] = {}
    images: dict[str, int] = {}
    for row in report.run.agreement():
        pairs = layers.setdefault(row.layer, {})
        pairs[row.first, row.second] = pairs[row.second, row.first] = row.correlation
        images[row.layer] = max(row.images, images.get(row.layer, 0))
    tables = []
    for layer, pairs in layers.items():
        if not images[layer]:
            continue
        names = [name for name in report.titles if any(name == first for first, _ in pairs)]
        matrix = [
            (report.titles[a], ["self" if a == b else pairs.get((a, b)) for b in names])
            for a in names
        ]
        tables.append({"layer": layer, "images": images[layer], "rows": matrix})
    return tables


def _faithfulness(report: Report) -> dict[str, Any] | None:
    """Return how faithful each method's maps are, and the metrics of plug-ins; None if unmeasured.

    Deletion, insertion and ROAD are explained in the template.
    """
    rows = report.run.faithfulness()
    if not rows:
        return None
    table = [
        (report.titles[row.method], row, {metric.name: metric.value for metric in row.others})
        for row in rows
    ]
    others = {metric.name: metric.about or metric.name for row in rows for metric in row.others}
    return {"layer": rows[0].layer, "others": others, "rows": table}


def _sanity(report: Report) -> dict[str, Any] | None:
    """Return how like the trained model's maps those of a randomised one are; None if unmeasured.

    Two tables: of rank correlations, and of structural similarities.
    """
    rows = report.run.sanity()
    if not rows:
        return None
    means, marked = overall(rows), unmoved(rows)
    steps = {row.step: row.randomised for row in rows}
    values = {(row.method, row.step): (row.spearman, row.ssim) for row in rows}
    return {
        "seed": report.plan.settings["seed"],
        "images": max(row.images for row in rows),
        "steps": list(steps.values()),
        "threshold": UNMOVED,
        "unmoved": [report.titles[method] for method in marked],
        "tables": [
            (
                caption,
                [
                    (
                        report.titles[method],
                        method in marked,
                        [values.get((method, step), (None, None))[place] for step in steps],
                        mean[place],
                    )
                    for method, mean in means.items()
                ],
            )
            for place, caption in enumerate(("Rank correlation", "Structural similarity"))
        ],
    }
