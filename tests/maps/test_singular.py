"""The first eigenvector without a decomposition, against torch's decomposition in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from exporter.maps import METHODS, channel_maps
from exporter.maps.eigen import first_eigenvector


def rotated(values: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A symmetric matrix with these eigenvalues, and the eigenvector of the first."""
    size = len(values)
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))[0]
    gram = basis @ torch.diag(values) @ basis.T
    return (gram + gram.T)[None] / 2, basis[:, 0]


def error(found: Tensor, expected: Tensor) -> float:
    found = found.double()
    return min((found - expected).abs().max().item(), (found + expected).abs().max().item())


def decaying(size: int, first_gap: float) -> Tensor:
    values = torch.linspace(1, 0, size, dtype=torch.float64) ** 2 * (1 - first_gap)
    values[0] = 1
    return values


SPECTRA = {
    "one pattern": torch.tensor([1.0] + [0.0] * 149, dtype=torch.float64),
    "flat but one": torch.tensor([1.0] + [0.9] * 149, dtype=torch.float64),
    "a close second": torch.tensor([1.0, 0.999] + [0.5] * 148, dtype=torch.float64),
    "a cluster": torch.cat([torch.ones(1), torch.full((10,), 0.99), torch.zeros(139)]).double(),
    "spread over 20 decades": torch.logspace(0, -20, 150, dtype=torch.float64),
    "gap of a thousandth": decaying(150, 1e-3),
    "gap of a hundred-thousandth": decaying(150, 1e-5),
}


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_adversarial_spectra_in_float64(spectrum: str, scale: float) -> None:
    gram, expected = rotated(SPECTRA[spectrum])
    assert error(first_eigenvector(gram * scale)[0], expected) < 1e-9


@pytest.mark.parametrize("spectrum", SPECTRA)
def test_adversarial_spectra_in_float32(spectrum: str) -> None:
    gram, expected = rotated(SPECTRA[spectrum])
    values = SPECTRA[spectrum]
    gap = (1 - values[1] / values[0]).item()
    # Rounding a matrix to float32 turns its first eigenvector by about eps / gap.
    for krylov in (False, True):
        found = first_eigenvector(gram.float(), krylov=krylov)[0]
        assert error(found, expected) < 3e-6 + 2e-7 / gap, krylov


def test_a_start_that_misses_a_block_still_finds_it() -> None:
    """Two blocks that do not see one another: the smaller entries hold the larger eigenvalue."""
    small = torch.full((100, 100), 0.05)  # eigenvalue 5, no entry above 0.05
    gram = torch.block_diag(torch.eye(50), small)[None]
    expected = torch.cat([torch.zeros(50), torch.full((100,), 0.1)]).double()
    for krylov in (False, True):
        assert error(first_eigenvector(gram, krylov=krylov)[0], expected) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("krylov", [False, True])
def test_equal_eigenvalues_give_a_vector_of_their_space(dtype: torch.dtype, krylov: bool) -> None:
    values = torch.cat([torch.ones(2), torch.full((148,), 0.3)]).double()
    gram, _ = rotated(values)
    found = first_eigenvector(gram.to(dtype), krylov=krylov)
    image = (gram @ found.double()[..., None])[..., 0]
    torch.testing.assert_close(image, found.double(), rtol=0, atol=2e-6)


@pytest.mark.parametrize("krylov", [False, True])
def test_zero_and_identity_do_not_break(krylov: bool) -> None:
    grams = torch.stack([torch.zeros(120, 120), torch.eye(120)])
    found = first_eigenvector(grams, krylov=krylov)
    assert (found[0] == 0).all()
    torch.testing.assert_close(torch.linalg.vector_norm(found[1]), torch.tensor(1.0))


@given(size=st.integers(1, 130), rank=st.integers(1, 40), seed=st.integers(0, 2**31 - 1))
@settings(max_examples=30, deadline=None)
def test_random_matrices_of_any_rank(size: int, rank: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    factor = torch.randn(size, rank, generator=generator, dtype=torch.float64)
    gram = (factor @ factor.T)[None]
    values, vectors = torch.linalg.eigh(gram[0])
    gap = (1 - values[-2] / values[-1]).item() if size > 1 else 1.0
    assert error(first_eigenvector(gram)[0], vectors[:, -1]) < 1e-13 + 1e-13 / max(gap, 1e-9)
    # Narrowed to a Krylov space, the vector still attains the largest eigenvalue.
    found = first_eigenvector(gram, krylov=True)[0]
    assert (found @ gram[0] @ found) > values[-1] * (1 - 1e-4)


def test_float32_eigencam_is_as_good_as_a_float32_decomposition(taken: tuple) -> None:  # type: ignore[type-arg]
    """On real layers, narrowed ones among them, against float64 SVDs of the same numbers."""
    narrowed = 0
    for layer in taken:
        activations = layer.activations.float()
        found = channel_maps([METHODS["eigencam"]], activations)["eigencam"].double()
        narrowed += min(activations.shape[1], activations[0, 0].numel()) > 100
        for one, image in zip(found, activations, strict=True):
            exact, rough = (projection(image.to(kind)) for kind in (torch.float64, torch.float32))
            span = exact.max() - exact.min()
            noise = difference(rough, exact) / span
            assert difference(one, exact) / span < max(5 * noise, 2e-6), layer.name
    assert narrowed == 0  # these layers are small: the next test takes a large one


def test_float32_eigencam_of_a_large_layer() -> None:
    generator = torch.Generator().manual_seed(3)
    coarse = torch.randn(2, 192, 4, 4, generator=generator)
    activations = torch.nn.functional.interpolate(coarse, size=16, mode="bilinear").relu()
    activations += 0.1 * torch.rand(activations.shape, generator=generator)
    found = channel_maps([METHODS["eigencam"]], activations)["eigencam"].double()
    for one, image in zip(found, activations, strict=True):
        exact = projection(image.double())
        assert difference(one, exact) < 1e-5 * (exact.max() - exact.min())


def projection(image: Tensor) -> Tensor:
    matrix = image.flatten(1).T
    matrix = matrix - matrix.mean(0)
    vector = torch.linalg.svd(matrix, full_matrices=False)[2][0]
    return (matrix @ vector).view(image.shape[1:]).double()


def difference(one: Tensor, other: Tensor) -> float:
    return min((one - other).abs().max().item(), (one + other).abs().max().item())
