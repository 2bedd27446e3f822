"""How far kernels, channels and layers of two runs are from one another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def cosines(first: Floats, second: Floats) -> NDArray[np.float64]:
    """Return the cosine of each kernel with its counterpart, (O,); NaN where one is all zero.

    Args:
        first: kernels (O, …).
        second: the same shape.
    """
    a, b = (np.asarray(x, dtype=np.float64).reshape(len(x), -1) for x in (first, second))
    return _ratio((a * b).sum(1), np.sqrt((a * a).sum(1) * (b * b).sum(1)))


def correlations(first: Floats, second: Floats) -> NDArray[np.float64]:
    """Return Pearson's correlation of each channel's pooled responses over images, (C,).

    Args:
        first: (N, C) spatial means of N images.
        second: the same images and channels.

    Returns:
        NaN for a channel that gives every image the same.
    """
    a, b = (np.asarray(x, dtype=np.float64) for x in (first, second))
    constant = (np.ptp(a, axis=0) == 0) | (np.ptp(b, axis=0) == 0)
    return np.where(constant, np.nan, cosines((a - a.mean(0)).T, (b - b.mean(0)).T))


def linear_cka(first: Floats, second: Floats) -> float | None:
    """Return the linear CKA of two layers' pooled responses, 0 to 1.

    With centred columns: ‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖), Frobenius norms (Kornblith, Norouzi, Lee and
    Hinton, Similarity of Neural Network Representations Revisited, ICML 2019).

    Args:
        first: (N, C) spatial means of N images.
        second: (N, D) of the same images.

    Returns:
        None where a layer gives every image the same.
    """
    a, b = (np.asarray(x, dtype=np.float64) for x in (first, second))
    a, b = a - a.mean(0), b - b.mean(0)
    # Of fewer images than channels the Gram matrices are smaller, and give the same.
    wide = len(a) < min(a.shape[1], b.shape[1])
    own = [x @ x.T if wide else x.T @ x for x in (a, b)]
    size = float(np.linalg.norm(own[0]) * np.linalg.norm(own[1]))
    both = float(np.vdot(*own) if wide else np.linalg.norm(b.T @ a) ** 2)
    return both / size if size > 0 else None


def _ratio(value: NDArray[np.float64], size: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(size > 0, value / size, np.nan)
