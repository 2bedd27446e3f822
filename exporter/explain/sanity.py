"""How much maps change as the model is randomised: `Sanity`, once per run, batch after batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray
from torch import Tensor, nn

from exporter.explain.batches import FLAGS, BatchMaps, Maps, pack, unpack
from exporter.explain.explainer import Explainer
from exporter.faithfulness.randomisation import Stages, cascade, drawn
from exporter.records import ATTENTION, Plan, Row, SanityStep, StoredMap
from exporter.summaries.similarity import similarity


class Sanity:
    """Holds each method's maps of a batch against those of the randomised model.

    A method is looked at where its map stands for an image: at the deepest explained layer, at the
    input, or at the attention. What is explained is what the trained model chose.
    """

    def __init__(self, module: nn.Module, explainer: Explainer, stages: Stages, plan: Plan) -> None:
        """Draw the values that the parameters take."""
        self.stages = tuple(stages)
        self._module, self._explainer = module, explainer
        self._methods, self._deepest = plan.methods, plan.deepest
        self._values = drawn(module, stages, int(str(plan.settings["seed"])))

    def __call__(
        self, rows: Sequence[Row], inputs: Tensor, labels: Tensor, masks: Tensor | None = None
    ) -> Iterator[SanityStep]:
        """Compare the maps of a batch.

        Args:
            rows: of its images.
            inputs: as the model takes them, (N, C, H, W).
            labels: int64 (N,), -1 where unknown.
            masks: given masks, where the target needs them.

        Yields:
            One for each image, method and step; without values where either map says nothing, and
            for a box, which the randomised model does not give again.
        """
        steps = self._steps(inputs, labels, masks)
        for method in self._methods:
            layer = "" if method.pixel else ATTENTION if method.attended else self._deepest
            sources = [self._stored(step, blocks, method.name, layer) for step, blocks in steps]
            every = [tuple(s[n] for s in sources if n in s) for n in range(len(rows))]
            where = [replace(row, maps=maps) for row, maps in zip(rows, every, strict=True)]
            relu = [method.relu] * (1 + len(self.stages))
            alike = similarity(where, relu, [method.name])[method.name]
            for n, row in enumerate(rows):
                if not any((m.method, m.layer) == (method.name, layer) for m in row.maps):
                    continue
                for step, stage in enumerate(self.stages, 1):
                    values = (float(each[n, step - 1]) for each in (alike.spearman, alike.ssim))
                    spearman, ssim = (None if math.isnan(value) else value for value in values)
                    yield SanityStep(row.id, method.name, layer, step, stage, spearman, ssim)

    def _steps(
        self, inputs: Tensor, labels: Tensor, masks: Tensor | None
    ) -> list[tuple[int, tuple[Maps[NDArray[Any]], ...]]]:
        """Return the maps of the trained model, and those after each step."""
        with cascade(self._module, self._values) as steps:
            trained = self._explainer.explain(inputs, labels, masks)
            first = trained.scored
            maps = [(0, self._on_host(trained))]
            if first.reading.named == "box":
                return maps
            for step in steps:
                randomised = self._explainer.explain(inputs, labels, masks, first=first)
                maps.append((step, self._on_host(randomised)))
            return maps

    def _on_host(self, explained: BatchMaps) -> tuple[Maps[NDArray[Any]], ...]:
        outline, packed = pack(self._explainer.quantised(explained))
        maps: tuple[Maps[NDArray[Any]], ...] = unpack(outline, packed.cpu().numpy())
        return maps

    @staticmethod
    def _stored(
        step: int, blocks: Sequence[Maps[NDArray[Any]]], method: str, layer: str
    ) -> dict[int, StoredMap]:
        """Return a method's maps of the first target, by image; the step in the method's place."""
        return {
            n: StoredMap(
                method=str(step),
                layer=method,
                target="",
                height=levels.shape[0],
                width=levels.shape[1],
                lo=float(block.lo[m, n]),
                hi=float(block.hi[m, n]),
                values=levels.tobytes(),
                flags=FLAGS[block.flags[m, n]],
            )
            for block in blocks
            if block.layer == layer
            for m, name in enumerate(block.names)
            if name == (method, 0)
            for n, levels in enumerate(block.levels[m])
        }
