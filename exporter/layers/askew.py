"""Whether a model turns, mirrors, cuts or mixes its image before its first layer.

A convolution has its channels first, whatever it is given: its type says how its output lies in the
plane that it was shown, not how that plane lies in the image.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from exporter.containers import tensors
from exporter.guard import FAILURES
from exporter.layers.layout import Layout

_TURNING = frozenset(
    ("Flip", "Transpose", "Permute", "Rot90", "Roll", "Index", "IndexSelect", "Gather")
)
"""Functions of a graph that may lay a plane another way."""
_FEWEST = 4
"""Rows and columns below which a quarter of a plane is no place."""
_OFF = 0.1
"""How far, as a share of a side, what a quarter sees may be from where it lies: a convolution
without a padding is shifted by half its kernel."""


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
    rows, columns = plane.shape[2] // 2, plane.shape[3] // 2
    quarter = plane[:, :, :rows, -columns:]
    mixture = torch.cos(torch.arange(quarter.numel(), device=plane.device)).view(quarter.shape)
    score = (quarter * mixture.to(plane.dtype)).sum()
    try:
        (gradient,) = torch.autograd.grad(score, images, retain_graph=True, allow_unused=True)
    except FAILURES:  # what the whole backward says too
        return False
    if gradient is None or gradient.is_meta:
        return False
    energy = gradient.cpu().double().square().sum((0, 1))
    if not 0 < float(energy.sum()) < torch.inf:
        return False
    expected = (rows / plane.shape[2] / 2, 1 - columns / plane.shape[3] / 2)
    return any(
        abs(float(_centroid(energy.sum(axis))) - place) > _OFF
        for axis, place in ((1, expected[0]), (0, expected[1]))
    )


def may_turn(output: Any) -> bool:
    """Say whether anything between the image and an output may turn, mirror or warp planes."""
    nodes: list[Any] = [tensor.grad_fn for tensor in tensors(output).values()]
    seen: set[Any] = set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        if type(node).__name__.rstrip("0123456789").removesuffix("Backward") in _TURNING:
            return True
        seen.add(node)
        nodes += [parent for parent, _ in node.next_functions]
    return False


def _centroid(profile: Tensor) -> Tensor:
    middles = (torch.arange(len(profile), dtype=profile.dtype) + 0.5) / len(profile)
    return (middles * profile).sum() / profile.sum()


def doubted(layout: Layout) -> Layout:
    """Return a layout that nothing shows any more, but for the user's own."""
    if layout.kind == "given":
        return layout
    why = "the model turns, mirrors, cuts or mixes the image before its first layer"
    return replace(layout, shown=False, evidence=why)
