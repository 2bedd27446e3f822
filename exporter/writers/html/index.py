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
from exporter.summaries import BoxCounts, region_cells
from exporter.writers.html import text as words
from exporter.writers.html.live import Live
from exporter.writers.html.shards import FLAGS, base64, finite, flag_bits
from exporter.writers.options import HtmlOptions

IMAGES_PER_SHARD = 256
PHOTOGRAPHS_PER_FOLDER = 1000
CHANNELS_PER_PAGE = 256
UNREAD, KEPT = 32, 64
assert len(FLAGS) <= 5, "flags share their bits with UNREAD and KEPT"


MEASURES = {
    "agreement": ("Agreement", "rank correlation of the methods, −1 to 1"),
    "concentration": ("Concentration", "of the energy in the top 20 % of cells"),
    "faithfulness": ("Faithfulness", "insertion, 0 to 1"),
    "pointing": ("Pointing", "1: largest cell inside the given region, 0: outside"),
    "region": ("Region", "IoU of the predicted region and the given mask"),
}
"""What images are sorted and filtered by, in the order of `Entry.measures`: title and unit."""
OF_ONE_METHOD = ("concentration", "faithfulness", "pointing")
"""Those of the first method's map, whose titles name the method."""


def photograph_file(position: int, id: str) -> str:
    """Return where a photograph is, relative to the report."""
    return f"photos/{position // PHOTOGRAPHS_PER_FOLDER:02d}/{id}.jpg"


class Entry(NamedTuple):
    """The light values of one image, at its position among those that are there.

    ``flags`` are bits: those of its maps (`flag_bits`), 32 not read, 64 kept. ``measures`` has a
    number for each of `MEASURES`, None where there is none.
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
        return photograph_file(self.position, self.id)


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
        most: rows and columns that maps in the report have at most, by whether of a pixel method.
        boxes: how predicted boxes fit the given ones.
        regions: by what a predicted region is of, for each image with a given mask their overlap
            and the shares of `region_cells`.
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
    most: dict[bool, int] = field(default_factory=dict)
    boxes: BoxCounts = field(default_factory=BoxCounts)
    regions: dict[str, list[tuple[float, ...]]] = field(default_factory=dict)

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
        if measured[-1] is not None and (cells := region_cells(row)) is not None:
            self.regions.setdefault(row.regions[0].target, []).append((measured[-1], *cells))
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
    *,
    first: int | None = None,
    live: Live | None = None,
    near: Mapping[int, Sequence[tuple[int, float]]] | None = None,
) -> str:
    """Return the script of the set: a call of ``exporterIndex`` with JSON text.

    Args:
        index: the images.
        options: for the address of TensorBoard.
        channel_pages: page number and channels of each layer whose channels have pages.
        class_pages: classes that have a page.
        first: how many images have their columns in it; all of them if None.
        live: what paints the map of any class.
        near: by position, the nearest other images and their cosines.
    """
    plan, images = index.plan, index.images
    layers = plan.map_layers
    present = {(method, layer) for method, layer, _, _ in index.ends}
    bits = 0
    for entry in images:
        bits |= entry.flags
    contents: dict[str, Any] = {
        "images": len(images),
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
        "classes": list(_classes(images)),
        "labels": list(_labels(images)),
        "judged": any(entry.correct is not None for entry in images),
        "losses": any(entry.loss is not None for entry in images),
        "bits": bits,
        "measures": [
            {
                "name": name,
                "title": f"{title} ({plan.methods[0].title})" if name in OF_ONE_METHOD else title,
                "unit": unit,
                "at": place,
            }
            for place, (name, (title, unit)) in enumerate(MEASURES.items())
            if any(entry.measures[place] is not None for entry in images)
        ],
        "notes": {entry.position: entry.note for entry in images if entry.note},
        "tensorboard": options.tensorboard_url,
        "sheets": len(options.kept) if plan.recorded else None,
        "channelPages": channel_pages,
        "channelsPerPage": CHANNELS_PER_PAGE,
        "classPages": class_pages,
        "live": live
        and {
            "layer": layers.index(live.layer),
            "images": [entry.position for entry in images if entry.id in live.images],
        },
        "near": near,
        "colormaps": {name: base64(table) for name, table in COLORMAPS.items()},
        "columns": _columns(index, images[:first]),
    }
    return call_script("exporterIndex", contents)


def columns_script(index: SetIndex) -> str:
    """Return the script of every image's columns: a call of ``exporterColumns`` with JSON text."""
    return call_script("exporterColumns", _columns(index, index.images))


def _columns(index: SetIndex, images: Sequence[Entry]) -> dict[str, Any]:
    labels, classes = _labels(index.images), _classes(index.images)
    measured = [[entry.measures[place] for entry in images] for place in range(len(MEASURES))]
    return {
        "ids": " ".join(entry.id for entry in images),
        "paths": [entry.path for entry in images],
        "label": [labels.get(entry.label, -1) for entry in images],
        "predicted": [classes.get(entry.predicted, -1) for entry in images],
        "score": [entry.score for entry in images],
        "loss": [entry.loss for entry in images],
        "correct": "".join({True: "1", False: "0", None: "-"}[row.correct] for row in images),
        "flags": [entry.flags for entry in images],
        "measured": [values if any(v is not None for v in values) else None for values in measured],
    }


def call_script(function: str, contents: Mapping[str, Any]) -> str:
    """Return a script that gives a function JSON text, of one string.

    ``JSON.parse`` is faster than the same as an object literal, for megabytes; and a string in
    single quotes has few characters to escape.
    """
    text = json.dumps(contents, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    quoted = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"{function}('{quoted}');\n".replace("<", "\\u003c")


def _labels(images: Iterable[Entry]) -> dict[Any, int]:
    return _positions(entry.label for entry in images)


def _classes(images: Iterable[Entry]) -> dict[Any, int]:
    return _positions(entry.predicted for entry in images)


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
