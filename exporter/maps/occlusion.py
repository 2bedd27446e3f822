"""Pixel methods that cover parts of the image and watch the target: occlusion and RISE."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from exporter.errors import MapError
from exporter.maps.context import PassContext
from exporter.maps.needs import Needs, Passes
from exporter.maps.registry import method


@method(
    "occlusion",
    title="Occlusion",
    shows="How far the target falls when a window of the image is covered.",
    formula="M(x,y) = mean over the windows W that cover (x,y) of S(I) − S(I with W set to 0),"
    " I the normalised input, so windows have the mean colour",
    paper="Zeiler, Fergus: Visualizing and Understanding Convolutional Networks, ECCV 2014",
    url="https://arxiv.org/abs/1311.2901",
    cost="one forward pass per window (49 at the default size), no backward pass",
    caveats="It sees only what a window of this size can hide, evidence that occurs twice is"
    " missed, and a covered image is unlike those that the model was trained on.",
    pixel="sum",
    needs=Needs(
        activations=False,
        passes=Passes(
            forwards="per window",
            of="the image with that window covered",
            least={"window": 0.99, "stride": 0.99},
        ),
    ),
    kind="pass",
)
def occlusion(context: PassContext, window: float = 0.25, stride: float = 0.125) -> Tensor:
    """Return the mean fall of each target over the windows that cover a pixel, (N, T, 1, H, W).

    Windows begin at multiples of the stride, from the top left until one reaches the edge, where
    they are cut. They are set to 0 in normalised space, in all channels. A pixel that no window
    covers, where the stride is larger than the window, is 0. No epsilon. Source: Zeiler and Fergus
    2014, section 4.2.

    Args:
        context: the batch.
        window: side of a window, in pixels, or if below 1 a share of the shorter side.
        stride: pixels, or a share of the shorter side, from one window to the next.
    """
    inputs = context.inputs
    height, width = inputs.shape[-2:]
    windows = window_places(height, width, window, stride)
    wide = torch.promote_types(inputs.dtype, torch.float32)
    whole = context.values(inputs).to(wide)
    falls = whole.new_zeros(*whole.shape, height, width)
    covers = whole.new_zeros(height, width)
    for part in context.portions(len(windows)):
        covered = inputs.unsqueeze(0).repeat(len(windows[part]), 1, 1, 1, 1)
        for variant, (rows, columns) in zip(covered, windows[part], strict=True):
            variant[..., rows, columns] = 0
        scores = torch.split(context.values(covered.flatten(0, 1)), len(inputs))
        for score, (rows, columns) in zip(scores, windows[part], strict=True):
            falls[..., rows, columns] += (whole - score)[..., None, None]
            covers[rows, columns] += 1
    return torch.div(falls, covers.clamp_min(1)).unsqueeze(2)


def window_places(
    height: int, width: int, window: float, stride: float
) -> list[tuple[slice, slice]]:
    """Return the rows and columns of every window."""
    side, step = (_pixels(size, min(height, width)) for size in (window, stride))
    return [
        (slice(top, top + side), slice(left, left + side))
        for top in _starts(height, side, step)
        for left in _starts(width, side, step)
    ]


def _pixels(size: float, side: int) -> int:
    return min(side, max(1, round(size * side if size < 1 else size)))


def _starts(side: int, window: int, stride: int) -> range:
    return range(0, stride * (math.ceil((side - window) / stride) + 1), stride)


@method(
    "rise",
    title="RISE",
    shows="The target's mean score over those random masks that leave a pixel visible.",
    formula="M(x,y) = 1/(n·p) · Σ_k S(I ⊙ H_k) · H_k(x,y), H_k a random grid of 0 and 1, 1 with"
    " probability p, up-sampled and shifted, I the normalised input",
    paper="Petsiuk, Das, Saenko: RISE: Randomized Input Sampling for Explanation of Black-box"
    " Models, BMVC 2018",
    url="https://arxiv.org/abs/1806.07421",
    cost="n forward passes (n = 500; the paper uses 4,000 to 8,000), no backward pass",
    caveats="It converges slowly, the more so the finer the cells: with few masks the map is noisy."
    " S is the target's score, a logit unless the target says otherwise; the paper uses"
    " probabilities, as --target prob:predicted does. What is hidden has the mean colour.",
    pixel="sum",
    needs=Needs(activations=False, passes=Passes(forwards="samples", of="masked images")),
    kind="pass",
)
def rise(context: PassContext, samples: int = 500, cells: int = 7, p: float = 0.5) -> Tensor:
    """Return the scores of randomly masked images, averaged over the masks, (N, T, 1, H, W).

    M = 1/(n·p) Σ_k S(I ⊙ H_k) H_k. All images have the same masks, drawn on the CPU from the seed,
    so that neither batches nor the device matter. Divided by p, which is E[H], and not by the mean
    of the masks drawn. No epsilon. Source: Petsiuk et al. 2018, equation 6, and their code.

    Args:
        context: the batch.
        samples: n, at least 1.
        cells: rows and columns of the grid that a mask is grown from.
        p: probability that a cell is seen, above 0 and at most 1.

    Raises:
        MapError: if p is no such probability.
    """
    if not 0 < p <= 1:
        raise MapError(f"the setting 'p' of 'rise' is {p}; give a share above 0 and at most 1")
    inputs = context.inputs
    seed = context.generator.initial_seed() if context.generator else 0
    chance = np.random.default_rng(seed)
    samples = max(1, samples)
    wide = torch.promote_types(inputs.dtype, torch.float32)
    total = inputs.new_zeros(len(inputs), context.count, *inputs.shape[-2:], dtype=wide)
    for part in context.portions(samples):
        drawn = [
            random_mask(inputs.shape[-2:], max(1, cells), p, chance, wide)
            for _ in range(part.start, part.stop)
        ]
        masks = torch.stack(drawn).to(inputs.device, non_blocking=True)
        shown = masks.to(inputs.dtype)[:, None, None] * inputs
        scores = context.values(shown.flatten(0, 1)).to(wide).view(len(masks), len(inputs), -1)
        total += torch.einsum("knt,khw->nthw", scores, masks)
    return total.div_(samples * p).unsqueeze(2)


def random_mask(
    size: tuple[int, ...],
    cells: int,
    p: float,
    chance: np.random.Generator,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return a mask of RISE, (H, W): a grid of cells grown by one cell, and cut at random.

    Bilinear, corners not aligned. Drawn are the grid, then how far it is shifted down and right.
    """
    steps = [math.ceil(side / cells) for side in size]
    grid = torch.from_numpy(chance.random((1, 1, cells, cells)) < p).to(dtype)
    top, left = (int(chance.integers(step)) for step in steps)
    grown = functional.interpolate(
        grid, size=[(cells + 1) * step for step in steps], mode="bilinear", align_corners=False
    )
    return grown[0, 0, top : top + size[0], left : left + size[1]]
