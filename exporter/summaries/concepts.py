"""Deep Feature Factorization: the few patterns that a layer's activations over a set are sums of.

Collins, Achanta, Süsstrunk: Deep Feature Factorization for Concept Discovery, ECCV 2018. The
factorisation is scikit-learn's, which is imported when it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

MOST_VALUES: Final = 1 << 25
"""Activations that are factorised at most, 128 MiB of float32; images beyond are left out."""
ROUNDS: Final = 300


@dataclass(frozen=True)
class Concepts:
    """The concepts of a layer, those that make up most of the activations first.

    Attributes:
        ids: the images that were factorised.
        maps: of each image, how much of each concept is where, (K, height, width), not negative.
        channels: (K, C), each of length 1: what a concept is made of.
        shares: (K,), each concept's part of the squared activations that all of them explain.
        explained: 1 - ||A - MH||² / ||A||², 0 to 1.
        negative: whether activations below zero were taken for zero.
    """

    ids: tuple[str, ...]
    maps: tuple[Floats, ...]
    channels: Floats
    shares: Floats
    explained: float
    negative: bool


def factorise(layers: Iterable[tuple[str, Floats]], count: int, seed: int) -> Concepts | None:
    """Factorise the activations of a layer: A ≈ MH, M and H not negative, ||A - MH||² least.

    A has a row per image and position and a column per channel. Coordinate descent, from the
    singular vectors (NNDSVDa), `ROUNDS` rounds at most.

    Args:
        layers: the id of each image and all its channels, (C, height, width).
        count: how many concepts; at most as many as there are channels or rows.
        seed: of the decomposition that it begins with.

    Returns:
        The concepts; None where no image is active anywhere.
    """
    import warnings

    from sklearn.decomposition import NMF
    from sklearn.exceptions import ConvergenceWarning

    ids, rows, sizes, negative, values = list[str](), list[Floats](), [], False, 0
    for id, layer in layers:
        values += layer.size
        if rows and values > MOST_VALUES:
            break
        if not np.isfinite(layer).all():
            continue
        negative |= bool((layer < 0).any())
        ids.append(id)
        sizes.append(layer.shape[1:])
        rows.append(np.maximum(layer.reshape(len(layer), -1).T, 0))
    if not any(part.any() for part in rows):
        return None
    whole = np.concatenate(rows)
    model = NMF(min(count, *whole.shape), init="nndsvda", random_state=seed, max_iter=ROUNDS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        weights = model.fit_transform(whole)
    lengths = np.linalg.norm(model.components_, axis=1)
    weights = weights * lengths
    sums = (weights.astype(np.float64) ** 2).sum(0)
    order = np.argsort(-sums, kind="stable")
    cuts = np.cumsum([part.shape[0] for part in rows])[:-1]
    maps = (
        part.T.reshape(-1, *size)
        for part, size in zip(np.split(weights[:, order], cuts), sizes, strict=True)
    )
    return Concepts(
        tuple(ids),
        tuple(np.ascontiguousarray(each, np.float32) for each in maps),
        (model.components_ / np.where(lengths > 0, lengths, 1)[:, None])[order].astype(np.float32),
        (sums / sums.sum())[order].astype(np.float32),
        1 - float(model.reconstruction_err_) ** 2 / float((whole.astype(np.float64) ** 2).sum()),
        negative,
    )
