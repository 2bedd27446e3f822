"""Attributions of captum as pixel maps: ``captum:DeepLift``, ``captum:Lime:n_samples=200``.

captum (BSD-3-Clause) is imported when such a name is first looked up. Whatever is an `Attribution`
of the input and asks for nothing that settings cannot say is a map here, by captum's own name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from exporter.errors import MapError, choices
from exporter.maps import context as contexts
from exporter.maps.borrowed import (
    as_arguments,
    borrowed,
    lent_to,
    library,
    on_a_copy,
    simple_settings,
)
from exporter.maps.context import PassContext
from exporter.maps.needs import Passes, Setting, Value
from exporter.maps.registry import Method
from exporter.records import MethodRecord

CELLS = 8
"""Rows and columns of the cells that methods of features put on or take off together."""

_FLATS = (-2.0, -1.0, 0.0, 1.0, 2.0)
"""Values of the flat images, dark to light in normalised space, that stand for a distribution."""

_GIVEN = frozenset(
    {
        *("self", "model", "forward_func", "inputs", "target", "additional_forward_args"),
        *("return_convergence_delta", "custom_attribution_func", "show_progress", "verbose"),
        *("return_input_shape", "perturbations_per_eval", "internal_batch_size", "abs"),
        *("feature_mask", "baselines", "kwargs"),
    }
)
"""Parameters that are given by the program or have no part in a map."""

_UNFIT = {
    "FeaturePermutation": "mixes parts of several images, and a map here depends on one image "
    "only; choose captum:FeatureAblation",
    "ShapleyValues": "tries every order of the cells, which takes too long; choose "
    "captum:ShapleyValueSampling",
    "Occlusion": "needs shapes of windows, which a setting cannot express; choose occlusion",
    "GuidedGradCam": "explains a layer; choose guidedgradcam",
}


@lru_cache
def method_named(name: str) -> Method:
    """Return the map of an attribution.

    Raises:
        MapError: if captum is not installed, has no such attribution, or it is none of the input.
    """
    attr = library("captum.attr", "captum")
    known = {spelt.lower(): kind for spelt, kind in _attributions(attr).items()}
    kind = known.get(name.strip().lower())
    if kind is None:
        raise MapError(f"captum has no attribution {name!r}; {choices(name, names(), limit=20)}")
    if why := _why_unfit(attr, kind):
        raise MapError(f"captum's {kind.__name__} {why}")
    return _method(attr, kind)


def names() -> tuple[str, ...]:
    """Return the attributions that are maps here.

    Raises:
        MapError: if captum is not installed.
    """
    attr = library("captum.attr", "captum")
    return tuple(n for n, each in _attributions(attr).items() if not _why_unfit(attr, each))


def _attributions(attr: Any) -> dict[str, type]:
    return {
        kind.__name__: kind
        for kind in vars(attr).values()
        if inspect.isclass(kind) and issubclass(kind, attr.Attribution)
    }


def _why_unfit(attr: Any, kind: type) -> str:
    """Say why an attribution is no map of the input; ``""`` for one that is."""
    if kind.__name__ in _UNFIT:
        return _UNFIT[kind.__name__]
    if issubclass(kind, attr.LayerAttribution | attr.NeuronAttribution | attr.LayerLRP):
        return (
            "explains a layer or a neuron, but captum's maps here explain the input; "
            "`exporter maps` lists maps of layers"
        )
    attribute: Callable[..., Any] | None = getattr(kind, "attribute", None)
    if attribute is None:
        return "is a base class of methods, not a method"
    asked = [
        name
        for function in (kind.__init__, attribute)  # type: ignore[misc]
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is parameter.empty and name not in _GIVEN
    ]
    return f"asks for {', '.join(asked)}, which a setting cannot express" if asked else ""


def _method(attr: Any, kind: type) -> Method:
    taken = inspect.signature(kind.attribute).parameters  # type: ignore[attr-defined]
    built = simple_settings(kind.__init__, without=_GIVEN)  # type: ignore[misc]
    called = simple_settings(kind.attribute, without=_GIVEN)  # type: ignore[attr-defined]
    of_cells = "feature_mask" in taken
    cells = {"cells": Setting(CELLS)} if of_cells else {}
    declared = {**built, **called, **cells}
    gradient = issubclass(kind, attr.GradientAttribution)
    # One image at a time where numbers are drawn, or where its variants do not follow one another
    # as a context's do: its map is then the same whatever batch it is in.
    alone = bool({"n_samples", "perturbations_per_eval"} & taken.keys()) or _is_distribution(taken)

    def compute(context: PassContext, **settings: Value) -> Tensor:
        named = as_arguments(settings, declared)
        options = {name: value for name, value in named.items() if name in built}
        arguments = {name: value for name, value in named.items() if name in called}
        own = on_a_copy(context) if "model" in inspect.signature(kind).parameters else context
        each = [own.part(n, n + 1) for n in range(len(own.inputs))] if alone else [own]
        return torch.cat(
            [
                _attribute(kind, part, options, _arguments(taken, part, named) | arguments)
                for part in each
            ]
        )

    summed = not kind.__name__.startswith(("Saliency", "Guided", "Deconv"))
    return borrowed(
        _record(kind.__name__, of_cells=of_cells),
        compute,
        declared,
        _passes(declared, gradient=gradient, shapley=issubclass(kind, attr.ShapleyValueSampling)),
        "sum" if summed else "max-abs",
    )


def _is_distribution(taken: Mapping[str, inspect.Parameter]) -> bool:
    return "baselines" in taken and taken["baselines"].default is inspect.Parameter.empty


def _arguments(
    taken: Mapping[str, inspect.Parameter], context: PassContext, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what is given to `attribute` besides settings, the inputs and the target."""
    inputs, given = context.inputs, dict[str, Any]()
    rows = context.rows or contexts.ROWS
    for name in ("perturbations_per_eval", "internal_batch_size"):
        if name in taken:
            given[name] = rows
    if "abs" in taken:
        given["abs"] = False
    if "feature_mask" in taken:
        given["feature_mask"] = cells_of(inputs, settings["cells"])
    if _is_distribution(taken):
        flats = inputs.new_tensor(_FLATS).view(-1, 1, 1, 1)
        given["baselines"] = flats.expand(-1, *inputs.shape[1:]).contiguous()
    return given


def cells_of(inputs: Tensor, cells: int) -> Tensor:
    """Return the number of each pixel's cell, int64 (1, 1, H, W), of ``cells`` rows and columns."""
    height, width = inputs.shape[-2:]
    sides = [min(max(1, cells), side) for side in (height, width)]
    rows, columns = (
        torch.arange(side, device=inputs.device) * many // side
        for side, many in zip((height, width), sides, strict=True)
    )
    return (rows[:, None] * sides[1] + columns)[None, None]


def _attribute(
    kind: Any, context: PassContext, options: Mapping[str, Any], arguments: dict[str, Any]
) -> Tensor:
    """Return the attributions of some images, (N, T, C, H, W); C is 1 for a method of cells."""
    scored = _Scored(context)
    samples = arguments.get("n_samples", 0)
    together = arguments.get("perturbations_per_eval", context.rows or contexts.ROWS)
    # What has no setting for it puts all its samples through the model at once.
    unbounded = samples > together and "perturbations_per_eval" not in arguments
    portions = [min(together, samples - at) for at in range(0, samples, together)]
    targets = []
    for target in range(context.count):
        total = torch.zeros_like(context.inputs)
        with lent_to(f"captum's {kind.__name__}", context):
            for part in portions if unbounded else [samples]:
                given = arguments | ({"n_samples": part} if samples else {})
                inputs = context.inputs.detach().clone()
                attribution = kind(scored, **options).attribute(inputs, target=target, **given)
                total += attribution.detach() * (part / samples if unbounded else 1)
        targets.append(total)
    attributions = torch.stack(targets, 1)
    return attributions[:, :, :1] if "feature_mask" in arguments else attributions


class _Scored(nn.Module):
    """The model with its targets' scores (k·N, T) for an output, which captum picks a target of."""

    def __init__(self, context: PassContext) -> None:
        super().__init__()
        self.model = context.module
        self.score = context.score
        self.train(context.module.training)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.score(self.model(inputs))


def _passes(declared: Mapping[str, Setting], *, gradient: bool, shapley: bool) -> Passes:
    least = {name: 2 for name in ("n_samples", "n_steps", "cells") if name in declared}
    number = next((name for name in ("n_samples", "n_steps") if name in declared), "")
    if number and "perturbations_per_eval" not in declared and gradient:
        return Passes(number, 1, of="images between a baseline and the image", least=least)
    if "cells" in declared:
        each = "per cell and sample" if shapley else number or "per cell"
        return Passes(each, of="the image with cells covered", least=least)
    return Passes(number or 1, int(gradient), least=least)


def _record(name: str, *, of_cells: bool) -> MethodRecord:
    return MethodRecord(
        name=f"captum:{name}",
        title=f"{name} (captum)",
        shows=f"What captum's {name} attributes to each pixel for the target.",
        formula=f"M = captum.attr.{name}(S).attribute(I), I the normalised input, S the target's "
        "score",
        paper="Kokhlikyan, Miglani, Martin, Wang, Alsallakh, Reynolds, Melnikov, Kliushkina, "
        "Araya, Yan, Reblitz-Richardson: Captum: A unified and generic model interpretability "
        "library for PyTorch, arXiv 2020",
        url="https://arxiv.org/abs/2009.07896",
        cost="passes of its own, as captum runs them",
        caveats="Computed by captum (BSD-3-Clause), whose documentation describes its pitfalls."
        + " Pixels of a cell are covered together and have one value." * of_cells,
        relu=False,
    )
