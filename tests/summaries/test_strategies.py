from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import SpectralClustering
from sklearn.neighbors import kneighbors_graph

from exporter.summaries import cluster


def two_places(first: int, second: int) -> np.ndarray:
    """Maps that are high at the left, and then some that are high at the right."""
    rng = np.random.default_rng(0)
    maps = rng.uniform(0, 0.1, (first + second, 4, 6))
    maps[:first, :, :2] += 0.8
    maps[first:, :, 4:] += 0.8
    return maps


def test_two_ways_of_deciding_are_two_clusters_and_the_smaller_a_candidate() -> None:
    found = cluster(two_places(11, 5), 0)
    assert [sorted(part.members) for part in found.clusters] == [list(range(11)), [*range(11, 16)]]
    small = found.clusters[1]
    assert small.candidate
    maps = two_places(11, 5)
    expected = np.corrcoef(maps[11:].mean(0).ravel(), maps[:11].mean(0).ravel())[0, 1]
    assert small.likeness == pytest.approx(expected)
    np.testing.assert_allclose(small.mean, maps[11:].mean(0))


def test_the_eigenvalues_are_those_of_the_graph() -> None:
    # Each of 5 is a neighbour of all 4 others (log₂ 10, rounded up): two complete graphs, whose
    # normalised Laplacian has the eigenvalue 0 once each, and n / (n - 1) otherwise.
    found = cluster(two_places(5, 5), 0)
    assert found.eigenvalues[:2] == pytest.approx((0, 0), abs=1e-9)
    assert found.eigenvalues[2:] == pytest.approx([1.25] * 7)
    assert len(found.clusters) == 2


def test_maps_that_are_alike_are_one_cluster_without_a_candidate() -> None:
    maps = np.tile(two_places(1, 0), (14, 1, 1)) + np.random.default_rng(1).uniform(
        0, 0.05, (14, 4, 6)
    )
    found = cluster(maps, 0)
    assert [len(part.members) for part in found.clusters] == [14]
    assert not found.clusters[0].candidate
    assert np.isnan(found.clusters[0].likeness)


def test_it_is_scikit_learns_clustering() -> None:
    rng = np.random.default_rng(3)
    maps = np.concatenate([two_places(15, 0), rng.uniform(0, 1, (15, 4, 6)), two_places(0, 12)])
    found = cluster(maps, 5)
    units = maps.reshape(len(maps), -1)
    units = units / np.linalg.norm(units, axis=1, keepdims=True)
    graph = kneighbors_graph(units, 6).toarray()  # log₂ 42, rounded up
    graph = np.maximum(graph, graph.T)
    model = SpectralClustering(len(found.clusters), affinity="precomputed", random_state=5)
    labels = model.fit_predict(graph)
    expected = {tuple(np.flatnonzero(labels == label)) for label in set(labels)}
    assert {tuple(sorted(part.members)) for part in found.clusters} == expected
    assert len(expected) > 1
