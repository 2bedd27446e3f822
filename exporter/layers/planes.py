"""How each explained layer lies in the plane: bound once, and held to by every batch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from exporter.capture import parse_name
from exporter.errors import LayerError, MapError
from exporter.layers.layout import Layout, Reshape, read_layout


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
