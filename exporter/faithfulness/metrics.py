"""The metrics that are built in: deletion, insertion and ROAD."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from exporter.faithfulness.imputation import NOISE, impute
from exporter.faithfulness.registry import RankedImage, metric

STEPS: Final = 16
"""Equal shares of the pixels in which an image is taken away, or brought back."""

ROAD_SHARES: Final = (0.2, 0.4, 0.6, 0.8)
"""Shares of the pixels that ROAD removes."""

_BLUR_TAPS, _BLUR_SIGMA = 11, 5.0


@metric("deletion", "Deletion AUC, 0 to 1, lower is better")
def deletion(ranked: RankedImage) -> float:
    """Return the area under the probability as the most salient pixels go.

    They are set to 0 (of the normalised input: the mean) in ``STEPS`` steps; the area is that over
    the share of pixels, by the trapezoid rule. Source: Petsiuk et al., RISE, BMVC 2018.
    """
    return _area(ranked, torch.zeros_like(ranked.image), ranked.image)


@metric("insertion", "Insertion AUC, 0 to 1, higher is better")
def insertion(ranked: RankedImage) -> float:
    """Return the area under the probability as they come back into the blurred image.

    Source: Petsiuk et al., RISE, BMVC 2018.
    """
    return _area(ranked, ranked.image, blur(ranked.image))


@metric("road", "ROAD, −0.5 to 0.5, higher is better")
def road(ranked: RankedImage) -> float:
    """Return half of the probability without the least relevant pixels less that without the most.

    Removed pixels are imputed; the mean is over ``ROAD_SHARES``. Source: Rong et al., A Consistent
    and Efficient Evaluation Strategy for Attribution Methods, ICML 2022.
    """
    pixels = ranked.ranks.numel()
    removed = torch.tensor([int(share * pixels) for share in ROAD_SHARES])
    holes = torch.cat((~_before(ranked.ranks, pixels - removed), _before(ranked.ranks, removed)))
    scores = ranked.probability(impute(ranked.image, holes, NOISE * ranked.noise))
    least, most = scores.chunk(2)
    return float((least - most).mean() / 2)


def _area(ranked: RankedImage, salient: Tensor, others: Tensor) -> float:
    """Return the area as the most salient pixels of ``others`` become those of ``salient``."""
    pixels = ranked.ranks.numel()
    counts = torch.tensor([step * pixels // STEPS for step in range(STEPS + 1)])
    variants = torch.where(_before(ranked.ranks, counts)[:, None], salient, others)
    return float(torch.trapezoid(ranked.probability(variants), counts.double() / pixels))


def _before(ranks: Tensor, counts: Tensor) -> Tensor:
    return ranks < counts.to(ranks.device)[:, None, None]


def blur(image: Tensor) -> Tensor:
    """Blur (C, H, W) with a Gaussian of 11 taps, sigma 5 pixels, edges repeated."""
    reach = _BLUR_TAPS // 2
    away = np.arange(-reach, reach + 1)
    taps = torch.from_numpy(np.exp(-(away**2) / (2 * _BLUR_SIGMA**2)))
    taps = (taps / taps.sum()).to(image.dtype).to(image.device)
    padded = functional.pad(image[None], (reach,) * 4, mode="replicate")[0].unsqueeze(1)
    rows = functional.conv2d(padded, taps.view(1, 1, -1, 1))
    return functional.conv2d(rows, taps.view(1, 1, 1, -1)).squeeze(1)
