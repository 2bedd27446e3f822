"""How a layer's output lies in the plane: channels first, channels last, or a row of tokens."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from exporter.guard import FAILURES

Reshape = Callable[[Tensor], Tensor]
"""What a user may give: from a layer's output, or its gradient, to (N, C, H, W)."""

_FIRST = (
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._NormBase,
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.GroupNorm,
    nn.Upsample,
)
"""Modules whose four-dimensional output has its channels first."""
_TOLERANCE = math.log(1.3)
_CLEARLY = 0.02
_PREFIXES = range(9)


@dataclass(frozen=True, slots=True)
class Layout:
    """How to read a layer's output as (N, C, H, W), bound once to what a trial forward saw.

    Attributes:
        kind: ``nchw``, ``nhwc`` (Swin), ``tokens`` (N, L, C) (ViT), or ``given`` where the user's
            own function reads it.
        channels: number of channels.
        height: rows.
        width: columns.
        prefix: tokens before the image's own (class and register tokens).
        reshape: the user's function, for ``given``.
        shape: of one image's output as the module gave it in the trial.
        evidence: why it is read like this, in a short phrase.
    """

    kind: Literal["nchw", "nhwc", "tokens", "given"]
    channels: int
    height: int
    width: int
    prefix: int = 0
    reshape: Reshape | None = None
    shape: tuple[int, ...] = field(default=(), compare=False)
    evidence: str = field(default="", compare=False)

    def fits(self, values: Tensor) -> bool:
        """Say whether an output has the shape, image by image, that the layout was read from."""
        return tuple(values.shape[1:]) == self.shape

    def spatial(self, values: Tensor) -> Tensor:
        """Return the layer's output, or its gradient, as (N, C, H, W).

        Args:
            values: the layer's output or gradient as the module gave it, with any number of images.
        """
        if self.reshape is not None:
            return self.reshape(values)
        if self.kind == "nchw":
            return values
        if self.kind == "nhwc":
            return values.permute(0, 3, 1, 2)
        tokens = values[:, self.prefix :, :]
        grid = tokens.reshape(len(values), self.height, self.width, self.channels)
        return grid.permute(0, 3, 1, 2)


def read_layout(
    tensor: Tensor,
    size: tuple[int, int],
    reshape: Reshape | None = None,
    module: nn.Module | None = None,
) -> Layout | None:
    """Say how a layer's output lies in the plane, and why.

    The user's function says so where there is one. Where it fails on an output, or gives no
    (N, C, H, W) of it, the output is read as without one: a function for a model's tokens need not
    fit its convolutions.

    Args:
        tensor: what the layer returned.
        size: (height, width) of the model's input.
        reshape: the user's function.
        module: the layer; its type decides where it leaves no choice.
    """
    shape = tuple(tensor.shape)
    if reshape is not None:
        try:
            laid = reshape(tensor)
        except FAILURES:
            laid = None
        if isinstance(laid, Tensor) and laid.dim() == 4 and len(laid) == len(tensor):
            sizes = (laid.shape[1], laid.shape[2], laid.shape[3])
            return Layout(
                "given", *sizes, reshape=reshape, shape=shape[1:], evidence="the reshape function"
            )
    if len(shape) == 4 and min(shape) > 0:
        kind = type(module).__name__
        if isinstance(module, _FIRST):
            evidence = f"a {kind} has its channels first"
            return Layout("nchw", *shape[1:], shape=shape[1:], evidence=evidence)
        if type(module) is nn.Linear or (
            # A subclass may permute; one over more axes than the last says nothing of them.
            type(module) is nn.LayerNorm and len(module.normalized_shape) == 1
        ):
            evidence = f"a {kind} has its channels last"
            return Layout("nhwc", shape[3], *shape[1:3], shape=shape[1:], evidence=evidence)
    return layout_of(shape, size)


def layout_of(shape: tuple[int, ...], size: tuple[int, int]) -> Layout | None:
    """Say how a shape lies in the plane, from the proportions of the input.

    Args:
        shape: with the batch.
        size: (height, width) of the model's input.

    Returns:
        The layout; for tokens the grid of the input's proportions with the fewest tokens before it.
        None where there is no plane.
    """
    ratio = math.log(size[0] / size[1])
    if len(shape) == 4 and min(shape) > 0:
        first = abs(math.log(shape[2] / shape[3]) - ratio)
        last = abs(math.log(shape[1] / shape[2]) - ratio)
        own = shape[1:]
        if last <= _TOLERANCE and last + _CLEARLY < first:
            evidence = f"its first two axes, {own[0]}×{own[1]}, have the input's proportions"
            return Layout("nhwc", shape[3], *own[:2], shape=own, evidence=evidence)
        evidence = f"its last two axes, {own[1]}×{own[2]}, fit the input's proportions best"
        return Layout("nchw", *own, shape=own, evidence=evidence)
    if len(shape) == 3:
        for prefix in _PREFIXES:
            grid = _grid(shape[1] - prefix, size)
            if grid is not None:
                before = f" after {prefix} of their own" if prefix else ""
                evidence = f"{shape[1]} tokens are a grid of {grid[0]}×{grid[1]}{before}"
                return Layout("tokens", shape[2], *grid, prefix, shape=shape[1:], evidence=evidence)
    return None


def _grid(tokens: int, size: tuple[int, int]) -> tuple[int, int] | None:
    """Return rows and columns of ``tokens`` square patches that fill the input, or None."""
    if tokens < 4:
        return None
    side = math.sqrt(size[0] * size[1] / tokens)
    height, width = round(size[0] / side), round(size[1] / side)
    return (height, width) if height * width == tokens else None
