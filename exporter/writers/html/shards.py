"""Maps and activations of a few hundred images as one script that a page loads from ``file://``.

A map goes out raw in 8 bits at no more than `CELLS` × `CELLS` cells. Where the method has a ReLU
and the map both signs, zero is level `ZERO`, so that what is drawn keeps three quarters of the
levels; otherwise the levels are even between the map's ends.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from exporter.records import MAP_LEVELS, MethodRecord, Row, StoredActivation, StoredMap

if TYPE_CHECKING:
    from numpy.typing import NDArray

CELLS = 28
"""Most rows and columns of a map in the report; larger ones are averaged down."""

ACTIVATION_CELLS = 14
ACTIVATION_BYTES = 2600
"""Bytes of channels an image may bring before base64: what fits beside 20 maps in 30 kB."""

ZERO = 63
FLAGS = ("zero", "constant", "nan", "negative")


@dataclass(slots=True)
class _Group:
    """Maps of the same method, layer, target's place and size, of the images of one shard."""

    rows: list[int] = field(default_factory=list)
    maps: list[StoredMap] = field(default_factory=list)


def pack_shard(
    number: int,
    rows: Sequence[Row],
    methods: Mapping[str, tuple[int, MethodRecord]],
    layers: Mapping[str, int],
    sheets: Container[str],
) -> str:
    """Return the script of one shard: a call of ``exporterShard`` with its number and contents.

    Args:
        number: the shard's number in the report.
        rows: its images, with maps and activations.
        methods: name to place and record of each method.
        layers: name to place of each explained layer.
        sheets: ids of the images whose strongest channels are shown.
    """
    targets: dict[str, int] = {}
    contents = {
        "maps": _maps(rows, methods, layers, targets),
        "targets": list(targets),
        "acts": _activations(rows, sheets),
        "p": [_predictions(row) for row in rows],
        "size": [None if row.width is None else [row.width, row.height] for row in rows],
        "crop": [None if row.crop is None else [round(x, 2) for x in row.crop] for row in rows],
        "error": {at: row.error for at, row in enumerate(rows) if row.error is not None},
    }
    return f"exporterShard({number},{json.dumps(contents, separators=(',', ':'))});\n"


def flag_bits(flags: str) -> int:
    """Return the flags of a map as bits: 1 zero, 2 constant, 4 not a number, 8 negative.

    >>> flag_bits("zero"), flag_bits("constant,nan"), flag_bits("")
    (1, 6, 0)
    """
    if not flags:
        return 0
    return sum(1 << bit for bit, name in enumerate(FLAGS) if name in flags.split(","))


def display_size(height: int, width: int, cells: int = CELLS) -> tuple[int, int]:
    """Return the (rows, columns) a map has in the report."""
    return min(height, cells), min(width, cells)


def reduce_cells(values: NDArray[np.number], cells: int = CELLS) -> NDArray[np.float32]:
    """Average maps down to at most so many rows and columns, each output cell over its own area.

    Args:
        values: (N, H, W).
        cells: the most rows and columns.

    Returns:
        float32 (N, min(H, cells), min(W, cells)).
    """
    height, width = values.shape[1:]
    rows, columns = display_size(height, width, cells)
    out = values.astype(np.float32)
    if rows < height:
        out = _area(height, rows) @ out
    if columns < width:
        out = out @ _area(width, columns).T
    return out


def quantise(
    levels: NDArray[np.floating], lo: NDArray[np.float32], hi: NDArray[np.float32], *, relu: bool
) -> NDArray[np.uint8]:
    """Cut 16-bit levels between ``lo`` and ``hi`` to the report's 8 bits.

    Args:
        levels: (N, H, W), in [0, 65535].
        lo: value of level 0, (N,).
        hi: value of level 65535, (N,).
        relu: whether the method ends in a ReLU: zero is then level `ZERO` where both signs occur.

    Returns:
        uint8 (N, H, W).
    """
    share = levels / np.float32(MAP_LEVELS)
    out = share * np.float32(255)
    split = np.flatnonzero((lo < 0) & (hi > 0)) if relu else np.empty(0, dtype=np.intp)
    if split.size:
        low, high = lo[split].astype(np.float64), hi[split].astype(np.float64)
        zero = (-low / (high - low))[:, None, None]
        above = np.maximum(high / (high - low), 1e-300)[:, None, None]
        part = share[split]
        out[split] = ZERO + np.where(
            part >= zero, (part - zero) / above * (255 - ZERO), (part - zero) / zero * ZERO
        )
    quantised: NDArray[np.uint8] = np.clip(np.rint(out), 0, 255).astype(np.uint8)
    return quantised


@cache
def _area(size: int, cells: int) -> NDArray[np.float32]:
    """Return the (cells, size) weights that average over each output cell's area."""
    edges = np.linspace(0, size, cells + 1)
    pixels = np.arange(size)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights = np.maximum(covered, 0)
    shares: NDArray[np.float32] = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares


def _maps(
    rows: Sequence[Row],
    methods: Mapping[str, tuple[int, MethodRecord]],
    layers: Mapping[str, int],
    targets: dict[str, int],
) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str, int, int, int], _Group] = {}
    for at, row in enumerate(rows):
        seen: dict[tuple[str, str], int] = {}
        for one in row.maps:
            name = (one.method, one.layer)
            part = seen[name] = seen.get(name, -1) + 1
            group = groups.setdefault((*name, part, one.height, one.width), _Group())
            group.rows.append(at)
            group.maps.append(one)
    packed = []
    for (method, layer, part, height, width), group in groups.items():
        if method not in methods or layer not in layers:
            continue
        place, record = methods[method]
        lo = np.array([one.lo for one in group.maps], dtype=np.float32)
        hi = np.array([one.hi for one in group.maps], dtype=np.float32)
        stored = np.frombuffer(b"".join(one.values for one in group.maps), dtype="<u2")
        levels = reduce_cells(stored.reshape(-1, height, width))
        bits = [flag_bits(one.flags) for one in group.maps]
        entry: dict[str, Any] = {
            "m": place,
            "l": layers[layer],
            "k": part,
            "h": levels.shape[1],
            "w": levels.shape[2],
            "H": height,
            "W": width,
            "t": [targets.setdefault(one.target, len(targets)) for one in group.maps],
            "r": _base64(np.stack([lo, hi], axis=1)),
            "v": _base64(quantise(levels, lo, hi, relu=record.relu)),
        }
        if any(bits):
            entry["f"] = bits
        if len(group.rows) != len(rows):
            entry["rows"] = group.rows
        packed.append(entry)
    return packed


def _activations(rows: Sequence[Row], sheets: Container[str]) -> list[dict[str, Any]]:
    groups: dict[tuple[str, int, int, int], list[tuple[int, StoredActivation]]] = {}
    for at, row in enumerate(rows):
        for one in row.activations if row.id in sheets else ():
            key = (one.layer, one.height, one.width, len(one.channels))
            groups.setdefault(key, []).append((at, one))
    sizes = {key: display_size(key[1], key[2], ACTIVATION_CELLS) for key in groups}
    image = sum(h * w for h, w in {key[0]: size for key, size in sizes.items()}.values())
    most = max(1, ACTIVATION_BYTES // max(1, image))
    packed = []
    for (layer, height, width, many), members in groups.items():
        if not many:
            continue
        drawn = min(many, most)
        stored = np.frombuffer(b"".join(one.values for _, one in members), dtype=np.uint8)
        levels = stored.reshape(-1, many, height, width)[:, :drawn].reshape(-1, height, width)
        small = np.rint(reduce_cells(levels, ACTIVATION_CELLS)).astype(np.uint8)
        ends = np.array([list(zip(one.lo, one.hi, strict=True)) for _, one in members])
        entry: dict[str, Any] = {
            "layer": layer,
            "h": small.shape[1],
            "w": small.shape[2],
            "H": height,
            "W": width,
            "d": drawn,
            "c": [list(one.channels) for _, one in members],
            "r": _base64(ends.astype(np.float32)),
            "v": _base64(small),
        }
        if len(members) != len(rows):
            entry["rows"] = [at for at, _ in members]
        packed.append(entry)
    return packed


def _predictions(row: Row) -> list[float | None]:
    flat: list[float | None] = []
    for one in row.predictions:
        flat += [one.index, finite(one.score)]
    return flat


def finite(value: float | None, digits: int = 5) -> float | None:
    """Return a number that JSON can hold, to so many significant digits; None where there is none.

    >>> finite(0.123456789), finite(float("nan")), finite(None)
    (0.12346, None, None)
    """
    if value is None or not np.isfinite(value):
        return None
    return float(f"{value:.{digits}g}")


def _base64(values: NDArray[Any]) -> str:
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    return b64encode(np.ascontiguousarray(little).tobytes()).decode("ascii")
