"""From what was captured to maps: every method asked for, at every layer where it exists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from exporter.capture import Captured
from exporter.errors import LayerError, MapError, NoLayerError
from exporter.explain.fusion import FUSED, fuse
from exporter.layers import LayerChoice, choose_layers, find_classifier
from exporter.layers.layout import Reshape, read_layout
from exporter.maps import ATTENTION, METHODS, Method, channel_maps
from exporter.targets import Scorer

LayerMaps = dict[str, tuple[Tensor, ...]]
"""By method, a raw map (N, H, W) a target; all targets share one tensor where none matters."""


class View(NamedTuple):
    """What the model was given, and how the user says that its layers lie in the plane.

    Attributes:
        images: how many.
        height: rows of each.
        width: columns of each.
        reshape: from a layer's output, or its gradient, to (N, C, H, W); None reads the shape.
    """

    images: int
    height: int
    width: int
    reshape: Reshape | None = None

    @classmethod
    def of(cls, inputs: Tensor, reshape: Reshape | None = None) -> View:
        """Read it off the inputs (N, C, H, W)."""
        return cls(inputs.shape[0], inputs.shape[-2], inputs.shape[-1], reshape)


def choose_or_offer(
    module: nn.Module,
    example: Tensor,
    wanted: Sequence[str],
    methods: Sequence[Method],
    *,
    output: str | None = None,
    reshape: Reshape | None = None,
) -> LayerChoice:
    """Choose the layers to explain; where there is no plane at all, say what needs none.

    Args:
        module: the model.
        example: (N, C, H, W); one image is enough.
        wanted: see `exporter.models.choose_layers`.
        methods: map methods; where none of them reads a layer, a model may be without a plane.
        output: path of the explained tensor inside the model's output.
        reshape: from a layer's output to (N, C, H, W), where its shape does not tell.

    Raises:
        LayerError: if a layer does not fit, or the model has none that does.
    """
    try:
        return choose_layers(module, example, wanted, single=False, output=output, reshape=reshape)
    except NoLayerError as error:
        if tuple(wanted) == ("auto",) and methods and not any(m.reads_layers for m in methods):
            return LayerChoice((), f"none: {error}")
        free = [
            name
            for name, method in METHODS.items()
            if method.record.pixel and not method.reads_layers
        ]
        raise NoLayerError(
            f"{error}; pixel methods need no layer, such as {', '.join(free[:4])}"
        ) from None


def fitting_methods(module: nn.Module, methods: Sequence[Method]) -> tuple[tuple[Method, ...], str]:
    """Return the methods that a model can carry, and why others are left out, or ``""``.

    Args:
        module: the model; through a quantised one no gradient flows.
        methods: what was asked for.

    Raises:
        MapError: if none is left.
    """
    if not _is_quantised(module):
        return tuple(methods), ""
    why = "the model is quantised and carries no gradients: methods of activations only"
    fitting = tuple(method for method in methods if method.only_forward)
    others = ", ".join(method.name for method in methods if not method.only_forward)
    if methods and not fitting:
        able = ", ".join(name for name, method in METHODS.items() if method.only_forward)
        raise MapError(f"{why}, not {others}; choose from {able}")
    return fitting, f"{why}, not {others}" if others else ""


def _is_quantised(module: nn.Module) -> bool:
    kinds = (type(one).__module__ for one in module.modules())
    return any(kind.startswith("torch.") and "quantized" in kind for kind in kinds)


class Made(Protocol):
    """What methods that run the model themselves gave (see `exporter.explain.passes.Passes`)."""

    @property
    def layers(self) -> Mapping[str, LayerMaps]:
        """Maps by layer."""

    @property
    def missing(self) -> Mapping[str, str]:
        """By ``method at layer``, why there is none."""


def maps_at_layers(
    methods: Sequence[Method],
    captured: Captured,
    layers: Sequence[str],
    *,
    view: View,
    classifiers: Mapping[str, Tensor],
    targets: Tensor | None,
    count: int,
    passes: Made,
    fusion: str = "",
) -> tuple[dict[str, LayerMaps], dict[str, str]]:
    """Compute every method at every captured layer, on the device.

    Args:
        methods: what to compute.
        captured: from `exporter.capture.capture`.
        layers: the layers asked for.
        view: what the model was given.
        classifiers: by layer, the linear layer (K, C) that global average pooling feeds from it.
        targets: class indices (N, T), needed for methods of a classifier only.
        count: T, targets an image.
        passes: what the methods that run the model themselves gave.
        fusion: ``mean``, ``max`` or ``product`` for a map ``fused`` of all layers besides theirs.

    Returns:
        Maps by layer in execution order, then those of ``attention`` and ``fused``; and by layer
        (or ``method at layer``) why one is missing.

    Raises:
        LayerError: if a layer has no grid of places, or none of the layers can be explained.
    """
    asked = set(layers)
    reading = [method for method in methods if method.kind != "pass"]
    missing = {
        name: why
        for name, why in captured.missing.items()
        if name.split("[")[0] in asked or name in asked
    }
    found: dict[str, LayerMaps] = {}
    for name, raw in captured.activations.items():
        if asked.isdisjoint(captured.asked[name]):
            continue
        gradients = captured.gradients.get(name)
        rows = _rows(classifiers.get(name), targets)
        here = []
        for method in reading:
            if method.needs.classifier and rows is None:
                missing[f"{method.name} at {name}"] = (
                    "no average pooling and single linear layer follow"
                )
            elif gradients is not None or not method.needs.gradients:
                here.append(method)
        if here:
            activation = in_map_type(as_grid(raw, name, view))
            steep = None
            if gradients is not None and any(method.needs.gradients for method in here):
                steep = [in_map_type(as_grid(one, name, view)) for one in gradients]
            found[name] = _layer_maps(here, activation, steep, rows, count)
        if name in passes.layers:
            made = found.get(name, {}) | passes.layers[name]
            found[name] = {
                method.name: made[method.name] for method in methods if method.name in made
            }
    missing |= passes.missing
    fused = _fused(methods, found, fusion)
    if ATTENTION in passes.layers:
        found[ATTENTION] = passes.layers[ATTENTION]
    if fused:
        found[FUSED] = fused
    if any(method.at_layers or method.needs.attention for method in methods) and not found:
        reasons = "; ".join(f"{name}: {why}" for name, why in missing.items())
        raise LayerError(f"none of the layers can be explained ({reasons}); choose others")
    return found, missing


def _fused(methods: Sequence[Method], found: dict[str, LayerMaps], fusion: str) -> LayerMaps:
    """Fuse the layers' maps; those that are only there fused leave their layers."""
    fused: LayerMaps = {}
    for method in methods:
        how = method.fuse or fusion
        layers = [made[method.name] for made in found.values() if method.name in made]
        if how and layers:
            relu = method.record.relu or bool(method.fuse)
            columns = zip(*layers, strict=True)
            fused[method.name] = tuple(fuse(column, how, relu=relu) for column in columns)
        if method.fuse:
            for made in found.values():
                made.pop(method.name, None)
    for name in [name for name, made in found.items() if not made]:
        del found[name]
    return fused


def _layer_maps(
    methods: Sequence[Method],
    activation: Tensor,
    gradients: Sequence[Tensor] | None,
    rows: Tensor | None,
    count: int,
) -> LayerMaps:
    # What does not depend on the target is computed with the first one and shared by the others.
    moving = [method for method in methods if method.needs.gradients or method.needs.classifier]
    made = [
        channel_maps(
            methods if target == 0 else moving,
            activation,
            None if gradients is None else gradients[target],
            None if rows is None else rows[:, target],
        )
        for target in range(count if moving else 1)
    ]
    return {
        method.name: tuple(
            made[min(t, len(made) - 1) if method in moving else 0][method.name]
            for t in range(count)
        )
        for method in methods
    }


def as_grid(tensor: Tensor, layer: str, view: View) -> Tensor:
    """View a layer's output or its gradient as (N, C, H, W).

    Args:
        tensor: what the layer returned, channels first or last, or a row of tokens.
        layer: its name, for the message.
        view: what the model was given.

    Raises:
        LayerError: if it has no plane of places.
    """
    layout = read_layout(tensor, (view.height, view.width), view.reshape)
    # Windows and regions multiply the batch: such an output is not one plane an image.
    if layout is None or len(tensor) != view.images:
        raise LayerError(
            f"the layer {layer!r} gives {tuple(tensor.shape)} for {view.images} images, which is no"
            " plane of places with channels for each; choose a layer that gives (C, H, W),"
            " (H, W, C) or tokens, or give a reshape function"
        )
    return layout.spatial(tensor)


def in_map_type(tensor: Tensor) -> Tensor:
    """Return the tensor in the type maps are computed in: float64 stays, others become float32."""
    return tensor if tensor.dtype == torch.float64 else tensor.to(torch.float32)


def classifiers_at(
    methods: Sequence[Method],
    module: nn.Module,
    layers: Sequence[str],
    example: Tensor,
    *,
    scorer: Scorer,
) -> dict[str, Tensor]:
    """Find the linear classifier behind each layer, where a method needs it and there is one.

    Args:
        methods: what is going to be computed.
        module: the model.
        layers: names of layers.
        example: one image (1, C, H, W) to try the model on.
        scorer: what is explained.

    Returns:
        By layer, the classifier's weights (K, C), detached; empty if no method needs them.

    Raises:
        MapError: if a method needs one and no layer has one, or what is explained is no logit.
    """
    names = [method.name for method in methods if method.needs.classifier]
    found: dict[str, Tensor] = {}
    reasons: list[str] = []
    if not names:
        return found
    if not scorer.is_logit:
        raise MapError(
            f"{names[0]} explains the logit of a class; use it with predicted, label, top-K or a "
            "class, or use gradcam, which explains every target"
        )
    for layer in layers:
        try:
            found[layer] = find_classifier(module, layer, example, output=scorer.output)
        except (MapError, LayerError) as error:
            reasons.append(str(error))
    if not found:
        raise MapError(reasons[-1] if reasons else f"{names[0]} needs a layer; there is none")
    return found


def _rows(classifier: Tensor | None, targets: Tensor | None) -> Tensor | None:
    if classifier is None or targets is None:
        return None
    return classifier.index_select(0, targets.flatten()).reshape(*targets.shape, -1)
