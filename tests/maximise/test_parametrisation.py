"""What is learnt, against the formulas of the priors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from exporter.maximise.parametrisation import PRIORS, Parametrisation, Size

USUAL = Size(3, 12, 16)
LIKE = torch.empty(0, dtype=torch.float64)


def parametrisation(prior: str, size: Size = USUAL, weight: float = 0.0) -> Parametrisation:
    return Parametrisation(prior, size, [0, 7], LIKE, weight=weight)


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("size", [Size(3, 12, 16), Size(1, 9, 7)])
def test_pictures_begin_as_faint_noise_in_the_size_asked_for(prior: str, size: Size) -> None:
    pictures = parametrisation(prior, size).pictures()
    assert pictures.shape == (2, *vars(size).values())
    assert 0 < (pictures - 0.5).abs().max() < 0.2
    assert not torch.equal(pictures[0], pictures[1])


@pytest.mark.parametrize("prior", PRIORS)
def test_a_picture_is_its_seeds_whichever_others_there_are(prior: str) -> None:
    alone = Parametrisation(prior, USUAL, [7], LIKE, weight=0.0)
    assert torch.equal(alone.pictures()[0], parametrisation(prior).pictures()[1])


def test_the_spectrum_is_divided_by_the_frequency() -> None:
    """One step of size 1 in every wave moves a wave of frequency f by 1 / (4 f)."""
    made = parametrisation("fourier", Size(1, 16, 16))
    with torch.no_grad():
        made.parameters.zero_()
        made.parameters[0, 0, 0, 2, 0] = 1  # two waves across
        made.parameters[1, 0, 0, 4, 0] = 1  # four
    logits = torch.logit(made.pictures()[:, 0])
    spectra = torch.fft.rfft2(logits, norm="ortho").abs()
    # A real wave's energy is in itself and in its mirror image, which rfft2 leaves out.
    assert spectra[0, 0, 2].item() == pytest.approx(16 / 2 / 4)
    assert spectra[1, 0, 4].item() == pytest.approx(16 / 4 / 4)


def test_colours_are_learnt_along_uncorrelated_axes_of_the_stated_spread() -> None:
    made = Parametrisation("fourier", Size(3, 48, 48), range(40), LIKE, weight=0.0)
    logits = torch.logit(made.pictures().detach()).transpose(0, 1).flatten(1)
    axes = torch.tensor([[1, 1, 1], [1, 0, -1], [-1, 2, -1]], dtype=torch.float64)
    along = axes / axes.norm(dim=1, keepdim=True) @ logits
    spread = along.std(1).detach()
    np.testing.assert_allclose(spread / spread[0], [1, 0.32, 0.13], rtol=0.05)
    assert torch.corrcoef(along).fill_diagonal_(0).abs().max() < 0.1


def test_the_cost_is_the_gradient_of_the_total_variation() -> None:
    made = parametrisation("total-variation", weight=3.0)
    pictures = torch.rand(2, 3, 12, 16, dtype=torch.float64, requires_grad=True)
    steps = torch.stack([pictures - pictures.roll(1, axis) for axis in (2, 3)])
    energy = steps.square().sum() * 3 / 8
    (gradient,) = torch.autograd.grad(energy, [pictures])
    torch.testing.assert_close(made.cost(pictures.detach()), gradient)


@pytest.mark.parametrize("prior", ["fourier", "none"])
def test_other_priors_cost_nothing(prior: str) -> None:
    assert not parametrisation(prior, weight=3.0).cost(torch.rand(2, 3, 12, 16)).any()
