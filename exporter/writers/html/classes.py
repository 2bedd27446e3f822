"""The page of classes and a page for each: numbers, mean maps, examples, errors, confusion."""

from __future__ import annotations

import heapq
from base64 import b64encode
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import urlencode

import numpy as np

from exporter.records import ClassMap
from exporter.render import encode_jpeg, heatmap
from exporter.writers.html import text as words
from exporter.writers.html.index import CHANNELS_PER_PAGE, Entry
from exporter.writers.html.live import driving
from exporter.writers.html.maximised import OF_CLASSES, Picture, by_settings
from exporter.writers.html.report import Report, layer_file, neighbours
from exporter.writers.html.strategies import of_class, of_set

_T = TypeVar("_T")

EXAMPLES = 8
WITH_MAPS = 8000
"""Images that carry a map on the pages of classes, 1 kB each, the most frequent classes first."""
SIDE = 96
PAIRS = 200
DRIVING = 12
"""Channels that a class's page lists."""


def known(report: Report) -> bool:
    """Whether there is something to say of classes."""
    return bool(report.classes or report.pictures.get(OF_CLASSES))


def table(report: Report) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the table of all classes."""
    with_page = {row.index: f"classes/{row.index}.html" for row in report.classes}
    pictures = report.pictures.get(OF_CLASSES, [])
    shown = [(picture, with_page.get(picture.record.channel), "", None) for picture in pictures]
    summary = report.run.summary
    method, layer = summary.image_map if summary else ("", "")
    yield (
        "classes.html",
        {
            "classes": report.classes,
            "measured": (report.titles[method], layer or "input") if method else None,
            "pairs": confused_pairs(report, PAIRS),
            "galleries": by_settings(shown),
            "boxes": report.index.boxes,
            "regions": [
                (_explained(report, target), len(images), np.mean(images, axis=0).tolist())
                for target, images in sorted(report.index.regions.items())
            ],
            "kept": report.run.settings.get("top_k"),
            "strategies": of_set(report),
            "names": {row.index: row.name for row in report.classes},
        },
    )


def _explained(report: Report, target: str) -> str:
    """Name what a region is of: the class, or the target as it is written."""
    _, _, index = target.partition(":")
    return report.index.names.get(int(index), target) if index.isdecimal() else target


def pages(report: Report) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the page of each class."""
    rows = report.classes
    labels = report.plan.label_index
    members = _by_outcome(
        (entry.predicted, entry.correct, labels.get(entry.label or ""), entry)
        for entry in report.index.images
    )
    maps: dict[int, list[ClassMap]] = defaultdict(list)
    for record in report.run.class_maps():
        maps[record.index].append(record)
    by_class: dict[int, list[Picture]] = defaultdict(list)
    for picture in report.pictures.get(OF_CLASSES, []):
        by_class[picture.record.channel].append(picture)
    files = [(f"classes/{row.index}.html", row.name) for row in rows]
    for at, row in enumerate(rows):
        yield (
            files[at][0],
            {
                "row": row,
                "maps": [_drawn(record, report) for record in maps[row.index]],
                "lists": {
                    kind: _best(report, members[kind, row.index])
                    for kind in ("examples", "errors", "missed")
                },
                "neighbours": neighbours(files, at),
                "pictures": by_class[row.index],
                "driving": _driving(report, row.index),
                "strategies": of_class(report, row.index),
            },
        )


def _driving(report: Report, index: int) -> dict[str, Any] | None:
    """Return the channels that add most to a class's logit over the set, each with its page."""
    layer = report.plan.head_layer
    channels = report.channels.get(layer, [])
    if report.head is None or not channels or index >= len(report.head):
        return None
    means = np.array([row.mean for row in channels], np.float32)
    number = report.layer_numbers[layer]
    rows = [
        (channel, part, layer_file(number, channel // CHANNELS_PER_PAGE))
        for channel, part in driving(report.head[index, :-1], means, DRIVING)
    ]
    return {"rows": rows, "images": channels[0].images, "of": len(channels)}


def mapped_images(report: Report) -> set[str]:
    """Return the images that the pages of classes show with a map."""
    members = _by_outcome(
        (row.predicted, row.correct, row.label, (-(row.confidence or 0), row.id))
        for row in report.run.measures()
    )
    largest = sorted(members.values(), key=len, reverse=True)
    best = (id for images in largest for _, id in heapq.nsmallest(EXAMPLES, images))
    return set(islice(best, WITH_MAPS))


def _by_outcome(
    images: Iterable[tuple[int | None, bool | None, int | None, _T]],
) -> dict[tuple[str, int], list[_T]]:
    """Sort images, each with its prediction, whether it is right and its label, by class."""
    members: dict[tuple[str, int], list[_T]] = defaultdict(list)
    for predicted, correct, label, image in images:
        if predicted is None:
            continue
        members["examples" if correct is not False else "errors", predicted].append(image)
        if correct is False and label is not None:
            members["missed", label].append(image)
    return members


def _best(report: Report, entries: Sequence[Entry]) -> dict[str, Any]:
    """Return the most confident of some images, and how many these are."""
    plan, index = report.plan, report.index
    height, width = plan.model.preprocessing.size
    best = heapq.nsmallest(
        EXAMPLES, entries, key=lambda entry: (-(entry.score or 0), entry.position)
    )
    shown = [
        entry._asdict()
        | {"src": entry.photograph, "width": 224, "height": round(224 * height / width)}
        | {"alt": f"Photograph {index.describe(entry)}", "score": words.score(entry.score, plan)}
        | {"heat": None, "caption": ""}
        | report.figures.get(entry.id, {})
        for entry in best
    ]
    return {"total": len(entries), "shown": shown}


def confused_pairs(report: Report, most: int) -> dict[str, Any] | None:
    """Return the most frequent confused pairs, each with the state that shows its images."""
    pairs, plan, summary = report.run.confusion(), report.plan, report.run.summary
    if not pairs:
        return None
    labels = Counter(plan.label_index.values())
    label_of = {index: label for label, index in plan.label_index.items() if labels[index] == 1}
    rows = []
    for pair in pairs[:most]:
        label = label_of.get(pair.label)
        state = urlencode({"class": pair.predicted, "label": label}) if label is not None else None
        rows.append((pair, state))
    return {"rows": rows, "of": summary.confused_pairs if summary else len(rows)}


def _drawn(record: ClassMap, report: Report) -> dict[str, Any]:
    height, width = report.plan.model.preprocessing.size
    size = (SIDE, round(SIDE * height / width))
    values = record.array()
    encoded = encode_jpeg(heatmap(values, size, rectify=False))
    return {
        "record": record,
        "src": "data:image/jpeg;base64," + b64encode(encoded).decode("ascii"),
        "width": size[0],
        "height": size[1],
        "title": report.titles.get(record.method, record.method),
        "layer": record.layer or "input",
        "lo": float(values.min()),
        "hi": float(values.max()),
    }
