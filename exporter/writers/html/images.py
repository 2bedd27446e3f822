"""The images of the report: photographs, scripts of maps and lists, in one pass over the rows."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from exporter.errors import WriterError
from exporter.records import Plan, Row
from exporter.render import decode_image, encode_jpeg, heatmap, overlay
from exporter.writers.html import text as words
from exporter.writers.html.index import (
    IMAGES_PER_SHARD,
    SetIndex,
    explained_layers,
    index_script,
    parts,
    photograph,
)
from exporter.writers.html.report import Report
from exporter.writers.html.shards import flag_bits, pack_shard

FIRST_PHOTOGRAPHS = 200
"""Photographs that the images page shows without JavaScript."""

_ID = re.compile(r"[0-9A-Za-z_-]{1,120}")


@dataclass(frozen=True, slots=True)
class Batch:
    """At most `IMAGES_PER_SHARD` images: the script of their maps and the page that lists them.

    Attributes:
        rows: the images.
        script: file of the script, and its text.
        list: file of the list, and what its template is filled with.
    """

    rows: Sequence[Row]
    script: tuple[str, str]
    list: tuple[str, dict[str, Any]]


def batches(
    plan: Plan, rows: Iterable[Row], total: int, kept: Collection[str], index: SetIndex
) -> Iterator[Batch]:
    """Take images into an index, and yield what the report has of them.

    Args:
        plan: what ran.
        rows: images with their maps.
        total: how many they are.
        kept: ids of the images that have a sheet of their strongest channels.
        index: the columns that they are added to.
    """
    height, width = plan.model.preprocessing.size
    methods = {record.name: (place, record) for place, record in enumerate(plan.methods)}
    layers = {name: place for place, name in enumerate(explained_layers(plan))}
    remaining = iter(rows)
    for number, (start, stop) in enumerate(parts(total, IMAGES_PER_SHARD)):
        batch = list(islice(remaining, stop - start))
        lines = []
        for position, row in enumerate(batch, start):
            index.add(row, kept=row.id in kept)
            lines.append(list_row(row, position, probability=index.probability))
        page = {
            "rows": lines,
            "first": start + 1,
            "last": stop,
            "of": total,
            "before": list_file(number - 1) if number else None,
            "after": list_file(number + 1) if stop < total else None,
            "thumb": round(96 * height / width),
        }
        script = pack_shard(number, batch, methods, layers, kept)
        yield Batch(batch, (f"data/{number:05d}.js", script), (list_file(number), page))


def list_file(number: int) -> str:
    """Return the page of a list."""
    return f"list/{number:05d}.html"


def list_row(row: Row, position: int, *, probability: bool) -> dict[str, Any]:
    """Return one line of the lists that need no JavaScript."""
    predictions = [
        (prediction.name, words.score(prediction.score, probability=probability))
        for prediction in row.predictions
    ]
    name, score = predictions[0] if predictions else ("", "")
    return {
        "id": row.id,
        "path": row.path,
        "label": row.label,
        "src": None if row.image is None else photograph(position, row.id),
        "alt": f"Photograph {row.path}" + (f", {name} {score}" if predictions else ""),
        "name": name,
        "score": score,
        "predictions": predictions,
        "correct": row.correct,
        "error": row.error,
        "flagged": sum(1 for stored in row.maps if flag_bits(stored.flags)),
    }


def write_images(report: Report, drawn: Collection[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Write every photograph and script, and yield the lists.

    Args:
        report: its ``index``, ``first`` and ``figures`` are filled.
        drawn: ids of the images that are drawn with a map over them.

    Raises:
        WriterError: if an image's id could not be a file's name.
    """
    run, plan, index = report.run, report.plan, report.index
    kept = set(report.options.kept)
    for batch in batches(plan, run.rows(), report.present, kept, index):
        file, page = batch.list
        for row, line in zip(batch.rows, page["rows"], strict=True):
            if not _ID.fullmatch(row.id):
                raise WriterError(f"the id {row.id!r} cannot name a file; ids are hexadecimal")
            if row.image is None:
                continue
            report.write(line["src"], row.image)
            if len(report.first) < FIRST_PHOTOGRAPHS:
                report.first.append(line)
            if row.id in drawn:
                report.figures[row.id] = _figure(report, row, row.image, line)
        report.write(*batch.script)
        yield file, page


def images(report: Report) -> Iterator[tuple[str, dict[str, Any]]]:
    """Write the index of the whole set and yield the page that shows it."""
    height, width = report.plan.model.preprocessing.size
    channel_pages = {
        name: (report.layer_numbers[name], len(rows)) for name, rows in report.channels.items()
    }
    script = index_script(
        report.index,
        report.plan,
        report.options,
        channel_pages=channel_pages,
        class_pages=[row.index for row in report.classes],
    )
    report.write("data/index.js", script)
    total = len(report.index.ids)
    yield (
        "images.html",
        {
            "scripts": words.IMAGE_SCRIPTS,
            "first": report.first,
            "total": total,
            "per_list": IMAGES_PER_SHARD,
            "still": round(160 * height / width),
            "lists": [
                (list_file(number), f"{start + 1}–{stop}")
                for number, (start, stop) in enumerate(parts(total, IMAGES_PER_SHARD))
            ],
        },
    )


def _figure(report: Report, row: Row, encoded: bytes, line: dict[str, Any]) -> dict[str, Any]:
    """Draw an image with its first method at the deepest explained layer, if it has that map.

    Returns:
        What the page says of it; ``src`` is the photograph itself where there is no map.
    """
    plan = report.plan
    pixels = decode_image(encoded)
    height, width = pixels.shape[:2]
    figure = line | {
        "width": width,
        "height": height,
        "caption": "",
        "reason": report.options.kept_reason.get(row.id, ""),
    }
    record = next(iter(plan.methods), None)
    deepest = plan.explained[-1] if plan.explained else ""
    maps = [stored for stored in row.maps if record and stored.method == record.name]
    if record is None or not maps:
        return figure
    stored = next((last for last in reversed(maps) if last.layer == deepest), maps[-1])
    heat = heatmap(stored.array(), (width, height), rectify=record.relu)
    what = f"{record.title} at {stored.layer or 'input'}"
    report.write(f"figures/{row.id}.jpg", encode_jpeg(overlay(pixels, heat, 0.5)))
    return figure | {
        "src": f"figures/{row.id}.jpg",
        "caption": f"{what}, {words.figure(stored.lo)} to {words.figure(stored.hi)}",
        "alt": f"{line['alt']}, {what} over it",
    }
