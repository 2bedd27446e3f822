"""From what was captured to maps: every method asked for, at every layer where it exists."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from exporter.capture import Captured
from exporter.errors import LayerError, MapError, NoLayerError
from exporter.explain.fusion import FUSED, fuse
from exporter.explain.passes import LayerMaps, PassMaps, in_map_type
from exporter.layers import LayerChoice, Trial, choose_layers, find_classifier
from exporter.layers.planes import Planes
from exporter.maps import ATTENTION, METHODS, Method, channel_maps
from exporter.targets import Scorer


def choose_or_offer(trial: Trial, wanted: Sequence[str], methods: Sequence[Method]) -> LayerChoice:
    """Choose the layers to explain; where there is no plane at all, say what needs none.

    Args:
        trial: of the model.
        wanted: see `exporter.layers.choose_layers`.
        methods: map methods; where none of them reads a layer, a model may be without a plane.

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

    Args:
        module: the model; through a quantised one no gradient flows.
        methods: what was asked for.

    Raises:
        MapError: if none is left.
    """
    kinds = (type(part).__module__ for part in module.modules())
    if not any(kind.startswith("torch.") and "quantized" in kind for kind in kinds):
        return tuple(methods), ""
    why = "the model is quantised and carries no gradients: methods of activations only"
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
) -> tuple[dict[str, LayerMaps], dict[str, str]]:
    """Compute every method at every captured layer, on the device.

    Args:
        methods: what to compute.
        captured: from `exporter.capture.capture`.
        layers: the layers asked for.
        inputs: what the model was given, (N, C, H, W).
        planes: how the layers lie in the plane.
        classifiers: by layer, the linear layer (K, C) that global average pooling feeds from it.
        targets: class indices (N, T), which methods of a classifier read.
        passes: what the methods that run the model themselves gave.
        fusion: ``mean``, ``max`` or ``product`` for a map ``fused`` of all layers besides theirs.

    Returns:
        Maps by layer in execution order, then those of ``attention`` and ``fused``; and by layer
        (or ``method at layer``) why one is missing.

    Raises:
        LayerError: if a layer has no plane, or none of the layers can be explained.
    """
    asked = set(layers)
    missing = {
        name: why
        for name, why in captured.missing.items()
        if not asked.isdisjoint((name, *captured.asked.get(name, ())))
    }
    maps: dict[str, LayerMaps] = {}
    for name, output in captured.activations.items():
        if asked.isdisjoint(captured.asked[name]):
            continue
        gradients = captured.gradients.get(name)
        classifier = classifiers.get(name)
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
            here |= _layer_maps(
                fitting,
                in_map_type(planes.read(name, output, inputs)),
                [in_map_type(planes.read(name, g, inputs)) for g in gradients]
                if gradients is not None and graded
                else None,
                None if classifier is None else _rows(classifier, targets),
                targets.shape[1],
            )
        if here:
            maps[name] = {m.name: here[m.name] for m in methods if m.name in here}
    missing |= passes.missing
    fused = _fused(methods, maps, fusion)
    if ATTENTION in passes.layers:
        maps[ATTENTION] = passes.layers[ATTENTION]
    if fused:
        maps[FUSED] = fused
    if any(method.at_layers or method.needs.attention for method in methods) and not maps:
        reasons = "; ".join(f"{name}: {why}" for name, why in missing.items())
        raise LayerError(f"none of the layers can be explained ({reasons}); choose others")
    return maps, missing


def _fused(methods: Sequence[Method], maps: dict[str, LayerMaps], fusion: str) -> LayerMaps:
    """Fuse the layers' maps; those that are only there fused leave their layers."""
    fused: LayerMaps = {}
    for method in methods:
        how = method.fuse or fusion
        layers = [here[method.name] for here in maps.values() if method.name in here]
        if how and layers:
            relu = method.record.relu or bool(method.fuse)
            columns = zip(*layers, strict=True)
            fused[method.name] = tuple(fuse(column, how, relu=relu) for column in columns)
        if method.fuse:
            for here in maps.values():
                here.pop(method.name, None)
    for name in [name for name, here in maps.items() if not here]:
        del maps[name]
    return fused


def _layer_maps(
    methods: Sequence[Method],
    activation: Tensor,
    gradients: Sequence[Tensor] | None,
    rows: Tensor | None,
    count: int,
) -> LayerMaps:
    """Compute a layer's maps of ``count`` targets; ``rows`` (N, T, C) are the classifier's."""
    # What does not depend on the target is computed with the first one and shared by the others.
    own = [method for method in methods if method.needs.gradients or method.needs.classifier]
    targets = [
        channel_maps(
            methods if target == 0 else own,
            activation,
            None if gradients is None else gradients[target],
            None if rows is None else rows[:, target],
        )
        for target in range(count if own else 1)
    ]
    return {
        method.name: tuple(targets[t if method in own else 0][method.name] for t in range(count))
        for method in methods
    }


def _rows(classifier: Tensor, targets: Tensor) -> Tensor:
    return classifier.index_select(0, targets.flatten()).reshape(*targets.shape, -1)


def classifiers_at(
    methods: Sequence[Method],
    layers: Sequence[str],
    scorer: Scorer,
    trial: Callable[[], Trial],
) -> dict[str, Tensor]:
    """Find the linear classifier behind each layer, where a method needs it and there is one.

    Args:
        methods: what is going to be computed.
        layers: names of layers.
        scorer: what is explained.
        trial: gives one of the model; called only if a method needs a classifier.

    Returns:
        By layer, the classifier's weights (K, C), detached; empty if no method needs them.

    Raises:
        MapError: if a method needs one and no layer has one, or what is explained is no logit.
    """
    names = [method.name for method in methods if method.needs.classifier]
    classifiers: dict[str, Tensor] = {}
    reasons: list[str] = []
    if not names:
        return classifiers
    if not scorer.is_logit:
        raise MapError(
            f"{names[0]} explains the logit of a class; use it with predicted, label, top-K or a "
            "class, or use gradcam, which explains every target"
        )
    seen = trial()
    for layer in layers:
        try:
            classifiers[layer] = find_classifier(seen, layer)
        except (MapError, LayerError) as error:
            reasons.append(str(error))
    if not classifiers:
        raise MapError(reasons[-1] if reasons else f"{names[0]} needs a layer; there is none")
    return classifiers
