"""Which methods and layers of the runs are compared with one another."""

from __future__ import annotations

import re
from collections.abc import Sequence

from exporter.comparison.differences import architecture
from exporter.comparison.records import Compared, Stage
from exporter.records import COMBINED, MethodRecord, Plan
from exporter.writers.html.text import layer_words
from exporter.writers.links import DEEPEST, INPUT, stage_names


def common_methods(plans: Sequence[Plan]) -> list[Compared]:
    """Return the methods that two runs or more have; the first of each where there is none."""
    records: dict[str, list[MethodRecord | None]] = {}
    for at, plan in enumerate(plans):
        for record in plan.methods:
            records.setdefault(record.name, [None] * len(plans))[at] = record
    shared = {n: own for n, own in records.items() if sum(r is not None for r in own) > 1}
    if shared:
        return [_compared(name, own) for name, own in shared.items()]
    layered = [[record for record in plan.methods if not record.pixel] for plan in plans]
    if sum(bool(own) for own in layered) < 2:
        return []
    return [_compared("first method", [own[0] if own else None for own in layered])]


def _compared(name: str, records: Sequence[MethodRecord | None]) -> Compared:
    known = [record for record in records if record is not None]
    titles = list(dict.fromkeys(record.title for record in known))
    return Compared(
        name=name,
        title=titles[0] if len(titles) == 1 else " against ".join(titles),
        methods=tuple(None if record is None else record.name for record in records),
        relu=tuple((record or known[0]).relu for record in records),
        pixel=known[0].pixel,
    )


def common_stages(plans: Sequence[Plan]) -> tuple[list[Stage], str]:
    """Align the explained layers of the runs.

    Layers of one name are the same layer where every run has the same model. Otherwise they go
    together by stage: the deepest, and before it those of one stride, as TensorBoard calls them.

    Returns:
        The stages, shallow to deep, and how they were aligned; ``""`` where by name.
    """
    if len({architecture(plan) for plan in plans}) == 1:
        names = dict.fromkeys(name for plan in plans for name in plan.explained)
        order = {layer.name: at for at, layer in enumerate(plans[0].layers)}
        explained = [set(plan.explained) for plan in plans]
        stages = [
            Stage(name, tuple(name if name in own else None for own in explained))
            for name in sorted(names, key=lambda name: order.get(name, len(order)))
            if sum(name in own for own in explained) > 1
        ]
        if stages:
            return stages, ""
    own = [_stages(plan) for plan in plans]
    names = dict.fromkeys(name for stages in own for name in stages)
    stages = [
        Stage(name, tuple(stages.get(name) for stages in own))
        for name in sorted(names, key=_depth)
        if sum(name in stages for stages in own) > 1
    ]
    said = "; ".join(
        f"{stage.name}: {', '.join(layer or '—' for layer in stage.layers)}" for stage in stages
    )
    return stages, f"layers are aligned by their stage ({said})" if said else ""


def _stages(plan: Plan) -> dict[str, str]:
    """Return the layers of a plan by the name of their stage, as in TensorBoard."""
    names = stage_names(plan)
    layers = {names[layer]: layer for layer in plan.layers_of_the_model}
    return layers | {layer: layer for layer in COMBINED if layer in plan.explained}


def _depth(stage: str) -> tuple[bool, bool, int, int]:
    """Return what puts stages in order, shallow to deep.

    >>> sorted(["deepest", "stage-4", "stage-4.2", "stage-10"], key=_depth)
    ['stage-4.2', 'stage-4', 'stage-10', 'deepest']
    """
    numbers = [int(number) for number in re.findall(r"\d+", stage)]
    nth = numbers[1] if len(numbers) > 1 else 1
    return (stage == DEEPEST, stage in COMBINED, numbers[0] if numbers else 0, -nth)


def at_stage(stage: str) -> str:
    """Say where a map is, in a sentence.

    >>> at_stage("deepest"), at_stage("stage-4"), at_stage("7"), at_stage("conv1")
    ('the deepest stage', 'stage-4', 'layer 7', 'conv1')
    """
    said = {DEEPEST: "the deepest stage", INPUT: "the input"}
    return said.get(stage) or layer_words(stage)
