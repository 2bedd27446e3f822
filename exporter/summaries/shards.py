"""What one shard adds to the set: computed from its rows and channels, before it is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from exporter.records import ChannelBatch, ImageMeasures, Row
from exporter.store import records_table, schema_of
from exporter.summaries.annotations import Coverage, Mask, coverage, hits, region_overlap
from exporter.summaries.grids import (
    Grid,
    agreement,
    concentration,
    grids,
    normalised,
    pairs,
    row_means,
)
from exporter.summaries.scope import Scope
from exporter.summaries.sums import (
    BINS,
    SET_SCHEMA,
    AgreementSums,
    MapSums,
    MethodSums,
    PooledMeans,
    ShardSums,
    add_up,
)

IMAGES_SCHEMA: Final = schema_of(ImageMeasures)
"""Columns of ``summaries/*-images.parquet``: a row per image, in plan order."""

PARTS: Final = ("set", "images")
"""Files a shard adds besides its channels': ``summaries/00000-set.parquet`` and ``…-images``."""

TOP: Final = 5
"""Predictions among which the label counts for the top-5 accuracy."""

Measured = Mapping[str, NDArray[np.float64]]
"""Measures of a grid's maps by the name of their column, (n, M) each; NaN where undefined."""


def shard_parts(
    rows: Sequence[Row],
    channels: Sequence[ChannelBatch],
    scope: Scope,
    masks: Callable[[Row], Mask | None] | None = None,
) -> dict[str, pa.Table]:
    """Return what a shard adds to the set, by the names of ``PARTS``."""
    images = _predictions(rows, scope)
    methods: dict[Any, MethodSums] = {}
    agreeing: dict[Any, AgreementSums] = {}
    maps: list[MapSums] = []
    covered, overlaps = _cover(rows, masks)
    images["region_overlap"][:] = overlaps
    for grid in grids(rows, scope):
        entropy, top_share = concentration(grid)
        measured = {"entropy": entropy, "top_share": top_share, **hits(grid, covered)._asdict()}
        correlations = agreement(grid)
        add_up(methods, _method_sums(grid, measured))
        add_up(agreeing, _agreement_sums(grid, correlations))
        if grid.layer in (scope.deepest, ""):
            maps += _map_sums(grid, images["predicted"][grid.rows], measured)
        if grid.layer == scope.deepest:
            images["agreement"][grid.rows] = row_means(correlations)
        method, layer = scope.first
        if grid.layer == layer and method in grid.methods:
            for name, values in measured.items():
                images[name][grid.rows] = values[:, grid.methods.index(method)]
    pooled = tuple(
        PooledMeans(batch.layer, id, batch.mean[number].astype("<f4").tobytes())
        for batch in channels
        for number, id in enumerate(batch.ids)
        if id in scope.sample
    )
    sums = ShardSums(tuple(methods.values()), tuple(agreeing.values()), tuple(maps), pooled)
    arrays = {name: pa.array(values, from_pandas=True) for name, values in images.items()}
    arrays["id"] = pa.array([row.id for row in rows])
    columns = [arrays[field.name].cast(field.type) for field in IMAGES_SCHEMA]
    return {
        "set": records_table([sums], SET_SCHEMA),
        "images": pa.Table.from_arrays(columns, schema=IMAGES_SCHEMA),
    }


def _predictions(rows: Sequence[Row], scope: Scope) -> dict[str, NDArray[np.float64]]:
    """Return the columns of ``IMAGES_SCHEMA`` but ``id``, NaN for null, without measures yet."""
    columns = {name: np.full(len(rows), np.nan) for name in IMAGES_SCHEMA.names if name != "id"}
    enough = min(TOP, scope.outputs or TOP)
    for n, row in enumerate(rows):
        columns["read"][n] = row.error is None
        # A single value is no class and no confidence.
        if not (scope.classifies and row.predictions):
            continue
        first = [prediction.index for prediction in row.predictions[:TOP]]
        columns["predicted"][n], columns["confidence"][n] = first[0], row.predictions[0].score
        columns["loss"][n] = np.nan if row.loss is None else row.loss
        if row.label_index is not None:
            columns["label"][n] = row.label_index
            columns["correct"][n] = row.label_index == first[0]
            if len(first) >= enough:
                columns["in_first"][n] = row.label_index in first
    return columns


def _cover(
    rows: Sequence[Row], masks: Callable[[Row], Mask | None] | None
) -> tuple[dict[tuple[int, int, int], Coverage], list[float]]:
    """Lay the annotations on maps of every size, and on predicted regions.

    A mask is read once and not kept.

    Returns:
        By position, height and width; and of each image the overlap of region and mask, or NaN.
    """
    covered, overlaps = {}, []
    for number, row in enumerate(rows):
        mask = masks(row) if masks and row.maps else None
        overlap = region_overlap(row, mask)
        overlaps.append(np.nan if overlap is None else overlap)
        for size in {(stored.height, stored.width) for stored in row.maps}:
            inside = coverage(row, *size, mask)
            if inside is not None:
                covered[number, *size] = inside
    return covered, overlaps


def _method_sums(grid: Grid, measured: Measured) -> list[MethodSums]:
    known = {name: (~np.isnan(values)).sum(axis=0) for name, values in measured.items()}
    totals = {name: np.nansum(values, axis=0) for name, values in measured.items()}
    return [
        MethodSums(
            method=method,
            layer=grid.layer,
            images=int(grid.there[:, m].sum()),
            uniform=int((grid.there & grid.flat)[:, m].sum()),
            measured=int(known["entropy"][m]),
            annotated=int(known["pointing"][m]),
            histogram=tuple(np.histogram(measured["entropy"][:, m], BINS, (0, 1))[0].tolist()),
            **{name: float(total[m]) for name, total in totals.items()},
        )
        for m, method in enumerate(grid.methods)
    ]


def _agreement_sums(grid: Grid, correlations: NDArray[np.float64]) -> list[AgreementSums]:
    known, totals = (~np.isnan(correlations)).sum(axis=0), np.nansum(correlations, axis=0)
    return [
        AgreementSums(
            grid.layer,
            grid.methods[first],
            grid.methods[second],
            int(known[pair]),
            float(totals[pair]),
        )
        for pair, (first, second) in enumerate(pairs(len(grid.methods)))
    ]


def _map_sums(grid: Grid, predicted: NDArray[np.float64], measured: Measured) -> list[MapSums]:
    """Add up a grid's painted maps by predicted class (n,), NaN for none, and method."""
    painted = np.concatenate([normalised(grid, block) for block in grid.blocks()])
    entropy, top_share = measured["entropy"], measured["top_share"]
    numbers = np.stack(
        [grid.there, ~np.isnan(entropy), np.nan_to_num(entropy), np.nan_to_num(top_share)], axis=-1
    )
    sums = []
    for index in np.unique(predicted[~np.isnan(predicted)]).astype(int).tolist():
        rows = np.flatnonzero(predicted == index)
        levels = painted[rows].sum(axis=0, dtype="<i8")
        for m, totals in enumerate(numbers[rows].sum(axis=0).tolist()):
            images, with_entropy, entropies, shares = totals
            if images:
                key = (index, grid.methods[m], grid.layer, grid.height, grid.width)
                counts = (int(images), int(with_entropy))
                sums.append(MapSums(*key, *counts, entropies, shares, levels[m].tobytes()))
    return sums
