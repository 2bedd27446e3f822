"""In what the plans of runs differ, and which of it the comparison is about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from exporter.comparison.records import Difference
from exporter.records import Plan
from exporter.writers.html.text import preprocessing_text

AXES: Final = ("model", "checkpoint", "weights", "preprocessing", "target", "seed", "methods")
"""What runs may vary in, the first that differs is what the comparison is about."""

WHY: Final = {
    "model": "Layers and channels differ: maps are compared by stage, kernels and channels not.",
    "checkpoint": "The weights differ: kernels and channels are compared one by one.",
    "weights": "The weights differ: kernels and channels are compared one by one.",
    "preprocessing": "The models see different pixels: where their views of a photograph differ, "
    "maps are compared over the part that both see.",
    "target": "The maps explain different scores.",
    "seed": "Random choices differ: random weights, methods that draw numbers, samples of images.",
    "methods": "A method is compared between the runs that have it.",
    "layers": "Maps are compared where the runs have layers that correspond.",
    "classes": "Predictions are compared by the name of their class.",
    "labels": "An image counts for accuracy only if every run knows its label.",
    "images": "Only images that all runs have read are compared, by their contents.",
    "precision": "Numbers are rounded differently; small differences may be no more than that.",
    "versions": "Small differences may come from other package versions.",
}
"""Why each difference matters."""


def axis_of(plans: Sequence[Plan]) -> str:
    """Return what the comparison is about: the first of `AXES` in which the runs differ."""
    return next((name for name in AXES if len(set(map(_ASPECTS[name], plans))) > 1), "nothing")


def architecture(plan: Plan) -> tuple[object, ...]:
    """Return what is the same in two plans of one model, whatever its weights."""
    return (plan.model.title, plan.model.parameters, layers_of(plan))


def layers_of(plan: Plan) -> tuple[object, ...]:
    """Return what makes models the same; what their layers give depends on the input's size."""
    return tuple((layer.name, layer.type, layer.parameters) for layer in plan.layers)


def shared_classes(plans: Sequence[Plan]) -> bool:
    """Tell whether predictions can be compared by name."""
    named = [plan.model.classes for plan in plans]
    if not all(named):
        return len({plan.model.outputs for plan in plans}) == 1 and not any(named)
    return bool(set.intersection(*(set(names) for names in named)))


def _preprocessing(plan: Plan) -> tuple[object, ...]:
    how = plan.model.preprocessing
    return (how.size, how.resize, how.crop, how.interpolation, how.mean, how.std, how.channels)


_ASPECTS: Final[dict[str, Callable[[Plan], object]]] = {
    "model": architecture,
    "checkpoint": lambda plan: plan.model.same_weights if plan.model.checkpoint else None,
    "weights": lambda plan: plan.model.same_weights,
    "preprocessing": _preprocessing,
    "target": lambda plan: plan.target,
    "seed": lambda plan: str(plan.settings.get("seed")),
    "methods": lambda plan: tuple((m.name, tuple(m.settings.items())) for m in plan.methods),
    "layers": lambda plan: plan.explained,
    "classes": lambda plan: plan.model.classes,
    "labels": lambda plan: tuple(sorted(plan.label_index)),
    "precision": lambda plan: (plan.execution.get("device"), plan.computed_on.get("precision")),
    "versions": lambda plan: tuple(sorted(plan.versions.items())),
}
"""What is compared of the plans; equal where the runs do not differ in it."""


def _named(plan: Plan, name: str) -> str:
    """Return what a run has of an aspect, in words."""
    model = plan.model
    said: dict[str, str] = {
        "model": f"{model.title}, {model.parameters:,} parameters",
        "checkpoint": f"{model.checkpoint or 'none'} ({model.weights})",
        "weights": model.weights,
        "preprocessing": preprocessing_text(model.preprocessing),
        "target": plan.target,
        "seed": str(plan.settings.get("seed")),
        "methods": ", ".join(method.name for method in plan.methods),
        "layers": ", ".join(plan.explained),
        "classes": f"{len(model.classes)} named classes" if model.classes else "no class names",
        "labels": f"{len(plan.label_index)} labels are classes",
        "precision": " ".join(plan.computed_on.get(n, "") for n in ("device", "dtype")),
        "versions": ", ".join(f"{n} {v}" for n, v in sorted(plan.versions.items())),
    }
    return said[name]


def differences_of(
    plans: Sequence[Plan], shown: Sequence[Plan], axis: str, missing: int
) -> list[Difference]:
    """Return in what the runs differ, what the comparison is about first.

    Args:
        plans: of the runs.
        shown: the same as they are told, which may be without names.
        axis: what the comparison is about.
        missing: images that are not in all runs.
    """
    different = [name for name, of in _ASPECTS.items() if len(set(map(of, plans))) > 1]
    if "checkpoint" in different or "model" in different:  # each says the weights, too
        different = [name for name in different if name != "weights"]
    if "model" in different:
        different = [name for name in different if name != "checkpoint"]
    differences = [
        Difference(name, tuple(_named(plan, name) for plan in shown), WHY[name], name == axis)
        for name in sorted(different, key=lambda name: name != axis)
    ]
    if missing:
        said = tuple(f"{len(plan.images):,} images" for plan in plans)
        differences.append(Difference("images", said, WHY["images"]))
    return differences
