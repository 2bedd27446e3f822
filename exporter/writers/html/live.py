"""The map of any class: the linear head once, and its maps of each kept image, loaded when asked.

The head is applied here, not in the page: its rows in 8 bits, multiplied there, miss the map of a
class by up to 4 % of its range, and more bits of 1,000 rows take over 1.5 MB. A kept image's script
holds the map of every class in `STEPS` steps between its own ends, so that no cell is more than 1 %
of that range off what the run folder's activations give, and the spatial mean of each channel.
Where that takes more than `MOST_BYTES`, the activations are averaged down before (1,000 classes:
from 14 × 14 to 7 × 7 cells), which the viewer says and which leaves the logit what it is. The
head's script has what lists the channels: its rows, in as many steps as fit.
"""

from __future__ import annotations

import json
import zlib
from base64 import b64encode
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporter.records import Plan
from exporter.store import Run
from exporter.writers.html.shards import base64, reduce_cells

STEPS = 51
WEIGHTS = (127, 63, 31, 21, 15, 11, 7)
"""Steps to either side of zero that a weight may have."""
BYTES_PER_CLASS = 1450
"""What they may take as text: 1.5 MB for 1,000 classes, with names and biases."""

MOST_BYTES = 60_000
"""What an image's script may take."""
LEAST_CELLS = 4
"""Rows and columns below which a map that is averaged down shows too little to be carried."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Live:
    """What the page loads when a class is asked for."""

    layer: str
    head: str
    images: Mapping[str, str]


NO_IMAGE = "No image carries what is needed to show the map of any class."


def live_scripts(run: Run, kept: Set[str]) -> tuple[Live | None, str]:
    """Return the scripts of the kept images that carry the layer, or None and a sentence why."""
    plan, head = run.plan, run.head()
    if head is None or plan.head is None or not plan.head.layer:
        return None, NO_IMAGE
    weights, biases = np.ascontiguousarray(head[:, :-1]), head[:, -1]
    images: dict[str, str] = {}
    squares, why = np.zeros(weights.shape[1]), NO_IMAGE
    for stage in run.stages(kept):
        values = stage.activation.array()
        if not np.isfinite(values).all():
            continue
        side = most_cells(weights.shape, values.shape[1], values.shape[2])
        if not side:
            why = (
                f"The map of any class is left out: for {len(weights):,} classes not even "
                f"{LEAST_CELLS} × {LEAST_CELLS} cells fit in {MOST_BYTES / 1000:g} kB per image."
            )
            break
        means = values.mean((1, 2))
        squares += means.astype(np.float64) ** 2
        contents = _pack_image(weights, values, means, side)
        images[stage.id] = f"exporterLive({json.dumps(stage.id)},{_compact(contents)});\n"
    if not images:
        return None, why
    scales = np.sqrt(squares / len(images)).astype(np.float32)
    script = f"exporterHead({_compact(_pack_head(plan, weights, biases, scales))});\n"
    return Live(plan.head.layer, script, images), ""


def most_cells(weights: tuple[int, ...], height: int, width: int) -> int:
    """Return how many rows and columns of an image's maps fit in `MOST_BYTES`; 0 if too few do.

    Args:
        weights: the head's shape, (K, C).
        height: rows that the layer has.
        width: columns that it has.

    >>> [most_cells((classes, 1280), 14, 14) for classes in (100, 400, 1000, 21841)]
    [14, 12, 7, 0]
    """
    classes, channels = weights
    # As Base64: 52 levels take 5.8 bits each, a map's ends four bytes and a channel's mean one.
    room = (MOST_BYTES - 400 - 4 / 3 * (channels + 4 * classes)) / classes / (4 / 3 * 5.8 / 8)
    whole = max(height, width)
    sides = range(whole, min(whole, LEAST_CELLS) - 1, -1)
    return next((at for at in sides if min(height, at) * min(width, at) <= room), 0)


def driving(weights: Floats, means: Floats, count: int) -> list[tuple[int, float]]:
    """Return the channels that add most to a logit, or take most from it, and how much.

    Weights (C,) are the class's row of the head, means (C,) those of the channels over the plane.
    """
    parts = weights * means
    places = np.argsort(-np.abs(parts), kind="stable")[:count].tolist()
    return [(place, float(parts[place])) for place in places if parts[place]]


def _pack_image(weights: Floats, values: Floats, means: Floats, side: int) -> dict[str, Any]:
    """Pack the map of every class, (C, H, W) averaged down to no more than so many cells a side."""
    full, values = values.shape[1:], reduce_cells(values, side)
    return {
        "height": values.shape[1],
        "width": values.shape[2],
        "full": full,
        "means": _levels(means, np.uint8)[0],
        **_pack_maps(weights @ values.reshape(len(values), -1)),
    }


def _pack_maps(maps: Floats) -> dict[str, Any]:
    """Pack (K, cells): each between its own ends, which are numbers of 16 bits themselves."""
    lowest = maps.min(1)
    (lo, bottom), (span, spread) = (
        _levels(ends, np.uint16) for ends in (lowest, maps.max(1) - lowest)
    )
    shares = (maps - bottom[:, None]) / np.where(spread > 0, spread, 1)[:, None]
    levels = np.clip(np.rint(shares * STEPS), 0, STEPS).astype(np.uint8)
    return {"lo": lo, "span": span, "steps": STEPS, "maps": _deflated(levels)}


def _levels(values: Floats, kind: type[np.unsignedinteger[Any]]) -> tuple[dict[str, Any], Floats]:
    """Return numbers as levels between their ends, and what is read back."""
    lo, hi, top = float(values.min()), float(values.max()), np.iinfo(kind).max
    step = (hi - lo) / top
    levels = np.rint((values.astype(np.float64) - lo) / (step or 1)).astype(kind)
    packed = {"lo": lo, "step": step, "levels": _deflated(levels)}
    return packed, (lo + levels * step).astype(np.float32)


def _pack_head(plan: Plan, weights: Floats, biases: Floats, scales: Floats) -> dict[str, Any]:
    # A channel counts by what it adds to a logit: its weight times its mean.
    parts = weights * scales
    for most in WEIGHTS:
        steps = np.abs(parts).max(1) / most
        levels = np.rint(parts / np.where(steps > 0, steps, 1)[:, None]).astype(np.int8)
        rows = _deflated(np.ascontiguousarray(levels.T))
        if len(rows) <= BYTES_PER_CLASS * len(weights):
            break
    return {
        "layer": plan.head_layer,
        "names": plan.model.classes,
        "bias": base64(biases),
        "scale": base64(scales),
        "step": base64(steps.astype(np.float32)),
        "rows": rows,
    }


def _deflated(values: NDArray[Any]) -> str:
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    # Nothing in maps or weights repeats: looking for it takes three times as long, for more bytes.
    deflate = zlib.compressobj(strategy=zlib.Z_HUFFMAN_ONLY)
    return b64encode(deflate.compress(little.tobytes()) + deflate.flush()).decode("ascii")


def _compact(contents: Mapping[str, Any]) -> str:
    return json.dumps(contents, separators=(",", ":")).replace("<", "\\u003c")
