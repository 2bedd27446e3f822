"""Spectral relevance analysis: what a class's maps have in common, cluster by cluster.

Lapuschkin, Wäldchen, Binder, Montavon, Samek, Müller: Unmasking Clever Hans predictors and
assessing what machines really learn, Nature Communications 2019. Neighbours and clustering are
scikit-learn's, which is imported when it is asked for.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from math import ceil, log2
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEAST_IMAGES: Final = 12
"""Images of a class below which its maps are not clustered."""
MOST_IMAGES: Final = 256
"""Images of a class that are clustered at most: the first in plan order."""
MOST_CLUSTERS: Final = 8
UNLIKE: Final = 0.5
"""Correlation of a cluster's mean map with that of the other maps below which it is a candidate."""


@dataclass(frozen=True)
class Cluster:
    """Some of a class's images, whose maps are alike.

    Attributes:
        members: their places, nearest to the cluster's mean map first.
        likeness: correlation of its mean map with that of all other images of the class, -1 to 1;
            not a number where there is none, or one is flat.
        mean: its mean map (H, W), of maps in [0, 1].
    """

    members: tuple[int, ...]
    likeness: float
    mean: Floats

    @property
    def candidate(self) -> bool:
        """Whether its images are decided by other places than the rest of the class."""
        return self.likeness < UNLIKE


@dataclass(frozen=True)
class Strategies:
    """How a class's maps fall into clusters, the largest first.

    Attributes:
        clusters: a partition of the images.
        eigenvalues: the smallest of the normalised Laplacian, ascending; the gap after the k-th
            is the largest for k clusters.
    """

    clusters: tuple[Cluster, ...]
    eigenvalues: tuple[float, ...]


def cluster(maps: NDArray[np.floating], seed: int) -> Strategies:
    """Cluster maps of one class by where they are high.

    Each map counts by its direction alone: it is scaled to length 1. Two are linked if one is among
    the other's log₂ n nearest, rounded up; the number of clusters is where the eigenvalues of the
    graph's normalised Laplacian have their largest gap, of 1 to `MOST_CLUSTERS`; spectral
    clustering then parts them.

    Args:
        maps: (n, H, W), each in [0, 1], of `LEAST_IMAGES` images or more.
        seed: of k-means among the eigenvectors.
    """
    from sklearn.cluster import SpectralClustering
    from sklearn.neighbors import kneighbors_graph

    rows = maps.reshape(len(maps), -1).astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    units = rows / np.where(lengths > 0, lengths, 1)
    graph = kneighbors_graph(units, ceil(log2(len(units)))).toarray()
    graph = np.maximum(graph, graph.T)
    eigenvalues = _eigenvalues(graph)[: MOST_CLUSTERS + 1]
    count = int(np.argmax(np.diff(eigenvalues))) + 1
    labels = np.zeros(len(rows), int)
    if count > 1:
        model = SpectralClustering(count, affinity="precomputed", random_state=seed)
        with warnings.catch_warnings():  # a graph in pieces is what the gap has found
            warnings.simplefilter("ignore")
            labels = model.fit_predict(graph)
    parts = [_cluster(np.flatnonzero(labels == label), units, maps) for label in range(count)]
    parts.sort(key=lambda part: (-len(part.members), part.members))
    return Strategies(tuple(part for part in parts if part.members), tuple(map(float, eigenvalues)))


def _eigenvalues(graph: Floats) -> Floats:
    """Return those of I - D^-1/2 W D^-1/2, ascending."""
    scale = 1 / np.sqrt(graph.sum(1))
    values = np.linalg.eigvalsh(np.eye(len(graph)) - scale[:, None] * graph * scale)
    return np.maximum(values, 0)  # none is negative but for rounding


def _cluster(members: NDArray[np.intp], units: Floats, maps: NDArray[np.floating]) -> Cluster:
    centre = units[members].mean(0) if len(members) else units[0]
    order = members[np.argsort(-(units[members] @ centre), kind="stable")]
    mean, others = maps[members].mean(0), np.delete(maps, members, 0)
    likeness = np.nan
    if len(others) and np.ptp(mean) and np.ptp(others.mean(0)):
        likeness = np.corrcoef(mean.ravel(), others.mean(0).ravel())[0, 1]
    return Cluster(tuple(order.tolist()), float(likeness), np.asarray(mean, np.float64))
