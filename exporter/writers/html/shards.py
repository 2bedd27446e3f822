"""Maps and activations of a few hundred images as one script that a page loads from ``file://``.

A map goes out raw in 8 bits at no more than `CELLS` × `CELLS` cells, one of a pixel method at
`PIXEL_CELLS` × `PIXEL_CELLS` (4.2 kB as Base64), or fewer where an image has many large ones (see
`most_cells`). Where the method has a ReLU and the map both signs, zero is level `ZERO`, so that
what is drawn keeps three quarters of the levels; otherwise the levels are even between the map's
ends.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from exporter.records import MAP_LEVELS, Box, MethodRecord, Row, StoredActivation, StoredMap

CELLS = 28
"""Most rows and columns of a map in the report; larger ones are averaged down."""

PIXEL_CELLS = 56
"""The same of a map of a pixel method."""

MAPS, ROOM = 20, 525
"""So many maps take at most so many cells on average: 14 kB as Base64, and all of an image 32."""

ACTIVATION_CELLS = 14
ACTIVATION_BYTES = 2600
"""Bytes of channels per image, before Base64: what fits beside 20 maps in 30 kB."""

ZERO = 63
FLAGS = ("zero", "constant", "nan", "negative", "noise")


def pack_shard(
    number: int,
    rows: Sequence[Row],
    methods: Mapping[str, tuple[int, MethodRecord]],
    layers: Mapping[str, int],
    sheets: Container[str],
    *,
    most: Mapping[bool, int],
    more: Mapping[str, Any] | None = None,
) -> str:
    """Return the script of one shard: a call of ``exporterShard`` with its number and contents.

    Args:
        number: the shard's number in the report.
        rows: its images, with maps and activations.
        methods: name to place and record of each method.
        layers: name to place of each explained layer.
        sheets: ids of the images whose strongest channels are shown.
        most: rows and columns that a map has at most, by whether it is of a pixel method.
        more: what else the script carries.
    """
    targets: dict[str, int] = {}
    contents = {
        "maps": _maps(rows, methods, layers, targets, most),
        "targets": list(targets),
        "acts": _activations(rows, sheets),
        "p": [
            [part for top in row.predictions for part in (top.index, finite(top.score))]
            for row in rows
        ],
        "size": [None if row.width is None else [row.width, row.height] for row in rows],
        "crop": [None if row.crop is None else [round(x, 2) for x in row.crop] for row in rows],
        "boxes": {
            at: [_tenths(row.boxes), _tenths(row.predicted_boxes), _regions(row)]
            for at, row in enumerate(rows)
            if row.crop is not None and (row.boxes or row.predicted_boxes or row.regions)
        },
        "error": {at: row.error for at, row in enumerate(rows) if row.error is not None},
        **(more or {}),
    }
    return f"exporterShard({number},{json.dumps(contents, separators=(',', ':'))});\n"


def _tenths(boxes: Sequence[Box] | None) -> list[list[float]]:
    return [[round(end, 1) for end in box] for box in boxes or ()]


def _regions(row: Row) -> dict[str, tuple[int, int, str]]:
    return {
        region.target: (region.height, region.width, b64encode(region.values).decode("ascii"))
        for region in row.regions
    }


@cache
def flag_bits(flags: str) -> int:
    """Return the flags of a map as bits: 1 zero, 2 constant, 4 not a number, 8 negative, 16 noise.

    >>> flag_bits("zero"), flag_bits("constant,nan"), flag_bits("")
    (1, 6, 0)
    """
    return sum(1 << FLAGS.index(name) for name in flags.split(",") if name in FLAGS)


def most_cells(maps: Sequence[tuple[int, int, bool]]) -> dict[bool, int]:
    """Return how many rows and columns the maps of an image have at most in the report.

    Args:
        maps: rows, columns and whether it is of a pixel method, of each.

    Returns:
        The most, of a pixel method (True) and of another (False); no more than `PIXEL_CELLS` and
        `CELLS`, and so few that they have `ROOM` cells on average, or what `MAPS` of them would.

    >>> stages = [(56, 56, False), (28, 28, False), (14, 14, False), (7, 7, False)]
    >>> most_cells(5 * stages), most_cells(4 * stages + 4 * [(224, 224, True)])
    ({True: 56, False: 28}, {True: 28, False: 28})
    """
    room = ROOM * max(MAPS, len(maps))
    for side in range(PIXEL_CELLS, 1, -1):
        most = {True: side, False: min(CELLS, side)}
        if sum(min(h, most[pixel]) * min(w, most[pixel]) for h, w, pixel in maps) <= room:
            break
    return most


def reduce_cells(values: NDArray[np.number], cells: int = CELLS) -> NDArray[np.float32]:
    """Average maps down to at most so many rows and columns, each output cell over its own area.

    Args:
        values: (N, H, W).
        cells: the most rows and columns.

    Returns:
        float32 (N, min(H, cells), min(W, cells)).
    """
    small = values.astype(np.float32)
    size = (min(values.shape[2], cells), min(values.shape[1], cells))
    if size == values.shape[:0:-1]:
        return small
    return np.stack([cv2.resize(plane, size, interpolation=cv2.INTER_AREA) for plane in small])


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
        signed = share[split] - zero
        out[split] = ZERO + signed * np.where(signed < 0, ZERO / zero, (255 - ZERO) / above)
    quantised: NDArray[np.uint8] = np.clip(np.rint(out), 0, 255).astype(np.uint8)
    return quantised


def _maps(
    rows: Sequence[Row],
    methods: Mapping[str, tuple[int, MethodRecord]],
    layers: Mapping[str, int],
    targets: dict[str, int],
    most: Mapping[bool, int],
) -> list[dict[str, Any]]:
    # Maps of the same method, layer, place of the target and size share a block of bytes.
    groups: dict[tuple[str, str, int, int, int], list[tuple[int, StoredMap]]] = defaultdict(list)
    for at, row in enumerate(rows):
        seen: dict[tuple[str, str], int] = {}
        for stored in row.maps:
            name = (stored.method, stored.layer)
            part = seen[name] = seen.get(name, -1) + 1
            if stored.method in methods and stored.layer in layers:
                groups[*name, part, stored.height, stored.width].append((at, stored))
    packed = []
    for (method, layer, part, height, width), members in groups.items():
        place, record = methods[method]
        maps = [stored for _, stored in members]
        lo, hi = np.array([(stored.lo, stored.hi) for stored in maps], dtype=np.float32).T
        raw = np.frombuffer(b"".join(stored.values for stored in maps), dtype="<u2")
        levels = reduce_cells(raw.reshape(-1, height, width), most[record.pixel])
        entry = {"m": place, "l": layers[layer], "k": part, **_sizes(levels, height, width)}
        entry["t"] = [targets.setdefault(stored.target, len(targets)) for stored in maps]
        entry["r"] = base64(np.stack([lo, hi], axis=1))
        entry["v"] = base64(quantise(levels, lo, hi, relu=record.relu))
        if any(stored.flags for stored in maps):
            entry["f"] = [flag_bits(stored.flags) for stored in maps]
        packed.append(entry | _rows_of(members, rows))
    return packed


def _sizes(shown: NDArray[Any], height: int, width: int) -> dict[str, Any]:
    """Return the cells that are shown and those that there are."""
    return {"h": shown.shape[1], "w": shown.shape[2], "H": height, "W": width}


def _rows_of(members: Sequence[tuple[int, Any]], rows: Sequence[Row]) -> dict[str, list[int]]:
    """Return which images have a map or sheet, where not all have."""
    return {} if len(members) == len(rows) else {"rows": [at for at, _ in members]}


def _activations(rows: Sequence[Row], sheets: Container[str]) -> list[dict[str, Any]]:
    groups: dict[tuple[str, int, int, int], list[tuple[int, StoredActivation]]] = defaultdict(list)
    for at, row in enumerate(rows):
        for stored in row.activations if row.id in sheets else ():
            if stored.channels:
                key = (stored.layer, stored.height, stored.width, len(stored.channels))
                groups[key].append((at, stored))
    cells = {
        layer: min(height, ACTIVATION_CELLS) * min(width, ACTIVATION_CELLS)
        for layer, height, width, _ in groups
    }
    most = max(1, ACTIVATION_BYTES // max(1, sum(cells.values())))
    packed = []
    for (layer, height, width, channels), members in groups.items():
        drawn = min(channels, most)
        raw = np.frombuffer(b"".join(stored.values for _, stored in members), dtype=np.uint8)
        levels = raw.reshape(-1, channels, height, width)[:, :drawn].reshape(-1, height, width)
        small = np.rint(reduce_cells(levels, ACTIVATION_CELLS)).astype(np.uint8)
        ends = [list(zip(stored.lo, stored.hi, strict=True)) for _, stored in members]
        entry = {"layer": layer, **_sizes(small, height, width), "d": drawn}
        entry["c"] = [stored.channels for _, stored in members]
        entry["r"] = base64(np.array(ends, dtype=np.float32))
        entry["v"] = base64(small)
        packed.append(entry | _rows_of(members, rows))
    return packed


def finite(value: float | None, digits: int = 5) -> float | None:
    """Return a number that JSON can hold, to so many significant digits; None where there is none.

    >>> finite(0.123456789), finite(float("nan")), finite(None)
    (0.12346, None, None)
    """
    if value is None or not np.isfinite(value):
        return None
    return float(f"{value:.{digits}g}")


def base64(values: NDArray[Any]) -> str:
    """Return an array's bytes, little-endian and row-major, as Base64."""
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    return b64encode(np.ascontiguousarray(little).tobytes()).decode("ascii")
