"""The whole set from its shards' parts: the numbers, tables and strips of ``set/``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from exporter.records import (
    MAP_LEVELS,
    ClassMap,
    ClassRow,
    ConfusedPair,
    ImageMeasures,
    MethodAgreement,
    MethodRow,
    RedundantPair,
    SetSummary,
    ratio,
)
from exporter.store import records_table, refuse_unfit, schema_of, table_records
from exporter.summaries.annotations import REGION
from exporter.summaries.channels import REDUNDANT, redundancy
from exporter.summaries.choices import NONE_TWICE, strips
from exporter.summaries.classes import (
    BINS,
    PAIRS,
    class_rows,
    columns_of,
    confusion_rows,
    numbers,
)
from exporter.summaries.grids import SIDE, pairs
from exporter.summaries.scope import SAMPLE, Scope
from exporter.summaries.shards import IMAGES_SCHEMA
from exporter.summaries.sums import (
    AgreementSums,
    MapSums,
    MethodSums,
    ShardSums,
    add_up,
    merging,
)

CELLS: Final = 4_000_000
"""Cells of all mean maps together at most (16 MB): 1,000 classes of 5 methods at 28 × 28 fit."""

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
        f"intersection over union of the cells from {REGION:g} of the map's largest value on "
        "with the boxes or the mask; only what is inside the model's view counts"
    ),
    "class_maps": (
        "mean over the images predicted as a class of their maps as they are painted (0 to 1) at "
        "the deepest layer"
    ),
    "strips": NONE_TWICE,
    "redundant": (
        f"two channels whose spatial means have a correlation of at least {REDUNDANT:g} "
        f"in magnitude over at most {SAMPLE} images, chosen by the hash of their ids"
    ),
}
"""What each number of the set is, in words."""

_SIZE: Final = ("method", "layer", "height", "width")


class SetTables(NamedTuple):
    """JSON values of ``set/summary.json``, and the tables of ``set/`` by the name of their file."""

    summary: dict[str, Any]
    tables: dict[str, pa.Table]


@merging()
def merge_set(parts: Parts, scope: Scope) -> SetTables:
    """Merge the parts of all shards, in shard order.

    Of the images only a few numbers are held at a time; their maps are read a shard at a time.

    Returns:
        The same to 1e-12 for every cut of the same images into shards.

    Raises:
        RunError: if another version wrote the parts.
    """
    images = parts("images", IMAGES_SCHEMA.names)
    measured = pa.concat_tables([IMAGES_SCHEMA.empty_table(), *images])
    refuse_unfit(measured, ImageMeasures)
    seen = columns_of(measured)
    methods: dict[Any, MethodSums] = {}
    agreeing: dict[Any, AgreementSums] = {}
    sizes: set[tuple[Any, ...]] = set()
    leaves = [f"maps.list.element.{name}" for name in _SIZE]
    for table in parts("set", ("methods", "agreement", *leaves)):
        for shard in table_records(table.select(["methods", "agreement"]), ShardSums):
            add_up(methods, shard.methods)
            add_up(agreeing, shard.agreement)
        maps_of = pa.Table.from_struct_array(table.column("maps").combine_chunks().flatten())
        if len(maps_of.drop_null()) < len(maps_of):
            raise ValueError("a value is missing")
        sizes.update(zip(*(maps_of[name].to_pylist() for name in _SIZE), strict=True))
    rows_of_classes = class_rows(seen, scope)
    predicted = {row.index: row.predicted for row in rows_of_classes if row.predicted}
    mapped = choose_classes(predicted, sum(height * width for *_, height, width in sizes))
    maps: dict[Any, MapSums] = {}
    pooled: dict[str, list[NDArray[np.float32]]] = {}
    for table in parts("set", ("maps", "pooled")):
        for shard in table_records(table, ShardSums):
            add_up(maps, (part for part in shard.maps if part.index in mapped))
            for part in shard.pooled:
                pooled.setdefault(part.layer, []).append(np.frombuffer(part.means, "<f4"))
    redundant, layers = redundancy(pooled, scope)
    confusion = confusion_rows(seen, scope)
    rows: dict[str, Sequence[Any]] = {
        "classes": rows_of_classes,
        "confusion": confusion[:PAIRS],
        "methods": _method_rows(methods, scope),
        "agreement": _agreement_rows(agreeing, scope),
        "class-maps": _class_maps(maps.values(), scope),
        "redundant": redundant,
    }
    summary = SetSummary(
        **numbers(seen),
        predicted_classes=len(predicted),
        mapped_classes=len(mapped),
        confused_pairs=len(confusion),
        class_map_layer=scope.deepest,
        image_map=scope.first,
        redundancy=layers,
        strips=strips(seen, rows_of_classes),
        rules=RULES,
    )
    tables = {name: records_table(rows[name], schema) for name, schema in SET_TABLES.items()}
    return SetTables(asdict(summary), tables)


def choose_classes(predicted: Mapping[int, int], cells: int) -> frozenset[int]:
    """Choose the most frequent predicted classes, of equals the first, whose mean maps are kept."""
    order = sorted(predicted, key=lambda index: (-predicted[index], index))
    return frozenset(order[: CELLS // cells if cells else 0])


def _method_rows(sums: Mapping[Any, MethodSums], scope: Scope) -> list[MethodRow]:
    """Return a row per (method, layer), in the order asked for, layers shallow to deep."""
    rows = []
    for method in scope.methods:
        for layer in ("",) if method in scope.pixel else scope.explained:
            n = sums.get((method, layer), MethodSums(method, layer))
            means = {
                "entropy": ratio(n.entropy, n.measured),
                "top_share": ratio(n.top_share, n.measured),
                "pointing": ratio(n.pointing, n.annotated),
                "box_energy": ratio(n.box_energy, n.annotated),
                "box_overlap": ratio(n.box_overlap, n.annotated),
            }
            rows.append(MethodRow(**asdict(n) | means))
    return rows


def _agreement_rows(sums: Mapping[Any, AgreementSums], scope: Scope) -> list[MethodAgreement]:
    """Return a row per layer and pair of methods, in the order asked for."""
    rows = []
    for layer in scope.layers:
        methods = scope.methods_at(layer)
        for first, second in pairs(len(methods)):
            key = (layer, methods[first], methods[second])
            n = sums.get(key, AgreementSums(*key))
            rows.append(MethodAgreement(*key, n.images, ratio(n.correlation, n.images)))
    return rows


def _class_maps(sums: Iterable[MapSums], scope: Scope) -> list[ClassMap]:
    """Return a row per class, method and size: by class, methods in the order asked for."""
    order = {name: place for place, name in enumerate(scope.methods)}
    return [
        ClassMap(
            index=n.index,
            method=n.method,
            layer=n.layer,
            images=n.images,
            height=n.height,
            width=n.width,
            values=(np.frombuffer(n.sums, "<i8") / (n.images * MAP_LEVELS)).astype("<f4").tobytes(),
            entropy=ratio(n.entropy, n.measured),
            top_share=ratio(n.top_share, n.measured),
        )
        for n in sorted(sums, key=lambda n: (n.index, order[n.method], n.layer, n.height, n.width))
    ]
