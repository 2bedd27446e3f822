"""The whole set from its shards' parts: the numbers, tables and strips of ``set/``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from exporter.summaries import classes, methods, redundancy
from exporter.summaries.agreement import SIDE
from exporter.summaries.annotations import THRESHOLD
from exporter.summaries.calibration import BINS, calibration_error, diagram
from exporter.summaries.class_maps import MeanMaps, Size, choose_classes
from exporter.summaries.exact import from_bytes, mean_of
from exporter.summaries.nested import fields_of, stacked
from exporter.summaries.predictions import COUNTS
from exporter.summaries.redundancy import Pooled
from exporter.summaries.schema import SET_TABLES
from exporter.summaries.scope import SAMPLE, Scope
from exporter.summaries.strips import Strips
from exporter.summaries.tally import Tally, share

Parts = Callable[[str, Sequence[str]], Iterator[pa.Table]]
"""Yields columns of a part (``set`` or ``images``) of every shard, in shard order."""

RULES: Final = {
    "accuracy": "images whose first prediction is their label / labelled images",
    "top5_accuracy": "labelled images whose label is among the first five predictions",
    "confidence": "probability (softmax) of the first prediction, mean over all images read",
    "loss": "cross-entropy in nat, mean over labelled images",
    "calibration_error": (
        f"|accuracy - confidence| of {BINS} equal bins of confidence, weighted by their images "
        "(Guo et al. 2017)"
    ),
    "entropy": (
        "-Σ p log p / log(cells) of a map as a distribution over its cells: 0 one cell has all, "
        "1 all have the same; negative values are 0 for methods with a ReLU, elsewhere the "
        "smallest value is 0"
    ),
    "top_share": "share of the map's energy in the largest 20 % of its cells, from 0.2 to 1",
    "agreement": (
        "Spearman's rank correlation of two methods' raw maps, -1 to 1; of maps with more than "
        f"{SIDE} cells a side every second, third … cell is taken"
    ),
    "pointing": (
        "whether the centre of a map's largest cell is inside the boxes or the mask (Zhang et al. "
        "2018, without tolerance)"
    ),
    "box_energy": "share of the map's energy inside the boxes or the mask (Wang et al. 2020)",
    "box_overlap": (
        f"intersection over union of the cells from {THRESHOLD:g} of the map's largest value on "
        "with the boxes or the mask; only what is inside the model's view counts"
    ),
    "class_maps": (
        "mean over the images predicted as a class of their maps as they are painted (0 to 1) at "
        "the deepest layer"
    ),
    "redundant": (
        f"two channels whose spatial means have a correlation of at least {redundancy.THRESHOLD:g} "
        f"in magnitude over at most {SAMPLE} images, chosen by the hash of their ids"
    ),
}
"""What each number of the set is, in words."""


@dataclass(frozen=True)
class SetTables:
    """What the whole set gives.

    Attributes:
        summary: JSON values of ``set/summary.json``.
        tables: the tables of ``set/`` by the name of their file.
    """

    summary: dict[str, Any]
    tables: dict[str, pa.Table]


class _Sums:
    """All that is added up but maps and pooled activations."""

    def __init__(self) -> None:
        self.numbers = dict.fromkeys(COUNTS, 0)
        self.loss = 0
        self.bins = np.zeros((BINS, 3), dtype=np.int64)
        self.classes = Tally(len(classes.COUNTS))
        self.confusions = Tally(1)
        self.methods = Tally(methods.WIDTH)
        self.agreement = Tally(2)
        self.sizes: set[Size] = set()

    def add(self, table: pa.Table) -> None:
        numbers = fields_of(table, "numbers")
        self.loss += sum(map(from_bytes, numbers["loss"]))
        for name in COUNTS:
            self.numbers[name] += int(numbers[name].sum())
        self.bins += stacked(fields_of(table, "bins"), ("images", "correct", "confidence"))
        for column, tally, keys, names in (
            ("classes", self.classes, ("index",), classes.COUNTS),
            ("confusions", self.confusions, ("label", "predicted"), ("images",)),
            ("methods", self.methods, ("method", "layer"), methods.COUNTS),
            ("agreement", self.agreement, ("layer", "first", "second"), ("images", "correlation")),
        ):
            fields = fields_of(table, column)
            tally.add(_keys(fields, keys), stacked(fields, names))
        maps = fields_of(table, "maps")
        self.sizes.update(
            zip(maps["method"], maps["layer"], *_ints(maps, ("height", "width")), strict=True)
        )


def _ints(fields: dict[str, Any], names: tuple[str, ...]) -> list[list[int]]:
    return [np.asarray(fields[name]).tolist() for name in names]


def _keys(fields: dict[str, Any], names: tuple[str, ...]) -> list[Any]:
    columns = [
        column.tolist() if isinstance(column, np.ndarray) else column
        for column in (fields[name] for name in names)
    ]
    return columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))


_COUNTED = (
    *("numbers", "bins", "classes", "confusions", "methods", "agreement"),
    *(f"maps.list.element.{name}" for name in ("method", "layer", "height", "width")),
)


def merge_set(parts: Parts, scope: Scope) -> SetTables:
    """Merge the parts of all shards, in shard order, one in memory at a time.

    Args:
        parts: reads what ``shard_parts`` gave for each shard.
        scope: of the run's plan.

    Returns:
        Identical for every cut of the same images into shards.
    """
    sums = _Sums()
    for table in parts("set", _COUNTED):
        sums.add(table)
    predicted = {
        index: sums.classes.of(index)[classes.COUNTS.index("predicted")]
        for index in sums.classes.sorted()[0]
    }
    chosen = choose_classes(predicted, sums.sizes)
    means, pooled = MeanMaps(chosen), Pooled()
    for table in parts("set", ("maps", "pooled")):
        means.add(_entries(table, "maps"))
        pooled.add(_entries(table, "pooled"))
    class_rows = classes.class_rows(sums.classes, scope)
    strips = Strips(class_rows)
    for table in parts("images", ("id", *_RANKED)):
        strips.add(table)
    pairs, layers = pooled.rows(scope)
    rows = {
        "classes": class_rows,
        "confusion": classes.confusion_rows(sums.confusions, scope),
        "methods": methods.method_rows(sums.methods, scope),
        "agreement": methods.agreement_rows(sums.agreement, scope),
        "class-maps": means.rows(scope),
        "redundant": pairs,
    }
    counted = sum(images > 0 for images in predicted.values())
    return SetTables(
        summary=_numbers(sums)
        | {
            "predicted_classes": counted,
            "mapped_classes": min(len(chosen), counted),
            "confused_pairs": len(sums.confusions),
            "class_map_layer": scope.deepest,
            "image_map": list(scope.first),
            "redundancy": layers,
            "strips": strips.rows(),
            "rules": RULES,
        },
        tables={
            name: pa.Table.from_pylist(rows[name], schema=schema)
            for name, schema in SET_TABLES.items()
        },
    )


_RANKED = ("predicted", "confidence", "correct", "entropy", "agreement")


def _entries(table: pa.Table, column: str) -> list[dict[str, Any]]:
    return table.column(column).combine_chunks().flatten().to_pylist()  # type: ignore[no-any-return]


def _numbers(sums: _Sums) -> dict[str, Any]:
    n = sums.numbers
    return {
        "images": n["images"],
        "read": n["read"],
        "labelled": n["labelled"],
        "correct": n["correct"],
        "accuracy": n["correct"] / n["labelled"] if n["labelled"] else None,
        "top5_accuracy": n["top5_correct"] / n["top5_images"] if n["top5_images"] else None,
        "confidence": share(n["confidence"], n["confident"]),
        "loss": mean_of(sums.loss, n["losses"]) if n["losses"] else None,
        "calibration_error": calibration_error(sums.bins),
        "bins": diagram(sums.bins),
    }
