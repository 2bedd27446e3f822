"""What the set shows of each map method: concentration, annotations, agreement."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from exporter.summaries.agreement import pairs
from exporter.summaries.annotations import Hits
from exporter.summaries.concentration import BINS, histogram
from exporter.summaries.grids import Grid
from exporter.summaries.scope import Scope
from exporter.summaries.tally import Tally, share, whole

COUNTS: Final = (
    "images",
    "uniform",
    "measured",
    "entropy",
    "top_share",
    "annotated",
    "pointed",
    "box_energy",
    "box_overlap",
    "histogram",
)
"""Whole numbers of a (method, layer); shares in units of 2**-32, ``histogram`` of ``BINS``."""

WIDTH: Final = len(COUNTS) - 1 + BINS


def add_methods(
    tally: Tally, grid: Grid, entropy: NDArray[np.float64], top: NDArray[np.float64], inside: Hits
) -> None:
    """Add a grid's maps to their methods.

    Args:
        tally: rows of ``COUNTS`` by (method, layer).
        grid: the maps of n images.
        entropy: (n, M), NaN where undefined.
        top: top share (n, M).
        inside: measures against the annotations, (n, M) each, NaN where there is none.
    """
    values = np.zeros((len(grid.methods), WIDTH), dtype=np.int64)
    annotated = ~np.isnan(inside.pointing)
    values[:, 0] = grid.there.sum(axis=0)
    values[:, 1] = (grid.there & grid.flat).sum(axis=0)
    values[:, 2] = (~np.isnan(entropy)).sum(axis=0)
    values[:, 3] = whole(entropy).sum(axis=0)
    values[:, 4] = whole(top).sum(axis=0)
    values[:, 5] = annotated.sum(axis=0)
    values[:, 6] = np.where(annotated, inside.pointing, 0).sum(axis=0)
    values[:, 7] = whole(inside.energy).sum(axis=0)
    values[:, 8] = whole(inside.overlap).sum(axis=0)
    values[:, 9:] = [histogram(column) for column in entropy.T]
    tally.add([(method, grid.layer) for method in grid.methods], values)


def method_rows(tally: Tally, scope: Scope) -> list[dict[str, Any]]:
    """Return a row a (method, layer), in the order asked for, layers shallow to deep."""
    rows = []
    for method in scope.methods:
        for layer in ("",) if method in scope.pixel else scope.explained:
            counts = tally.of((method, layer))
            n = dict(zip(COUNTS[:-1], counts, strict=False))
            rows.append(
                {
                    "method": method,
                    "layer": layer,
                    "images": n["images"],
                    "uniform": n["uniform"],
                    "measured": n["measured"],
                    "entropy": share(n["entropy"], n["measured"]),
                    "top_share": share(n["top_share"], n["measured"]),
                    "annotated": n["annotated"],
                    "pointing": n["pointed"] / n["annotated"] if n["annotated"] else None,
                    "box_energy": share(n["box_energy"], n["annotated"]),
                    "box_overlap": share(n["box_overlap"], n["annotated"]),
                    "histogram": counts[len(COUNTS) - 1 :],
                }
            )
    return rows


def add_agreement(tally: Tally, grid: Grid, correlations: NDArray[np.float64]) -> None:
    """Add a grid's rank correlations (n, P) to their pairs of methods at the layer."""
    keys = [
        (grid.layer, grid.methods[first], grid.methods[second])
        for first, second in pairs(len(grid.methods))
    ]
    counts = (~np.isnan(correlations)).sum(axis=0)
    tally.add(keys, np.stack([counts, whole(correlations).sum(axis=0)], axis=1))


def agreement_rows(tally: Tally, scope: Scope) -> list[dict[str, Any]]:
    """Return a row a layer and pair of methods, in the order asked for."""
    rows = []
    for layer in scope.layers:
        methods = scope.methods_at(layer)
        for first, second in pairs(len(methods)):
            images, total = tally.of((layer, methods[first], methods[second]))
            rows.append(
                {
                    "layer": layer,
                    "first": methods[first],
                    "second": methods[second],
                    "images": images,
                    "correlation": share(total, images),
                }
            )
    return rows
