"""Read layers' outputs batch after batch as planes, and lay grids out as the layers do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from exporter.capture import parse_name
from exporter.errors import ExporterError, LayerError, MapError
from exporter.layers.layout import Layout, Reshape, layout_of, notes_of, read_layout
from exporter.layers.trial import run_trial

_MEASURED: WeakKeyDictionary[nn.Module, dict[torch.Size, dict[str, Layout]]] = WeakKeyDictionary()
"""By model and an image's shape, what trials showed: one costs as much as the maps of an image."""


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
        self._module = module
        self._modules = dict(module.named_modules())
        self._layouts = dict(layouts or {})
        self._reshape = reshape
        self._inverted: set[str] = set()
        self._read: dict[str, None] = {}
        self.untold = ""
        """The end of a sentence: why no moved patch could show how outputs lie, if none could."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Which layers were read by their shape alone, a sentence each."""
        return notes_of({name: self._layouts[name] for name in self._read})

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
        self._read[layer] = None
        if not layout.fits(output, len(inputs)):
            raise LayerError(
                f"the layer {layer!r} gives {tuple(output.shape)} for {len(inputs)} images, where "
                f"it gave {layout.shape} per image before; give every batch images of the same size"
            )
        laid = layout.spatial(output)
        if len(laid) != len(inputs):
            raise LayerError(
                f"the reshape function gave {len(laid)} planes of {layer!r} for {len(inputs)} "
                "images; let it give one per image"
            )
        return laid

    def _bind(self, layer: str, output: Tensor, inputs: Tensor) -> Layout:
        """Read a layout by the user's function, or as a trial with the first image shows it.

        On a device without numbers, or where the model does not run on one image, its type and
        shape are all there is.
        """
        module = self._modules.get(parse_name(layer, self._modules).module)
        size = int(inputs.shape[-2]), int(inputs.shape[-1])
        layout = read_layout(output, len(inputs), size, self._reshape, module)
        if layout is not None and inputs.is_meta:
            layout = replace(layout, shown=True)
        elif layout is not None and layout.kind == "given":
            self._refuse_rows_of_tokens(layer, output, inputs)
        elif layout is not None:
            try:
                known = self._remembered(inputs).get(layer) or self._measured(inputs).get(layer)
                layout = known or layout
            except ExporterError:
                if layout.kind == "tokens":
                    raise
        if layout is None or (not layout.shown and layout.kind == "tokens"):
            raise LayerError(
                f"the layer {layer!r} gives {tuple(output.shape)} for {len(inputs)} images, which "
                "is not a plane of spatial positions with channels for each; choose a layer that "
                f"gives (C, H, W), (H, W, C) or tokens, or give a reshape function{self.untold}"
            )
        self._layouts[layer] = layout
        return layout

    def _refuse_rows_of_tokens(self, layer: str, output: Tensor, inputs: Tensor) -> None:
        """Refuse a function that takes tokens for images, where there are as many of both."""
        if output.ndim > 1 and len(inputs) > 1 and output.shape[0] == output.shape[1]:
            alone = self._measured(inputs).get(layer)
            if alone is not None and alone.kind != "given":
                raise LayerError(
                    f"the reshape function takes the {len(output)} tokens of {layer!r} for images: "
                    "for one image it gives no plane; let it keep the axis of the images"
                )

    def grid_of(self, tokens: int, inputs: Tensor) -> Layout | None:
        """Return how so many tokens lie, as a layer that gives as many shows; None if none does."""

        def known() -> Layout | None:
            rows = (each for each in self._layouts.values() if each.kind == "tokens")
            return next((row for row in rows if row.shown and row.shape[0] == tokens), None)

        if inputs.is_meta:  # there are no numbers to tell by
            return layout_of((len(inputs), tokens, 1), (inputs.shape[-2], inputs.shape[-1]))
        for read in (self._remembered, self._measured):
            if known() is None:
                self._layouts |= {name: row for name, row in read(inputs).items() if row.shown}
        return known()

    def _remembered(self, inputs: Tensor) -> dict[str, Layout]:
        """Return the layouts that earlier images of the same shape have shown."""
        if self._reshape is not None:
            return {}
        return _MEASURED.setdefault(self._module, {}).setdefault(inputs.shape[1:], {})

    def _measured(self, inputs: Tensor) -> dict[str, Layout]:
        """Return the layouts that a trial with the first image gives; what it shows is kept."""
        # With a graph, which shows whether the image is mirrored or cut before the first layer.
        trial = run_trial(self._module, inputs[:1], reshape=self._reshape, backward=False)
        layouts = {name: plane.layout for name, plane in trial.planes.items()}
        shown = {name: layout for name, layout in layouts.items() if layout.shown}
        self._remembered(inputs).update(shown)
        self.untold = trial.untold and f"; {trial.untold}"
        return layouts

    def write(self, layer: str, grid: Tensor, output: Tensor) -> Tensor:
        """Lay out (k·N, C, h, w) as a layer returns it: the inverse of `read`.

        A user's function is held to that the first time, which waits for the device. Where it
        changes values later, there are no numbers.

        Args:
            layer: its name; `read` has read it.
            grid: row r for image r modulo N.
            output: what the layer returned for the N images; tokens besides the grid are its.
        """
        layout = self._layouts[layer]
        if layout.kind == "nchw":
            return grid
        if layout.kind == "nhwc":
            return grid.permute(0, 2, 3, 1)
        images = output.shape[layout.axis]
        repeats = [1] * output.ndim
        repeats[layout.axis] = len(grid) // images
        copies = output.repeat(repeats)
        if layout.kind == "given":
            laid, same = _invert(layout, grid, copies)
            if layer not in self._inverted and not grid.is_meta:
                if not bool(same):
                    raise MapError(
                        "the reshape function changes values, so that the model cannot run on from "
                        "the layer; give one that only moves and leaves out values"
                    )
                self._inverted.add(layer)
            return laid.masked_fill(~same, torch.nan)
        tokens = copies.movedim(layout.axis, 0)
        end = layout.prefix + layout.area
        own = grid.permute(0, 2, 3, 1).flatten(1, 2)
        laid = torch.cat((tokens[:, : layout.prefix], own, tokens[:, end:]), 1)
        return laid.movedim(0, layout.axis)

    def some(self, layer: str, output: Tensor, images: slice) -> Tensor:
        """Return a layer's output for some of the images."""
        return output[(slice(None),) * self._layouts[layer].axis + (images,)]


def _invert(layout: Layout, grid: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
    """Undo a user's function, and say whether that is what was done, bool ().

    Where it only moves and leaves out values, its gradient undoes it.
    """
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
    return laid, (layout.spatial(laid) == grid.to(read.dtype)).all()
