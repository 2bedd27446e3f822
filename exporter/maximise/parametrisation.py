"""Image parametrisations: what activation maximisation learns, and the prior that tames noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PRIORS = ("fourier", "total-variation", "none")
"""Names of the priors, see `Parametrisation`."""

_STARTS_AT = 0.01
"""Standard deviation of the noise that everything begins with."""

_AXES = ((1.0, 1.0, 1.0), (1.0, 0.0, -1.0), (-1.0, 2.0, -1.0))
"""Lightness, red against blue, green against purple (Ohta, Kanade, Sakai: Color Information for
Region Segmentation, 1980): nearly the principal axes of the colours of photographs."""

_SPREADS = (1.0, 0.32, 0.13)
"""Standard deviations along them, of the logits of pixels: those of the colour photographs in
``examples/photos``, as shares of the first."""


@dataclass(frozen=True)
class Size:
    """Of pictures: how many channels, rows and columns."""

    channels: int
    height: int
    width: int


class Parametrisation:
    """Pictures as sigmoids of parameters that are learnt, in one of three ways.

    - ``fourier``: the parameters are a spectrum, divided by the frequency, so that all frequencies
      are learnt alike; colours are learnt along axes that photographs hardly correlate. Source:
      Olah, Mordvintsev, Schubert: Feature Visualization, Distill 2017, "Preconditioning".
    - ``total-variation``: the parameters are pixels; the squared differences of neighbours cost.
      Source: Mahendran, Vedaldi: Understanding Deep Image Representations by Inverting Them, CVPR
      2015, eq. 5 with β = 2.
    - ``none``: the parameters are pixels, nothing costs. Source: Simonyan, Vedaldi, Zisserman: Deep
      Inside Convolutional Networks, ICLR workshop 2014, section 2, without its L2 term.

    Attributes:
        parameters: what is learnt, a leaf; a row per picture.
    """

    def __init__(
        self, prior: str, size: Size, seeds: Sequence[int], like: Tensor, *, weight: float
    ) -> None:
        """Begin with noise.

        Args:
            prior: one of `PRIORS`.
            size: of the pictures.
            seeds: of the noise, one per picture; so a picture does not depend on the others.
            like: a tensor of the type and on the device of the pictures.
            weight: of the total variation.
        """
        self._size = size
        self._spectral = prior == "fourier"
        self._weight = weight if prior == "total-variation" else 0.0
        shape: tuple[int, ...] = (size.channels, size.height, size.width)
        if self._spectral:
            shape = (size.channels, size.height, size.width // 2 + 1, 2)
            self._share = _on(_one_over_frequency(size), like)
        self._colours = _on(_colours(), like) if self._spectral and size.channels == 3 else None
        rows = [
            torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
            for seed in seeds
        ]
        self.parameters = _on(torch.stack(rows) * _STARTS_AT, like).requires_grad_()

    def pictures(self) -> Tensor:
        """Return the pictures, (K, C, H, W) in [0, 1], a function of the parameters."""
        logits = self.parameters
        if self._spectral:
            waves = torch.view_as_complex(logits * self._share)
            plane = (self._size.height, self._size.width)
            logits = torch.fft.irfft2(waves, s=plane, norm="ortho")
        if self._colours is not None:
            logits = torch.einsum("ij,kjhw->kihw", self._colours, logits)
        return logits.sigmoid()

    def cost(self, pictures: Tensor) -> Tensor:
        """Return the gradient of what the prior costs at the pictures, (K, C, H, W).

        Of w/8 Σ (difference of neighbours)², opposite edges being neighbours: w times the
        difference of a pixel from the mean of its four neighbours.
        """
        if not self._weight:
            return torch.zeros_like(pictures)
        beside = sum(pictures.roll(step, axis) for step in (1, -1) for axis in (2, 3)) / 4
        return self._weight * (pictures - beside)


def _on(values: Tensor, like: Tensor) -> Tensor:
    """Return values in another tensor's type, taken on the host, and then on its device."""
    return values.to(like.dtype).to(like.device)


def _one_over_frequency(size: Size) -> Tensor:
    """Return what the spectrum is multiplied with, float64 (H, W // 2 + 1, 1).

    The transform is orthonormal, so that pictures of every size begin alike.
    """
    rows = torch.fft.fftfreq(size.height, dtype=torch.float64)[:, None]
    columns = torch.fft.rfftfreq(size.width, dtype=torch.float64)[None, :]
    slowest = 1 / max(size.height, size.width)
    frequency = (rows.square() + columns.square()).sqrt().clamp_min(slowest)
    share: Tensor = (1 / frequency / 4)[..., None]
    return share


def _colours() -> Tensor:
    """Return what turns positions along the axes into red, green and blue, float64 (3, 3)."""
    axes = torch.tensor(_AXES, dtype=torch.float64)
    axes = axes / axes.norm(dim=1, keepdim=True)
    scaled: Tensor = axes.T * torch.tensor(_SPREADS, dtype=torch.float64)
    return scaled
