"""Methods that run the model themselves: give each its context, and lay out what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from exporter.capture import (
    Captured,
    SelfAttention,
    agrees_alone,
    attention_pass,
    find_attention,
    follows_alone,
    run_from,
    watch_changes,
)
from exporter.errors import BackwardError, LayerError, MapError, NoGradientError
from exporter.guard import is_shortage
from exporter.layers.planes import Planes
from exporter.maps import Attended, Method, PassContext
from exporter.maps import context as contexts
from exporter.records import ATTENTION

ELEMENTS = 1 << 26
"""Attention weights of a pass, all blocks together: 256 MiB of float32; gradients take as much."""

INPUT = "the input"
"""In the place of a layer, where a pixel method has no map."""

LayerMaps = dict[str, tuple[Tensor, ...]]
"""By method, a raw map (N, H, W) per target; all targets share one tensor where none matters."""


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
    """Runs those methods batch after batch.

    It remembers which layers the rest follows alone, and where the model attends.
    """

    def __init__(
        self,
        module: nn.Module,
        methods: Sequence[Method],
        *,
        planes: Planes | None = None,
        seed: int = 0,
    ) -> None:
        """Take what every batch has in common; the model is a guest while batches are run."""
        self._module = module
        self._attending = [method for method in methods if method.needs.attention]
        self._methods = [m for m in methods if m.kind == "pass" and not m.needs.attention]
        self._attention: SelfAttention | None = None
        self._without_attention = ""
        self._planes = planes or Planes(module)
        self._seed = seed
        self._alone: dict[str, bool] = {}
        # Methods of gradients at the input, until the first batch has shown that these are right.
        self._unsure = [
            method.name
            for method in self._methods
            if (passes := method.needs.passes) and passes.backwards and not passes.after_layer
        ]

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
        """Run every method on one batch; nothing waits for the device, but in the first batch.

        Args:
            inputs: (N, C, H, W) on the model's device, without a graph.
            captured: the shared pass.
            layers: the layers asked for.
            scorer: see `PassContext`, as the next three.
            targets: class indices (N, T), or None.
            count: T.
            reader: gives the explained rows.

        Raises:
            MapError: if a method does not fit the model.
        """
        unsure, self._unsure = self._unsure, []
        context = PassContext(
            module=self._module,
            inputs=inputs,
            targets=targets,
            count=count,
            scorer=scorer,
            rest=_no_layer,
            reader=reader,
        )
        if not unsure:
            return self._run(context, captured, layers)
        with watch_changes(self._module, input_only=True) as changes:
            maps = self._run(context, captured, layers)
        if changes.wrote_unseen:
            raise MapError(
                "the model writes into its input where autograd does not see it (under "
                "torch.no_grad, or through .data), so gradients at the input are wrong: leave out "
                f"{', '.join(unsure)}, or let the model write into a copy"
            )
        return maps

    def _run(self, context: PassContext, captured: Captured, layers: Sequence[str]) -> PassMaps:
        at_layers: dict[str, LayerMaps] = {}
        pixels: dict[str, Tensor] = {}
        missing: dict[str, str] = {}
        asked = set(layers)
        kept = [name for name in captured.activations if asked & set(captured.asked[name])]
        for method in self._methods:
            known = captured.gradients if method.needs.gradients else kept
            able = [name for name in kept if name in known]
            if method.at_layers:
                why = "no gradient reaches the layer"
                missing |= {f"{method.name} at {name}": why for name in kept if name not in known}
            else:
                able = able[-1:] if method.reads_layers else [""]
                if not able:
                    why = next(iter(captured.missing.values()), "there is none")
                    missing[f"{method.name} at {INPUT}"] = f"it needs a layer's gradient: {why}"
            for layer in able:
                try:
                    maps = self._maps_of(context, method, captured, layer).detach()
                except (NoGradientError, BackwardError) as error:
                    where = layer if method.at_layers else INPUT
                    missing[f"{method.name} at {where}"] = str(error)
                    continue
                if method.record.pixel:
                    pixels[method.name] = in_map_type(maps)
                else:
                    at_layers.setdefault(layer, {})[method.name] = in_map_type(maps).unbind(1)
        if attention := self._attention_maps(context):
            at_layers[ATTENTION] = attention
        why = self._without_attention
        missing |= {f"{m.name} at {ATTENTION}": why for m in self._attending if why}
        return PassMaps(at_layers, pixels, missing)

    def _maps_of(
        self, context: PassContext, method: Method, captured: Captured, layer: str
    ) -> Tensor:
        """Run a method at a layer; where memory runs out, with fewer variants at a time."""
        rows = contexts.ROWS
        while True:
            try:
                return method(self._at(replace(context, rows=rows), method, captured, layer))
            except Exception as error:
                if rows <= len(context.inputs) or not is_shortage(error):
                    raise
            rows //= 2

    def _attention_maps(self, context: PassContext) -> LayerMaps:
        """Run the methods of attention, some images at a time, so that the weights are bounded.

        Raises:
            LayerError: if this batch has no attention, where earlier ones had.
        """
        if not self._attending or self._without_attention:
            return {}
        images, known = len(context.inputs), self._attention
        parts: dict[str, list[Tensor]] = {method.name: [] for method in self._attending}
        try:
            attention = known or find_attention(self._module, context.inputs)
            together = max(1, ELEMENTS // attention.elements)
            for start in range(0, images, together):
                part = context.part(start, min(start + together, images))
                attended = self._attended(part, attention)
                for method in self._attending:
                    maps = method(replace(part, attended=attended))
                    parts[method.name].append(maps.detach().expand(-1, context.count, -1, -1))
        except (LayerError, BackwardError) as error:
            if known is not None:
                raise
            self._without_attention = str(error)
            return {}
        self._attention = attention
        return {name: in_map_type(torch.cat(maps)).unbind(1) for name, maps in parts.items()}

    def _attended(self, context: PassContext, attention: SelfAttention) -> Attended:
        passed = attention_pass(self._module, context.inputs, context.score, attention)
        tokens = passed.weights[0].shape[-1]
        layout = self._planes.grid_of(tokens, context.inputs)
        if layout is None or len(passed.weights[0]) != len(context.inputs):
            raise LayerError(
                f"the model attends among {tokens} tokens, and nothing shows that they are a grid "
                "of patches with tokens before or after it; choose a map of activations or "
                f"gradients{self._planes.untold}"
            )
        return Attended(passed, layout.height, layout.width, layout.prefix)

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
            gradients = torch.stack(
                [in_map_type(self._planes.read(layer, g, inputs)) for g in gradients]
            )

        @cache
        def alone() -> bool:
            return self._follows_alone(layer, inputs, captured)

        def rest(activation: Tensor, images: slice) -> Any:
            shown = inputs[images]
            laid = self._planes.write(layer, activation, self._planes.some(layer, output, images))
            copies = len(activation) // len(shown)
            return run_from(self._module, layer, shown, laid, copies=copies, alone=alone())

        return replace(
            context,
            activations=in_map_type(activations) if method.needs.activations else None,
            gradients=gradients,
            rest=rest,
        )

    def _follows_alone(self, layer: str, inputs: Tensor, captured: Captured) -> bool:
        """Say whether the rest reads the layer alone.

        Images that are all the same cannot show that it does: the next batch is asked again.
        """
        if layer in self._alone:
            return self._alone[layer]
        if inputs.is_meta:  # there are no numbers to compare
            return follows_alone(self._module, layer, inputs)
        alone = follows_alone(self._module, layer, inputs) and agrees_alone(
            self._module, layer, inputs, captured.activations[layer], captured.output
        )
        if not alone or bool((inputs != inputs[:1]).any()):
            self._alone[layer] = alone
        return alone


def in_map_type(tensor: Tensor) -> Tensor:
    """Return the tensor in the type maps are computed in: float64 stays, others become float32."""
    return tensor if tensor.dtype == torch.float64 else tensor.to(torch.float32)


def _no_layer(_activation: Tensor, _images: slice) -> Any:
    raise MapError("a method without a layer cannot run the model from one")
