"""The images of the report: photographs, scripts of maps and lists, in one pass over the rows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import fields, replace
from itertools import islice
from typing import Any, NamedTuple

from exporter.records import Plan, Row, StoredMap
from exporter.render import encode_webp, fading_map, hatch, thumbnail
from exporter.writers.html import text as words
from exporter.writers.html.index import (
    IMAGES_PER_SHARD,
    Entry,
    SetIndex,
    columns_script,
    index_script,
    parts,
)
from exporter.writers.html.report import Report, layer_file
from exporter.writers.html.shards import flag_bits, most_cells, pack_shard

FIRST_PHOTOGRAPHS = 200
"""Photographs that the images page shows without JavaScript."""

FINE = 56
"""Longer side of the map over a photograph of a strip: printers do not smooth what they enlarge."""


class Batch(NamedTuple):
    """At most `IMAGES_PER_SHARD` images: the script of their maps and the page that lists them."""

    rows: list[Row]
    script: str
    script_file: str
    list_file: str
    page: dict[str, Any]


def batches(report: Report, rows: Iterable[Row], total: int, index: SetIndex) -> Iterator[Batch]:
    """Take images into an index, and yield what the report has of them."""
    plan, kept = report.plan, set(report.options.kept)
    height, width = plan.model.preprocessing.size
    methods = {record.name: (place, record) for place, record in enumerate(plan.methods)}
    pixel = {record.name for record in plan.methods if record.pixel}
    layers = {name: place for place, name in enumerate(plan.map_layers)}
    remaining = iter(rows)
    for number, (start, stop) in enumerate(parts(total, IMAGES_PER_SHARD)):
        batch = list(islice(remaining, stop - start))
        page = {
            "rows": [_line(row, index.add(row, kept=row.id in kept), index) for row in batch],
            "first": start + 1,
            "last": stop,
            "of": total,
            "before": _list_file(number - 1) if number else None,
            "after": _list_file(number + 1) if stop < total else None,
            "thumb": round(96 * height / width),
        }
        # The index counts every map, also of images whose maps are left out.
        batch = [as_pictured(row, report.options.pictured) for row in batch]
        largest = max(batch, key=lambda row: len(row.maps))
        most = most_cells([(of.height, of.width, of.method in pixel) for of in largest.maps])
        index.most = {key: max(side, index.most.get(key, 0)) for key, side in most.items()}
        script = pack_shard(number, batch, methods, layers, kept, most=most)
        yield Batch(batch, script, f"data/{number:05d}.js", _list_file(number), page)
        del batch, page, script  # they need not be there while the next are read


def as_pictured(row: Row, pictured: Collection[str] | None) -> Row:
    """Return an image as it is in the report: a small photograph alone where it is not pictured."""
    if pictured is None or row.id in pictured:
        return row
    return replace(row, image=row.image and thumbnail(row.image), maps=(), activations=())


def _list_file(number: int) -> str:
    return f"list/{number:05d}.html"


def _line(row: Row, entry: Entry, index: SetIndex) -> dict[str, Any]:
    """Return one line of the lists that need no JavaScript."""
    predictions = [(said.name, words.score(said.score, index.plan)) for said in row.predictions]
    name, score = predictions[0] if predictions else ("", "")
    return {
        "id": row.id,
        "path": row.path,
        "label": row.label,
        "src": None if row.image is None else entry.photograph,
        "alt": f"Photograph {row.path}" + (f", {name} {score}" if predictions else ""),
        "name": name,
        "score": score,
        "predictions": predictions,
        "correct": row.correct,
        "error": row.error,
        "flagged": sum(1 for stored in row.maps if flag_bits(stored.flags)),
        "note": entry.note,
    }


def _rows(report: Report) -> Iterator[Row]:
    """Yield the images, with their activations only where these are shown."""
    kept = set(report.options.kept)
    shown = [image.id for image in report.plan.images if image.id in kept]
    sheets = report.run.chosen(shown, ["activations"])
    for row in report.run.rows(field.name for field in fields(Row) if field.name != "activations"):
        activations = next(sheets).activations if row.id in kept else ()
        yield replace(row, activations=activations) if activations else row


def write_images(report: Report, drawn: Collection[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Write every photograph and script, and yield the lists."""
    for batch in batches(report, _rows(report), report.present, report.index):
        for row, line in zip(batch.rows, batch.page["rows"], strict=True):
            if row.image is None:
                continue
            report.write(line["src"], row.image)
            if len(report.first) < FIRST_PHOTOGRAPHS:
                report.first.append(line)
            if row.id in drawn:
                report.figures[row.id] = _figure(report, row, line)
        report.write(batch.script_file, batch.script)
        yield batch.list_file, batch.page
        del batch, row, line


def set_script(
    report: Report,
    index: SetIndex,
    files: Collection[str] | None = None,
    first: int | None = None,
    live: bool = True,
) -> str:
    """Return the script of the set.

    Args:
        report: what the images are of.
        index: the images.
        files: the pages that it may lead to; None for all.
        first: how many images have their columns in it; all of them if None.
        live: whether it may paint the map of any class.
    """
    channel_pages = {
        name: (report.layer_numbers[name], len(rows))
        for name, rows in report.channels.items()
        if files is None or layer_file(report.layer_numbers[name]) in files
    }
    class_pages = [
        row.index for row in report.classes if files is None or f"classes/{row.index}.html" in files
    ]
    painted = report.live if live else None
    return index_script(
        index,
        report.options,
        channel_pages,
        class_pages,
        first=first,
        live=painted,
        near=report.neighbours.within(index),
    )


def images(report: Report) -> Iterator[tuple[str, dict[str, Any]]]:
    """Write the index of the whole set and yield the page that shows it."""
    height, width = report.plan.model.preprocessing.size
    report.write("data/index.js", set_script(report, report.index, first=IMAGES_PER_SHARD))
    total = len(report.index.images)
    if total > IMAGES_PER_SHARD:
        report.write("data/columns.js", columns_script(report.index))
    if report.live:
        report.write("live/head.js", report.live.head)
        for id, script in report.live.images.items():
            report.write(f"live/{id}.js", script)
    lists = [
        (_list_file(number), f"{start + 1}–{stop}")
        for number, (start, stop) in enumerate(parts(total, IMAGES_PER_SHARD))
    ]
    yield (
        "images.html",
        {
            "scripts": words.IMAGE_SCRIPTS,
            "first": report.first,
            "total": total,
            "per_list": IMAGES_PER_SHARD,
            "still": round(160 * height / width),
            "lists": lists,
            "head": report.plan.head if report.options.live else None,
            "live": report.live,
            "why": report.live_or_why[1],
        },
    )


def drawn_map(plan: Plan, row: Row) -> StoredMap | None:
    """Return an image's map by the first method, at the deepest layer where it has one there."""
    first = plan.methods[0].name if plan.methods else None
    maps = [stored for stored in row.maps if stored.method == first]
    last = maps[-1] if maps else None
    return next((stored for stored in reversed(maps) if stored.layer == plan.deepest), last)


def _figure(report: Report, row: Row, line: dict[str, Any]) -> dict[str, Any]:
    """Return an image with its first method at the deepest layer, if it has that map.

    Returns:
        What a page says of it: ``src`` is the photograph, ``heat`` the map that lies over it, a
        small picture that fades where the map is low, or None.
    """
    plan = report.plan
    height, width = plan.model.preprocessing.size
    reason = report.options.kept_reason.get(row.id, "")
    figure = line | {"width": width, "height": height, "caption": "", "reason": reason}
    record = next(iter(plan.methods), None)
    stored = drawn_map(plan, row)
    if record is None or stored is None:
        return figure | {"heat": None}
    what = f"{record.title} at {words.layer_words(stored.layer)}"
    scale = FINE / max(stored.height, stored.width)
    size = (max(1, round(stored.width * scale)), max(1, round(stored.height * scale)))
    heat = fading_map(stored, size, rectify=record.relu)
    return figure | {
        "heat": words.data_address(encode_webp(hatch(size) if heat is None else heat), "webp"),
        "caption": f"{what}, {words.figure(stored.lo)} to {words.figure(stored.hi)}",
        "alt": f"{line['alt']}, {what} over it",
    }
