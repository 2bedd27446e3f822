"""Small plans and rows: maps given as numbers, so that what they add up to is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike

from exporter.records import ImageEntry, Plan, Prediction, Row
from exporter.summaries import Scope
from tests.packing import pack_map

CLASSES = ("cat", "dog", "cup", "fox", "owl", "bee")


class Making:
    """Builders; ``gradcam`` ends in a ReLU, ``eigencam`` does not."""

    def __init__(self, sampling: ModuleType) -> None:
        self.sampling = sampling

    def plan(
        self,
        ids: Sequence[str] = ("a",),
        methods: Sequence[str] = ("gradcam", "eigencam"),
        layers: Sequence[str] = ("deep",),
        **changes: Any,
    ) -> Plan:
        plan: Plan = self.sampling.sample_plan(methods=methods, layers=dict.fromkeys(layers, 7))
        entries = tuple(ImageEntry(id, id, f"{id}.jpg") for id in ids)
        model = replace(plan.model, classes=CLASSES, outputs=len(CLASSES))
        return replace(plan, images=entries, model=model, **changes)

    def scope(self, *arguments: Any, **changes: Any) -> Scope:
        return Scope.of(self.plan(*arguments, **changes))

    def row(
        self,
        id: str = "a",
        maps: dict[tuple[str, str], ArrayLike] | None = None,
        *,
        predicted: int | None = 0,
        confidence: float = 0.5,
        label: int | None = None,
        rest: Sequence[int] = (),
        **changes: Any,
    ) -> Row:
        told = () if predicted is None else (predicted, *rest)
        return Row(
            id,
            id,
            f"{id}.jpg",
            label=None if label is None else CLASSES[label],
            label_index=label,
            predictions=tuple(
                Prediction(index, CLASSES[index], confidence / 2**place)
                for place, index in enumerate(told)
            ),
            correct=None if label is None or predicted is None else label == predicted,
            maps=tuple(
                pack_map(np.asarray(values, dtype=np.float32), method, layer, "class:0")
                for (method, layer), values in (maps or {}).items()
            ),
            **{"width": 400, "height": 300, "crop": (50.0, 0.0, 350.0, 300.0), **changes},
        )


@pytest.fixture(scope="session")
def making(sampling: ModuleType) -> Making:
    return Making(sampling)
