"""Methods that run the model themselves: give each its context, and lay out what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from exporter.capture import Captured, follows_alone, guest, relu_rule, run_from
from exporter.errors import MapError
from exporter.explain.attending import AttentionRunner
from exporter.explain.layers import LayerMaps, View, as_grid, in_map_type
from exporter.layers.layout import Layout, Reshape, read_layout
from exporter.maps import ATTENTION, Method, PassContext

REDUCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda values: values.sum(2),
    "sum-abs": lambda values: values.abs().sum(2),
    "max-abs": lambda values: values.abs().amax(2),
}
"""How the channels of a pixel map become one for the store: the setting ``reduce``."""


@dataclass(frozen=True)
class Passes:
    """What the methods of one batch gave.

    Attributes:
        layers: by layer, then by method, a map (N, h, w) a target.
        pixels: by method, (N, T, C, H, W), raw, at the input's resolution.
        missing: by ``method at layer``, why there is none.
    """

    layers: Mapping[str, LayerMaps]
    pixels: Mapping[str, Tensor]
    missing: Mapping[str, str]


class Runner:
    """Runs those methods batch after batch; it remembers which layers the rest follows alone."""

    def __init__(
        self,
        module: nn.Module,
        methods: Sequence[Method],
        *,
        seed: int = 0,
        reshape: Reshape | None = None,
    ) -> None:
        """Take what every batch has in common.

        Args:
            module: the model.
            methods: all methods of the run; those that are no passes are passed over.
            seed: of the random draws, the same for every batch.
            reshape: from a layer's output to (N, C, H, W), where its shape does not tell.
        """
        self._module = module
        self._attention = AttentionRunner(module, methods)
        self._methods = [
            method for method in methods if method.kind == "pass" and not method.needs.attention
        ]
        self._attending = [method.name for method in methods if method.needs.attention]
        self._seed = seed
        self._reshape = reshape
        self._alone: dict[str, bool] = {}

    def __call__(
        self,
        inputs: Tensor,
        captured: Captured,
        layers: Sequence[str],
        scorer: Callable[[Any, slice], Tensor],
        *,
        targets: Tensor | None,
        count: int,
        reader: Callable[[Any], Tensor],
    ) -> Passes:
        """Run every method on one batch.

        Args:
            inputs: (N, C, H, W) on the model's device.
            captured: the shared pass.
            layers: the layers asked for.
            scorer: given a model output of k variants of some images and which images these are
                (row r for image r modulo their number), returns (rows, T) with its graph.
            targets: class indices (N, T), or None.
            count: T.
            reader: given a model output, returns the explained rows (rows, K) with their graph.

        Returns:
            Everything on the device; nothing has waited for it.
        """
        made: dict[str, LayerMaps] = {}
        pixels: dict[str, Tensor] = {}
        missing: dict[str, str] = {}
        if not (self._methods or self._attending):
            return Passes(made, pixels, missing)
        here = [
            name
            for name in captured.activations
            if not set(layers).isdisjoint(captured.asked[name])
        ]
        with guest(self._module):
            given = inputs.clone() if inputs.is_inference() else inputs.detach()
            context = PassContext(
                module=self._module,
                inputs=given,
                targets=targets,
                count=count,
                scorer=scorer,
                rest=_nothing,
                relu_rule=relu_rule,
                reader=reader,
            )
            for method in self._methods:
                able = [name for name in here if _able(method, captured, name)]
                missing |= {
                    f"{method.name} at {name}": "no gradient reaches the layer"
                    for name in here
                    if method.at_layers and name not in able
                }
                if not method.at_layers:
                    able = able[-1:] if method.reads_layers else [""]
                    if not able:
                        raise MapError(f"{method.name} needs a layer that has a gradient")
                for layer in able:
                    found = method.compute(self._at(context, method, captured, layer)).detach()
                    if method.record.pixel:
                        pixels[method.name] = in_map_type(found)
                    else:
                        made.setdefault(layer, {})[method.name] = in_map_type(found).unbind(1)
            attention, why = self._attention(context)
            if attention:
                made[ATTENTION] = {
                    name: tuple(map(in_map_type, maps)) for name, maps in attention.items()
                }
            else:
                missing |= {f"{name} at {ATTENTION}": why for name in self._attending}
        return Passes(made, pixels, missing)

    def _at(
        self, context: PassContext, method: Method, captured: Captured, layer: str
    ) -> PassContext:
        context = replace(
            context,
            generator=_generator(context.inputs.device, self._seed),
            settings=method.record.settings,
            layer=layer,
        )
        if not layer:
            return context
        view = View.of(context.inputs, self._reshape)
        raw = captured.activations[layer]
        gradients = captured.gradients.get(layer)
        return replace(
            context,
            activations=as_grid(raw, layer, view) if method.needs.activations else None,
            gradients=torch.stack([as_grid(one, layer, view) for one in gradients])
            if method.needs.gradients and gradients is not None
            else None,
            rest=self._rest(context.inputs, layer, raw, view),
        )

    def _rest(
        self, inputs: Tensor, layer: str, raw: Tensor, view: View
    ) -> Callable[[Tensor, slice], Any]:
        def rest(activation: Tensor, images: slice) -> Any:
            if layer not in self._alone:
                self._alone[layer] = follows_alone(self._module, layer, inputs)
            laid = as_layer(activation, raw[images], view)
            return run_from(self._module, layer, inputs[images], laid, alone=self._alone[layer])

        return rest


def as_layer(grid: Tensor, raw: Tensor, view: View) -> Tensor:
    """Lay out (k·N, C, h, w) as a layer returns it: the inverse of `as_grid`.

    Args:
        grid: row r for image r modulo N.
        raw: what the layer returned for the N images; tokens before the grid are taken from it.
        view: what the model was given.
    """
    layout = read_layout(raw, (view.height, view.width), view.reshape)
    if layout is None or layout.kind == "nchw":
        return grid
    if layout.kind == "given":
        return _as_given(grid, raw.repeat(len(grid) // len(raw), *[1] * (raw.ndim - 1)), layout)
    last = grid.permute(0, 2, 3, 1)
    if layout.kind == "nhwc":
        return last
    before = raw[:, : layout.prefix].repeat(len(grid) // len(raw), 1, 1)
    return torch.cat((before, last.flatten(1, 2)), 1)


def _as_given(grid: Tensor, raw: Tensor, layout: Layout) -> Tensor:
    """Undo a user's function: where it only moves and leaves out values, its gradient does."""
    with torch.enable_grad():
        leaf = raw.detach().clone().requires_grad_()
        read = layout.spatial(leaf)
        moved, taken = (
            torch.autograd.grad(
                read, leaf, to.to(read.dtype), retain_graph=True, create_graph=to.requires_grad
            )[0]
            for to in (grid, torch.ones_like(read))
        )
        laid = moved + raw.detach() * (1 - taken)
    if not torch.equal(layout.spatial(laid), grid.to(read.dtype)):
        raise MapError(
            "the reshape function changes values, so that the model cannot run on from the layer; "
            "give one that only moves and leaves out values"
        )
    return laid


def stored_pixels(methods: Sequence[Method], pixels: Mapping[str, Tensor]) -> list[LayerMaps]:
    """Reduce pixel maps to what the store keeps: one channel, at a smaller stated size.

    The channels are reduced as the setting ``reduce`` says; then places are averaged by area, so
    that the longer side has ``size`` of them (0, or a smaller input: all).

    Args:
        methods: all methods.
        pixels: by method, (N, T, C, H, W).

    Returns:
        By method a map (N, h, w) a target, maps of one shape together.
    """
    groups: dict[tuple[int, ...], LayerMaps] = {}
    for method in methods:
        if method.name not in pixels:
            continue
        settings = method.record.settings
        values = REDUCTIONS[settings.get("reduce", "sum")](pixels[method.name])
        height, width = values.shape[-2:]
        share = int(settings.get("size", "0")) / max(height, width)
        if 0 < share < 1:
            size = (max(1, round(height * share)), max(1, round(width * share)))
            values = functional.adaptive_avg_pool2d(values, size)
        groups.setdefault(tuple(values.shape[-2:]), {})[method.name] = values.unbind(1)
    return list(groups.values())


def _able(method: Method, captured: Captured, layer: str) -> bool:
    return not method.needs.gradients or layer in captured.gradients


def _generator(device: torch.device, seed: int) -> torch.Generator | None:
    return None if device.type == "meta" else torch.Generator(device).manual_seed(seed)


def _nothing(_activation: Tensor, _images: slice) -> Any:
    raise MapError("a method without a layer cannot run the model from one")
