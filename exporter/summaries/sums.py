"""What a shard adds to the set: sums in float64, in plan order.

A sum depends on the cut into shards only in its last bits; means are equal to 1e-12 for any cut
(docs/decisions/012-sums.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Final, TypeVar

from exporter.records import Column, Int32, ratio
from exporter.records.columns import COLUMNS, LAYER, METHOD, ROWS
from exporter.store import schema_of

BINS: Final = 20
"""Equal bins of [0, 1] that entropies are counted in."""


@dataclass(slots=True)
class NumberSums:
    """Sums over all images."""

    KEY: ClassVar[tuple[str, ...]] = ()

    images: Annotated[int, Column("planned images")] = 0
    read: Annotated[int, Column("those that were read")] = 0
    labelled: Annotated[int, Column("those with a label that is a class, and a prediction")] = 0
    correct: Annotated[int, Column("of the labelled, those predicted right")] = 0
    top5_images: Annotated[int, Column("labelled images with five predictions kept")] = 0
    top5_correct: Annotated[int, Column("of them, those with the label among the five")] = 0
    losses: Annotated[int, Column("images with a finite loss")] = 0
    confident: Annotated[int, Column("images with a confidence")] = 0
    confidence: Annotated[float, Column("sum of confidences")] = 0.0
    loss: Annotated[float, Column("sum of losses", "nat")] = 0.0


@dataclass(slots=True)
class BinSums:
    """Sums over the labelled images of one bin of confidence."""

    KEY: ClassVar[tuple[str, ...]] = ("bin",)

    bin: Annotated[Int32, Column("number of the bin")]
    images: Annotated[int, Column("images")] = 0
    correct: Annotated[int, Column("of them, right")] = 0
    confidence: Annotated[float, Column("sum of confidences")] = 0.0


@dataclass(slots=True)
class ClassSums:
    """Sums over the images that have a class as label or as prediction."""

    KEY: ClassVar[tuple[str, ...]] = ("index",)

    index: Annotated[Int32, Column("class")]
    support: Annotated[int, Column("images with this label, and a prediction")] = 0
    correct: Annotated[int, Column("of them, right")] = 0
    predicted: Annotated[int, Column("images predicted as this class")] = 0
    predicted_labelled: Annotated[int, Column("of them, those with a label")] = 0
    confidence: Annotated[float, Column("sum over predicted images")] = 0.0
    confidence_squares: Annotated[float, Column("sum of squares")] = 0.0
    mapped: Annotated[int, Column("predicted images with an entropy")] = 0
    entropy: Annotated[float, Column("sum over them")] = 0.0
    entropy_squares: Annotated[float, Column("sum of squares")] = 0.0
    top_share: Annotated[float, Column("sum over them")] = 0.0
    compared: Annotated[int, Column("predicted images with an agreement")] = 0
    agreement: Annotated[float, Column("sum over them")] = 0.0


@dataclass(slots=True)
class ConfusionSums:
    """How many images of a label were predicted as another class."""

    KEY: ClassVar[tuple[str, ...]] = ("label", "predicted")

    label: Annotated[Int32, Column("class of the label")]
    predicted: Annotated[Int32, Column("class predicted")]
    images: Annotated[int, Column("images")] = 0


@dataclass(slots=True)
class MethodSums:
    """Sums over the maps of one method at one layer."""

    KEY: ClassVar[tuple[str, ...]] = ("method", "layer")

    method: Annotated[str, METHOD]
    layer: Annotated[str, LAYER]
    images: Annotated[int, Column("images with this map, numbers in every cell")] = 0
    uniform: Annotated[int, Column("of them, maps of one value")] = 0
    measured: Annotated[int, Column("of them, those somewhere above zero")] = 0
    entropy: Annotated[float, Column("sum over the measured")] = 0.0
    top_share: Annotated[float, Column("sum over the measured")] = 0.0
    annotated: Annotated[int, Column("of the images, those with a box or mask in the view")] = 0
    pointed: Annotated[int, Column("of the annotated, largest cell inside")] = 0
    box_energy: Annotated[float, Column("sum over the annotated")] = 0.0
    box_overlap: Annotated[float, Column("sum over the annotated")] = 0.0
    histogram: Annotated[
        tuple[int, ...], Column("entropies in 20 equal bins of 0 to 1", size=BINS)
    ] = (0,) * BINS


@dataclass(slots=True)
class AgreementSums:
    """Sums over the images that have the maps of two methods at a layer."""

    KEY: ClassVar[tuple[str, ...]] = ("layer", "first", "second")

    layer: Annotated[str, LAYER]
    first: Annotated[str, Column("a method")]
    second: Annotated[str, Column("a later one")]
    images: Annotated[int, Column("images with both")] = 0
    correlation: Annotated[float, Column("sum of their rank correlations")] = 0.0


@dataclass(slots=True)
class MapSums:
    """Sums over the painted maps of one predicted class, method and size."""

    index: Annotated[Int32, Column("class")]
    method: Annotated[str, METHOD]
    layer: Annotated[str, LAYER]
    height: Annotated[Int32, ROWS]
    width: Annotated[Int32, COLUMNS]
    images: Annotated[int, Column("images with this map")] = 0
    measured: Annotated[int, Column("of them, those somewhere above zero")] = 0
    entropy: Annotated[float, Column("sum over the measured")] = 0.0
    top_share: Annotated[float, Column("sum over the measured")] = 0.0
    sums: Annotated[bytes, Column("int64 little-endian, sum of painted maps", "levels")] = b""


@dataclass(slots=True)
class PooledMeans:
    """The channels' spatial means of one sampled image at one layer."""

    layer: Annotated[str, Column("qualified name of the layer")]
    id: Annotated[str, Column("the image")]
    means: Annotated[bytes, Column("float32 little-endian, spatial mean per channel")]


@dataclass(slots=True)
class ShardSums:
    """What a shard adds to the set (``summaries/*-set.parquet``)."""

    numbers: Annotated[tuple[NumberSums, ...], Column("the shard's images, one element")] = ()
    bins: Annotated[
        tuple[BinSums, ...], Column("labelled images in 15 equal bins of confidence")
    ] = ()
    classes: Annotated[
        tuple[ClassSums, ...], Column("each class that is a label or a prediction")
    ] = ()
    confusions: Annotated[
        tuple[ConfusionSums, ...], Column("each pair of a label and another prediction")
    ] = ()
    methods: Annotated[tuple[MethodSums, ...], Column("each (method, layer)")] = ()
    agreement: Annotated[tuple[AgreementSums, ...], Column("each pair of methods at a layer")] = ()
    maps: Annotated[
        tuple[MapSums, ...],
        Column("each predicted class, method and size at the deepest layer"),
    ] = ()
    pooled: Annotated[tuple[PooledMeans, ...], Column("each sampled image and recorded layer")] = ()


SET_SCHEMA: Final = schema_of(ShardSums)
"""Columns of ``summaries/*-set.parquet``: one row of lists, so that one list is read alone."""

Sums = TypeVar("Sums", bound=Any)


def add_up(totals: dict[Any, Sums], parts: Iterable[Sums]) -> dict[Any, Sums]:
    """Add sums to those with the same key, and return all of them by their key."""
    for part in parts:
        key = tuple(getattr(part, name) for name in part.KEY)
        total = totals.setdefault(key, part)
        if total is part:
            continue
        for name in (column.name for column in fields(part) if column.name not in part.KEY):
            before, after = getattr(total, name), getattr(part, name)
            both = (
                tuple(map(int.__add__, before, after))
                if isinstance(before, tuple)
                else before + after
            )
            setattr(total, name, both)
    return totals


def spread(total: float, squares: float, count: int) -> float | None:
    """Return the standard deviation (of the population) from a sum and a sum of squares.

    What is left of equal numbers is rounding: below 2e-5 it is 0.
    """
    mean = ratio(total, count)
    if mean is None:
        return None
    variance = squares / count - mean * mean
    return math.sqrt(variance) if variance > 4e-10 else 0.0
