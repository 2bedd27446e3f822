"""The page of concepts: what a layer's activations over the set are made of, image by image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from exporter.render import encode_webp
from exporter.summaries import Concepts, factorise
from exporter.writers.html import text as words
from exporter.writers.html.index import CHANNELS_PER_PAGE
from exporter.writers.html.report import Report, layer_file
from exporter.writers.reading import seed_of

IMAGES = 8
"""Images of a concept."""
SHOWN = 24
"""Images that are shown with all concepts at once."""
CLASSES = 3
CHANNELS = 6
SIDE = 56

COLOURS = (
    (230, 97, 1), (94, 60, 153), (0, 136, 55), (202, 0, 32), (5, 113, 176), (255, 199, 0),
    (0, 158, 170), (190, 70, 160), (120, 94, 40), (90, 90, 90), (127, 201, 127), (140, 170, 230),
)  # fmt: skip
"""Of the concepts, by number."""


def factorised(report: Report) -> tuple[Concepts | None, str]:
    """Return the concepts, or None and, where they are wanted, a sentence why."""
    if not report.options.concepts:
        return None, ""
    stages = report.run.stages(set(report.options.kept))
    concepts = factorise(
        ((stage.id, stage.activation.array()) for stage in stages),
        report.options.concepts,
        seed_of(report.run) % 2**32,
    )
    if concepts is None:
        return None, (
            "the report has no concepts: the run keeps no layer whole, which needs a linear head "
            "that reads the deepest layer's spatial means, and a run without --no-live"
        )
    return concepts, ""


def page(report: Report) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the page."""
    concepts = report.concepts_or_why[0]
    assert concepts is not None, "there is no page without concepts"
    known = [n for n, id in enumerate(concepts.ids) if id in report.index.by_id]
    yield (
        "concepts.html",
        {
            "concepts": [_concept(report, concepts, k, known) for k in range(len(concepts.shares))],
            "mixed": [
                _figure(report, concepts.ids[n], _mixed(concepts.maps[n])) for n in known[:SHOWN]
            ],
            "whole": concepts,
            "layer": report.plan.head_layer,
            "present": len(report.index.images),
        },
    )


def _concept(report: Report, concepts: Concepts, k: int, known: list[int]) -> dict[str, Any]:
    """Return what is said of a concept: its images, the classes it speaks for, its channels."""
    peaks = {n: float(concepts.maps[n][k].max()) for n in known}
    most = max(peaks.values(), default=0.0) or 1.0
    top = sorted((n for n in known if peaks[n] > 0), key=lambda n: (-peaks[n], concepts.ids[n]))
    number = report.layer_numbers.get(report.plan.head_layer)
    channels = np.argsort(-concepts.channels[k], kind="stable")[:CHANNELS].tolist()
    return {
        "colour": _swatch(k),
        "share": float(concepts.shares[k]),
        "images": [
            _figure(report, concepts.ids[n], _faded(concepts.maps[n][k] / most, k))
            | {"peak": peaks[n]}
            for n in top[:IMAGES]
        ],
        "classes": _classes(report, concepts.channels[k]),
        "channels": [
            (
                channel,
                float(concepts.channels[k][channel]),
                None if number is None else layer_file(number, channel // CHANNELS_PER_PAGE),
            )
            for channel in channels
            if concepts.channels[k][channel] > 0
        ],
    }


def _classes(report: Report, channels: NDArray[np.float32]) -> list[tuple[str, str | None]]:
    """Return the classes whose logits the concept raises most, each with its page."""
    if report.head is None:
        return []
    raised = report.head[:, :-1] @ channels
    names, pages = report.plan.model.classes, {row.index for row in report.classes}
    best = np.argsort(-raised, kind="stable")[:CLASSES].tolist()
    return [
        (
            names[index] if index < len(names) else f"class {index}",
            f"classes/{index}.html" if index in pages else None,
        )
        for index in best
        if raised[index] > 0
    ]


def _figure(report: Report, id: str, heat: NDArray[np.uint8]) -> dict[str, Any]:
    height, width = report.plan.model.preprocessing.size
    entry = report.index.by_id[id]
    return {
        "id": id,
        "src": entry.photograph,
        "width": width,
        "height": height,
        "alt": f"Photograph {report.index.describe(entry)}, concepts over it",
        "heat": words.data_address(encode_webp(heat), "webp"),
        "name": entry.name,
    }


def _faded(shares: NDArray[np.float32], k: int) -> NDArray[np.uint8]:
    """Return one concept's colour, as opaque as its map is high, uint8 RGBA."""
    height, width = shares.shape
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    smooth = cv2.resize(np.clip(shares, 0, 1), size, interpolation=cv2.INTER_LINEAR)
    colour = np.full((*smooth.shape, 3), COLOURS[k % len(COLOURS)], np.uint8)
    return np.dstack((colour, np.rint(255 * smooth).astype(np.uint8)))


def _mixed(maps: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return where which concept is strongest, each in its colour, uint8 RGBA."""
    shares = maps / (maps.max() or 1)
    strongest = shares.argmax(0)
    layers = [_faded(np.where(strongest == k, shares[k], 0), k) for k in range(len(maps))]
    opacity = np.stack([layer[..., 3] for layer in layers])
    rows, columns = np.indices(opacity.shape[1:])
    return np.asarray(np.stack(layers)[opacity.argmax(0), rows, columns])


def _swatch(k: int) -> str:
    square = np.full((12, 12, 4), (*COLOURS[k % len(COLOURS)], 255), np.uint8)
    return words.data_address(encode_webp(square), "webp")
