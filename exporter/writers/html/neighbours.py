"""Images that are alike to the model: neighbours for the viewer, and a page of near-duplicates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from exporter.summaries.neighbours import ALIKE, alike, embeddings, nearest
from exporter.writers.html.index import SetIndex
from exporter.writers.html.report import Report

NEAREST = 6
"""Neighbours that the viewer shows of an image."""
MOST_IMAGES = 2000
"""Images that are compared at most: the first of those that are kept."""
PAIRS = 100


class Neighbours(NamedTuple):
    """Which kept images are alike.

    Attributes:
        images: how many were compared.
        nearest: by id, the nearest others and their cosines.
        pairs: near-duplicates, the most alike first.
    """

    images: int
    nearest: dict[str, list[tuple[str, float]]]
    pairs: list[tuple[str, str, float]]

    def within(self, index: SetIndex) -> dict[int, list[tuple[int, float]]]:
        """Return the nearest by position, of the images that are in an index."""
        known = {id: entry.position for id, entry in index.by_id.items() if id in self.nearest}
        return {
            known[id]: [(known[n], round(cosine, 3)) for n, cosine in others if n in known]
            for id, others in self.nearest.items()
            if id in known
        }


def neighbours(report: Report) -> Neighbours:
    """Compare the kept images by what the linear head reads of them."""
    kept = report.options.kept[:MOST_IMAGES]
    known = embeddings(report.run, set(kept))
    ids = [id for id in kept if id in known]
    if len(ids) < 2:
        return Neighbours(len(ids), {}, [])
    values = np.stack([known[id] for id in ids])
    places, cosines = nearest(values, NEAREST)
    return Neighbours(
        len(ids),
        {
            id: [(ids[at], float(cosine)) for at, cosine in zip(*pair, strict=True)]
            for id, *pair in zip(ids, places.tolist(), cosines.tolist(), strict=True)
        },
        [(ids[first], ids[second], cosine) for first, second, cosine in alike(values)],
    )


def page(report: Report) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the page of near-duplicates."""
    height, width = report.plan.model.preprocessing.size
    size = {"width": width, "height": height, "heat": None}
    known = report.index.by_id
    pairs = []
    for first, second, cosine in report.neighbours.pairs[:PAIRS]:
        both = [known[id] for id in (first, second) if id in known]
        labels = {entry.label for entry in both}
        shown = [
            entry._asdict()
            | size
            | {"src": entry.photograph, "alt": f"Photograph {report.index.describe(entry)}"}
            for entry in both
        ]
        pairs.append({"cosine": cosine, "contradict": len(labels - {None}) > 1, "images": shown})
    yield (
        "duplicates.html",
        {
            "pairs": pairs,
            "total": len(report.neighbours.pairs),
            "compared": report.neighbours.images,
            "present": len(report.index.images),
            "least": ALIKE,
            "layer": report.plan.head_layer,
        },
    )
