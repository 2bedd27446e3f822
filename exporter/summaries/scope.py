"""What of a plan decides how a set is summed up."""

from __future__ import annotations

import hashlib
import heapq
from dataclasses import dataclass
from typing import Final

from exporter.records import Plan

SAMPLE: Final = 512
"""Images whose pooled activations are kept to find redundant channels."""


@dataclass(frozen=True)
class Scope:
    """The methods, layers and classes of a run, and which images are sampled.

    Pooled activations are kept of those. Of a single value, which has no classes, nothing
    ``classifies``; ``outputs`` is 0 where it is unknown.
    """

    methods: tuple[str, ...]
    rectified: frozenset[str]
    pixel: frozenset[str]
    explained: tuple[str, ...]
    deepest: str
    recorded: tuple[str, ...]
    classes: tuple[str, ...]
    classifies: bool
    outputs: int
    sample: frozenset[str]

    @staticmethod
    def of(plan: Plan) -> Scope:
        """Return the scope of a plan; images are sampled by the hash of their ids."""
        ids = [image.id for image in plan.images if image.error is None]
        return Scope(
            methods=tuple(method.name for method in plan.methods),
            rectified=frozenset(method.name for method in plan.methods if method.relu),
            pixel=frozenset(method.name for method in plan.methods if method.pixel),
            explained=plan.explained,
            deepest=plan.deepest,
            recorded=plan.recorded,
            classes=plan.model.classes,
            classifies=plan.classifies,
            outputs=plan.model.outputs,
            sample=frozenset(
                heapq.nsmallest(SAMPLE, ids, key=lambda id: hashlib.blake2b(id.encode()).digest())
            ),
        )

    @property
    def layers(self) -> tuple[str, ...]:
        """Every layer that has maps, the input (``""``) last."""
        return (*self.explained, "") if self.pixel else self.explained

    def methods_at(self, layer: str) -> tuple[str, ...]:
        """Return the methods that have a map at a layer, in the order asked for."""
        return tuple(name for name in self.methods if (name in self.pixel) == (layer == ""))

    @property
    def first(self) -> tuple[str, str]:
        """(method, layer) of the map that stands for an image: first method, deepest layer."""
        if not self.methods:
            return "", ""
        return self.methods[0], "" if self.methods[0] in self.pixel else self.deepest

    def name(self, index: int) -> str:
        """Return a class's name, its number where it has none."""
        return self.classes[index] if 0 <= index < len(self.classes) else str(index)
