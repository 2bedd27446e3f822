"""Noisy linear imputation: removed pixels from their neighbours, so that a hole cannot be seen.

Each removed pixel is the weighted mean of its eight neighbours (1/6 beside, 1/12 across a corner;
fewer at the border), known or removed: one sparse linear system per channel, solved for all
variants of an image by conjugate gradients on the device (Rong et al., A Consistent and Efficient
Evaluation Strategy for Attribution Methods, ICML 2022).
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from exporter.memory import in_halves

NOISE: Final = 0.01
"""Standard deviation of what is added to an imputed pixel, in the model's normalised input."""

TOLERANCE: Final = 1e-4
"""Norm of what is left of a system, as a share of its right side's, at which it is solved."""

_MOST_STEPS = 2000
_STEPS_PER_LOOK = 20  # a look at the residual waits for the device


def impute(image: Tensor, removed: Tensor, noise: Tensor) -> Tensor:
    """Fill removed pixels in.

    Args:
        image: (C, H, W), float32 or float64: sums over an image overflow in half precision.
        removed: bool (V, H, W), True where a variant lacks a pixel; one pixel at least is left.
        noise: (C, H, W), added to the pixels that are filled in.

    Returns:
        The variants, (V, C, H, W).
    """
    holes = removed[:, None].to(image.dtype)

    def filled(some: slice) -> Tensor:
        hole = holes[some]
        return _solve(image * (1 - hole), hole) + hole * noise

    if image.device.type == "cpu":  # One variant stays in a processor's cache.
        return torch.cat([filled(slice(v, v + 1)) for v in range(len(holes))])
    return torch.cat(in_halves(filled, len(holes)))


def _solve(kept: Tensor, hole: Tensor) -> Tensor:
    """Fill (V, C, H, W) in where ``hole`` (V, 1, H, W) is 1, by conjugate gradients."""
    degree = _around(torch.ones_like(hole))
    wanted = hole * _around(kept)
    filled = hole * _spread(kept, 1 - hole)
    rest = wanted - hole * (degree * filled - _around(filled))
    direction = rest / degree
    energy = _dot(rest, direction)
    enough = TOLERANCE**2 * _dot(wanted, wanted)
    for step in range(_MOST_STEPS):
        if step % _STEPS_PER_LOOK == 0 and bool((_dot(rest, rest) <= enough).all()):
            break
        pushed = hole * (degree * direction - _around(direction))
        length = _ratio(energy, _dot(direction, pushed))
        filled = filled + length * direction
        rest = rest - length * pushed
        scaled = rest / degree
        before, energy = energy, _dot(rest, scaled)
        direction = scaled + _ratio(energy, before) * direction
    return kept + filled


def _around(values: Tensor) -> Tensor:
    """Return the weighted sum of each pixel's eight neighbours; outside there is nothing."""
    padded = functional.pad(values, (1, 1, 1, 1))
    rows = padded[..., :-2, :] + 2 * padded[..., 1:-1, :] + padded[..., 2:, :]
    return (rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:] - 4 * values) / 12


def _spread(kept: Tensor, known: Tensor) -> Tensor:
    """Guess every pixel from the means of ever larger squares around it, so that few steps do."""
    if max(kept.shape[-2:]) == 1:
        return kept / known.clamp(min=1e-12)
    size = kept.shape[-2:]
    pooled = [functional.avg_pool2d(plane, 2, ceil_mode=True) for plane in (kept, known)]
    wide = functional.interpolate(_spread(*pooled), scale_factor=2.0, mode="bilinear")
    own = kept / known.clamp(min=1e-12)
    return torch.where(known > 0, own, wide[..., : size[0], : size[1]])


def _dot(first: Tensor, second: Tensor) -> Tensor:
    return (first * second).sum((-2, -1), keepdim=True)


def _ratio(over: Tensor, under: Tensor) -> Tensor:
    return torch.where(under > 0, over / under, torch.zeros_like(over))
