"""How alike the maps of several runs are, image by image: rank correlation, SSIM and overlap."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from exporter.comparison.records import Compared, Stage
from exporter.records import MAP_LEVELS, Box, Row, StoredMap
from exporter.summaries.grids import TOP_PERCENT, Grid, agreement, grids, normalised, pairs
from exporter.summaries.scope import Scope

CELLS: Final = 28
"""Rows and columns of the maps that are compared at most; larger ones are averaged down."""

WINDOW: Final = 7
"""Rows and columns of the windows of SSIM; of smaller maps the largest odd number that fits."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Alike:
    """How alike two runs' maps of some images are.

    Attributes:
        spearman: (n, P), a column per pair of runs; NaN where one has no map, or one of one value.
        ssim: likewise.
        iou: likewise.
    """

    spearman: Floats
    ssim: Floats
    iou: Floats


def alike(
    images: Sequence[Sequence[Row]], compared: Compared, stages: Sequence[Stage]
) -> Iterator[tuple[Stage, Alike]]:
    """Compare the maps of one method, at each of the stages.

    Where the models' views of a photograph differ, the part that both see is compared; maps of
    different sizes are averaged to the smaller one.

    Args:
        images: of each of n images its rows, one per run.
        compared: the method of each run.
        stages: where.

    Yields:
        The stage, and how alike the maps are.
    """
    runs = len(compared.methods)
    names = tuple(map(str, range(runs)))
    scope = Scope(
        methods=names,
        rectified=frozenset(name for name in names if compared.relu[int(name)]),
        pixel=frozenset(),
        explained=tuple(stage.name for stage in stages),
        deepest="",
        recorded=(),
        classes=(),
        classifies=False,
        outputs=0,
        sample=frozenset(),
    )
    rows = [replace(rows[0], maps=tuple(_together(rows, compared, stages))) for rows in images]
    shape = (len(rows), runs * (runs - 1) // 2)
    measured = {stage.name: Alike(*(np.full(shape, np.nan) for _ in range(3))) for stage in stages}
    for grid in grids(rows, scope):
        told = measured[grid.layer]
        told.spearman[grid.rows] = agreement(grid)
        told.ssim[grid.rows], told.iou[grid.rows] = _overlaps(grid)
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
        common: the part, in the original; all of the view where None.
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


def _overlaps(grid: Grid) -> tuple[Floats, Floats]:
    """Return SSIM and IoU of every pair of runs, (n, P) each."""
    first, second = np.array(pairs(len(grid.methods))).T
    unknown = grid.flat | ~grid.there
    shape = (len(grid.rows), len(first))
    similar, overlap = np.full(shape, np.nan), np.full(shape, np.nan)
    top = -(-grid.cells * TOP_PERCENT // 100)
    for block in grid.blocks():
        painted = normalised(grid, block) / MAP_LEVELS
        images = painted.reshape(*painted.shape[:2], grid.height, grid.width)
        similar[block] = ssim(images, first, second)
        levels = grid.levels[block]
        least = np.partition(levels, grid.cells - top, axis=-1)[..., grid.cells - top, None]
        overlap[block] = iou(levels >= least, first, second)
    for values in (similar, overlap):
        values[unknown[:, first] | unknown[:, second]] = np.nan
    return similar, overlap


def ssim(images: Floats, first: NDArray[np.intp], second: NDArray[np.intp]) -> Floats:
    """Return the mean structural similarity of pairs of maps in [0, 1].

    Windows of 7 × 7 cells, C₁ = 0.01², C₂ = 0.03², sample covariances, mean over all windows that
    lie inside (Wang et al., Image Quality Assessment, IEEE TIP 2004).

    Args:
        images: (n, R, H, W) in [0, 1].
        first: (P,) places of the first of each pair.
        second: (P,) places of the second.

    Returns:
        (n, P), -1 to 1; NaN for maps of a single row or column of less than three cells.
    """
    side = min(WINDOW, *images.shape[-2:])
    side -= 1 - side % 2
    n = side * side
    if n < 2:
        return np.full((len(images), len(first)), np.nan)
    mean = _windows(images, side)
    spread = (_windows(images * images, side) - mean * mean) * n / (n - 1)
    both = _windows(images[:, first] * images[:, second], side)
    a, b = mean[:, first], mean[:, second]
    covariance = (both - a * b) * n / (n - 1)
    c1, c2 = 0.01**2, 0.03**2
    value = ((2 * a * b + c1) * (2 * covariance + c2)) / (
        (a * a + b * b + c1) * (spread[:, first] + spread[:, second] + c2)
    )
    means: Floats = value.mean(axis=(-2, -1))
    return means


def _windows(images: Floats, side: int) -> Floats:
    """Return the mean of every window that lies inside, (…, H - side + 1, W - side + 1)."""
    sums = np.pad(images, [(0, 0)] * (images.ndim - 2) + [(1, 0), (1, 0)]).cumsum(-2).cumsum(-1)
    inside: Floats = (
        sums[..., side:, side:]
        - sums[..., :-side, side:]
        - sums[..., side:, :-side]
        + sums[..., :-side, :-side]
    )
    return inside / (side * side)


def iou(tops: NDArray[np.bool_], first: NDArray[np.intp], second: NDArray[np.intp]) -> Floats:
    """Return the intersection over union of pairs of sets of cells.

    Args:
        tops: (n, R, cells).
        first: (P,) places of the first of each pair.
        second: (P,) places of the second.

    Returns:
        (n, P), 0 to 1.
    """
    cells = tops.astype(np.float64)
    both = np.matmul(cells, cells.transpose(0, 2, 1))
    size = np.einsum("nrr->nr", both)
    inside = both[:, first, second]
    union = size[:, first] + size[:, second] - inside
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(union > 0, inside / union, np.nan)
