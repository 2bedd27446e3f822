"""The maps of one image in every run, as the report of a comparison shows them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from exporter.comparison.joining import Joined
from exporter.comparison.predictions import class_name
from exporter.comparison.records import Compared
from exporter.comparison.similarity import first_maps, fitted
from exporter.records import MethodRecord, Plan, Row, StoredMap
from exporter.render import encode_webp, fading_map, hatch
from exporter.writers.html import text as words

CELLS: Final = 20
"""Most rows and columns of a map in the report: three runs of 20 maps then fit in 25 kB."""


def record_of(records: Sequence[MethodRecord], method: Compared, run: int) -> MethodRecord:
    """Return the method of a run, for its name and its ReLU."""
    name = method.methods[run]
    own = next((record for record in records if record.name == name), None)
    told = own or MethodRecord(method.name, method.title, "", "", "", "", "", "", method.relu[run])
    return replace(told, pixel=False)


def maps_shown(rows: Sequence[Row], joined: Joined) -> Iterator[StoredMap]:
    """Yield the maps of one image in every run, over the baseline's view and in few cells."""
    view = rows[joined.baseline].crop
    for run, row in enumerate(rows):
        plan = joined.runs[run].plan
        seen = first_maps(row)
        for method in joined.methods:
            for stage in joined.stages_of(method):
                stored_map = seen.get((method.methods[run], stage.layers[run]))
                if stored_map is None:
                    continue
                size = (min(stored_map.height, CELLS), min(stored_map.width, CELLS))
                levels = fitted(stored_map, row.crop, None if row.crop == view else view, size)
                yield replace(
                    stored_map,
                    method=f"{run} {method.name}",
                    layer=stage.name,
                    target=_target(stored_map.target, plan),
                    height=size[0],
                    width=size[1],
                    values=levels.astype("<u2").tobytes(),
                )


def _target(target: str, plan: Plan) -> str:
    """Return what a map explains by the name of its class."""
    kind, _, number = target.partition(":")
    return class_name(plan, int(number)) if kind == "class" and number.isdecimal() else target


def heats(maps: Sequence[StoredMap], joined: Joined, stages: Sequence[str]) -> list[str | None]:
    """Return each run's map of the first method at the deepest stage it has, as small pictures."""
    if not joined.methods:
        return [None] * len(joined.runs)
    method = joined.methods[0]
    pictures: list[str | None] = []
    for run in range(len(joined.runs)):
        own = [m for m in maps if m.method == f"{run} {method.name}"]
        if not own:
            pictures.append(None)
            continue
        stored = max(own, key=lambda m: stages.index(m.layer))
        heat = fading_map(stored, (56, 56), rectify=method.relu[run])
        picture = encode_webp(hatch((56, 56)) if heat is None else heat)
        pictures.append(words.data_address(picture, "webp"))
    return pictures
