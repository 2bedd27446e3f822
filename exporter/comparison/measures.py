"""What is measured of each image's maps: of which methods and layers, and how it changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from exporter.comparison.aligning import at_stage
from exporter.comparison.joining import Joined
from exporter.comparison.records import Shift
from exporter.comparison.statistics import paired_interval
from exporter.records import COMBINED
from exporter.store import Run
from exporter.summaries import Scope
from exporter.summaries.grids import agreement, grids, row_means

if TYPE_CHECKING:
    from exporter.comparison.predictions import Predictions

MEASURES: Final = ("pointing", "box_energy", "entropy", "agreement")
"""What is measured of the map that stands for an image, and compared."""

FAITHFULNESS: Final = ("insertion", "deletion", "road")

MEASURED: Final = {
    "pointing": "pointing",
    "box_energy": "energy inside",
    "entropy": "entropy",
    "agreement": "agreement of the methods",
    "insertion": "insertion",
    "deletion": "deletion",
    "road": "ROAD",
}
"""What a reader calls the numbers of an image."""

_AT_ONCE: Final = 64
"""Images whose maps are in memory at a time."""

Floats = NDArray[np.float64]


class Measured(NamedTuple):
    """A number of an image, and of what: two runs are compared where all of it is the same.

    Attributes:
        measure: such as ``pointing``.
        method: the method whose map is measured; of the agreement all of them, with commas.
        stage: where the map is.
    """

    measure: str
    method: str
    stage: str


def measures_of(
    joined: Joined, at: int, own: Mapping[str, Floats]
) -> Iterator[tuple[Measured, Floats]]:
    """Yield what one run measured of the images, and of what.

    Where all runs have two layer methods in common, and a layer that corresponds, the agreement is
    that of these; elsewhere it is that of all methods of the run.

    Args:
        joined: the runs.
        at: place of the run.
        own: what its summaries say, (N,) by the names of `MEASURES`.
    """
    run = joined.runs[at]
    scope = Scope.of(run.plan)
    method, layer = scope.first
    for name in MEASURES[:-1]:
        yield Measured(name, method, _stage_of(joined, at, layer)), own[name]
    layer, values = scope.deepest, own["agreement"]
    methods = scope.methods_at(layer)
    every = [{method.name for method in plan.methods if not method.pixel} for plan in joined.plans]
    common = tuple(name for name in methods if all(name in names for names in every))
    shared = [
        stage.layers[at]
        for stage in joined.stages
        if None not in stage.layers and stage.name not in COMBINED
    ]
    if len(common) > 1 and shared and (common, shared[-1]) != (methods, layer):
        methods, layer = common, shared[-1] or ""
        narrow = replace(scope, methods=methods, pixel=frozenset(), explained=(layer,))
        values = _agreement(joined, run, narrow)
    yield Measured("agreement", ", ".join(sorted(methods)), _stage_of(joined, at, layer)), values


def _stage_of(joined: Joined, at: int, layer: str) -> str:
    """Return the name of a run's layer in the comparison, its own where no other run has it."""
    stages = (joined.pixels, *joined.stages)
    return next((stage.name for stage in stages if stage.layers[at] == layer), layer)


def _agreement(joined: Joined, run: Run, scope: Scope) -> Floats:
    """Return how far the methods of a scope agree on each image, rounded as runs keep it."""
    values = np.full(len(joined.ids), np.nan)
    rows = run.chosen(joined.ids, ("maps",))
    start = 0
    while part := list(islice(rows, _AT_ONCE)):
        for grid in grids(part, scope):
            values[start + grid.rows] = row_means(agreement(grid))
        start += len(part)
    return values.astype(np.float32).astype(np.float64)


def measured(joined: Joined, at: int, own: Predictions) -> dict[Measured, Floats]:
    """Return what one run knows of each image's maps: its measures, and their faithfulness."""
    columns = {key: values for key, values in own.measures.items() if not np.isnan(values).all()}
    for row in joined.runs[at].image_faithfulness():
        number = joined.places.get(row.id)
        for name in FAITHFULNESS if number is not None else ():
            value = getattr(row, name)
            key = Measured(name, row.method, _stage_of(joined, at, row.layer))
            column = columns.setdefault(key, np.full(len(joined.ids), np.nan))
            column[number] = np.nan if value is None else value
    return columns


def shifts(joined: Joined, predicted: Sequence[Predictions]) -> tuple[list[Shift], list[str]]:
    """Compare what is measured of each image's maps with the baseline's.

    Returns:
        The mean changes, and what is left out since the runs measured it of other maps.
    """
    values = [measured(joined, run, own) for run, own in enumerate(predicted)]
    base = values[joined.baseline]
    rows: list[Shift] = []
    notes: list[str] = []
    for run, own in enumerate(values):
        for key in own if run != joined.baseline else ():
            both = ~np.isnan(own[key] + base[key]) if key in base else np.empty(0, dtype=bool)
            if both.any():
                interval = paired_interval((own[key] - base[key])[both])
                value, before = (float(part[key][both].mean()) for part in (own, base))
                told = (run, key.measure, key.method, int(both.sum()), value, before, *interval)
                rows.append(Shift(*told, stage=key.stage))
        notes += _left_out(joined, run, base, own)
    return rows, notes


def _left_out(
    joined: Joined, run: int, base: Mapping[Measured, Floats], own: Mapping[Measured, Floats]
) -> Iterator[str]:
    """Say what both runs measured, but each of other methods or at other layers."""
    before = {key.measure: key for key in base if key.measure in MEASURES}
    told: dict[tuple[str, str], list[str]] = {}
    for key in own:
        first = before.get(key.measure, key)
        if first != key:
            maps = tuple(f"{of.method} at {at_stage(of.stage)}" for of in (first, key))
            told.setdefault((maps[0], maps[1]), []).append(MEASURED[key.measure])
    for (first_maps, own_maps), names in told.items():
        yield (
            f"not compared: {', '.join(names)}, which {joined.names[joined.baseline]} has of "
            f"{first_maps}, and {joined.names[run]} of {own_maps}"
        )
