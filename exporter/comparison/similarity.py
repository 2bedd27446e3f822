"""How alike the maps of several runs are, image by image: rank correlation, SSIM and overlap."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from exporter.comparison.records import Compared, Stage
from exporter.records import Box, Row, StoredMap
from exporter.summaries.similarity import Alike, similarity

CELLS: Final = 28
"""Rows and columns of the maps that are compared at most; larger ones are averaged down."""


def alike(
    images: Sequence[Sequence[Row]], compared: Compared, stages: Sequence[Stage]
) -> Iterator[tuple[Stage, Alike]]:
    """Compare the maps of one method, at each of the stages.

    Where the models' views of a photograph differ, the part that both see is compared; maps of
    different sizes are averaged to the smaller one.

    Yields:
        The stage, and how alike the maps are.
    """
    rows = [replace(rows[0], maps=tuple(_together(rows, compared, stages))) for rows in images]
    measured = similarity(rows, compared.relu, [stage.name for stage in stages])
    for stage in stages:
        yield stage, measured[stage.name]


def _together(
    rows: Sequence[Row], compared: Compared, stages: Sequence[Stage]
) -> Iterator[StoredMap]:
    """Yield the maps of one image in every run, those of a stage in one size and one view."""
    seen = [first_maps(row) for row in rows]
    for stage in stages:
        there = [
            (run, kept)
            for run, place in enumerate(zip(compared.methods, stage.layers, strict=True))
            if (kept := seen[run].get(place)) is not None
        ]
        if len(there) < 2:
            continue
        crops = [rows[run].crop for run, _ in there]
        common = _common(crops)
        height = min(CELLS, *(stored.height for _, stored in there))
        width = min(CELLS, *(stored.width for _, stored in there))
        for (run, stored), crop in zip(there, crops, strict=True):
            levels = fitted(stored, crop, common, (height, width))
            yield replace(
                stored,
                method=str(run),
                layer=stage.name,
                height=height,
                width=width,
                values=levels.astype("<u2").tobytes(),
            )


def first_maps(row: Row) -> Mapping[tuple[str | None, str | None], StoredMap]:
    """Return the maps of an image by method and layer; of several targets the first counts.

    None, the method or layer of a run that has none, is the place of no map.
    """
    return {(stored.method, stored.layer): stored for stored in reversed(row.maps)}


def _common(crops: Iterable[Box | None]) -> Box | None:
    """Return the part of the original that every view shows; None where they are the same."""
    boxes = list(crops)
    known = np.array([box for box in boxes if box is not None], dtype=float)
    if len(known) < len(boxes) or not np.ptp(known, axis=0).any():
        return None
    left, top = known[:, :2].max(axis=0)
    right, bottom = known[:, 2:].min(axis=0)
    return (float(left), float(top), float(right), float(bottom))


def fitted(
    stored: StoredMap, crop: Box | None, common: Box | None, size: tuple[int, int]
) -> NDArray[np.float32]:
    """Return a map's levels over a part of its view.

    Args:
        stored: the map.
        crop: its view in the original.
        common: the part, in the original; all of the view if None.
        size: (height, width) of what is returned.

    Returns:
        float32 (height, width) in levels, averaged down or sampled between cells.
    """
    levels = np.frombuffer(stored.values, "<u2").reshape(stored.height, stored.width)
    height, width = size
    if common is None or crop is None or common == crop:
        if levels.shape == size:
            return levels.astype(np.float32)
        small = cv2.resize(levels.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
        return np.rint(small)
    across = stored.width / (crop[2] - crop[0])
    down = stored.height / (crop[3] - crop[1])
    x = (common[0] - crop[0] + (np.arange(width) + 0.5) * (common[2] - common[0]) / width) * across
    y = (common[1] - crop[1] + (np.arange(height) + 0.5) * (common[3] - common[1]) / height) * down
    grid = np.meshgrid((x - 0.5).astype(np.float32), (y - 0.5).astype(np.float32))
    sampled = cv2.remap(
        levels.astype(np.float32), *grid, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.rint(sampled)
