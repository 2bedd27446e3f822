"""What the page of a class says of the clusters of its maps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from exporter.render import encode_jpeg, heatmap, normalise, painted
from exporter.summaries import Strategies, cluster
from exporter.summaries.strategies import LEAST_IMAGES, MOST_IMAGES, UNLIKE
from exporter.writers.html import text as words
from exporter.writers.html.images import drawn_map
from exporter.writers.html.report import Report
from exporter.writers.html.shards import reduce_cells
from exporter.writers.reading import seed_of

IMAGES = 8
"""Images of a cluster's strip."""
CELLS = 14
"""Rows and columns that maps are averaged down to at most before they are compared."""
SIDE = 96
NONE_CLUSTERED = (
    f"the report has no strategies: no class is predicted for {LEAST_IMAGES} images or more that "
    "have a map"
)


class OfClass(NamedTuple):
    """The clusters of a class's maps.

    Attributes:
        ids: the images that were clustered.
        parted: the clusters, of places among them.
    """

    ids: tuple[str, ...]
    parted: Strategies


def of_classes(report: Report) -> dict[int, OfClass]:
    """Cluster the maps of each predicted class that has enough images; empty where not wanted."""
    if not report.options.strategies or not report.plan.methods:
        return {}
    ids: dict[int, list[str]] = defaultdict(list)
    maps: dict[int, list[NDArray[np.uint8]]] = defaultdict(list)
    for row in report.run.rows(["predictions", "maps", "error"]):
        index = row.predictions[0].index if row.predictions else None
        stored = drawn_map(report.plan, row)
        if index is None or stored is None or len(ids[index]) == MOST_IMAGES:
            continue
        levels = normalise(painted(stored), rectify=report.plan.methods[0].relu)
        if np.isfinite(levels).all():
            ids[index].append(row.id)
            maps[index].append(np.rint(255 * reduce_cells(levels[None], CELLS)[0]).astype(np.uint8))
    seed = seed_of(report.run) % 2**32
    return {
        index: OfClass(
            tuple(ids[index]),
            cluster(np.stack(each) / 255, seed),
        )
        for index, each in maps.items()
        if len(each) >= LEAST_IMAGES and len({kept.shape for kept in each}) == 1
    }


def shown_images(report: Report) -> Iterator[str]:
    """Yield the images that the strips show, with their map."""
    for ids, parted in report.strategies.values():
        for part in parted.clusters:
            yield from (ids[place] for place in part.members[:IMAGES])


def of_set(report: Report) -> list[tuple[int, int, int]]:
    """Return the classes with clusters, how many, and how many candidates, most of these first."""
    rows = [
        (index, len(each.parted.clusters), sum(part.candidate for part in each.parted.clusters))
        for index, each in report.strategies.items()
    ]
    return sorted(rows, key=lambda row: (-row[2], -row[1]))


def of_class(report: Report, index: int) -> dict[str, Any] | None:
    """Return what a class's page says of its strategies."""
    if index not in report.strategies:
        return None
    ids, parted = report.strategies[index]
    return {
        "images": len(ids),
        "eigenvalues": parted.eigenvalues,
        "unlike": UNLIKE,
        "clusters": [
            {
                "total": len(part.members),
                "candidate": part.candidate,
                "likeness": None if np.isnan(part.likeness) else part.likeness,
                "src": _mean(report, part.mean),
                "width": SIDE,
                "height": _height(report),
                "shown": [
                    report.figures[ids[place]]
                    for place in part.members[:IMAGES]
                    if ids[place] in report.figures
                ],
            }
            for part in parted.clusters
        ],
    }


def _height(report: Report) -> int:
    height, width = report.plan.model.preprocessing.size
    return round(SIDE * height / width)


def _mean(report: Report, values: NDArray[np.float64]) -> str:
    picture = encode_jpeg(heatmap(values, (SIDE, _height(report)), rectify=False))
    return words.data_address(picture, "jpeg")
