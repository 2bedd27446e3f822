"""What the report knows of the whole set: columns of light values, and counts for its pages."""

from __future__ import annotations

import json
from array import array
from base64 import b64encode
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from exporter.records import Plan, Row
from exporter.render import COLORMAPS
from exporter.writers.html.options import HtmlOptions
from exporter.writers.html.shards import FLAGS, finite, flag_bits
from exporter.writers.html.text import score as score_text
from exporter.writers.html.text import score_words

IMAGES_A_SHARD = 256
PHOTOGRAPHS_A_FOLDER = 1000
CHANNELS_A_PAGE = 256
UNREAD, KEPT = 16, 32


@dataclass(slots=True)
class SetIndex:
    """Columns over the images that are there, in plan order, and what they add up to.

    Attributes:
        ids: image ids.
        paths: as in the image set.
        labels: as given, or None.
        predicted: class index of the first prediction, or None.
        scores: its score.
        losses: cross-entropy, or None.
        correct: whether it was right, or None where that is not known.
        flags: bits: 1 zero, 2 constant, 4 not a number, 8 negative, 16 not read, 32 kept.
        names: class name by index, of every class that is predicted or explained.
        ends: lo, hi, lo, hi … of every map by (method, layer, height, width); 16 bytes a map.
        flagged: maps by (method, layer, flag).
        skipped: (path, reason).
        maps: how many maps there are.
        probability: whether scores are written in percent.
    """

    ids: list[str] = field(default_factory=list)
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
        for one in row.maps:
            key = (one.method, one.layer, one.height, one.width)
            self.ends.setdefault(key, array("d")).extend((one.lo, one.hi))
            if one.flags:
                bits |= flag_bits(one.flags)
                for flag in one.flags.split(","):
                    self.flagged[one.method, one.layer, flag] += 1
        self.maps += len(row.maps)
        for prediction in row.predictions:
            self.names[prediction.index] = prediction.name
        if row.error is not None:
            self.skipped.append((row.path, row.error))
        if row.image is None:
            bits |= UNREAD
        self.ids.append(row.id)
        self.paths.append(row.path)
        self.labels.append(row.label)
        self.predicted.append(None if first is None else first.index)
        self.scores.append(None if first is None else finite(first.score))
        self.losses.append(finite(row.loss))
        self.correct.append(row.correct)
        self.flags.append(bits)

    def describe(self, position: int) -> str:
        """Return an image's path, class and score in words, for its alternative text."""
        predicted, score = self.predicted[position], self.scores[position]
        said = [] if predicted is None else [self.names.get(predicted, f"class {predicted}")]
        if score is not None:
            said.append(score_text(score, probability=self.probability))
        return ": ".join([self.paths[position], *([" ".join(said)] if said else [])])

    @property
    def flagged_rows(self) -> list[tuple[str, str, str, int]]:
        """Method, layer, flag and number of maps, in the order they were met."""
        return [(*key, number) for key, number in self.flagged.items()]


def photograph(position: int, id: str) -> str:
    """Return the file of a photograph relative to the report: at most 1,000 a folder.

    >>> photograph(12_345, "9f")
    'photos/12/9f.jpg'
    """
    return f"photos/{position // PHOTOGRAPHS_A_FOLDER:02d}/{id}.jpg"


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
    labels = list(dict.fromkeys(label for label in index.labels if label is not None))
    label_places = {label: place for place, label in enumerate(labels)}
    classes = list(dict.fromkeys(one for one in index.predicted if one is not None))
    class_places = {number: place for place, number in enumerate(classes)}
    names = dict(index.names)
    contents: dict[str, Any] = {
        "perShard": IMAGES_A_SHARD,
        "view": list(plan.model.preprocessing.size),
        "probability": shows_probability(plan),
        "scoreUnit": score_words(plan)["unit"],
        "methods": [
            {"name": one.name, "title": one.title, "relu": one.relu, "pixel": one.pixel}
            for one in plan.methods
        ],
        "layers": explained_layers(plan),
        "names": names,
        "classes": classes,
        "labels": labels,
        "ids": " ".join(index.ids),
        "paths": index.paths,
        "label": [-1 if one is None else label_places[one] for one in index.labels],
        "predicted": [-1 if one is None else class_places[one] for one in index.predicted],
        "score": index.scores,
        "loss": index.losses if any(one is not None for one in index.losses) else None,
        "correct": "".join("-" if one is None else str(int(one)) for one in index.correct),
        "flags": index.flags,
        "tensorboard": options.tensorboard_url,
        "sheets": len(options.kept) if plan.recorded else None,
        "channelPages": channel_pages or {},
        "channelsPerPage": CHANNELS_A_PAGE,
        "classPages": list(class_pages),
        "colormaps": {
            name: b64encode(np.ascontiguousarray(table).tobytes()).decode("ascii")
            for name, table in COLORMAPS.items()
        },
    }
    # JSON.parse of one string is faster than the same as an object literal, for megabytes.
    return f"exporterIndex({_literal(contents)});\n"


def _literal(contents: dict[str, Any]) -> str:
    text = json.dumps(contents, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for raw, escaped in (
        ("\\", "\\\\"),
        ("'", "\\'"),
        ("<", "\\u003c"),
        ("\u2028", "\\u2028"),
        ("\u2029", "\\u2029"),
    ):
        text = text.replace(raw, escaped)
    return f"'{text}'"


def parts(total: int, size: int) -> Sequence[tuple[int, int]]:
    """Return (start, stop) of each part of so many things.

    >>> parts(5, 2)
    [(0, 2), (2, 4), (4, 5)]
    """
    return [(start, min(start + size, total)) for start in range(0, total, size)]


assert len(FLAGS) <= 4, "flags share their bits with UNREAD and KEPT"
