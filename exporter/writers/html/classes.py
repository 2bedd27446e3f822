"""The page of classes and a page for each: numbers, mean maps, examples, errors."""

from __future__ import annotations

import heapq
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from exporter.records import ClassMap, ClassRow, Plan
from exporter.render import encode_jpeg, heatmap
from exporter.writers.html import text as words
from exporter.writers.html.index import SetIndex, photograph

if TYPE_CHECKING:
    from exporter.store import Run

EXAMPLES = 8
SIDE = 96


class Members:
    """Which images a class has, by what happened to them: one pass over the index."""

    def __init__(self, index: SetIndex, plan: Plan) -> None:
        self._index = index
        self._lists: dict[tuple[str, int], list[int]] = {}
        for position, predicted in enumerate(index.predicted):
            if predicted is None:
                continue
            correct, label = index.correct[position], index.labels[position]
            kind = "errors" if correct is False else "examples"
            self._lists.setdefault((kind, predicted), []).append(position)
            known = None if label is None else plan.label_index.get(label)
            if correct is False and known is not None:
                self._lists.setdefault(("missed", known), []).append(position)

    def of(self, kind: str, number: int) -> dict[str, Any]:
        """Return the most confident images of a kind, and how many there are."""
        positions = self._lists.get((kind, number), [])
        scores = self._index.scores
        best = heapq.nsmallest(EXAMPLES, positions, key=lambda at: (-(scores[at] or 0), at))
        return {"total": len(positions), "shown": [self._item(at) for at in best]}

    def _item(self, position: int) -> dict[str, Any]:
        index = self._index
        predicted = index.predicted[position]
        return {
            "id": index.ids[position],
            "src": photograph(position, index.ids[position]),
            "alt": f"Photograph {index.describe(position)}",
            "name": "" if predicted is None else index.names.get(predicted, f"class {predicted}"),
            "score": words.score(index.scores[position], probability=index.probability),
            "label": index.labels[position],
        }


def class_pages(
    run: Run, classes: Sequence[ClassRow], index: SetIndex
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield file and contents of each class's page.

    Args:
        run: the run.
        classes: its classes.
        index: the whole set.
    """
    plan = run.plan
    members = Members(index, plan)
    maps: dict[int, list[ClassMap]] = {}
    for one in run.class_maps():
        maps.setdefault(one.index, []).append(one)
    titles = {one.name: one.title for one in plan.methods}
    kinds = ("examples", "errors", "missed")
    order = [one.index for one in classes]
    for at, row in enumerate(classes):
        beside = [("prev", at - 1), ("next", at + 1)]
        yield (
            f"classes/{row.index}.html",
            {
                "row": row,
                "maps": list(_pictures(maps.get(row.index, ()), titles, plan)),
                "lists": {kind: members.of(kind, row.index) for kind in kinds},
                "neighbours": [
                    (rel, f"{order[to]}.html", classes[to].name)
                    for rel, to in beside
                    if 0 <= to < len(order)
                ],
            },
        )


def _pictures(
    maps: Iterable[ClassMap], titles: dict[str, str], plan: Plan
) -> Iterator[dict[str, Any]]:
    height, width = plan.model.preprocessing.size
    size = (SIDE, round(SIDE * height / width))
    for one in maps:
        values = one.array()
        drawn = heatmap(values, size, rectify=False)
        yield {
            "src": "data:image/jpeg;base64," + b64encode(encode_jpeg(drawn)).decode("ascii"),
            "width": size[0],
            "height": size[1],
            "title": titles.get(one.method, one.method),
            "layer": one.layer or "input",
            "images": one.images,
            "cells": words.shape((one.height, one.width)),
            "lo": float(values.min()),
            "hi": float(values.max()),
            "entropy": one.entropy,
            "top_share": one.top_share,
        }
