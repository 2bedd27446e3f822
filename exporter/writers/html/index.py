"""What the report knows of the whole set: columns of light values, and counts for its pages."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from exporter.records import Plan, Row
from exporter.render import COLORMAPS
from exporter.writers.html.options import HtmlOptions
from exporter.writers.html.shards import FLAGS, base64, finite, flag_bits
from exporter.writers.html.text import score as score_text
from exporter.writers.html.text import score_words

IMAGES_PER_SHARD = 256
PHOTOGRAPHS_PER_FOLDER = 1000
CHANNELS_PER_PAGE = 256
UNREAD, KEPT = 16, 32


@dataclass(slots=True)
class SetIndex:
    """Columns over the images that are there, in plan order, and what they add up to.

    Attributes:
        ids: image ids.
        positions: the position of each id.
        paths: as in the image set.
        labels: as given, or None.
        predicted: class index of the first prediction, or None.
        scores: its score.
        losses: cross-entropy, or None.
        correct: whether it was right, or None where that is not known.
        flags: bits: those of the maps (`flag_bits`), 16 not read, 32 kept.
        names: class name by index, of every class that is predicted or explained.
        ends: lo, hi, lo, hi … of every map by (method, layer, height, width); 16 bytes per map.
        flagged: maps by (method, layer, flag).
        skipped: (path, reason).
        maps: how many maps there are.
        probability: whether scores are written in percent.
    """

    ids: list[str] = field(default_factory=list)
    positions: dict[str, int] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    predicted: list[int | None] = field(default_factory=list)
    scores: list[float | None] = field(default_factory=list)
    losses: list[float | None] = field(default_factory=list)
    correct: list[bool | None] = field(default_factory=list)
    flags: list[int] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)
    ends: dict[tuple[str, str, int, int], array[float]] = field(default_factory=dict)
    flagged: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    maps: int = 0
    probability: bool = True

    def add(self, row: Row, *, kept: bool) -> None:
        """Take in one image."""
        first = row.predictions[0] if row.predictions else None
        bits = KEPT if kept else 0
        for stored in row.maps:
            key = (stored.method, stored.layer, stored.height, stored.width)
            self.ends.setdefault(key, array("d")).extend((stored.lo, stored.hi))
            if stored.flags:
                bits |= flag_bits(stored.flags)
                for flag in stored.flags.split(","):
                    self.flagged[stored.method, stored.layer, flag] += 1
        self.maps += len(row.maps)
        for prediction in row.predictions:
            self.names[prediction.index] = prediction.name
        if row.error is not None:
            self.skipped.append((row.path, row.error))
        if row.image is None:
            bits |= UNREAD
        self.positions[row.id] = len(self.ids)
        self.ids.append(row.id)
        self.paths.append(row.path)
        self.labels.append(row.label)
        self.predicted.append(None if first is None else first.index)
        self.scores.append(None if first is None else finite(first.score))
        self.losses.append(finite(row.loss))
        self.correct.append(row.correct)
        self.flags.append(bits)

    def class_name(self, position: int) -> str:
        """Return the class that an image is predicted as; ``""`` without a prediction."""
        predicted = self.predicted[position]
        return "" if predicted is None else self.names.get(predicted, f"class {predicted}")

    def describe(self, position: int) -> str:
        """Return an image's path, class and score in words, for its alternative text."""
        score = score_text(self.scores[position], probability=self.probability)
        said = " ".join(filter(None, (self.class_name(position), score)))
        return f"{self.paths[position]}: {said}" if said else self.paths[position]


def photograph(position: int, id: str) -> str:
    """Return the file of a photograph relative to the report: at most 1,000 a folder.

    >>> photograph(12_345, "9f")
    'photos/12/9f.jpg'
    """
    return f"photos/{position // PHOTOGRAPHS_PER_FOLDER:02d}/{id}.jpg"


def shows_probability(plan: Plan) -> bool:
    """Whether scores are shares of one, written in percent; else they are raw values."""
    return score_words(plan)["title"] != "Output"


def explained_layers(plan: Plan) -> list[str]:
    """Return the layers that maps may have: the explained ones, and ``""`` for pixel methods."""
    pixel = [""] if any(method.pixel for method in plan.methods) else []
    return [*plan.explained, *pixel]


def index_script(
    index: SetIndex,
    plan: Plan,
    options: HtmlOptions,
    *,
    channel_pages: Mapping[str, tuple[int, int]] | None = None,
    class_pages: Sequence[int] = (),
) -> str:
    """Return the script of the whole set's columns: a call of ``exporterIndex`` with JSON text.

    Args:
        index: the columns.
        plan: what ran.
        options: for the address of TensorBoard.
        channel_pages: page number and channels of each layer whose channels have pages.
        class_pages: classes that have a page.
    """
    label_positions = _positions(index.labels)
    class_positions = _positions(index.predicted)
    layers = explained_layers(plan)
    present = {(method, layer) for method, layer, _, _ in index.ends}
    contents: dict[str, Any] = {
        "perShard": IMAGES_PER_SHARD,
        "view": list(plan.model.preprocessing.size),
        "probability": shows_probability(plan),
        "scoreUnit": score_words(plan)["unit"],
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
        "names": index.names,
        "classes": list(class_positions),
        "labels": list(label_positions),
        "ids": " ".join(index.ids),
        "paths": index.paths,
        "label": [label_positions.get(label, -1) for label in index.labels],
        "predicted": [class_positions.get(number, -1) for number in index.predicted],
        "score": index.scores,
        "loss": index.losses if any(loss is not None for loss in index.losses) else None,
        "correct": "".join("-" if right is None else str(int(right)) for right in index.correct),
        "flags": index.flags,
        "tensorboard": options.tensorboard_url,
        "sheets": len(options.kept) if plan.recorded else None,
        "channelPages": channel_pages or {},
        "channelsPerPage": CHANNELS_PER_PAGE,
        "classPages": list(class_pages),
        "colormaps": {name: base64(table) for name, table in COLORMAPS.items()},
    }
    text = json.dumps(contents, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # JSON.parse of one string is faster than the same as an object literal, for megabytes.
    return f"exporterIndex({json.dumps(text)});\n".replace("<", "\\u003c")


def _positions(values: Sequence[Any]) -> dict[Any, int]:
    """Return the distinct values, None left out, each with its place in the order met."""
    distinct = dict.fromkeys(value for value in values if value is not None)
    return {value: place for place, value in enumerate(distinct)}


def parts(total: int, size: int) -> Sequence[tuple[int, int]]:
    """Return (start, stop) of each part of so many things.

    >>> parts(5, 2)
    [(0, 2), (2, 4), (4, 5)]
    """
    return [(start, min(start + size, total)) for start in range(0, total, size)]


assert len(FLAGS) <= 4, "flags share their bits with UNREAD and KEPT"
