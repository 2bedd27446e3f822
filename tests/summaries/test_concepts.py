from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import NMF

from exporter.summaries import concepts, factorise


def layers(count: int = 4) -> tuple[list[tuple[str, np.ndarray]], np.ndarray, np.ndarray]:
    """Images made of two concepts of disjoint channels, the first larger than the second."""
    rng = np.random.default_rng(0)
    where = rng.uniform(0.1, 1, (count, 2, 3, 5)).astype(np.float32)
    where[0, 1], where[1, 0] = 0, 0  # a concept that is alone in an image
    channels = np.array([[3, 4, 0, 0, 0], [0, 0, 0, 2, 0]], np.float32)
    acts = np.einsum("nkhw,kc->nchw", where, channels)
    return [(f"image {n}", each) for n, each in enumerate(acts)], where, channels


def test_concepts_that_activations_are_made_of_are_found_again() -> None:
    given, where, _ = layers()
    found = factorise(given, 2, 0)
    assert found is not None
    assert found.ids == ("image 0", "image 1", "image 2", "image 3")
    assert found.explained == pytest.approx(1, abs=2e-3)  # where scikit-learn stops
    np.testing.assert_allclose(found.channels, [[0.6, 0.8, 0, 0, 0], [0, 0, 0, 1, 0]], atol=0.25)
    # Each channel vector has length 1, so the map carries its scale: 5 for the first.
    for n, maps in enumerate(found.maps):
        np.testing.assert_allclose(maps[0], 5 * where[n, 0], atol=0.25)
        np.testing.assert_allclose(maps[1], 2 * where[n, 1], atol=0.25)
    sums = np.array([25 * (where[:, 0] ** 2).sum(), 4 * (where[:, 1] ** 2).sum()])
    np.testing.assert_allclose(found.shares, sums / sums.sum(), atol=5e-3)
    assert not found.negative


def test_it_is_scikit_learns_factorisation() -> None:
    rng = np.random.default_rng(1)
    acts = rng.uniform(-0.2, 1, (3, 6, 2, 4)).astype(np.float32)
    found = factorise([(str(n), each) for n, each in enumerate(acts)], 3, 7)
    assert found is not None and found.negative
    rows = np.maximum(acts.transpose(0, 2, 3, 1).reshape(-1, 6), 0)
    model = NMF(3, init="nndsvda", random_state=7, max_iter=concepts.ROUNDS)
    product = model.fit_transform(rows) @ model.components_
    own = np.concatenate([maps.reshape(3, -1).T for maps in found.maps]) @ found.channels
    np.testing.assert_allclose(own, product, atol=1e-5)
    assert found.explained == pytest.approx(
        1 - ((rows - product) ** 2).sum() / (rows**2).sum(), abs=1e-5
    )
    assert list(found.shares) == sorted(found.shares, reverse=True)


def test_what_does_not_fit_in_memory_or_is_not_finite_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given, _, _ = layers(6)
    monkeypatch.setattr(concepts, "MOST_VALUES", 4 * 75)
    given[1] = ("broken", np.full_like(given[1][1], np.nan))
    found = factorise(given, 2, 0)
    assert found is not None and found.ids == ("image 0", "image 2", "image 3")
    assert factorise([("black", np.zeros((5, 3, 5), np.float32))], 2, 0) is None
    assert factorise([], 2, 0) is None
