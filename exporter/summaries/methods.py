"""What the set shows of each map method: concentration, annotations, agreement."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from exporter.records import MethodAgreement, MethodRow, ratio
from exporter.summaries.agreement import pairs
from exporter.summaries.annotations import Hits
from exporter.summaries.concentration import histogram
from exporter.summaries.grids import Grid
from exporter.summaries.scope import Scope
from exporter.summaries.sums import AgreementSums, MethodSums


def method_sums(
    grid: Grid, entropy: NDArray[np.float64], top: NDArray[np.float64], inside: Hits
) -> list[MethodSums]:
    """Add up a grid's maps by method.

    Args:
        grid: the maps of n images.
        entropy: (n, M), NaN where undefined.
        top: top share (n, M).
        inside: measures against the annotations, (n, M) each, NaN where there is none.
    """
    return [
        MethodSums(
            method=method,
            layer=grid.layer,
            images=int(grid.there[:, m].sum()),
            uniform=int((grid.there & grid.flat)[:, m].sum()),
            measured=int((~np.isnan(entropy[:, m])).sum()),
            entropy=float(np.nansum(entropy[:, m])),
            top_share=float(np.nansum(top[:, m])),
            annotated=int((~np.isnan(inside.pointing[:, m])).sum()),
            pointed=int(np.nansum(inside.pointing[:, m])),
            box_energy=float(np.nansum(inside.energy[:, m])),
            box_overlap=float(np.nansum(inside.overlap[:, m])),
            histogram=tuple(histogram(entropy[:, m]).tolist()),
        )
        for m, method in enumerate(grid.methods)
    ]


def method_rows(sums: Mapping[tuple[str, str], MethodSums], scope: Scope) -> list[MethodRow]:
    """Return a row per (method, layer), in the order asked for, layers shallow to deep."""
    rows = []
    for method in scope.methods:
        for layer in ("",) if method in scope.pixel else scope.explained:
            n = sums.get((method, layer), MethodSums(method, layer))
            rows.append(
                MethodRow(
                    method=method,
                    layer=layer,
                    images=n.images,
                    uniform=n.uniform,
                    measured=n.measured,
                    entropy=ratio(n.entropy, n.measured),
                    top_share=ratio(n.top_share, n.measured),
                    annotated=n.annotated,
                    pointing=ratio(n.pointed, n.annotated),
                    box_energy=ratio(n.box_energy, n.annotated),
                    box_overlap=ratio(n.box_overlap, n.annotated),
                    histogram=n.histogram,
                )
            )
    return rows


def agreement_sums(grid: Grid, correlations: NDArray[np.float64]) -> list[AgreementSums]:
    """Add up a grid's rank correlations (n, P) by pair of methods."""
    return [
        AgreementSums(
            grid.layer,
            grid.methods[first],
            grid.methods[second],
            int((~np.isnan(correlations[:, pair])).sum()),
            float(np.nansum(correlations[:, pair])),
        )
        for pair, (first, second) in enumerate(pairs(len(grid.methods)))
    ]


def agreement_rows(
    sums: Mapping[tuple[str, str, str], AgreementSums], scope: Scope
) -> list[MethodAgreement]:
    """Return a row per layer and pair of methods, in the order asked for."""
    rows = []
    for layer in scope.layers:
        methods = scope.methods_at(layer)
        for first, second in pairs(len(methods)):
            key = (layer, methods[first], methods[second])
            n = sums.get(key, AgreementSums(*key))
            rows.append(MethodAgreement(*key, n.images, ratio(n.correlation, n.images)))
    return rows
