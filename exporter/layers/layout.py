"""How a layer's output lies in the plane: channels first, channels last, or a row of tokens.

It is bound once, and every batch is held to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from exporter.errors import kind_of
from exporter.guard import FAILURES

Reshape = Callable[[Tensor], Tensor]
"""What a user may give: from a layer's output, or its gradient, to (N, C, H, W)."""

_FIRST = (
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._NormBase,
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
    nn.GroupNorm,
    nn.Upsample,
)
"""Modules whose four-dimensional output has its channels first."""
_TOLERANCE = math.log(1.3)
_CLEARLY = 0.02
_PROPORTION = math.log(1.5)


@dataclass(frozen=True, slots=True)
class Layout:
    """How to read a layer's output as (N, C, H, W), bound once to what a trial forward saw.

    Attributes:
        kind: ``nchw``, ``nhwc`` (Swin), ``tokens`` (N, L, C) (ViT), or ``given`` where the user's
            own function reads it.
        channels: number of channels.
        height: rows.
        width: columns.
        prefix: tokens before the image's own (class and register tokens); those after it are
            what is left.
        axis: which axis counts the images: 1 for tokens (L, N, C), else 0.
        reshape: the user's function, for ``given``.
        shape: of one image's output as the module gave it in the trial.
        evidence: why it is read like this, in a short phrase.
        shown: whether the layer's type, the user or a measurement shows it, not its shape alone.
    """

    kind: Literal["nchw", "nhwc", "tokens", "given"]
    channels: int
    height: int
    width: int
    prefix: int = 0
    axis: int = 0
    reshape: Reshape | None = None
    shape: tuple[int, ...] = field(default=(), compare=False)
    evidence: str = field(default="", compare=False)
    shown: bool = field(default=True, compare=False)

    def fits(self, values: Tensor, images: int) -> bool:
        """Say whether an output of some images has the shape that the layout was read from."""
        shape = list(values.shape)
        return len(shape) > self.axis and shape.pop(self.axis) == images and (*shape,) == self.shape

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
        tokens = values.movedim(self.axis, 0)[:, self.prefix : self.prefix + self.area]
        grid = tokens.reshape(len(tokens), self.height, self.width, self.channels)
        return grid.permute(0, 3, 1, 2)

    def touched(self, gradient: Tensor) -> Tensor:
        """Say where a gradient is not zero: at which tokens, or whether anywhere in a plane."""
        if self.kind == "tokens":
            return (gradient.movedim(self.axis, 0) != 0).any(2).any(0)
        if self.kind == "given":
            gradient = self.spatial(gradient)
        return (gradient != 0).any()

    def reached(self, touched: Tensor | None) -> bool:
        """Say whether a gradient reaches the plane: of tokens, more than those besides it."""
        if touched is None or touched.is_meta:
            return False
        inside = self.prefix + self.area
        return bool((touched[self.prefix : inside] if touched.ndim else touched).any())

    @property
    def area(self) -> int:
        """Number of pixels of the plane."""
        return self.height * self.width


def notes_of(layouts: Mapping[str, Layout]) -> tuple[str, ...]:
    """Return which layers are read by their shape alone, a sentence each."""
    return tuple(
        f"{name} is read as a plane of {layout.height}×{layout.width} from its shape alone "
        f"({layout.evidence}), which nothing else confirms; --reshape says how to read it"
        for name, layout in layouts.items()
        if not layout.shown
    )


def read_layout(
    tensor: Tensor,
    images: int,
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
        images: how many the model was given.
        size: (height, width) of the model's input.
        reshape: the user's function.
        module: the layer; its type decides where it leaves no choice.

    Returns:
        The layout; what the shape alone suggests is not ``shown``. None where there is no plane for
        each image: windows and regions multiply the batch.
    """
    shape = tuple(tensor.shape)
    if reshape is not None:
        try:
            laid = reshape(tensor)
        except FAILURES:
            laid = None
        if isinstance(laid, Tensor) and laid.dim() == 4 and len(laid) == images:
            axis = 0 if shape[0] == images else 1
            return Layout(
                "given",
                *(laid.shape[1], laid.shape[2], laid.shape[3]),
                axis=axis,
                reshape=reshape,
                shape=_without(shape, axis),
                evidence="the reshape function",
            )
    if len(shape) == 4 and shape[0] == images and min(shape) > 0:
        told, kind = type_tells(module, shape), kind_of(module)
        if told == "nchw":
            return of_four("nchw", shape, f"{kind} has its channels first")
        if told == "nhwc":
            # Of the other two axes it says nothing: tokens and heads are no plane.
            alike = in_proportion(shape[1], shape[2], size)
            return of_four("nhwc", shape, f"{kind} has its channels last", shown=alike)
    for axis in (0, 1):
        if len(shape) > axis and shape[axis] == images and (axis == 0 or len(shape) == 3):
            layout = layout_of((images, *_without(shape, axis)), size, axis=axis)
            if layout is not None:
                return layout
    return None


def type_tells(module: nn.Module | None, shape: tuple[int, ...]) -> Literal["nchw", "nhwc"] | None:
    """Say how four axes lie that a module takes or gives, where its type leaves no choice."""
    if len(shape) != 4:
        return None
    if isinstance(module, _FIRST):
        return "nchw"
    # A subclass may permute; one over more axes than the last says nothing of them.
    normed = type(module) is nn.LayerNorm and len(module.normalized_shape) == 1
    return "nhwc" if type(module) is nn.Linear or normed else None


def layout_of(shape: tuple[int, ...], size: tuple[int, int], *, axis: int = 0) -> Layout | None:
    """Say how a shape lies in the plane, from the proportions of the input; that shows nothing.

    Args:
        shape: with the batch before it.
        size: (height, width) of the model's input.
        axis: where the module has the batch.

    Returns:
        The layout; for tokens the grid of the input's proportions with the fewest tokens before it.
        None where there is no plane.
    """
    ratio = math.log(size[0] / size[1])
    if len(shape) == 4 and min(shape) > 0:
        first = abs(math.log(shape[2] / shape[3]) - ratio)
        last = abs(math.log(shape[1] / shape[2]) - ratio)
        _, rows, columns, deep = shape
        if last <= _TOLERANCE and last + _CLEARLY < first:
            evidence = f"its first two axes, {rows}×{columns}, have the input's proportions"
            return of_four("nhwc", shape, evidence, shown=False)
        evidence = f"its last two axes, {columns}×{deep}, fit the input's proportions best"
        return of_four("nchw", shape, evidence, shown=False)
    if len(shape) == 3:
        # Others may be as many as a detector's queries.
        for prefix in range(max(9, shape[1] // 2 + 1)):
            grid = _grid(shape[1] - prefix, size)
            if grid is not None:
                before = f" after {prefix} of their own" if prefix else ""
                evidence = f"{shape[1]} tokens could be a grid of {grid[0]}×{grid[1]}{before}"
                return Layout(
                    "tokens",
                    shape[2],
                    *grid,
                    prefix,
                    axis=axis,
                    shape=shape[1:],
                    evidence=evidence,
                    shown=False,
                )
    return None


def in_proportion(height: int, width: int, size: tuple[int, int]) -> bool:
    """Say whether a plane has about the proportions of the input: windows and heads have others."""
    return abs(math.log(height * size[1] / (width * size[0]))) <= _PROPORTION


def of_four(
    kind: Literal["nchw", "nhwc"], shape: tuple[int, ...], evidence: str, *, shown: bool = True
) -> Layout:
    """Return the layout of four axes, channels first or last."""
    _, first, second, third = shape
    sizes = (first, second, third) if kind == "nchw" else (third, first, second)
    return Layout(kind, *sizes, shape=shape[1:], evidence=evidence, shown=shown)


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]


def _grid(tokens: int, size: tuple[int, int]) -> tuple[int, int] | None:
    """Return rows and columns of ``tokens`` square patches that fill the input, or None."""
    if tokens < 4:
        return None
    side = math.sqrt(size[0] * size[1] / tokens)
    height, width = round(size[0] / side), round(size[1] / side)
    return (height, width) if height * width == tokens else None
