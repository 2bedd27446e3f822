"""What the pages of layers, channels and kernels are filled with, computed from the run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from exporter.records import ChannelRow, KernelRecord, Plan, RedundantPair
from exporter.render import decode_image
from exporter.writers.html import text as words
from exporter.writers.html.index import CHANNELS_A_PAGE, SetIndex, parts

if TYPE_CHECKING:
    from exporter.store import Run


@dataclass(frozen=True, slots=True)
class Sheet:
    """A picture of kernels and what its caption says."""

    name: str
    type: str
    shape: str
    lo: float
    hi: float
    shown: int
    total: int
    src: str
    width: int
    height: int
    alt: str
    caption: str
    link: str | None


def kernel_sheets(
    run: Run, kernels: Sequence[KernelRecord], links: Mapping[str, str]
) -> list[Sheet]:
    """Return the kernels' pictures with captions; their files go under ``kernels/``."""
    sheets = []
    for place, record in enumerate(kernels):
        height, width = decode_image(run.kernel_sheet(record)).shape[:2]
        shape = words.shape(record.shape)
        caption = (
            f"{record.name}, {record.type}, {shape}: {words.number(record.shown)} of "
            f"{words.number(record.total)} kernels, weights from {words.figure(record.lo)} to "
            f"{words.figure(record.hi)}."
        )
        sheets.append(
            Sheet(
                name=record.name,
                type=record.type,
                shape=shape,
                lo=record.lo,
                hi=record.hi,
                shown=record.shown,
                total=record.total,
                src=f"kernels/{place}.png",
                width=width,
                height=height,
                alt=f"Kernels of {record.name}, {record.shown} of {record.total}",
                caption=caption,
                link=links.get(record.name),
            )
        )
    return sheets


def layer_numbers(
    plan: Plan, recorded: Sequence[str], kernels: Sequence[KernelRecord]
) -> dict[str, int]:
    """Return the page number of every layer that has a page, in the model's order."""
    names = list(dict.fromkeys([*recorded, *(record.name for record in kernels)]))
    places = {layer.name: place for place, layer in enumerate(plan.layers)}
    beyond = len(plan.layers)
    numbers = {}
    for name in names:
        if name in places:
            numbers[name] = places[name]
        else:
            numbers[name] = beyond
            beyond += 1
    return dict(sorted(numbers.items(), key=lambda item: item[1]))


def layers_table(
    plan: Plan,
    links: Mapping[str, str],
    kernels: Mapping[str, str],
    maximised: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the whole table of layers, those with a page linked.

    Args:
        plan: what ran.
        links: the page of each layer that has one.
        kernels: type of each layer or parameter whose kernels are drawn.
        maximised: layers that have pictures that excite their channels.
    """
    roles: dict[str, list[str]] = {}
    for name in plan.explained:
        roles.setdefault(name, []).append("maps")
    for name in plan.recorded:
        roles.setdefault(name, []).append("channels")
    for name in kernels:
        roles.setdefault(name, []).append("kernels")
    for name in maximised:
        if name in links:
            roles.setdefault(name, []).append("maximised")
    known = {layer.name for layer in plan.layers}
    rows: list[dict[str, Any]] = [
        {
            "name": layer.name,
            "type": layer.type,
            "output": layer.output,
            "parameters": layer.parameters,
            "depth": layer.depth,
            "fired": layer.fired,
            "link": links.get(layer.name),
            "role": ", ".join(roles.get(layer.name, [])),
        }
        for layer in plan.layers
    ]
    # Elements of an output (``layer[0]``), later calls (``relu#2``) and parameters are no modules.
    rows += [
        {
            "name": name,
            "type": kernels.get(name, "part of a layer"),
            "output": None,
            "parameters": None,
            "depth": 0,
            "fired": True,
            "link": links.get(name),
            "role": ", ".join(parts_shown),
        }
        for name, parts_shown in roles.items()
        if name not in known
    ]
    return {"table": rows, "types": Counter(layer.type for layer in plan.layers).most_common(8)}


def channel_pages(
    channels: Sequence[ChannelRow],
    index: SetIndex,
    number: int,
    redundant: Sequence[RedundantPair] = (),
) -> list[dict[str, Any]]:
    """Return the contents of each page of a layer's channels: one page a `CHANNELS_A_PAGE`.

    Args:
        channels: the layer's channels.
        index: the whole set.
        number: the layer's page number.
        redundant: pairs of its channels that say the same, the strongest first.
    """
    like: dict[int, tuple[int, float]] = {}
    for pair in redundant:
        like.setdefault(pair.first, (pair.second, pair.correlation))
        like.setdefault(pair.second, (pair.first, pair.correlation))
    stats = {
        "total": len(channels),
        "images": max((row.images for row in channels), default=0),
        "dead": sum(row.dead for row in channels),
        "sparsity": float(np.mean([row.sparsity for row in channels])) if channels else 0.0,
        "maximum": max((row.maximum for row in channels), default=0.0),
        "strongest": max(channels, key=lambda row: row.maximum).channel if channels else 0,
        "alike": len(like),
    }
    cuts = parts(len(channels), CHANNELS_A_PAGE) or [(0, 0)]
    files = [layer_file(number, part) for part in range(len(cuts))]
    positions = {id: position for position, id in enumerate(index.ids)} if channels else {}
    pages = []
    for part, (start, stop) in enumerate(cuts):
        rows = channels[start:stop]
        pages.append(
            {
                "file": files[part],
                "is_first": part == 0,
                "number": number,
                "per_page": CHANNELS_A_PAGE,
                "script": files[part].removesuffix(".html") + ".js" if rows else None,
                "stats": stats,
                "parts": len(cuts),
                "first": channels[start].channel if channels else 0,
                "last": channels[stop - 1].channel if channels else 0,
                "part_links": [
                    (file, f"{channels[a].channel}–{channels[b - 1].channel}", at == part)
                    for at, (file, (a, b)) in enumerate(zip(files, cuts, strict=True))
                    if channels
                ],
                "channels": [{"row": row, "like": like.get(row.channel)} for row in rows],
                "tops": tops_script(rows, index, positions) if rows else "",
            }
        )
    return pages


def tops_script(
    channels: Sequence[ChannelRow], index: SetIndex, positions: Mapping[str, int]
) -> str:
    """Return the script of a page's strongest images: a call of ``exporterTops``.

    Args:
        channels: the page's channels, in order.
        index: the whole set.
        positions: place of each image in the set.

    Returns:
        For each channel: image, activation, and its place in percent of the model's view, in turn.
    """
    images: dict[str, int] = {}
    rows: list[list[float]] = []
    for row in channels:
        flat: list[float] = []
        for id, value, (x, y) in zip(row.top, row.top_values, row.top_places, strict=True):
            if id in positions and not row.dead:
                place = images.setdefault(id, len(images))
                flat += [place, float(f"{value:.4g}"), round(100 * x), round(100 * y)]
        rows.append(flat)
    seen = [positions[id] for id in images]
    contents = {
        "layer": channels[0].layer,
        "first": channels[0].channel,
        "ids": list(images),
        "positions": seen,
        "names": [index.describe(position) for position in seen],
        "rows": rows,
    }
    return f"exporterTops({json.dumps(contents, separators=(',', ':'))});\n"


def layer_file(number: int, part: int = 0) -> str:
    """Return the file name of a layer's page, or of a later part of it.

    >>> layer_file(7), layer_file(7, 1)
    ('7.html', '7-2.html')
    """
    return f"{number}.html" if part == 0 else f"{number}-{part + 1}.html"
