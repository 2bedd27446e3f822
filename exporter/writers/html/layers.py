"""The pages of layers: the table of all of them, and their kernels, channels and pictures."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

from exporter.records import COMBINED, FEATURES, ChannelRow
from exporter.writers.html.index import CHANNELS_PER_PAGE, parts
from exporter.writers.html.maximised import by_settings
from exporter.writers.html.report import Report, layer_file, neighbours


def table(report: Report) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the table of all layers, those with a page linked."""
    plan, files = report.plan, report.layer_files
    types = {record.name: record.type for record in report.run.kernels()}
    roles: dict[str, list[str]] = defaultdict(list)
    for role, names in (
        ("maps", plan.explained),
        ("channels", plan.recorded),
        ("kernels", types),
        ("maximised", [name for name in report.pictures if name in files]),
    ):
        for name in names:
            roles[name].append(role)
    known = {layer.name for layer in plan.layers if not _encoded(report, layer.name)}
    # Elements of an output (``layer[0]``), later calls (``relu#2``) and parameters are no modules.
    types |= dict.fromkeys(COMBINED, "made from several layers")
    types |= {FEATURES: plan.encoder} if plan.encoder else {}
    others: list[Any] = [
        {"name": name, "type": types.get(name, "part of a layer"), "depth": 0, "fired": True}
        for name in roles
        if name not in known
    ]
    rows: list[Any] = [
        (layer, files.get(layer.name), roles[layer.name])
        if layer.name in known
        else (layer, None, [])
        for layer in plan.layers
    ]
    rows += [(part, files.get(part["name"]), roles[part["name"]]) for part in others]
    most = Counter(layer.type for layer in plan.layers).most_common(8)
    yield "layers.html", {"table": rows, "types": most, "cards": _cards(report, rows)}


def _encoded(report: Report, name: str) -> bool:
    """Say whether what is recorded under a name is an encoder's, whatever the model calls so."""
    return name == FEATURES and bool(report.plan.encoder)


def _cards(report: Report, rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Return what is said of each layer that has maps or channels, in the model's order."""
    agreeing: dict[str, list[float]] = defaultdict(list)
    for row in report.run.agreement():
        if row.correlation is not None:
            agreeing[row.layer].append(row.correlation)
    cards = []
    for layer, file, roles in rows:
        if not {"maps", "channels"} & set(roles):
            continue
        name = layer["name"] if isinstance(layer, dict) else layer.name
        channels, agreed = report.channels.get(name, []), agreeing[name]
        card = {"layer": layer, "file": file, "roles": roles, "channels": len(channels)}
        card["dead"] = sum(row.dead for row in channels)
        card["agreement"] = sum(agreed) / len(agreed) if agreed else None
        cards.append(card)
    return cards


def kernels(report: Report) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the page that shows the sheets of kernels."""
    yield "kernels.html", {"sheets": report.kernel_sheets}


def pages(report: Report) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the pages of every layer that has one; at most `CHANNELS_PER_PAGE` per page."""
    records = {layer.name: layer for layer in report.plan.layers}
    redundant: dict[str, dict[int, tuple[int, float, str]]] = defaultdict(dict)
    for pair in report.run.redundant():
        for channel, other in ((pair.first, pair.second), (pair.second, pair.first)):
            page = layer_file(report.layer_numbers[pair.layer], other // CHANNELS_PER_PAGE)
            redundant[pair.layer].setdefault(channel, (other, pair.correlation, page))
    files = [(file, name) for name, file in report.layer_files.items()]
    for at, (name, number) in enumerate(report.layer_numbers.items()):
        channels, pictures = report.channels.get(name, []), report.pictures.get(name, [])
        by_channel = {row.channel: row for row in channels}
        items = []
        for picture in pictures:
            channel = picture.record.channel
            page = layer_file(number, channel // CHANNELS_PER_PAGE)
            place = page if channel in by_channel else None
            items.append((picture, place, f"c{channel}", by_channel.get(channel)))
        shared = {
            "name": name,
            "number": number,
            "record": None if _encoded(report, name) else records.get(name),
            "encoder": report.plan.encoder if _encoded(report, name) else "",
            "neighbours": neighbours(files, at),
            "kernels": [sheet for sheet in report.kernel_sheets if sheet["record"].name == name],
            "pictures": {picture.record.channel: picture for picture in reversed(pictures)},
            "redundant": redundant[name],
            "whole": _whole(channels),
            "per_page": CHANNELS_PER_PAGE,
        }
        for part, context in enumerate(_parts(report, channels, number)):
            # All pictures are on the first page of a layer; each is in its channel's row, too.
            galleries = by_settings(items) if part == 0 else []
            yield layer_file(number, part), shared | context | {"galleries": galleries}


def _whole(channels: Sequence[ChannelRow]) -> dict[str, Any] | None:
    """Return what all channels of a layer add up to; every page of the layer says it."""
    if not channels:
        return None
    return {
        "count": len(channels),
        "images": max(row.images for row in channels),
        "dead": sum(row.dead for row in channels),
        "sparsity": sum(row.sparsity for row in channels) / len(channels),
        "strongest": max(channels, key=lambda row: row.maximum),
    }


def _parts(report: Report, channels: Sequence[ChannelRow], number: int) -> Iterator[dict[str, Any]]:
    """Yield what each part of a layer's channels is filled with, and write its script."""
    if not channels:
        yield {"channels": [], "parts": [], "script": None, "first": 0, "last": 0}
        return
    cuts = [channels[start:stop] for start, stop in parts(len(channels), CHANNELS_PER_PAGE)]

    @cache
    def shown(id: str) -> Shown | None:
        entry = report.index.by_id.get(id)
        return entry and (id, entry.position, entry.photograph, report.index.describe(entry))

    for part, rows in enumerate(cuts):
        tops = [_tops(shown, row) for row in rows]
        script = layer_file(number, part).removesuffix(".html") + ".js"
        report.write(script, tops_script(rows, tops))
        links = [
            (layer_file(number, other), f"{of[0].channel}–{of[-1].channel}", other == part)
            for other, of in enumerate(cuts)
        ]
        yield {
            "channels": list(zip(rows, tops, strict=True)),
            "parts": links,
            "script": script,
            "first": rows[0].channel,
            "last": rows[-1].channel,
        }


Shown = tuple[str, int, str, str]
"""What is told of an image under a channel: id, position, photograph, and in words."""


class Top(NamedTuple):
    """An image that activates a channel most: what it is, how much, and where in percent."""

    id: str
    position: int
    src: str
    name: str
    value: float
    x: int
    y: int


def _tops(shown: Callable[[str], Shown | None], row: ChannelRow) -> list[Top]:
    tops = []
    for id, value, (x, y) in zip(row.top, row.top_values, row.top_places, strict=True):
        if not row.dead and (image := shown(id)):
            tops.append(Top(*image, float(f"{value:.4g}"), round(100 * x), round(100 * y)))
    return tops


def tops_script(channels: Sequence[ChannelRow], tops: Sequence[Sequence[Top]]) -> str:
    """Return the script of a page's strongest images: a call of ``exporterTops``.

    Returns:
        For each channel: image, activation, and its place in percent of the model's view, in turn.
    """
    images = {top.id: top for row in tops for top in row}
    numbers = {id: number for number, id in enumerate(images)}
    contents = {
        "layer": channels[0].layer,
        "first": channels[0].channel,
        "ids": list(images),
        "positions": [top.position for top in images.values()],
        "names": [top.name for top in images.values()],
        "rows": [
            [number for top in row for number in (numbers[top.id], top.value, top.x, top.y)]
            for row in tops
        ],
    }
    return f"exporterTops({json.dumps(contents, separators=(',', ':'))});\n"
