"""What the whole set shows of each channel: statistics, the strongest images, and redundant pairs.

A shard gives a table of the same columns for its own images, and the tables are merged, with a
memory that does not grow with the set. Channels say the same whose pooled activations go together
over sampled images.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from exporter.records import ChannelBatch, ChannelRow, LayerRedundancy, RedundantPair
from exporter.store import refuse_unfit, schema_of
from exporter.summaries.scope import Scope
from exporter.summaries.sums import merging, other_version

TOP: Final = 9
"""Images kept per channel: those with the largest maximum."""

CHANNEL_SCHEMA: Final = schema_of(ChannelRow)
"""Columns of ``channels.parquet``, and of ``summaries/*.parquet`` for a shard's images."""

REDUNDANT: Final = 0.98
"""Magnitude of the correlation from which on two channels count as redundant."""

FEWEST: Final = 16
"""Sampled images below which nothing is said: chance alone would correlate channels."""

REDUNDANT_PAIRS: Final = 200
"""Pairs kept per layer."""

_AT_ONCE = 256  # channels whose correlations with all the others are held
_LISTS = ("top", "top_values", "top_places")


def channel_table(batches: Sequence[ChannelBatch]) -> pa.Table:
    """Return the statistics of a shard's channels.

    Returns:
        A table of ``CHANNEL_SCHEMA``, a row per channel of a layer; empty where no image was read.
    """
    by_layer: dict[str, list[ChannelBatch]] = {}
    for batch in batches:
        by_layer.setdefault(batch.layer, []).append(batch)
    tables = [_layer_table(layer, parts) for layer, parts in by_layer.items()]
    return pa.concat_tables([CHANNEL_SCHEMA.empty_table(), *tables]).combine_chunks()


@merging()
def merge_channels(tables: Iterable[pa.Table]) -> pa.Table:
    """Merge the tables of all shards, in shard order, one in memory at a time.

    Returns:
        A table of ``CHANNEL_SCHEMA``: the same to 1e-12 for every cut of the images into shards.

    Raises:
        RunError: if another version wrote the tables.
    """
    merged = CHANNEL_SCHEMA.empty_table()
    for table in tables:
        if not table.schema.equals(CHANNEL_SCHEMA):
            raise other_version("other columns of channels")
        refuse_unfit(table, ChannelRow)
        both = pa.concat_tables([merged, table]).combine_chunks()
        merged = _merge(both) if len(merged) and len(table) else both
    return merged


def _layer_table(layer: str, batches: Sequence[ChannelBatch]) -> pa.Table:
    mean, maximum, zeros, place = (
        np.concatenate([getattr(batch, name) for batch in batches])
        for name in ("mean", "maximum", "zeros", "place")
    )
    ids = np.array([id for batch in batches for id in batch.ids], dtype=object)
    heights, widths = (
        np.concatenate([np.full(len(batch.ids), getattr(batch, name)) for batch in batches])
        for name in ("height", "width")
    )
    # An image in which the whole channel is 0 does not excite it; one that is NaN says nothing.
    ranked = np.where((zeros == 1) | np.isnan(maximum), -np.inf, maximum).astype(np.float32).T
    order = _largest(ranked)
    values = np.take_along_axis(ranked, order, axis=1)
    kept = values != -np.inf
    image, value = order[kept], values[kept]
    chosen = np.take_along_axis(place.T, order, axis=1)[kept]
    x, y = (chosen % widths[image] + 0.5) / widths[image], chosen // widths[image] + 0.5
    channels = mean.shape[1]
    columns = {
        "layer": [layer] * channels,
        "channel": np.arange(channels),
        "images": np.full(channels, len(ids)),
        "mean": np.where(np.isfinite(mean), mean, np.nan).mean(axis=0, dtype=np.float64),
        "maximum": np.fmax.reduce(maximum, axis=0),
        "sparsity": zeros.mean(axis=0, dtype=np.float64),
        "dead": (zeros == 1).all(axis=0),
    }
    positions = pa.StructArray.from_arrays(
        [pa.array(part, pa.float32()) for part in (x, y / heights[image])], names=["x", "y"]
    )
    lists = (pa.array(ids[image], pa.string()), pa.array(value), positions)
    return _table(columns, kept.sum(axis=1), lists)


def _largest(ranked: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return (C, K) positions of the largest of (C, N), largest first, of equals the first."""
    count = ranked.shape[1]
    # One integer orders by value and then by position, so that an unstable partition will do:
    # a third of the time of a stable sort. Adding zero makes -0.0 and 0.0 equal.
    bits = (np.ascontiguousarray(ranked) + np.float32(0)).view(np.int32)
    ordered = np.where(bits < 0, bits ^ 0x7FFFFFFF, bits).astype(np.int64)
    keys = (ordered << 32) | np.arange(count - 1, -1, -1)
    if count > TOP:
        keys = np.partition(keys, count - TOP, axis=1)[:, count - TOP :]
    back = np.sort(keys, axis=1)[:, ::-1] & 0xFFFFFFFF
    order: NDArray[np.intp] = (count - 1 - back).astype(np.intp)
    return order


def _merge(table: pa.Table) -> pa.Table:
    """Merge the rows of the same channel, earlier images first."""
    names = zip(table["layer"].to_pylist(), table["channel"].to_pylist(), strict=True)
    groups: dict[tuple[str, int], int] = {}
    group = np.array([groups.setdefault(name, len(groups)) for name in names])
    images, mean, maximum, sparsity, dead = (
        table[name].to_numpy() for name in ("images", "mean", "maximum", "sparsity", "dead")
    )
    total = np.bincount(group, images).astype(np.int64)
    largest = np.full(len(groups), np.nan, np.float32)
    np.fmax.at(largest, group, maximum)
    columns = {
        "layer": [layer for layer, _ in groups],
        "channel": [channel for _, channel in groups],
        "images": total,
        "mean": np.bincount(group, mean * images) / total,
        "maximum": largest,
        "sparsity": np.bincount(group, sparsity * images) / total,
        "dead": np.bincount(group, ~dead) == 0,
    }
    lists = [table[name].combine_chunks() for name in _LISTS]
    owner = np.repeat(group, lists[0].value_lengths().fill_null(0).to_numpy())
    # Sorting is stable: of equals the earlier image goes first.
    order = np.lexsort((-lists[1].flatten().to_numpy(), owner))
    counts = np.bincount(owner, minlength=len(groups))
    rank = np.arange(len(order)) - np.repeat(counts.cumsum() - counts, counts)
    best = order[rank < TOP]
    return _table(columns, np.minimum(counts, TOP), [part.flatten().take(best) for part in lists])


def _table(columns: Mapping[str, Any], counts: NDArray[Any], lists: Iterable[Any]) -> pa.Table:
    """Return a table of plain columns, and of lists: so many elements each, and all of them."""
    offsets = pa.array(np.concatenate([[0], counts.cumsum()]).astype(np.int32))
    arrays = [pa.array(values, CHANNEL_SCHEMA.field(name).type) for name, values in columns.items()]
    arrays += [
        pa.ListArray.from_arrays(offsets, flat, type=CHANNEL_SCHEMA.field(name).type)
        for name, flat in zip(_LISTS, lists, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=CHANNEL_SCHEMA)


def redundancy(
    pooled: Mapping[str, Sequence[NDArray[np.float32]]], scope: Scope
) -> tuple[list[RedundantPair], tuple[LayerRedundancy, ...]]:
    """Return the strongest pairs of every recorded layer, and how many there are per layer.

    ``pooled`` is, by layer, the spatial means (C,) of each sampled image, in plan order.
    """
    rows: list[RedundantPair] = []
    layers = []
    for layer in scope.recorded:
        vectors = pooled.get(layer, ())
        channels = len(vectors[0]) if vectors else 0
        pairs, count, paired = (
            redundant(np.stack(vectors)) if len(vectors) >= FEWEST else ([], 0, 0)
        )
        rows += [RedundantPair(layer, *pair) for pair in pairs]
        layers.append(LayerRedundancy(layer, len(vectors), channels, count, paired))
    return rows, tuple(layers)


def redundant(vectors: NDArray[np.float32]) -> tuple[list[tuple[int, int, float]], int, int]:
    """Find the pairs of channels that are correlated over images.

    Args:
        vectors: float32 (N, C), spatial mean per channel.

    Returns:
        At most ``REDUNDANT_PAIRS`` of (first, second, correlation), the strongest first, of equals
        the smallest channels; how many pairs there are; and how many channels are in one. Channels
        that do not vary, or hold what is not a number, are in none. Correlations are rounded to
        1e-6.
    """
    values = vectors.astype(np.float64)
    usable = np.flatnonzero(np.isfinite(values).all(axis=0))
    values = values[:, usable]
    # Scaled first: squares of the largest float32 are fine in float64, those of the smallest not.
    values /= np.maximum(np.abs(values).max(axis=0), np.finfo(np.float32).tiny)
    values -= values.mean(axis=0)
    length = np.sqrt((values**2).sum(axis=0))
    # What is left of a constant channel is rounding.
    varied = length > 1e-9
    usable, values = usable[varied], values[:, varied] / length[varied]
    kept: list[tuple[int, int, float]] = []
    count = 0
    paired = np.zeros(len(usable), dtype=np.bool_)
    for start in range(0, len(usable), _AT_ONCE):
        block = np.round(values[:, start : start + _AT_ONCE].T @ values[:, start:], 6)
        first, second = np.nonzero(np.triu(np.abs(block) >= REDUNDANT, 1))
        strength = block[first, second]
        count += len(first)
        paired[start + first] = paired[start + second] = True
        order = np.lexsort((second, first, -np.abs(strength)))[:REDUNDANT_PAIRS]
        kept += zip(
            usable[start + first[order]].tolist(),
            usable[start + second[order]].tolist(),
            np.clip(strength[order], -1, 1).tolist(),
            strict=True,
        )
        kept = sorted(kept, key=lambda pair: (-abs(pair[2]), pair[0], pair[1]))[:REDUNDANT_PAIRS]
    return kept, count, int(paired.sum())
