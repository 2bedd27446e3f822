"""What one image of a batch is said to be, and where it lies: classes, targets, boxes, regions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporter.explain.batches import Outcome
from exporter.records import Box, Prediction, Prepared, Region

HostBatch = Outcome[NDArray[Any]]


def predictions_of(host: HostBatch, n: int, names: Sequence[str]) -> tuple[Prediction, ...]:
    """Return the most probable classes, the best first; one without a name has its number."""
    top = zip(host.top_index[n].tolist(), host.top_score[n].tolist(), strict=True)
    return tuple(
        Prediction(index, names[index] if index < len(names) else str(index), score)
        for index, score in top
        if index >= 0
    )


def target_of(host: HostBatch, n: int, t: int) -> str | None:
    """Return how a target is stored, None where the image has none such."""
    index, other = int(host.targets[n, t]), int(host.against[n, t])
    if index < 0:
        return None
    if host.named not in ("class", "box"):
        return host.named
    return f"{host.named}:{index}" if other < 0 else f"{host.named}:{index}-{other}"


def boxes_of(host: HostBatch, n: int, image: Prepared) -> tuple[Box, ...] | None:
    """Return the predictions' boxes in the original; None where a box is no such."""
    if host.boxes is None:
        return None
    known = host.boxes[n][host.top_index[n] >= 0].astype(np.float64)
    left, top, right, bottom = image.geometry.crop
    height, width = image.view.shape[:2]
    scale = np.array([(right - left) / width, (bottom - top) / height] * 2)
    boxes = known * scale + np.array([left, top] * 2)
    if len(boxes) == 0 or not np.isfinite(boxes).all():
        return None
    return tuple((left, top, right, bottom) for left, top, right, bottom in boxes.tolist())


def regions_of(host: HostBatch, n: int) -> Iterator[Region]:
    """Yield where an image's targets are predicted; nothing of a model that gives no planes."""
    for t, region in enumerate(() if host.regions is None else host.regions[n]):
        if (target := target_of(host, n, t)) is not None:
            height, width = region.shape
            yield Region(target, height, width, np.packbits(region).tobytes())
