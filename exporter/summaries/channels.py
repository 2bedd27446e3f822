"""What the whole set shows of each channel: mean, maximum, sparsity, the strongest images.

A shard gives a table of the same columns for its own images, and the tables are merged, with a
memory that does not grow with the set.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from exporter.errors import RunError
from exporter.records import ChannelBatch, ChannelRow
from exporter.store import schema_of

TOP: Final = 9
"""Images kept per channel: those with the largest maximum."""

CHANNEL_SCHEMA: Final = schema_of(ChannelRow)
"""Columns of ``channels.parquet``, and of ``summaries/*.parquet`` for a shard's images."""


@dataclass(slots=True)
class _Layer:
    """Statistics of one layer so far; C channels, at most ``TOP`` images each.

    ``mean``, ``sparsity`` (C,) float64; ``maximum`` (C,) float32; ``values`` (C, K) float32, -inf
    where fewer are kept; ``ids`` (C, K), ``positions`` (C, K, 2).
    """

    images: int
    mean: NDArray[np.float64]
    maximum: NDArray[np.float32]
    sparsity: NDArray[np.float64]
    dead: NDArray[np.bool_]
    values: NDArray[np.float32]
    ids: NDArray[np.object_]
    positions: NDArray[np.float32]


def channel_table(batches: Sequence[ChannelBatch]) -> pa.Table:
    """Return the statistics of a shard's channels.

    Args:
        batches: the shard's batches, in plan order; several layers may alternate.

    Returns:
        A table of ``CHANNEL_SCHEMA``, a row per channel of a layer; empty where no image was read.
    """
    by_layer: dict[str, list[ChannelBatch]] = {}
    for batch in batches:
        by_layer.setdefault(batch.layer, []).append(batch)
    return _table({layer: _reduce(parts) for layer, parts in by_layer.items()})


def merge_channels(tables: Iterable[pa.Table]) -> pa.Table:
    """Merge the tables of all shards, in shard order, one in memory at a time.

    Returns:
        A table of ``CHANNEL_SCHEMA``: the same to 1e-12 for every cut of the images into shards.

    Raises:
        RunError: if another version wrote the tables.
    """
    merged: dict[str, _Layer] = {}
    for table in tables:
        if not table.schema.equals(CHANNEL_SCHEMA):
            raise RunError(
                "the shards' summaries were written by another version; make the run again with "
                "--overwrite"
            )
        for layer, part in _parse(table).items():
            merged[layer] = _add(merged[layer], part) if layer in merged else part
    return _table(merged)


def _reduce(batches: Sequence[ChannelBatch]) -> _Layer:
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
    chosen = np.take_along_axis(place.T, order, axis=1)
    width, height = widths[order], heights[order]
    positions = np.stack([(chosen % width + 0.5) / width, (chosen // width + 0.5) / height], -1)
    return _Layer(
        images=len(ids),
        mean=np.where(np.isfinite(mean), mean, np.nan).mean(axis=0, dtype=np.float64),
        maximum=np.fmax.reduce(maximum, axis=0),
        sparsity=zeros.mean(axis=0, dtype=np.float64),
        dead=(zeros == 1).all(axis=0),
        values=np.take_along_axis(ranked, order, axis=1),
        ids=ids[order],
        positions=positions.astype(np.float32),
    )


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


def _add(old: _Layer, new: _Layer) -> _Layer:
    images = old.images + new.images
    values = np.concatenate([old.values, new.values], axis=1)
    order = _largest(values)
    ids = np.concatenate([old.ids, new.ids], axis=1)
    positions = np.concatenate([old.positions, new.positions], axis=1)
    return _Layer(
        images=images,
        mean=(old.mean * old.images + new.mean * new.images) / images,
        maximum=np.fmax(old.maximum, new.maximum),
        sparsity=(old.sparsity * old.images + new.sparsity * new.images) / images,
        dead=old.dead & new.dead,
        values=np.take_along_axis(values, order, axis=1),
        ids=np.take_along_axis(ids, order, axis=1),
        positions=np.take_along_axis(positions, order[..., None], axis=1),
    )


def _table(layers: dict[str, _Layer]) -> pa.Table:
    tables = [_layer_table(name, layer) for name, layer in layers.items()]
    return pa.concat_tables([CHANNEL_SCHEMA.empty_table(), *tables]).combine_chunks()


def _layer_table(name: str, layer: _Layer) -> pa.Table:
    count = len(layer.mean)
    kept = layer.values != -np.inf
    offsets = pa.array(np.concatenate([[0], kept.sum(axis=1).cumsum()]).astype(np.int32))

    def lists(column: str, flat: pa.Array) -> pa.Array:
        return pa.ListArray.from_arrays(offsets, flat, type=CHANNEL_SCHEMA.field(column).type)

    position = CHANNEL_SCHEMA.field("top_places").type.value_type
    x, y = layer.positions[kept].T
    return pa.Table.from_pydict(
        {
            "layer": [name] * count,
            "channel": np.arange(count, dtype=np.int32),
            "images": np.full(count, layer.images),
            "mean": layer.mean,
            "maximum": layer.maximum,
            "sparsity": layer.sparsity,
            "dead": layer.dead,
            "top": lists("top", pa.array(layer.ids[kept], pa.string())),
            "top_values": lists("top_values", pa.array(layer.values[kept], pa.float32())),
            "top_places": lists(
                "top_places",
                pa.StructArray.from_arrays([pa.array(x), pa.array(y)], fields=list(position)),
            ),
        },
        schema=CHANNEL_SCHEMA,
    )


def _parse(table: pa.Table) -> dict[str, _Layer]:
    names = table.column("layer").to_pylist()
    cuts = [n for n in range(len(names)) if n == 0 or names[n] != names[n - 1]] + [len(names)]
    return {
        names[start]: _layer(table.slice(start, stop - start).combine_chunks())
        for start, stop in pairwise(cuts)
    }


def _layer(table: pa.Table) -> _Layer:
    lists = table.column("top").combine_chunks()
    lengths = np.diff(lists.offsets.to_numpy())
    kept = np.arange(TOP) < lengths[:, None]
    values = np.full(kept.shape, -np.inf, dtype=np.float32)
    ids = np.full(kept.shape, "", dtype=object)
    positions = np.zeros((*kept.shape, 2), dtype=np.float32)
    values[kept] = table.column("top_values").combine_chunks().flatten().to_numpy()
    ids[kept] = lists.flatten().to_numpy(zero_copy_only=False)
    flat = table.column("top_places").combine_chunks().flatten()
    positions[kept] = np.stack([child.to_numpy() for child in flat.flatten()], axis=-1)
    return _Layer(
        images=table.column("images")[0].as_py(),
        mean=table.column("mean").to_numpy(),
        maximum=table.column("maximum").to_numpy(),
        sparsity=table.column("sparsity").to_numpy(),
        dead=table.column("dead").to_numpy(),
        values=values,
        ids=ids,
        positions=positions,
    )
