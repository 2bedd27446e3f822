"""What one shard adds to the set: computed from its rows and channels, before it is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from exporter.records import ChannelBatch, Row
from exporter.summaries.agreement import agreement
from exporter.summaries.annotations import Hits, Mask, coverage, hits
from exporter.summaries.calibration import reliability
from exporter.summaries.class_maps import map_entries
from exporter.summaries.classes import COUNTS, add_classes, add_confusions
from exporter.summaries.concentration import concentration
from exporter.summaries.exact import to_bytes
from exporter.summaries.grids import Grid, grids
from exporter.summaries.methods import COUNTS as METHOD_COUNTS
from exporter.summaries.methods import WIDTH, add_agreement, add_methods
from exporter.summaries.nested import one_row
from exporter.summaries.predictions import Outcomes, numbers, outcomes
from exporter.summaries.redundancy import pooled_entries
from exporter.summaries.schema import IMAGES_SCHEMA, SET_SCHEMA
from exporter.summaries.scope import Scope
from exporter.summaries.tally import Tally

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
    methods, pairs, maps = Tally(WIDTH), Tally(2), []
    measures = _nothing(len(rows))
    laid_out = grids(rows, scope)
    covered = _cover(laid_out, rows, masks)
    for grid in laid_out:
        found = _measure(grid, covered)
        add_methods(methods, grid, found.entropy, found.top_share, found.inside)
        add_agreement(pairs, grid, found.correlations)
        if grid.layer in (scope.deepest, ""):
            predicted = seen.predicted[grid.rows]
            maps += map_entries(grid, predicted, found.entropy, found.top_share)
        _note(measures, grid, scope, found)
    return {
        "set": _set_table(seen, measures, (methods, pairs), maps, pooled_entries(channels, scope)),
        "images": _images_table(rows, seen, measures),
    }


def map_measures(rows: Sequence[Row], scope: Scope, masks: Masks | None = None) -> Measures:
    """Measure the maps of images, such as ``[run.row(id)]`` with ``Scope.of(run.plan)``."""
    measures = _nothing(len(rows))
    laid_out = [g for g in grids(rows, scope) if g.layer in (scope.deepest, scope.first[1])]
    covered = _cover(laid_out, rows, masks)
    for grid in laid_out:
        _note(measures, grid, scope, _measure(grid, covered))
    return measures


class _Measured(NamedTuple):
    """Measures of a grid's maps (n, M), and of its pairs of methods (n, P)."""

    entropy: NDArray[np.float64]
    top_share: NDArray[np.float64]
    correlations: NDArray[np.float64]
    inside: Hits


def _measure(grid: Grid, covered: _Covered) -> _Measured:
    return _Measured(*concentration(grid), agreement(grid), _inside(grid, covered))


def _nothing(count: int) -> Measures:
    return Measures(*(np.full(count, np.nan) for _ in range(6)))


_Covered = dict[tuple[int, int, int], tuple[NDArray[np.float32], NDArray[np.bool_]]]
"""What ``coverage`` gave, by the image's place, the map's height and its width."""


def _cover(found: Sequence[Grid], rows: Sequence[Row], masks: Masks | None) -> _Covered:
    """Lay the annotations on every grid; a mask is read once and not kept."""
    sizes: dict[int, set[tuple[int, int]]] = {}
    for grid in found:
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
    found = Hits(*(np.full(grid.there.shape, np.nan) for _ in Hits._fields))
    for place, number in enumerate(grid.rows.tolist() if covered else ()):
        laid = covered.get((number, grid.height, grid.width))
        if laid is not None:
            for all_images, one in zip(found, hits(grid, place, *laid), strict=True):
                all_images[place] = one
    return found


def _note(measures: Measures, grid: Grid, scope: Scope, found: _Measured) -> None:
    """Keep what stands for an image of what was measured of a grid."""
    if grid.layer == scope.deepest:
        known = ~np.isnan(found.correlations)
        count = known.sum(axis=1)
        total = np.where(known, found.correlations, 0).sum(axis=1)
        mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
        measures.agreement[grid.rows] = mean
    method, layer = scope.first
    if grid.layer == layer and method in grid.methods:
        place = grid.methods.index(method)
        measures.entropy[grid.rows] = found.entropy[:, place]
        measures.top_share[grid.rows] = found.top_share[:, place]
        measures.pointing[grid.rows] = found.inside.pointing[:, place]
        measures.box_energy[grid.rows] = found.inside.energy[:, place]
        measures.box_overlap[grid.rows] = found.inside.overlap[:, place]


def _set_table(
    seen: Outcomes,
    measures: Measures,
    tallies: tuple[Tally, Tally],
    maps: list[dict[str, Any]],
    pooled: list[dict[str, Any]],
) -> pa.Table:
    told = numbers(seen)
    classes, confusions = Tally(len(COUNTS)), Tally(1)
    add_classes(classes, seen, measures.entropy, measures.top_share, measures.agreement)
    add_confusions(confusions, seen)
    bins = reliability(seen)
    methods, pairs = tallies
    return one_row(
        SET_SCHEMA,
        {
            "numbers": {name: [value] for name, value in told.items()}
            | {"loss": [to_bytes(told["loss"])]},
            "bins": dict(zip(("images", "correct", "confidence"), bins.T, strict=True)),
            "classes": _keyed(classes, ("index",), COUNTS),
            "confusions": _keyed(confusions, ("label", "predicted"), ("images",)),
            "methods": _keyed(methods, ("method", "layer"), METHOD_COUNTS),
            "agreement": _keyed(pairs, ("layer", "first", "second"), ("images", "correlation")),
            "maps": _across("maps", maps),
            "pooled": _across("pooled", pooled),
        },
    )


def _keyed(tally: Tally, keys: tuple[str, ...], names: tuple[str, ...]) -> dict[str, Any]:
    """Return a tally as columns; the last name takes all the numbers that are left."""
    found, sums = tally.sorted()
    columns: dict[str, Any] = {
        name: [key[place] if isinstance(key, tuple) else key for key in found]
        for place, name in enumerate(keys)
    }
    last = len(names) - 1
    columns |= {name: sums[:, place] for place, name in enumerate(names[:last])}
    rest = sums[:, last:]
    return columns | {names[last]: rest[:, 0] if rest.shape[1] == 1 else rest}


def _across(name: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
    fields = SET_SCHEMA.field(name).type.value_type
    return {field.name: [entry[field.name] for entry in entries] for field in fields}


def _images_table(rows: Sequence[Row], seen: Outcomes, measures: Measures) -> pa.Table:
    def floats(values: NDArray[np.float64]) -> pa.Array:
        return pa.array(values.astype(np.float32), pa.float32(), mask=np.isnan(values))

    return pa.Table.from_pydict(
        {
            "id": [row.id for row in rows],
            "predicted": pa.array(seen.predicted, pa.int32(), mask=seen.predicted < 0),
            "confidence": floats(seen.confidence),
            "correct": pa.array(seen.right, mask=~seen.labelled),
            "entropy": floats(measures.entropy),
            "top_share": floats(measures.top_share),
            "agreement": floats(measures.agreement),
            "pointing": pa.array(measures.pointing == 1, mask=np.isnan(measures.pointing)),
            "box_energy": floats(measures.box_energy),
            "box_overlap": floats(measures.box_overlap),
        },
        schema=IMAGES_SCHEMA,
    )
