"""The whole set from its shards' parts: the numbers, tables and strips of ``set/``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import pyarrow as pa

from exporter.errors import RunError
from exporter.records import (
    ClassMap,
    ClassRow,
    ConfusedPair,
    MethodAgreement,
    MethodRow,
    RedundantPair,
    SetSummary,
    ratio,
)
from exporter.store import records_table, schema_of, table_records
from exporter.summaries import classes, methods, redundancy
from exporter.summaries.agreement import SIDE
from exporter.summaries.annotations import THRESHOLD
from exporter.summaries.calibration import BINS, calibration_error, diagram
from exporter.summaries.class_maps import MeanMaps, Size, choose_classes
from exporter.summaries.redundancy import Pooled
from exporter.summaries.scope import SAMPLE, Scope
from exporter.summaries.strips import Strips
from exporter.summaries.sums import NumberSums, ShardSums, add_up

SET_TABLES: Final[Mapping[str, pa.Schema]] = {
    "classes": schema_of(ClassRow),
    "confusion": schema_of(ConfusedPair),
    "methods": schema_of(MethodRow),
    "agreement": schema_of(MethodAgreement),
    "class-maps": schema_of(ClassMap),
    "redundant": schema_of(RedundantPair),
}
"""Tables of ``set/`` by the name of their file."""

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
        f"{SIDE} cells per side every second, third … cell is taken"
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


SUMMED: Final = ("numbers", "bins", "classes", "confusions", "methods", "agreement")
"""What of ``ShardSums`` is added up by key; the others are large, and read a shard at a time."""

_SIZES: Final = tuple(
    f"maps.list.element.{name}" for name in ("method", "layer", "height", "width")
)
_RANKED: Final = ("id", "predicted", "confidence", "correct", "entropy", "agreement")


def merge_set(parts: Parts, scope: Scope) -> SetTables:
    """Merge the parts of all shards, in shard order, one in memory at a time.

    Returns:
        The same to 1e-12 for every cut of the same images into shards.
    """
    sums: dict[str, dict[Any, Any]] = {name: {} for name in SUMMED}
    sizes: set[Size] = set()
    for table in parts("set", (*SUMMED, *_SIZES)):
        for shard in _shards(table.select(SUMMED)):
            for name, totals in sums.items():
                add_up(totals, getattr(shard, name))
        for size in table.column("maps").combine_chunks().flatten().to_pylist():
            sizes.add((size["method"], size["layer"], size["height"], size["width"]))
    predicted = {part.index: part.predicted for part in sums["classes"].values()}
    chosen = choose_classes(predicted, sizes)
    means, pooled = MeanMaps(chosen), Pooled()
    for table in parts("set", ("maps", "pooled")):
        for shard in _shards(table):
            means.add(shard.maps)
            pooled.add(shard.pooled)
    class_rows = classes.class_rows(sums["classes"], scope)
    strips = Strips(class_rows)
    for table in parts("images", _RANKED):
        strips.add(table)
    pairs, layers = pooled.rows(scope)
    rows: dict[str, Sequence[Any]] = {
        "classes": class_rows,
        "confusion": classes.confusion_rows(sums["confusions"], scope),
        "methods": methods.method_rows(sums["methods"], scope),
        "agreement": methods.agreement_rows(sums["agreement"], scope),
        "class-maps": means.rows(scope),
        "redundant": pairs,
    }
    n = sums["numbers"].get((), NumberSums())
    counted = sum(images > 0 for images in predicted.values())
    summary = SetSummary(
        images=n.images,
        read=n.read,
        labelled=n.labelled,
        correct=n.correct,
        accuracy=ratio(n.correct, n.labelled),
        top5_accuracy=ratio(n.top5_correct, n.top5_images),
        confidence=ratio(n.confidence, n.confident),
        loss=ratio(n.loss, n.losses),
        calibration_error=calibration_error(sums["bins"]),
        bins=diagram(sums["bins"]),
        predicted_classes=counted,
        mapped_classes=min(len(chosen), counted),
        confused_pairs=len(sums["confusions"]),
        class_map_layer=scope.deepest,
        image_map=scope.first,
        redundancy=layers,
        strips=strips.rows(),
        rules=RULES,
    )
    tables = {name: records_table(rows[name], schema) for name, schema in SET_TABLES.items()}
    return SetTables(asdict(summary), tables)


def _shards(table: pa.Table) -> list[ShardSums]:
    try:
        return list(table_records(table, ShardSums))
    except TypeError as error:
        raise RunError(
            f"the shards' summaries were written by another version ({error}); "
            "make the run again with --overwrite"
        ) from None
