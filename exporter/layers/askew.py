"""Whether a model turns, mirrors, cuts or mixes its image before its first layer.

A convolution has its channels first, whatever it is given: its type says how its output lies in the
plane that it was shown, not how that plane lies in the image.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from exporter.capture import graph_nodes
from exporter.containers import tensors
from exporter.guard import FAILURES
from exporter.layers.layout import Layout

_TURNING = frozenset(
    ("Flip", "Transpose", "Permute", "Rot90", "Roll", "Index", "IndexSelect", "Gather")
)
"""Functions of a graph that may lay a plane another way."""
_FREQUENCIES = frozenset(("FftR2C", "FftC2C", "FftC2R"))
"""Those that give frequencies for places, or places for frequencies."""
_FEWEST = 4
"""Rows and columns below which a quarter of a plane is no place."""
_OFF = 0.1
"""How far, as a share of a side, what a quarter sees may be from where it lies, beside half of what
it sees beyond its own share: a convolution without a padding is shifted by half its kernel."""
_EVERYWHERE = 0.8
"""The share of a side that only a quarter of a mixed image sees."""
_MIXTURES = (1.0, 1.7, 2.3, 2.9)
"""Frequencies of the mixtures: a centroid of one, in a plane of 6 × 6, may be off by chance."""


def has_quarters(layout: Layout) -> bool:
    """Say whether an output is a plane by its type, of enough rows and columns to be held."""
    known = layout.shown and layout.kind in ("nchw", "nhwc")
    return known and min(layout.height, layout.width) >= _FEWEST


def lies_askew(plane: Tensor, images: Tensor) -> bool:
    """Say whether the upper right quarter of a plane sees another part of the image.

    Where it sees is the centroid of the squared gradient of a mixture of its numbers. That part is
    its own in no turn and no mirror image, but for that along the diagonal through it.

    Args:
        plane: (N, C, H, W), with its graph, which is kept.
        images: (N, C, H, W), the leaf that the graph begins at.
    """
    if plane.is_meta:  # shapes alone
        return False
    rows, columns = plane.shape[2] // 2, plane.shape[3] // 2
    quarter = plane[:, :, :rows, -columns:]
    if 4 * int((quarter != 0).any(0).any(0).sum()) < 3 * rows * columns:
        return False  # much of it is dead: what is left may lie anywhere in it
    count = torch.arange(quarter.numel(), device=plane.device)
    energy = torch.zeros(images.shape[2:], dtype=torch.float64)
    for frequency in _MIXTURES:
        mixture = torch.cos(frequency * count).view(quarter.shape).to(plane.dtype)
        score = (quarter * mixture).sum()
        try:
            (gradient,) = torch.autograd.grad(
                score, images, retain_graph=True, allow_unused=True, materialize_grads=True
            )
        except FAILURES:  # what the whole backward says too
            return False
        energy += gradient.cpu().double().square().sum((0, 1))
    if not 0 < float(energy.sum()) < torch.inf:
        return False
    high, wide = rows / plane.shape[2], columns / plane.shape[3]
    return _off(energy.sum(1), high, high / 2) or _off(energy.sum(0), wide, 1 - wide / 2)


def _off(profile: Tensor, share: float, place: float) -> bool:
    """Say whether what a part of a side sees lies elsewhere than the part itself."""
    seen = float((profile > 0).double().mean())
    beyond = max(0.0, seen - share) if seen < _EVERYWHERE else 0.0
    return abs(float(_centroid(profile)) - place) > _OFF + beyond / 2


class Steps(NamedTuple):
    """What a model does on its way, so that a layer's type says less of how its planes lie.

    Attributes:
        turn: whether anything may turn, mirror or warp planes.
        frequencies: whether anything gives frequencies for places, or places for frequencies.
    """

    turn: bool = False
    frequencies: bool = False


def steps_to(output: Any) -> Steps:
    """Look through the graph from the image to an output."""
    names = {
        type(node).__name__.rstrip("0123456789").removesuffix("Backward")
        for node in graph_nodes(tensors(output).values())
    }
    return Steps(not names.isdisjoint(_TURNING), not names.isdisjoint(_FREQUENCIES))


def _centroid(profile: Tensor) -> Tensor:
    middles = (torch.arange(len(profile), dtype=profile.dtype) + 0.5) / len(profile)
    return (middles * profile).sum() / profile.sum()


def doubted(layout: Layout) -> Layout:
    """Return a layout that nothing shows any more, but for the user's own."""
    if layout.kind == "given":
        return layout
    why = "the model turns, mirrors, cuts or mixes the image before its first layer"
    return replace(layout, shown=False, evidence=why)
