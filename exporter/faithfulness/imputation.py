"""Noisy linear imputation: removed pixels from their neighbours, so that a hole cannot be seen.

Each removed pixel is the weighted mean of its eight neighbours (1/6 beside, 1/12 across a corner;
fewer at the border), known or removed (Rong et al., A Consistent and Efficient Evaluation Strategy
for Attribution Methods, ICML 2022): one sparse linear system per channel, solved for all variants
of an image on the device, by conjugate gradients that a multigrid cycle preconditions
(docs/decisions/015-road.md).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from exporter.memory import in_halves

NOISE: Final = 0.01
"""Standard deviation of what is added to an imputed pixel, in the model's normalised input."""

TOLERANCE: Final = 3e-5
"""Norm of what is left of a system, as a share of its right side's, at which it is solved."""

_MOST_STEPS = 200


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

    if image.device.type == "cpu":  # Two variants stay in a processor's cache.
        return torch.cat([filled(slice(v, v + 2)) for v in range(0, len(holes), 2)])
    return torch.cat(in_halves(filled, len(holes)))


class _Grid(NamedTuple):
    """The pixels of one resolution: 1 where one is removed, weights of all neighbours, 1/weights.

    A coarse pixel is removed where all of its four finer ones are.
    """

    hole: Tensor
    degree: Tensor
    inverse: Tensor


def _solve(kept: Tensor, hole: Tensor) -> Tensor:
    """Fill (V, C, H, W) in where ``hole`` (V, 1, H, W) is 1."""
    grids = [_grid(hole)]
    while max(hole.shape[-2:]) > 2:
        hole = 1 - functional.max_pool2d(1 - hole, 2, ceil_mode=True)
        grids.append(_grid(hole))
    hole = grids[0].hole
    wanted = _around(kept).mul_(hole)
    filled = hole * _spread(kept, 1 - hole)
    rest = wanted - _applied(grids[0], filled)
    enough = TOLERANCE**2 * _dot(wanted, wanted)
    direction, energy, before = rest, _dot(rest, rest), rest
    for step in range(_MOST_STEPS):
        unsolved = _dot(rest, rest) > enough
        if not bool(unsolved.any()):
            break
        correction = _cycle(grids, rest)
        # Polak and Ribière's: the cycle is not symmetric, as bilinear interpolation is not summing.
        turn = _ratio(_dot(correction, rest - before), energy) * min(step, 1)
        direction = torch.addcmul(correction, turn, direction)
        energy, before = _dot(correction, rest), rest
        pushed = _applied(grids[0], direction)
        # A system that is solved stays as it is, so that it does not depend on the others.
        length = unsolved * _ratio(_dot(direction, rest), _dot(direction, pushed))
        filled.addcmul_(length, direction)
        rest = torch.addcmul(rest, -length, pushed)
    return kept + filled


def _grid(hole: Tensor) -> _Grid:
    degree = _around(torch.ones_like(hole[:1]))
    return _Grid(hole, degree, hole / degree)


def _applied(grid: _Grid, values: Tensor) -> Tensor:
    return (grid.degree * values).sub_(_around(values)).mul_(grid.hole)


def _cycle(grids: list[_Grid], rest: Tensor) -> Tensor:
    """Return about what solves the system for a right side: Jacobi's step, a coarser grid's, again.

    Coarse pixels are twice as far apart, so that what is left of four finer ones is summed.
    """
    (hole, _, inverse), *coarser = grids
    correction = inverse * rest
    if not coarser:
        return correction
    left = _around(correction).mul_(hole)  # Jacobi's step leaves what the neighbours changed.
    wide = _grown(_cycle(coarser, _summed(left).mul_(coarser[0].hole)), rest)
    return _around(torch.addcmul(correction, hole, wide)).add_(rest).mul_(inverse)


def _summed(values: Tensor) -> Tensor:
    """Return the sums of 2 × 2 pixels; on one processor three times as fast as pooling is."""
    height, width = values.shape[-2:]
    if height % 2 or width % 2:
        values = functional.pad(values, (0, width % 2, 0, height % 2))
    rows = values[..., ::2, :] + values[..., 1::2, :]
    return rows[..., ::2] + rows[..., 1::2]


def _grown(values: Tensor, like: Tensor) -> Tensor:
    wide = functional.interpolate(values, scale_factor=2.0, mode="bilinear")
    return wide[..., : like.shape[-2], : like.shape[-1]]


def _around(values: Tensor) -> Tensor:
    """Return 12 times the weighted sum of the eight neighbours; outside there is nothing."""
    padded = functional.pad(values, (1, 1, 1, 1))
    rows = padded[..., :-2, :].add(padded[..., 1:-1, :], alpha=2).add_(padded[..., 2:, :])
    square = rows[..., :-2].add(rows[..., 1:-1], alpha=2).add_(rows[..., 2:])
    return square.sub_(values, alpha=4)


def _spread(kept: Tensor, known: Tensor) -> Tensor:
    """Guess every pixel from the means of ever larger squares around it, so that few steps do."""
    own = kept / known.clamp(min=1e-12)
    if max(kept.shape[-2:]) == 1:
        return own
    pooled = [functional.avg_pool2d(plane, 2, ceil_mode=True) for plane in (kept, known)]
    return torch.where(known > 0, own, _grown(_spread(*pooled), kept))


def _dot(first: Tensor, second: Tensor) -> Tensor:
    product: Tensor = torch.linalg.vecdot(first.flatten(-2), second.flatten(-2))
    return product[..., None, None]


def _ratio(over: Tensor, under: Tensor) -> Tensor:
    return torch.where(under > 0, over / under, torch.zeros_like(over))
