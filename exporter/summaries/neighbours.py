"""Which images look alike to the model: cosines between what its linear head reads of each."""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.store import Run

Floats = NDArray[np.float32]

ALIKE: Final = 0.98
"""Cosine from which two images are taken for near-duplicates."""
_BLOCK: Final = 512


def embeddings(run: Run, ids: Set[str]) -> dict[str, Floats]:
    """Return what the linear head reads of each of some images: the channels' spatial means, (C,).

    Args:
        run: the run.
        ids: of images; those of which the run keeps no layer whole are left out.
    """
    means = {stage.id: stage.activation.array().mean(axis=(1, 2)) for stage in run.stages(ids)}
    return {id: values for id, values in means.items() if np.isfinite(values).all()}


def nearest(values: Floats, count: int) -> tuple[NDArray[np.intp], Floats]:
    """Return the nearest others of each row by cosine, nearest first.

    Args:
        values: (N, C); a row of zeros is like none.
        count: how many; N - 1 where there are fewer.

    Returns:
        Their places (N, count), and the cosines; of equals the first place goes first.
    """
    count = max(0, min(count, len(values) - 1))
    places = np.empty((len(values), count), np.intp)
    cosines = np.empty((len(values), count), np.float32)
    for start, block in _cosines(values):
        block[np.arange(len(block)), np.arange(start, start + len(block))] = -2
        best = np.argsort(-block, axis=1, kind="stable")[:, :count]
        places[start : start + len(block)] = best
        cosines[start : start + len(block)] = np.take_along_axis(block, best, 1)
    return places, cosines


def alike(values: Floats, least: float = ALIKE) -> list[tuple[int, int, float]]:
    """Return the pairs of rows whose cosine is ``least`` or more, the most alike first."""
    pairs = [
        (start + row, other, float(block[row, other]))
        for start, block in _cosines(values)
        for row, other in np.argwhere(block >= least).tolist()
        if start + row < other
    ]
    return sorted(pairs, key=lambda pair: (-pair[2], pair[:2]))


def _cosines(values: Floats) -> Iterator[tuple[int, Floats]]:
    """Yield the cosines of some rows with all, and the first row's place."""
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    units = (values / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    for start in range(0, len(units), _BLOCK):
        yield start, units[start : start + _BLOCK] @ units.T
