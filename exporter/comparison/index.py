"""What the images page of a comparison knows of every image: ``data/index.js``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from exporter.comparison.aligning import at_stage
from exporter.comparison.images import NUMBERS
from exporter.comparison.measures import MEASURED, Measured, measured
from exporter.comparison.predictions import Predictions
from exporter.render import COLORMAPS
from exporter.writers.html import text as words
from exporter.writers.html.index import call_script
from exporter.writers.html.shards import base64, finite

if TYPE_CHECKING:
    from exporter.comparison.html import Report

PER_SHARD: Final = 32
"""Images of a script of maps."""

FIRST: Final = 256
"""Images whose columns come with the page."""


def write_index(report: Report, predicted: Sequence[Predictions]) -> None:
    """Write what the images page knows of every image."""
    contents, columns = _index(report, predicted)
    first = contents | {"columns": _cut(columns, FIRST)}
    report.write("data/index.js", call_script("exporterIndex", first))
    if len(report.joined.ids) > FIRST:
        report.write("data/columns.js", call_script("exporterColumns", _cut(columns, None)))


def index_script(report: Report, predicted: Sequence[Predictions]) -> str:
    """Return what the images page knows of every image as one script."""
    contents, columns = _index(report, predicted)
    return call_script("exporterIndex", contents | {"columns": _cut(columns, None)})


def _index(
    report: Report, predicted: Sequence[Predictions]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what is known of the set, and the columns of all images."""
    joined, told = report.joined, report.comparison.contents
    stages = [stage.name for stage in told.stages]
    columns = _columns(report, predicted)
    numbers = _numbers(report, predicted)
    columns["numbers"] = list(numbers.values())
    labels = sorted({label for label in columns["label"] if label is not None})
    places = {label: at for at, label in enumerate(labels)}
    columns["label"] = [places.get(label, -1) for label in columns["label"]]
    contents = {
        "images": len(joined.ids),
        "perShard": PER_SHARD,
        "view": joined.plans[joined.baseline].model.preprocessing.size,
        "probability": words.in_percent(joined.plans[joined.baseline]),
        "methods": [
            {"name": method.name, "title": method.title, "relu": method.relu[run]}
            for run in range(len(joined.runs))
            for method in joined.methods
        ],
        "layers": stages,
        "places": [at_stage(stage) for stage in stages],
        "names": {},
        "measures": [],
        "colormaps": {name: base64(table) for name, table in COLORMAPS.items()},
        "runs": [{"name": run.name, "step": run.step} for run in told.runs],
        "baseline": joined.baseline,
        "compared": [
            {
                "name": method.name,
                "title": method.title,
                "stages": [
                    stages.index(stage.name) for stage in report.comparison.stages_of(method)
                ],
            }
            for method in joined.methods
        ],
        "stages": [stage.layers for stage in told.stages],
        "titles": list(numbers),
        "classes": predicted[0].names,
        "labels": labels,
    }
    return contents, columns


def _columns(report: Report, predicted: Sequence[Predictions]) -> dict[str, Any]:
    """Return the columns of all images, each a list or, of the moves, an array."""
    joined = report.joined
    keys = {
        (method.name, stage.name): at
        for at, (method, stage) in enumerate(
            (method, stage)
            for method in joined.methods
            for stage in report.comparison.stages_of(method)
        )
    }
    moved = np.zeros((len(joined.ids), len(NUMBERS), len(keys)), np.uint8)
    paths, labels, likeness = [], [], []
    for at, row in enumerate(report.comparison.images()):
        paths.append(row.path)
        labels.append(row.label)
        likeness.append(finite(row.likeness, 3))
        told: dict[tuple[int, int], list[float]] = {}
        for change in row.maps:
            for number, name in enumerate(NUMBERS):
                if (value := getattr(change, name)) is not None:
                    key = keys[change.method, change.stage]
                    told.setdefault((number, key), []).append(value)
        for place, values in told.items():
            # 0 says that there is none; 1 to 255 are values of 1 to -1.
            moved[(at, *place)] = 1 + round((1 - float(np.mean(values))) * 127)
    return {
        "ids": list(joined.ids),
        "paths": paths,
        "label": labels,
        "predicted": [own.predicted.tolist() for own in predicted],
        "score": [[finite(score, 4) for score in own.score] for own in predicted],
        "correct": [
            "".join("-" if np.isnan(right) else str(int(right)) for right in own.correct)
            for own in predicted
        ],
        "likeness": likeness,
        "moved": moved.reshape(len(moved), -1),
        "flags": [0] * len(paths),
    }


def _numbers(report: Report, predicted: Sequence[Predictions]) -> dict[str, list[list[Any]]]:
    """Return what is measured of the images, by name: of each run a value per image, or none."""
    joined = report.joined
    titles = {method.name: method.title for plan in joined.plans for method in plan.methods}
    runs = [measured(joined, at, own) for at, own in enumerate(predicted)]
    keys = list(dict.fromkeys(key for own in runs for key in own))
    nothing = np.full(len(joined.ids), np.nan)

    def named(key: Measured) -> str:
        others = {other for other in keys if other.measure == key.measure} - {key}
        of = ", ".join(titles.get(method, method) for method in key.method.split(", "))
        said = f"{MEASURED[key.measure]} of {of}"
        if key.measure == "agreement":
            said = f"{MEASURED['agreement']} {of}" if others else MEASURED["agreement"]
        where = any(other.stage != key.stage for other in others)
        return f"{said} at {at_stage(key.stage)}" if where else said

    return {
        named(key): [[finite(value, 3) for value in own.get(key, nothing)] for own in runs]
        for key in keys
    }


def _cut(columns: Mapping[str, Any], first: int | None) -> dict[str, Any]:
    """Return the columns of the first images."""
    cut = {name: values[:first] for name, values in columns.items() if name != "moved"}
    for name in ("predicted", "score", "correct"):
        cut[name] = [values[:first] for values in columns[name]]
    numbers = [[values[:first] for values in number] for number in columns["numbers"]]
    moved: NDArray[np.uint8] = columns["moved"][:first]
    return cut | {
        "ids": " ".join(cut["ids"]),
        "moved": base64(moved.T),
        "measured": [],
        "numbers": numbers,
    }
