"""How faithful maps are to the model: deletion, insertion and ROAD, by running it on variants.

An image is measured alone, its variants in batches of one size, and its noise is drawn from the
run's seed and its contents: so a value does not depend on the images that came with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from exporter.explain import Explainer, HostBatch
from exporter.faithfulness.imputation import NOISE, impute
from exporter.records import Faithfulness, Row

if TYPE_CHECKING:
    from exporter.engines.job import Job

STEPS: Final = 16
"""Equal shares of the pixels in which an image is taken away, or brought back."""

ROAD_SHARES: Final = (0.2, 0.4, 0.6, 0.8)
"""Shares of the pixels that ROAD removes."""

_VARIANTS_A_PASS = 16
_BLUR_TAPS, _BLUR_SIGMA = 11, 5.0

Probability = Callable[[Tensor], Tensor]
"""From inputs (V, C, H, W) to the probability of the explained class (V,)."""


class Scores(NamedTuple):
    """Deletion and insertion AUC, 0 to 1, and ROAD, -0.5 to 0.5."""

    deletion: float
    insertion: float
    road: float


def measure(
    job: Job,
    explainer: Explainer,
    rows: Sequence[Row],
    host: HostBatch,
    view: Callable[[int], Tensor],
) -> Iterator[Faithfulness]:
    """Measure the maps of a batch at the deepest explained layer, of each image's first target.

    Args:
        job: the work.
        explainer: around the model, or a replica of it.
        rows: the images that were explained, with their maps.
        host: what was explained of them.
        view: gives an image's input, (1, C, H, W), on the device.

    Yields:
        One an image and method; without values where the output has no probabilities of classes,
        or the map orders no pixels (it has one value everywhere, or one that is no number).
    """
    rectified = {method.name for method in job.plan.methods if method.relu}
    if not job.plan.explained:
        return
    layer = job.plan.explained[-1]
    for n, row in enumerate(rows):
        first = [one for one in row.maps if one.layer == layer and one.target == row.maps[0].target]
        if not first:
            continue
        image = view(n)
        likely = _probability(explainer, host, n, image)
        noise = _noise(image[0], f"{job.plan.settings['seed']} {row.key}")
        for stored in first:
            values = stored.array()
            values = np.maximum(values, 0) if stored.method in rectified else values
            found = None
            if likely is not None and np.isfinite(values).all() and values.min() < values.max():
                found = score(likely, image[0], values, noise, channels_last=job.channels_last)
            yield Faithfulness(row.id, stored.method, layer, *(found or (None, None, None)))


def _probability(
    explainer: Explainer, host: HostBatch, n: int, image: Tensor
) -> Probability | None:
    index = int(host.targets[n, 0])
    if host.named != "class" or index < 0 or explainer.probability(image, index) is None:
        return None

    def likely(inputs: Tensor) -> Tensor:
        found = explainer.probability(inputs, index)
        assert found is not None
        return found

    return likely


def score(
    probability: Probability,
    image: Tensor,
    values: NDArray[np.float32],
    noise: Tensor,
    *,
    channels_last: bool = False,
) -> Scores:
    """Measure one map of one image.

    Deletion and insertion are those of Petsiuk et al., RISE, BMVC 2018: the most salient pixels are
    set to 0 (of the normalised input: the mean) or brought back into the blurred image, in
    ``STEPS`` steps; the area under the probability over the share of pixels, by the trapezoid rule.
    ROAD is that of Rong et al. 2022: pixels are imputed, and the score is the mean over
    ``ROAD_SHARES`` of half of the probability without the least relevant less that without the most
    relevant ones.

    Args:
        probability: of the explained class.
        image: (C, H, W), the model's input.
        values: the map (h, w), rectified where its method says so.
        noise: (C, H, W), added to imputed pixels.
        channels_last: the memory layout of what the model is given.
    """
    height, width = image.shape[-2:]
    pixels = height * width
    ranks = rank(torch.from_numpy(enlarge(values, height, width)).to(image.device))
    counts = torch.tensor([step * pixels // STEPS for step in range(STEPS + 1)])
    salient = _before(ranks, counts)
    removed = torch.tensor([int(share * pixels) for share in ROAD_SHARES])
    holes = torch.cat((~_before(ranks, pixels - removed), _before(ranks, removed)))
    variants = torch.cat(
        (
            torch.where(salient[:, None], torch.zeros_like(image), image),
            torch.where(salient[:, None], image, blur(image)),
            impute(image, holes, noise),
        )
    )
    layout = torch.channels_last if channels_last else torch.contiguous_format
    likely = torch.cat(
        [
            probability(part.contiguous(memory_format=layout)).double()
            for part in torch.split(variants, _VARIANTS_A_PASS)
        ]
    )
    lengths = [STEPS + 1, STEPS + 1, len(ROAD_SHARES), len(ROAD_SHARES)]
    deleted, inserted, least, most = torch.split(likely.cpu(), lengths)
    shares = counts.double() / pixels
    return Scores(
        float(torch.trapezoid(deleted, shares)),
        float(torch.trapezoid(inserted, shares)),
        float((least - most).mean() / 2),
    )


def enlarge(values: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Sample a map bilinearly at pixels (half-pixel centres, edges repeated), (height, width).

    It is computed in float64 and rounded once, so that values which are equal stay equal.
    """
    rows, columns = _weights(values.shape[0], height), _weights(values.shape[1], width)
    return np.asarray(rows @ values.astype(np.float64) @ columns.T, dtype=np.float32)


def _weights(cells: int, pixels: int) -> NDArray[np.float64]:
    places = np.clip((np.arange(pixels) + 0.5) * cells / pixels - 0.5, 0, cells - 1)
    weights: NDArray[np.float64] = np.maximum(0.0, 1 - np.abs(places[:, None] - np.arange(cells)))
    return weights


def rank(values: Tensor) -> Tensor:
    """Return each pixel's rank (H, W), 0 the largest; of equals the first, row by row, leads."""
    order = values.flatten().sort(descending=True, stable=True).indices
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(order), device=order.device)
    return ranks.view(values.shape)


def _before(ranks: Tensor, counts: Tensor) -> Tensor:
    return ranks < counts.to(ranks.device)[:, None, None]


def blur(image: Tensor) -> Tensor:
    """Blur (C, H, W) with a Gaussian of 11 taps, sigma 5 pixels, edges repeated."""
    reach = _BLUR_TAPS // 2
    away = np.arange(-reach, reach + 1)
    taps = np.exp(-(away**2) / (2 * _BLUR_SIGMA**2))
    taps /= taps.sum()
    padded = functional.pad(image[None], (reach,) * 4, mode="replicate")[0]
    height, width = image.shape[-2:]
    rows = torch.zeros_like(padded[:, :height])
    for n, tap in enumerate(taps.tolist()):
        rows += tap * padded[:, n : n + height]
    blurred = torch.zeros_like(image)
    for n, tap in enumerate(taps.tolist()):
        blurred += tap * rows[..., n : n + width]
    return blurred


def _noise(image: Tensor, name: str) -> Tensor:
    seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=7).digest(), "little")
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(image.shape, generator=generator)
    return NOISE * drawn.to(image.device, image.dtype)
