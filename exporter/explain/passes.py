"""Methods that run the model themselves: give each its context, and lay out what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from exporter.capture import Captured, follows_alone, run_from
from exporter.errors import MapError
from exporter.explain.attending import AttentionRunner
from exporter.layers.planes import Planes
from exporter.maps import ATTENTION, Method, PassContext

LayerMaps = dict[str, tuple[Tensor, ...]]
"""By method, a raw map (N, H, W) per target; all targets share one tensor where none matters."""

REDUCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda values: values.sum(2),
    "sum-abs": lambda values: values.abs().sum(2),
    "max-abs": lambda values: values.abs().amax(2),
}
"""How the channels of a pixel map become one for the store: the setting ``reduce``."""


@dataclass(frozen=True)
class PassMaps:
    """The maps of one batch by the methods that run the model themselves.

    Attributes:
        layers: by layer, then by method, a map (N, h, w) per target.
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
        planes: Planes | None = None,
        seed: int = 0,
    ) -> None:
        """Take what every batch has in common.

        Args:
            module: the model, a guest (`exporter.capture.guest`) while batches are run.
            methods: all methods of the run; those that read the shared pass are left out.
            planes: how the layers lie in the plane.
            seed: of the random draws, the same for every batch.
        """
        self._module = module
        self._methods = [
            method for method in methods if method.kind == "pass" and not method.needs.attention
        ]
        self._attending = [method for method in methods if method.needs.attention]
        self._attention = AttentionRunner(module, self._attending)
        self._planes = planes or Planes(module)
        self._seed = seed
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
    ) -> PassMaps:
        """Run every method on one batch.

        Args:
            inputs: (N, C, H, W) on the model's device, without a graph.
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
        at_layers: dict[str, LayerMaps] = {}
        pixels: dict[str, Tensor] = {}
        missing: dict[str, str] = {}
        kept = [
            name
            for name in captured.activations
            if not set(layers).isdisjoint(captured.asked[name])
        ]
        context = PassContext(
            module=self._module,
            inputs=inputs,
            targets=targets,
            count=count,
            scorer=scorer,
            rest=_no_layer,
            reader=reader,
        )
        for method in self._methods:
            able = [
                name for name in kept if not method.needs.gradients or name in captured.gradients
            ]
            if method.at_layers:
                missing |= {
                    f"{method.name} at {name}": "no gradient reaches the layer"
                    for name in kept
                    if name not in able
                }
            else:
                able = able[-1:] if method.reads_layers else [""]
                if not able:
                    raise MapError(f"{method.name} needs a layer that has a gradient")
            for layer in able:
                maps = method(self._at(context, method, captured, layer)).detach()
                if method.record.pixel:
                    pixels[method.name] = in_map_type(maps)
                else:
                    at_layers.setdefault(layer, {})[method.name] = in_map_type(maps).unbind(1)
        attention, why_not = self._attention(context)
        if attention:
            at_layers[ATTENTION] = {
                name: tuple(map(in_map_type, maps)) for name, maps in attention.items()
            }
        missing |= {f"{m.name} at {ATTENTION}": why_not for m in self._attending if why_not}
        return PassMaps(at_layers, pixels, missing)

    def _at(
        self, context: PassContext, method: Method, captured: Captured, layer: str
    ) -> PassContext:
        device, inputs = context.inputs.device, context.inputs
        generator = None
        if device.type != "meta":
            generator = torch.Generator(device).manual_seed(self._seed)
        context = replace(context, generator=generator, layer=layer)
        if not layer:
            return context
        output = captured.activations[layer]
        # Read whether the method asks for it or not: `rest` lays such a grid out again.
        activations = self._planes.read(layer, output, inputs)
        gradients = captured.gradients.get(layer) if method.needs.gradients else None
        if gradients is not None:
            gradients = torch.stack([self._planes.read(layer, g, inputs) for g in gradients])

        def rest(activation: Tensor, images: slice) -> Any:
            if layer not in self._alone:
                self._alone[layer] = follows_alone(self._module, layer, inputs)
            laid = self._planes.write(layer, activation, output[images])
            return run_from(self._module, layer, inputs[images], laid, alone=self._alone[layer])

        return replace(
            context,
            activations=activations if method.needs.activations else None,
            gradients=gradients,
            rest=rest,
        )


def stored_pixels(methods: Sequence[Method], pixels: Mapping[str, Tensor]) -> list[LayerMaps]:
    """Reduce pixel maps to what the store keeps: one channel, at a smaller stated size.

    The channels are reduced as the setting ``reduce`` says; then pixels are averaged by area, so
    that the longer side has ``size`` of them (0, or a smaller input: all).

    Args:
        methods: all methods.
        pixels: by method, (N, T, C, H, W).

    Returns:
        By method a map (N, h, w) per target, maps of one shape together.
    """
    groups: dict[tuple[int, ...], LayerMaps] = {}
    for method in methods:
        if method.name not in pixels:
            continue
        values = REDUCTIONS[str(method.settings["reduce"])](pixels[method.name])
        height, width = values.shape[-2:]
        share = int(method.settings["size"]) / max(height, width)
        if 0 < share < 1:
            size = (max(1, round(height * share)), max(1, round(width * share)))
            values = functional.adaptive_avg_pool2d(values, size)
        groups.setdefault(tuple(values.shape[-2:]), {})[method.name] = values.unbind(1)
    return list(groups.values())


def in_map_type(tensor: Tensor) -> Tensor:
    """Return the tensor in the type maps are computed in: float64 stays, others become float32."""
    return tensor if tensor.dtype == torch.float64 else tensor.to(torch.float32)


def _no_layer(_activation: Tensor, _images: slice) -> Any:
    raise MapError("a method without a layer cannot run the model from one")
