"""The page of classes and a page for each: numbers, mean maps, examples, errors, confusion."""

from __future__ import annotations

import heapq
from base64 import b64encode
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import urlencode

from exporter.records import ClassMap, Plan
from exporter.render import encode_jpeg, heatmap
from exporter.writers.html import text as words
from exporter.writers.html.index import SetIndex, photograph
from exporter.writers.html.maximised import OF_CLASSES, Picture, by_settings
from exporter.writers.html.report import Report, neighbours

EXAMPLES = 8
SIDE = 96
PAIRS = 200


def known(report: Report) -> bool:
    """Whether there is something to say of classes."""
    return bool(report.classes or report.pictures.get(OF_CLASSES))


def table(report: Report) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the table of all classes."""
    with_page = {row.index for row in report.classes}
    pictures = [
        (picture, f"classes/{number}.html" if number in with_page else None, "", None)
        for picture in report.pictures.get(OF_CLASSES, [])
        for number in [picture.record.channel]
    ]
    summary = report.run.summary
    titles = {method.name: method.title for method in report.plan.methods}
    method, layer = summary.image_map if summary else ("", "")
    yield (
        "classes.html",
        {
            "classes": report.classes,
            "measured": (titles[method], layer or "input") if method else None,
            "pairs": confused_pairs(report, PAIRS),
            "galleries": by_settings(pictures),
        },
    )


def pages(report: Report) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the page of each class."""
    plan, rows = report.plan, report.classes
    members = _members(report.index, plan)
    maps: dict[int, list[ClassMap]] = defaultdict(list)
    for record in report.run.class_maps():
        maps[record.index].append(record)
    files = [(f"classes/{row.index}.html", row.name) for row in rows]
    by_class: dict[int, list[Picture]] = defaultdict(list)
    for picture in report.pictures.get(OF_CLASSES, []):
        by_class[picture.record.channel].append(picture)
    for at, row in enumerate(rows):
        yield (
            files[at][0],
            {
                "row": row,
                "maps": list(_drawn(maps[row.index], plan)),
                "lists": {
                    kind: _best(report.index, plan, members[kind, row.index])
                    for kind in ("examples", "errors", "missed")
                },
                "neighbours": neighbours(files, at),
                "pictures": by_class[row.index],
            },
        )


def _members(index: SetIndex, plan: Plan) -> dict[tuple[str, int], list[int]]:
    """Return the positions of the images of each class, by what happened to them."""
    members: dict[tuple[str, int], list[int]] = defaultdict(list)
    for position, predicted in enumerate(index.predicted):
        if predicted is None:
            continue
        wrong = index.correct[position] is False
        members["errors" if wrong else "examples", predicted].append(position)
        label = plan.label_index.get(index.labels[position] or "")
        if wrong and label is not None:
            members["missed", label].append(position)
    return members


def _best(index: SetIndex, plan: Plan, positions: Sequence[int]) -> dict[str, Any]:
    """Return the most confident of some images, and how many these are."""
    height, width = plan.model.preprocessing.size
    best = heapq.nsmallest(EXAMPLES, positions, key=lambda at: (-(index.scores[at] or 0), at))
    shown = [
        {
            "id": index.ids[position],
            "src": photograph(position, index.ids[position]),
            "width": 224,
            "height": round(224 * height / width),
            "alt": f"Photograph {index.describe(position)}",
            "name": index.class_name(position),
            "score": words.score(index.scores[position], probability=index.probability),
            "label": index.labels[position],
        }
        for position in best
    ]
    return {"total": len(positions), "shown": shown}


def confused_pairs(report: Report, most: int) -> dict[str, Any] | None:
    """Return the most frequent confused pairs, each with the state that shows its images."""
    pairs, plan = report.run.confusion(), report.plan
    if not pairs:
        return None
    labels = Counter(plan.label_index.values())
    label_of = {index: label for label, index in plan.label_index.items() if labels[index] == 1}
    rows = []
    for pair in pairs[:most]:
        label = label_of.get(pair.label)
        state = {"class": str(pair.predicted), "label": label}
        rows.append((pair, None if label is None else urlencode(state)))
    summary = report.run.summary
    return {"rows": rows, "of": summary.confused_pairs if summary else len(rows)}


def _drawn(maps: Iterable[ClassMap], plan: Plan) -> Iterator[dict[str, Any]]:
    height, width = plan.model.preprocessing.size
    size = (SIDE, round(SIDE * height / width))
    titles = {method.name: method.title for method in plan.methods}
    for record in maps:
        values = record.array()
        encoded = encode_jpeg(heatmap(values, size, rectify=False))
        yield {
            "record": record,
            "src": "data:image/jpeg;base64," + b64encode(encoded).decode("ascii"),
            "width": size[0],
            "height": size[1],
            "title": titles.get(record.method, record.method),
            "layer": record.layer or "input",
            "lo": float(values.min()),
            "hi": float(values.max()),
        }
