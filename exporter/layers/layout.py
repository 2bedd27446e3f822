"""How a layer's output lies in the plane: channels first, channels last, or a row of tokens."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Reshape = Callable[[Tensor], Tensor]
"""What a user may give: from a layer's output, or its gradient, to (N, C, H, W)."""

_TOLERANCE = math.log(1.3)
_CLEARLY = 0.02
_PREFIXES = range(9)


@dataclass(frozen=True, slots=True)
class Layout:
    """How to read a layer's output as (N, C, H, W).

    Attributes:
        kind: ``nchw``, ``nhwc`` (Swin), ``tokens`` (N, L, C) (ViT), or ``given`` where the user's
            own function reads it.
        channels: number of channels.
        height: rows.
        width: columns.
        prefix: tokens before the image's own (class and register tokens).
        reshape: the user's function, for ``given``.
    """

    kind: Literal["nchw", "nhwc", "tokens", "given"]
    channels: int
    height: int
    width: int
    prefix: int = 0
    reshape: Reshape | None = None

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


def read_layout(tensor: Tensor, size: tuple[int, int], reshape: Reshape | None) -> Layout | None:
    """Say how a layer's output lies in the plane, by the user's function where there is one.

    Where that function fails on an output, or gives no (N, C, H, W) of it, the output is read from
    its shape: a function for a model's tokens need not fit its convolutions.

    Args:
        tensor: what the layer returned.
        size: (height, width) of the model's input.
        reshape: the user's function.
    """
    if reshape is not None:
        try:
            made = reshape(tensor)
        except Exception:
            made = None
        if isinstance(made, Tensor) and made.dim() == 4 and len(made) == len(tensor):
            return Layout("given", made.shape[1], made.shape[2], made.shape[3], reshape=reshape)
    return layout_of(tuple(tensor.shape), size)


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
        if last <= _TOLERANCE and last + _CLEARLY < first:
            return Layout("nhwc", shape[3], shape[1], shape[2])
        return Layout("nchw", shape[1], shape[2], shape[3])
    if len(shape) == 3:
        for prefix in _PREFIXES:
            grid = _grid(shape[1] - prefix, size)
            if grid is not None:
                return Layout("tokens", shape[2], *grid, prefix=prefix)
    return None


def _grid(tokens: int, size: tuple[int, int]) -> tuple[int, int] | None:
    """Return rows and columns of ``tokens`` square patches that fill the input, or None."""
    if tokens < 4:
        return None
    side = math.sqrt(size[0] * size[1] / tokens)
    height, width = round(size[0] / side), round(size[1] / side)
    return (height, width) if height * width == tokens else None
