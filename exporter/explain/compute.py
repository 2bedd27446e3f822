"""Maps for people who have a model and a batch of inputs in Python."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn

from exporter.arguments import in_python, python_words
from exporter.capture import Precision, guest, named_layers, parse_name, run_in, unwrapped
from exporter.config import DEFAULT_MAPS
from exporter.errors import LayerError, MapError, MapWarning, ModelError, TargetError
from exporter.explain.batches import BatchMaps
from exporter.explain.explainer import Explainer
from exporter.explain.first_read import FirstRead
from exporter.explain.layers import choose_or_offer, classifiers_at, fitting_methods
from exporter.explain.nothing import zero_maps
from exporter.explain.passes import INPUT
from exporter.explain.per_image import Explained, PerImageScorer, per_image
from exporter.guard import user_code
from exporter.layers import GivenReshape, LayerChoice, Reshape, Trial, find_out, try_images
from exporter.maps import Method, get_methods
from exporter.memory import in_halves
from exporter.models import adapt, embed_text, refuse_classes, refuse_precision
from exporter.records import ATTENTION
from exporter.targets import Scorer, parse_target


@in_python
def compute_maps(
    model: nn.Module,
    inputs: Tensor,
    *,
    maps: Sequence[str] = DEFAULT_MAPS,
    layers: Sequence[str] = ("auto",),
    targets: Sequence[Explained | Sequence[Explained]] | Tensor | str | None = None,
    rectify: bool = False,
    output: str | None = None,
    reading: Literal["auto", "logits", "probability", "value"] = "auto",
    reshape: Reshape | None = None,
    seed: int = 0,
    fuse: str | None = None,
    precision: str = "float32",
) -> Mapping[tuple[str, str], Tensor]:
    """Compute raw, signed class-activation maps of a batch.

    All methods and layers share one forward, and one backward per target. The model may be
    training, frozen, on any device and called under ``torch.no_grad()``; it is left exactly as it
    was, and its parameters' ``.grad`` is not touched.

    Args:
        model: called with the inputs only.
        inputs: (N, C, H, W); moved to the model's device and floating-point type where they differ.
        maps: names of methods (``exporter maps`` lists them).
        layers: names (``layer4``, ``relu#2``, ``block[0]``), globs, ``@Type``, or ``auto``.
        targets: one entry per image: a class index, or a function from that image's row of outputs
            (K,) to a scalar; or, for T targets per image, a list of T of them. One text for all
            images is read as the command line's (docs/models.md): ``top-3``, ``prob:281``,
            ``predicted-second``, ``box:0``. None explains the predicted class; for a segmentation
            the largest region, for a detector the surest box.
        rectify: apply the ReLU to the methods whose definition ends in one.
        output: path of the explained tensor inside the model's output, such as ``logits`` or ``0``.
        reading: what the output's numbers are. ``auto`` decides from the first image: rows that are
            at least 0 and sum to 1, or numbers in [0, 1] from a model that ends in a sigmoid, are
            probabilities, explained as they are; if there are also logits, those are explained.
        reshape: from a layer's output, or its gradient, to (N, C, H, W), if its shape does not
            show the layout. If None, or if it fails on a layer, the shape decides.
        seed: for methods that draw random numbers, such as ``smoothgrad``.
        fuse: ``mean``, ``max`` or ``product``: each method's maps of the layers, scaled to [0, 1],
            are also combined into one, under the layer ``fused``.
        precision: ``bf16`` or ``fp16``: the model runs under autocast; maps are still computed in
            float32.

    Returns:
        By (method, layer), layers in the order in which they run: float32 (float64 from a float64
        model) of shape (N, H, W), or (N, T, H, W) where targets are lists, at the layer's own
        resolution, on the model's device. Nothing is normalised. ``cam`` is there only for the
        layers that it fits. A pixel method has the layer ``""`` and gives (N, C, H, W), or
        (N, T, C, H, W), at the input's resolution; C is 1 where it does not tell channels apart.
        An attention method has the layer ``attention``, ``refinecam`` the layer ``fused``.

    Warns:
        MapWarning: if a map is zero everywhere, and why; if only its shape shows how a layer's
            output is laid out.

    Raises:
        TargetError: if inputs are not (N, C, H, W), or a target does not fit them or the output.
        LayerError: if a layer is unknown, never runs, or has no gradient or no spatial positions.
        MapError: if a method is unknown, or fits none of the layers, or the model is quantised
            and no method of activations is asked for (others are left out).
        ConfigError: if the model or its device does not support the precision.
        ModelError: if the model cannot carry gradients, or its code fails, whatever it raises: that
            is the cause of the error. Where memory runs out, fewer images at a time are tried; not
            even one may fit, or the model's output for an image may depend on the others.

    Examples:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 10))
        >>> maps = compute_maps(
        ...     model, torch.rand(2, 3, 4, 4), maps=["gradcam"], layers=["1"], targets=[7, 2]
        ... )
        >>> {key: tuple(value.shape) for key, value in maps.items()}
        {('gradcam', '1'): (2, 2, 2)}
    """
    model = adapt(unwrapped(model))
    methods, _ = fitting_methods(model, get_methods((maps,) if isinstance(maps, str) else maps))
    images = _fitting(model, inputs)
    refuse_precision(precision, model, images.device)
    lay = None if reshape is None else GivenReshape(reshape)
    wanted = (layers,) if isinstance(layers, str) else tuple(layers)
    text = targets if isinstance(targets, str) else "predicted"
    scorer, several = _scorer(model, targets, len(images), output=output, reading=reading)
    functions = isinstance(scorer, PerImageScorer) and not scorer.is_logit
    if functions and any(method.needs.classifier for method in methods):
        raise TargetError("cam explains a class; give class indices, not functions, as its targets")
    shape = " × ".join(map(str, images.shape))
    short = (
        f"not even one image fits into the memory of {str(images.device)!r}: free memory, or ask "
        "for fewer layers, maps or targets at a time"
    )
    warned: list[str] = []
    with guest(model), user_code("the model", f"inputs of {shape}", memory=short):

        @cache
        def trial() -> Trial:
            return try_images(model, images[:, None], wanted, output=output, reshape=lay)

        # Without gradients the shared pass has no graph, which would tell what the model ends in.
        graph = any(method.needs.gradients for method in methods)
        settle = FirstRead(text, output, reading, None if graph else lambda: trial().ends)
        if scorer.target.kind == "text":
            scorer = replace(scorer, reference=embed_text(model, scorer.target.source))
        chosen = LayerChoice((), "")
        if any(method.reads_layers for method in methods):
            chosen = _chosen(model, wanted, methods, trial)
        at_layers = chosen.names if any(method.at_layers for method in methods) else ()
        classifiers = classifiers_at(methods, chosen.names, scorer, trial)

        def explain(some: slice) -> dict[tuple[str, str], Tensor]:
            explainer = Explainer(
                model,
                methods,
                chosen.names,
                target=scorer.of_images(some) if isinstance(scorer, PerImageScorer) else scorer,
                layouts=chosen.layouts,
                reshape=lay,
                seed=seed,
                fuse=fuse,
                classifiers=classifiers,
                settle=settle,
            )
            explained = _explained(model, explainer, images[some], precision)
            _refuse_missing(explained, at_layers, methods)
            warned.extend((*explainer.notes, *zero_maps(explained, methods, some.start)))
            return _finished(explained, methods, several=several, rectify=rectify)

        try:
            parts = in_halves(explain, len(images))
        finally:  # what failed may have failed because of it
            if settle.unsure or trial.cache_info().currsize:
                settle.check_one(trial().output)
        if lay is not None and chosen.names:
            lay.refuse_misfit()
        if len(parts) > 1 and find_out(trial()).alone is False:
            raise _together(images, len(next(iter(parts[0].values()))))
    for said in dict.fromkeys(warned):
        warnings.warn(python_words(said, ("reshape",)), MapWarning, stacklevel=3)
    return parts[0] if len(parts) == 1 else _joined(parts)


def _together(images: Tensor, most: int) -> ModelError:
    """Return the error of images that have to go through the model together, and do not fit."""
    return ModelError(
        f"inputs of {' × '.join(map(str, images.shape))} do not fit into the memory of "
        f"{str(images.device)!r}, and as the model's output for an image depends on the others in "
        f"its batch, they are not explained in parts; give at most {most} at a time"
    )


def _scorer(
    model: nn.Module,
    targets: Sequence[Explained | Sequence[Explained]] | Tensor | str | None,
    images: int,
    *,
    output: str | None,
    reading: str,
) -> tuple[Scorer, bool]:
    """Return the scorer of the targets, before an output is seen, and whether they are several."""
    given: Any = "logits" if reading == "auto" else reading
    if targets is None or isinstance(targets, str):
        target = parse_target(targets or "predicted", ())
        refuse_classes(model, target)
        return Scorer(target, output, given=given), target.k > 1
    rows, listed = per_image(targets, images)
    target = replace(parse_target("predicted", ()), k=len(rows[0]))
    return PerImageScorer(target, output, given=given, wanted=rows), listed or len(rows[0]) > 1


def _explained(model: nn.Module, explainer: Explainer, images: Tensor, precision: str) -> BatchMaps:
    """Explain a batch in a format, with the largest scale that no gradient overflows at."""
    unknown = torch.full((len(images),), -1, device=images.device)
    for lowered in Precision.candidates(precision):
        with run_in(model, lowered):
            explained = explainer.explain(images, unknown)
        if lowered.scale == 1 or _finite(explained):
            break
    return explained


def _finished(
    explained: BatchMaps, methods: Sequence[Method], *, several: bool, rectify: bool
) -> dict[tuple[str, str], Tensor]:
    """Return a batch's maps by method and layer, (N, …) or (N, T, …) each."""
    with torch.inference_mode(False), torch.no_grad():
        pixels = {name: whole.unbind(1) for name, whole in explained.pixels.items()}
        finished = {}
        for layer, here in (*explained.maps.items(), ("", pixels)):
            for method in methods:
                if method.name not in here:
                    continue
                stacked = torch.stack(here[method.name], 1) if several else here[method.name][0]
                relu = rectify and method.record.relu
                finished[method.name, layer] = stacked.relu() if relu else stacked
        return finished


def _finite(explained: BatchMaps) -> bool:
    maps = (each for here in explained.maps.values() for maps in here.values() for each in maps)
    return all(bool(values.isfinite().all()) for values in (*maps, *explained.pixels.values()))


def _joined(parts: Sequence[Mapping[tuple[str, str], Tensor]]) -> dict[tuple[str, str], Tensor]:
    """Put the maps of parts of a batch together.

    Raises:
        LayerError: if a map is there for some of the images only.
    """
    for method, layer in {key for part in parts for key in part}:
        if any((method, layer) not in part for part in parts):
            raise LayerError(f"{method} at {layer!r} has a map for some of the images only")
    with torch.inference_mode(False), torch.no_grad():
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def _refuse_missing(explained: BatchMaps, layers: Sequence[str], methods: Sequence[Method]) -> None:
    """Raise where a layer, or a method at one of them, has no map that was asked for."""
    asked, missing = explained.captured.asked, explained.missing
    for layer in layers:
        # Of a layer that returns a container, one element that can be explained is enough.
        if any(layer in asked.get(n, ()) and n not in missing for n in explained.maps):
            continue
        for name, why in missing.items():
            if layer in (name, *asked.get(name, ())):
                raise LayerError(f"the layer {layer!r} cannot be explained: {why}")
    for method in methods:
        # `cam` is there for the layers that it fits only.
        own = () if method.needs.classifier else (*explained.captured.activations, ATTENTION)
        for layer in own:
            if (name := f"{method.name} at {layer}") in missing:
                raise LayerError(f"{name!r} cannot be computed: {missing[name]}")
        if (name := f"{method.name} at {INPUT}") in missing:
            raise MapError(f"{method.name} cannot be computed: {missing[name]}")


def _fitting(model: nn.Module, inputs: Tensor) -> Tensor:
    """Return the inputs on the model's device and in its floating-point type."""
    if not isinstance(inputs, Tensor) or inputs.ndim != 4 or len(inputs) == 0:
        shape = tuple(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__
        raise TargetError(
            f"the inputs are {shape}; give a tensor (N, C, H, W) of at least one image"
        )
    first = next((p for p in model.parameters() if p.is_floating_point()), None)
    return inputs if first is None else inputs.to(first.device, first.dtype)


def _chosen(
    model: nn.Module,
    layers: tuple[str, ...],
    methods: Sequence[Method],
    trial: Callable[[], Trial],
) -> LayerChoice:
    modules = named_layers(model)
    # Plain names need no trial forward; everything else is looked up by trying the model.
    with suppress(LayerError):
        if layers and all(parse_name(name, modules).module in modules for name in layers):
            return LayerChoice(layers, "as asked for")
    return choose_or_offer(trial(), layers, methods)
