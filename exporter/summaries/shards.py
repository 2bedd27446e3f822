"""What one shard adds to the set: computed from its rows and channels, before it is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from exporter.records import ChannelBatch, ImageMeasures, Row
from exporter.store import records_table, schema_of
from exporter.summaries.agreement import agreement
from exporter.summaries.annotations import Hits, Mask, coverage, hits
from exporter.summaries.calibration import bin_sums
from exporter.summaries.class_maps import map_sums
from exporter.summaries.classes import class_sums, confusion_sums
from exporter.summaries.concentration import concentration
from exporter.summaries.grids import Grid, grids
from exporter.summaries.methods import agreement_sums, method_sums
from exporter.summaries.predictions import Outcomes, number_sums, outcomes
from exporter.summaries.redundancy import pooled_means
from exporter.summaries.scope import Scope
from exporter.summaries.sums import (
    SET_SCHEMA,
    AgreementSums,
    MapSums,
    MethodSums,
    ShardSums,
    add_up,
)

IMAGES_SCHEMA: Final = schema_of(ImageMeasures)
"""Columns of ``summaries/*-images.parquet``: a row per image, in plan order; never merged."""

PARTS: Final = ("set", "images")
"""Files a shard adds besides its channels': ``summaries/00000-set.parquet`` and ``…-images``."""

Masks = Callable[[Row], Mask | None]
"""Returns where the object of an image is, in the original photograph; None where not given."""


@dataclass(frozen=True)
class Measures:
    """What is measured of each image, float64 (N,) each; NaN where there is nothing to measure.

    All but ``agreement`` are of the first method's map at the deepest layer.

    Attributes:
        entropy: 0 where one cell has all the energy, 1 where all have the same.
        top_share: share of the energy in the top 20 % of the cells.
        agreement: mean rank correlation of the methods' maps at the deepest layer.
        pointing: 1 where the largest cell is inside the boxes or the mask, else 0.
        box_energy: share of the energy inside.
        box_overlap: intersection over union of the map's region with them.
    """

    entropy: NDArray[np.float64]
    top_share: NDArray[np.float64]
    agreement: NDArray[np.float64]
    pointing: NDArray[np.float64]
    box_energy: NDArray[np.float64]
    box_overlap: NDArray[np.float64]


def shard_parts(
    rows: Sequence[Row],
    channels: Sequence[ChannelBatch],
    scope: Scope,
    masks: Masks | None = None,
) -> dict[str, pa.Table]:
    """Return what a shard adds to the set, by the names of ``PARTS``.

    Args:
        rows: the shard's images.
        channels: its channel reductions, in plan order.
        scope: of the run's plan.
        masks: reads the mask of an image.
    """
    seen = outcomes(rows, scope)
    measures = Measures(*(np.full(len(rows), np.nan) for _ in range(6)))
    methods: dict[Any, MethodSums] = {}
    pairs: dict[Any, AgreementSums] = {}
    maps: list[MapSums] = []
    laid_out = grids(rows, scope)
    covered = _cover(laid_out, rows, masks)
    for grid in laid_out:
        measured = _measure(grid, covered)
        add_up(methods, method_sums(grid, measured.entropy, measured.top_share, measured.inside))
        add_up(pairs, agreement_sums(grid, measured.correlations))
        if grid.layer in (scope.deepest, ""):
            predicted = seen.predicted[grid.rows]
            maps += map_sums(grid, predicted, measured.entropy, measured.top_share)
        _note(measures, grid, scope, measured)
    sums = ShardSums(
        numbers=(number_sums(seen),),
        bins=tuple(bin_sums(seen)),
        classes=tuple(class_sums(seen, measures)),
        confusions=tuple(confusion_sums(seen)),
        methods=tuple(methods.values()),
        agreement=tuple(pairs.values()),
        maps=tuple(maps),
        pooled=tuple(pooled_means(channels, scope)),
    )
    return {
        "set": records_table([sums], SET_SCHEMA),
        "images": records_table(_image_measures(rows, seen, measures), IMAGES_SCHEMA),
    }


class _Measured(NamedTuple):
    """Measures of a grid's maps (n, M), and of its pairs of methods (n, P)."""

    entropy: NDArray[np.float64]
    top_share: NDArray[np.float64]
    correlations: NDArray[np.float64]
    inside: Hits


def _measure(grid: Grid, covered: _Covered) -> _Measured:
    return _Measured(*concentration(grid), agreement(grid), _inside(grid, covered))


_Covered = dict[tuple[int, int, int], tuple[NDArray[np.float32], NDArray[np.bool_]]]
"""What ``coverage`` gave, by the image's place, the map's height and its width."""


def _cover(laid_out: Sequence[Grid], rows: Sequence[Row], masks: Masks | None) -> _Covered:
    """Lay the annotations on every grid; a mask is read once and not kept."""
    sizes: dict[int, set[tuple[int, int]]] = {}
    for grid in laid_out:
        for number in grid.rows.tolist():
            if rows[number].boxes or (masks is not None and rows[number].mask is not None):
                sizes.setdefault(number, set()).add((grid.height, grid.width))
    covered: _Covered = {}
    for number, wanted in sizes.items():
        row = rows[number]
        mask = masks(row) if masks is not None and row.mask is not None else None
        for height, width in wanted:
            laid = coverage(row, height, width, mask)
            if laid is not None:
                covered[number, height, width] = laid
    return covered


def _inside(grid: Grid, covered: _Covered) -> Hits:
    every = Hits(*(np.full(grid.there.shape, np.nan) for _ in Hits._fields))
    for place, number in enumerate(grid.rows.tolist() if covered else ()):
        laid = covered.get((number, grid.height, grid.width))
        if laid is not None:
            for all_images, hit in zip(every, hits(grid, place, *laid), strict=True):
                all_images[place] = hit
    return every


def _note(measures: Measures, grid: Grid, scope: Scope, measured: _Measured) -> None:
    """Keep what stands for an image of what was measured of a grid."""
    if grid.layer == scope.deepest:
        known = ~np.isnan(measured.correlations)
        count = known.sum(axis=1)
        total = np.where(known, measured.correlations, 0).sum(axis=1)
        mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
        measures.agreement[grid.rows] = mean
    method, layer = scope.first
    if grid.layer == layer and method in grid.methods:
        place = grid.methods.index(method)
        measures.entropy[grid.rows] = measured.entropy[:, place]
        measures.top_share[grid.rows] = measured.top_share[:, place]
        measures.pointing[grid.rows] = measured.inside.pointing[:, place]
        measures.box_energy[grid.rows] = measured.inside.energy[:, place]
        measures.box_overlap[grid.rows] = measured.inside.overlap[:, place]


def _image_measures(rows: Sequence[Row], seen: Outcomes, measures: Measures) -> list[ImageMeasures]:
    def known(values: NDArray[np.float64]) -> list[float | None]:
        return [None if np.isnan(value) else value for value in values.tolist()]

    pointing = known(measures.pointing)
    return [
        ImageMeasures(*values)
        for values in zip(
            [row.id for row in rows],
            [None if index < 0 else index for index in seen.predicted.tolist()],
            known(seen.confidence),
            [
                right if labelled else None
                for right, labelled in zip(seen.right.tolist(), seen.labelled.tolist(), strict=True)
            ],
            known(measures.entropy),
            known(measures.top_share),
            known(measures.agreement),
            [None if value is None else value == 1 for value in pointing],
            known(measures.box_energy),
            known(measures.box_overlap),
            strict=True,
        )
    ]
