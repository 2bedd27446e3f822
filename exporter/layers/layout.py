"""How a layer's output lies in the plane: channels first, channels last, or a row of tokens.

It is bound once, and every batch is held to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from exporter.capture import parse_name
from exporter.errors import LayerError, MapError
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
            return _of_four("nchw", shape, f"a {kind} has its channels first")
        if type(module) is nn.Linear or (
            # A subclass may permute; one over more axes than the last says nothing of them.
            type(module) is nn.LayerNorm and len(module.normalized_shape) == 1
        ):
            return _of_four("nhwc", shape, f"a {kind} has its channels last")
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
        _, rows, columns, deep = shape
        if last <= _TOLERANCE and last + _CLEARLY < first:
            evidence = f"its first two axes, {rows}×{columns}, have the input's proportions"
            return _of_four("nhwc", shape, evidence)
        evidence = f"its last two axes, {columns}×{deep}, fit the input's proportions best"
        return _of_four("nchw", shape, evidence)
    if len(shape) == 3:
        for prefix in _PREFIXES:
            grid = _grid(shape[1] - prefix, size)
            if grid is not None:
                before = f" after {prefix} of their own" if prefix else ""
                evidence = f"{shape[1]} tokens are a grid of {grid[0]}×{grid[1]}{before}"
                return Layout("tokens", shape[2], *grid, prefix, shape=shape[1:], evidence=evidence)
    return None


def _of_four(kind: Literal["nchw", "nhwc"], shape: tuple[int, ...], evidence: str) -> Layout:
    _, first, second, third = shape
    sizes = (first, second, third) if kind == "nchw" else (third, first, second)
    return Layout(kind, *sizes, shape=shape[1:], evidence=evidence)


def _grid(tokens: int, size: tuple[int, int]) -> tuple[int, int] | None:
    """Return rows and columns of ``tokens`` square patches that fill the input, or None."""
    if tokens < 4:
        return None
    side = math.sqrt(size[0] * size[1] / tokens)
    height, width = round(size[0] / side), round(size[1] / side)
    return (height, width) if height * width == tokens else None


class Planes:
    """Reads a layer's output, or its gradient, as (N, C, H, W), and lays such a grid out again."""

    def __init__(
        self,
        module: nn.Module,
        layouts: Mapping[str, Layout] | None = None,
        reshape: Reshape | None = None,
    ) -> None:
        """Take the layouts that are known; that of another layer is read off its first batch.

        Args:
            module: the model.
            layouts: by layer, such as those of a `LayerChoice`.
            reshape: from a layer's output to (N, C, H, W), where its shape does not tell.
        """
        self._modules = dict(module.named_modules())
        self._layouts = dict(layouts or {})
        self._reshape = reshape

    def read(self, layer: str, output: Tensor, inputs: Tensor) -> Tensor:
        """View a layer's output, or its gradient, as (N, C, H, W).

        Args:
            layer: its name.
            output: what the layer returned, channels first or last, or a row of tokens.
            inputs: what the model was given, (N, C, H, W).

        Raises:
            LayerError: if it has no plane of spatial positions, or not that of earlier batches.
        """
        layout = self._layouts.get(layer) or self._bind(layer, output, inputs)
        if len(output) != len(inputs) or not layout.fits(output):
            raise LayerError(
                f"the layer {layer!r} gives {tuple(output.shape)} for {len(inputs)} images, where "
                f"it gave {layout.shape} per image before; give every batch images of the same size"
            )
        return layout.spatial(output)

    def _bind(self, layer: str, output: Tensor, inputs: Tensor) -> Layout:
        module = self._modules.get(parse_name(layer, self._modules).module)
        height, width = inputs.shape[-2:]
        layout = read_layout(output, (height, width), self._reshape, module)
        # Windows and regions multiply the batch: such an output is not one plane per image.
        if layout is None or len(output) != len(inputs):
            raise LayerError(
                f"the layer {layer!r} gives {tuple(output.shape)} for {len(inputs)} images, which "
                "is not a plane of spatial positions with channels for each; choose a layer that "
                "gives (C, H, W), (H, W, C) or tokens, or give a reshape function"
            )
        self._layouts[layer] = layout
        return layout

    def write(self, layer: str, grid: Tensor, output: Tensor) -> Tensor:
        """Lay out (k·N, C, h, w) as a layer returns it: the inverse of `read`.

        Args:
            layer: its name; `read` has read it.
            grid: row r for image r modulo N.
            output: what the layer returned for the N images; tokens before the grid are its.
        """
        layout = self._layouts[layer]
        copies = len(grid) // len(output)
        if layout.kind == "nchw":
            return grid
        if layout.kind == "given":
            return _invert(layout, grid, output.repeat(copies, *[1] * (output.ndim - 1)))
        channels_last = grid.permute(0, 2, 3, 1)
        if layout.kind == "nhwc":
            return channels_last
        before = output[:, : layout.prefix].repeat(copies, 1, 1)
        return torch.cat((before, channels_last.flatten(1, 2)), 1)


def _invert(layout: Layout, grid: Tensor, output: Tensor) -> Tensor:
    """Undo a user's function: where it only moves and leaves out values, its gradient does."""
    with torch.enable_grad():
        leaf = output.detach().clone().requires_grad_()
        read = layout.spatial(leaf)
        moved, taken = (
            torch.autograd.grad(
                read, leaf, to.to(read.dtype), retain_graph=True, create_graph=to.requires_grad
            )[0]
            for to in (grid, torch.ones_like(read))
        )
        laid = moved + output.detach() * (1 - taken)
    if not torch.equal(layout.spatial(laid), grid.to(read.dtype)):
        raise MapError(
            "the reshape function changes values, so that the model cannot run on from the layer; "
            "give one that only moves and leaves out values"
        )
    return laid
