"""What the maps of a shard add to the set: sums in float64, in plan order.

A sum depends on the cut into shards only in its last bits; means are equal to 1e-12 for any cut
(docs/decisions/012-sums.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any, Final, TypeVar

import numpy as np
import pyarrow as pa

from exporter.errors import RunError
from exporter.records import Column, Int32
from exporter.records.columns import COLUMNS, LAYER, METHOD, ROWS
from exporter.store import schema_of

BINS: Final = 20
"""Equal bins of [0, 1] that entropies are counted in."""


@dataclass(slots=True)
class MethodSums:
    """Sums over the maps of one method at one layer."""

    method: Annotated[str, METHOD]
    layer: Annotated[str, LAYER]
    images: Annotated[int, Column("images that have this map, with a number in every cell")] = 0
    uniform: Annotated[int, Column("of these, maps that are the same everywhere")] = 0
    measured: Annotated[int, Column("of these, maps that are above zero somewhere")] = 0
    entropy: Annotated[float, Column("sum over the measured")] = 0.0
    top_share: Annotated[float, Column("sum over the measured")] = 0.0
    annotated: Annotated[int, Column("of the images, those with a box or mask in the view")] = 0
    pointing: Annotated[float, Column("of the annotated, largest cell inside")] = 0.0
    box_energy: Annotated[float, Column("sum over the annotated")] = 0.0
    box_overlap: Annotated[float, Column("sum over the annotated")] = 0.0
    histogram: Annotated[
        tuple[int, ...], Column("entropies in 20 equal bins of 0 to 1", size=BINS)
    ] = (0,) * BINS


@dataclass(slots=True)
class AgreementSums:
    """Sums over the images that have the maps of two methods at a layer."""

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
    measured: Annotated[int, Column("of these, maps that are above zero somewhere")] = 0
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
    """Add sums to those with the same key (the fields without a default); return all by key."""
    for part in parts:
        names = [field.name for field in fields(part) if field.default is MISSING]
        total = totals.setdefault(tuple(getattr(part, name) for name in names), part)
        if total is not part:
            for name in (field.name for field in fields(part) if field.name not in names):
                setattr(total, name, _sum(getattr(total, name), getattr(part, name)))
    return totals


def _sum(first: Any, second: Any) -> Any:
    if isinstance(first, tuple):
        return tuple(map(int.__add__, first, second))
    if isinstance(first, bytes):
        return (np.frombuffer(first, "<i8") + np.frombuffer(second, "<i8")).tobytes()
    return first + second


@contextmanager
def merging() -> Iterator[None]:
    """Turn what does not fit in the shards' parts into one sentence, a `RunError`.

    Their checksums fit, so another version wrote them, or somebody else.
    """
    try:
        with np.errstate(invalid="ignore"):
            yield
    except (ArithmeticError, LookupError, ValueError, pa.ArrowException) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise other_version(" ".join(reason.split("\n", 1)[0].split())[:200]) from None


def other_version(reason: str) -> RunError:
    """Return the error of a run whose shards were summed up by another version."""
    return RunError(
        f"the shards' summaries were written by another version ({reason}); "
        "make the run again with --overwrite"
    )
