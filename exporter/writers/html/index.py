"""What the report knows of the whole set: the light values of each image, and counts for pages."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from exporter.records import COMBINED, Plan, Row
from exporter.render import COLORMAPS
from exporter.summaries import BoxCounts
from exporter.writers.html import text as words
from exporter.writers.html.shards import FLAGS, base64, finite, flag_bits
from exporter.writers.options import HtmlOptions

IMAGES_PER_SHARD = 256
PHOTOGRAPHS_PER_FOLDER = 1000
CHANNELS_PER_PAGE = 256
UNREAD, KEPT = 32, 64
assert len(FLAGS) <= 5, "flags share their bits with UNREAD and KEPT"


MEASURES = {
    "agreement": ("Agreement", "rank correlation of the methods, −1 to 1"),
    "concentration": ("Concentration", "of the energy in the top 20 % of cells"),
    "faithfulness": ("Faithfulness", "insertion, 0 to 1"),
    "pointing": ("Pointing", "1: largest cell inside the given region"),
    "region": ("Region", "IoU of the predicted region and the given mask"),
}
"""What images are sorted and filtered by, in the order of `Entry.measures`: title and unit. All but
the first and the last are of the first method's map."""


class Entry(NamedTuple):
    """The light values of one image.

    Attributes:
        position: among the images that are there, in plan order.
        id: unique in the run.
        path: as in the image set.
        label: as given, or None.
        predicted: class index of the first prediction, or None.
        name: of that class; ``""`` without a prediction.
        score: of the first prediction, or None.
        loss: cross-entropy, or None.
        correct: whether the first prediction is right, or None where that is not known.
        flags: bits: those of its maps (`flag_bits`), 32 not read, 64 kept.
        measures: a number for each of `MEASURES`, None where there is none.
        note: what the author says of it, or ``""``.
    """

    position: int
    id: str
    path: str
    label: str | None
    predicted: int | None
    name: str
    score: float | None
    loss: float | None
    correct: bool | None
    flags: int
    measures: tuple[float | None, ...] = (None,) * len(MEASURES)
    note: str = ""

    @property
    def photograph(self) -> str:
        """The file of its photograph, relative to the report."""
        return f"photos/{self.position // PHOTOGRAPHS_PER_FOLDER:02d}/{self.id}.jpg"


@dataclass(slots=True)
class SetIndex:
    """The images that are there, in plan order, and what they add up to.

    Attributes:
        plan: what ran.
        measures: by image, a number for each of `MEASURES`.
        notes: what the author says of an image, by its path or id.
        images: one entry each.
        by_id: the same by their ids.
        names: class name by index, of every class that is predicted.
        ends: lo, hi, lo, hi … of every map by (method, layer, height, width); 16 bytes per map.
        flagged: maps by (method, layer, flag).
        skipped: (path, reason).
        maps: how many maps there are.
        boxes: how predicted boxes fit the given ones.
        regions: by the class of a predicted region, its overlaps with given masks.
    """

    plan: Plan
    measures: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    images: list[Entry] = field(default_factory=list)
    by_id: dict[str, Entry] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    ends: dict[tuple[str, str, int, int], array[float]] = field(default_factory=dict)
    flagged: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    maps: int = 0
    boxes: BoxCounts = field(default_factory=BoxCounts)
    regions: dict[str, list[float]] = field(default_factory=dict)

    def add(self, row: Row, *, kept: bool) -> Entry:
        """Take in one image and return its entry."""
        first = row.predictions[0] if row.predictions else None
        bits = (KEPT if kept else 0) | (UNREAD if row.image is None else 0)
        for stored in row.maps:
            key = (stored.method, stored.layer, stored.height, stored.width)
            self.ends.setdefault(key, array("d")).extend((stored.lo, stored.hi))
            if stored.flags:
                bits |= flag_bits(stored.flags)
                for flag in stored.flags.split(","):
                    self.flagged[stored.method, stored.layer, flag] += 1
        self.maps += len(row.maps)
        self.boxes.add(row)
        measured = self.measures.get(row.id, (None,) * len(MEASURES))
        if row.regions and measured[-1] is not None:
            self.regions.setdefault(row.regions[0].target, []).append(measured[-1])
        self.names.update((said.index, said.name) for said in row.predictions)
        if row.error is not None:
            self.skipped.append((row.path, row.error))
        entry = Entry(
            len(self.images),
            row.id,
            row.path,
            row.label,
            None if first is None else first.index,
            "" if first is None else first.name,
            None if first is None else finite(first.score),
            finite(row.loss),
            row.correct,
            bits,
            measured,
            self.notes.get(row.id) or self.notes.get(row.path, ""),
        )
        self.images.append(entry)
        self.by_id[row.id] = entry
        return entry

    def describe(self, entry: Entry) -> str:
        """Return an image's path, class and score in words, for its alternative text."""
        said = [entry.name, words.score(entry.score, self.plan)]
        return f"{entry.path}: {' '.join(filter(None, said))}" if any(said) else entry.path


def index_script(
    index: SetIndex,
    options: HtmlOptions,
    channel_pages: Mapping[str, tuple[int, int]],
    class_pages: Sequence[int],
) -> str:
    """Return the script of the whole set's columns: a call of ``exporterIndex`` with JSON text.

    Args:
        index: the images.
        options: for the address of TensorBoard.
        channel_pages: page number and channels of each layer whose channels have pages.
        class_pages: classes that have a page.
    """
    plan, images = index.plan, index.images
    labels = _positions(entry.label for entry in images)
    classes = _positions(entry.predicted for entry in images)
    losses = [entry.loss for entry in images]
    layers = plan.map_layers
    columns = [[entry.measures[place] for entry in images] for place in range(len(MEASURES))]
    present = {(method, layer) for method, layer, _, _ in index.ends}
    contents: dict[str, Any] = {
        "perShard": IMAGES_PER_SHARD,
        "view": plan.model.preprocessing.size,
        "probability": words.in_percent(plan),
        "scoreUnit": words.score_words(plan)["unit"],
        "methods": [
            {
                **{name: getattr(method, name) for name in ("name", "title", "relu", "pixel")},
                "layers": [
                    place for place, layer in enumerate(layers) if (method.name, layer) in present
                ],
            }
            for method in plan.methods
        ],
        "layers": layers,
        "combined": [place for place, layer in enumerate(layers) if layer in COMBINED],
        "names": index.names,
        "classes": list(classes),
        "labels": list(labels),
        "ids": " ".join(entry.id for entry in images),
        "paths": [entry.path for entry in images],
        "label": [labels.get(entry.label, -1) for entry in images],
        "predicted": [classes.get(entry.predicted, -1) for entry in images],
        "score": [entry.score for entry in images],
        "loss": losses if any(loss is not None for loss in losses) else None,
        "measures": [
            {"name": name, "title": title, "unit": unit, "values": values}
            for (name, (title, unit)), values in zip(MEASURES.items(), columns, strict=True)
            if any(value is not None for value in values)
        ],
        "notes": {entry.position: entry.note for entry in images if entry.note},
        "correct": "".join({True: "1", False: "0", None: "-"}[row.correct] for row in images),
        "flags": [entry.flags for entry in images],
        "tensorboard": options.tensorboard_url,
        "sheets": len(options.kept) if plan.recorded else None,
        "channelPages": channel_pages,
        "channelsPerPage": CHANNELS_PER_PAGE,
        "classPages": class_pages,
        "colormaps": {name: base64(table) for name, table in COLORMAPS.items()},
    }
    text = json.dumps(contents, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # JSON.parse of one string is faster than the same as an object literal, for megabytes.
    return f"exporterIndex({json.dumps(text)});\n".replace("<", "\\u003c")


def _positions(values: Iterable[Any]) -> dict[Any, int]:
    """Return the distinct values, None left out, each with its place in the order met."""
    distinct = dict.fromkeys(value for value in values if value is not None)
    return {value: place for place, value in enumerate(distinct)}


def parts(total: int, size: int) -> Sequence[tuple[int, int]]:
    """Return (start, stop) of each part of so many things.

    >>> parts(5, 2)
    [(0, 2), (2, 4), (4, 5)]
    """
    return [(start, min(start + size, total)) for start in range(0, total, size)]
