"""From what was captured to maps: every method asked for, at every layer where it exists."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from exporter.capture import Captured, magnitudes, unless_narrow
from exporter.errors import ExporterError, LayerError, MapError, NoLayerError
from exporter.explain.fusion import FUSED, fuse_layers
from exporter.explain.passes import INPUT, LayerMaps, PassMaps, in_map_type
from exporter.layers import LayerChoice, Trial, choose_layers, find_classifier
from exporter.layers.planes import Planes
from exporter.maps import METHODS, Method, channel_maps
from exporter.records import ATTENTION
from exporter.targets import Scorer


def choose_or_offer(trial: Trial, wanted: Sequence[str], methods: Sequence[Method]) -> LayerChoice:
    """Choose the layers to explain; where there is no plane at all, say what needs none.

    Where none of the methods reads a layer, a model may be without a plane.

    Raises:
        LayerError: if a layer does not fit, or the model has none that does.
    """
    try:
        return choose_layers(trial, wanted, single=False)
    except NoLayerError as error:
        if tuple(wanted) == ("auto",) and methods and not any(m.reads_layers for m in methods):
            return LayerChoice((), f"none: {error}")
        free = [
            name
            for name, method in METHODS.items()
            if method.record.pixel and not method.reads_layers
        ]
        raise NoLayerError(
            f"{error}; methods of pixels need no layer: {', '.join(free[:4])}"
        ) from None


def fitting_methods(module: nn.Module, methods: Sequence[Method]) -> tuple[tuple[Method, ...], str]:
    """Return the methods that a model can carry, and why others are left out, or ``""``.

    Raises:
        MapError: if none is left.
    """
    kinds = (type(part).__module__ for part in module.modules())
    if not any(kind.startswith("torch.") and "quantized" in kind for kind in kinds):
        return tuple(methods), ""
    why = "the model is quantised and has no gradients: only methods of activations"
    fitting = tuple(method for method in methods if method.only_forward)
    others = ", ".join(method.name for method in methods if not method.only_forward)
    if methods and not fitting:
        able = ", ".join(name for name, method in METHODS.items() if method.only_forward)
        raise MapError(f"{why}, not {others}; choose from {able}")
    return fitting, f"{why}, not {others}" if others else ""


def maps_at_layers(
    methods: Sequence[Method],
    captured: Captured,
    layers: Sequence[str],
    *,
    inputs: Tensor,
    planes: Planes,
    classifiers: Mapping[str, Tensor],
    targets: Tensor,
    passes: PassMaps,
    fusion: str = "",
) -> tuple[dict[str, LayerMaps], dict[str, LayerMaps], dict[str, str]]:
    """Compute every method at every captured layer, on the device.

    Returns:
        Maps by layer in execution order, then those of ``attention`` and ``fused``; by layer, what
        rounding may amount to in them (see `_floors`); and by layer (or ``method at layer``) why
        one is missing.

    Raises:
        LayerError: if a layer has no plane, or none of the layers can be explained.
    """
    asked = set(layers)
    missing = {
        name: why
        for name, why in captured.missing.items()
        if asked & {name, *captured.asked.get(name, ())}
    }
    maps: dict[str, LayerMaps] = {}
    floors: dict[str, LayerMaps] = {}
    for name, output in captured.activations.items():
        if not asked & set(captured.asked[name]):
            continue
        gradients, classifier = captured.gradients.get(name), classifiers.get(name)
        fitting = []
        for method in methods:
            if method.kind == "pass" or (method.needs.gradients and gradients is None):
                continue
            if method.needs.classifier and classifier is None:
                why = "no average pooling and single linear layer follow"
                missing[f"{method.name} at {name}"] = why
            else:
                fitting.append(method)
        here = dict(passes.layers.get(name, {}))
        if fitting:
            graded = any(method.needs.gradients for method in fitting)
            values, *slopes = (
                in_map_type(unless_narrow(planes.read(name, read, inputs)))
                for read in (output, *(gradients if gradients is not None and graded else ()))
            )
            here |= _layer_maps(fitting, values, slopes, classifier, targets)
            floors[name] = _floors(fitting, values, slopes, classifier, targets)
        if here:
            maps[name] = {m.name: here[m.name] for m in methods if m.name in here}
    missing |= passes.missing
    fused = fuse_layers(methods, maps, fusion)
    if ATTENTION in passes.layers:
        maps[ATTENTION] = passes.layers[ATTENTION]
    if fused:
        maps[FUSED] = fused
    attending = [method.name for method in methods if method.needs.attention]
    if attending and not maps and not any(method.at_layers for method in methods):
        why = missing.get(f"{attending[0]} at {ATTENTION}", "the model has no attention")
        raise LayerError(f"{' and '.join(attending)}: {why}")
    if methods and not maps and not passes.pixels:
        raise _nothing(methods, missing)
    return maps, floors, missing


def _nothing(methods: Sequence[Method], missing: Mapping[str, str]) -> ExporterError:
    """Return the error that says why there is no map at all."""
    if not any(method.at_layers for method in methods):
        where, why = next(iter(missing.items()))
        return MapError(f"{where.removesuffix(f' at {INPUT}')} cannot be computed: {why}")
    layers: dict[str, list[str]] = {}
    for where, why in missing.items():
        layers.setdefault(why, []).append(where)
    reasons = "; ".join(f"{', '.join(names)}: {why}" for why, names in layers.items())
    return LayerError(f"none of the layers can be explained ({reasons}); choose others")


def _layer_maps(
    methods: Sequence[Method],
    activation: Tensor,
    gradients: Sequence[Tensor],
    classifier: Tensor | None,
    targets: Tensor,
) -> LayerMaps:
    # What does not depend on the target is computed with the first one and shared by the others.
    own = [method for method in methods if method.needs.gradients or method.needs.classifier]
    each: list[dict[str, Tensor]] = []
    for target, indices in enumerate(targets.unbind(1)):
        rows = None if classifier is None else classifier.index_select(0, indices)
        gradient = gradients[target] if gradients else None
        if own or not each:
            each.append(channel_maps(own if each else methods, activation, gradient, rows))
    return {
        method.name: tuple(
            each[target if method in own else 0][method.name] for target in range(targets.shape[1])
        )
        for method in methods
    }


def _floors(
    methods: Sequence[Method],
    activation: Tensor,
    gradients: Sequence[Tensor],
    classifier: Tensor | None,
    targets: Tensor,
) -> LayerMaps:
    """Return by method what rounding alone may amount to in its maps, (N,) for each target.

    2 ε √(H·W) Σ_c max|A_c| · w_c, with ε the relative precision of the numbers: w_c is the mean of
    |g_c| for a method of gradients, the magnitude of the classifier's weight, or 1. Channels that
    cancel, or a gradient whose spatial mean is zero, leave no more than that.
    """
    largest = magnitudes(activation, torch.amax)
    cells = activation.shape[2] * activation.shape[3]
    eps = 2 * torch.finfo(activation.dtype).eps * cells**0.5
    sloped = [magnitudes(g, torch.mean) for g in gradients]
    rows = [] if classifier is None else [classifier[at].abs() for at in targets.unbind(1)]
    alone = [torch.ones_like(largest)] * targets.shape[1]
    floors: LayerMaps = {}
    for method in methods:
        weights = sloped if method.needs.gradients else rows if method.needs.classifier else alone
        if method.homogeneous:
            floors[method.name] = tuple(eps * (largest * part).sum(1) for part in weights)
    return floors


def classifiers_at(
    methods: Sequence[Method],
    layers: Sequence[str],
    scorer: Scorer,
    trial: Callable[[], Trial],
) -> dict[str, Tensor]:
    """Find the linear classifier behind each layer, where a method needs it and there is one.

    Returns:
        By layer, the classifier's weights (K, C), detached; empty if no method needs them, and
        then ``trial`` is not called.

    Raises:
        MapError: if a method needs one and no layer has one, or what is explained is no logit.
    """
    names = [method.name for method in methods if method.needs.classifier]
    if not names:
        return {}
    if not scorer.is_logit:
        raise MapError(
            f"{names[0]} explains the logit of a class; use it with predicted, label, top-K or a "
            "class, or use gradcam, which explains every target"
        )
    classifiers: dict[str, Tensor] = {}
    why = f"{names[0]} needs a layer; there is none"
    for layer in layers:
        try:
            classifiers[layer] = find_classifier(trial(), layer).weight
        except (MapError, LayerError) as error:
            why = str(error)
    if not classifiers:
        raise MapError(why)
    return classifiers
