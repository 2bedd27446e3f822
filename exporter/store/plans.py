"""``plan.json``: a plan as JSON and back; the images as columns, so that 100,000 load quickly."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from itertools import repeat
from pathlib import Path
from typing import Any

from exporter.errors import RunError
from exporter.records import (
    SCHEMA_VERSION,
    ImageEntry,
    LayerRecord,
    MethodRecord,
    ModelRecord,
    Plan,
    Preprocessing,
)

Document = dict[str, Any]


def plan_document(plan: Plan) -> Document:
    """Return the plan as JSON values.

    ``images`` holds columns: ``key`` and ``path`` for every image, ``labels`` and each image's
    place in them, and by image number only where they are given: ``id`` (where it is not the
    key), ``mask``, ``boxes``, ``error``.
    """
    document: Document = {
        field.name: getattr(plan, field.name) for field in fields(plan) if field.name != "images"
    }
    document["model"] = asdict(plan.model)
    document["layers"] = [asdict(layer) for layer in plan.layers]
    document["methods"] = [
        {field.name: getattr(method, field.name) for field in fields(method)}
        | {"settings": dict(method.settings)}
        for method in plan.methods
    ]
    for name in ("settings", "label_index", "execution", "versions"):
        document[name] = dict(document[name])
    document["images"] = _image_columns(plan.images)
    # Once through JSON, so that tuples are lists here as they will be when read back.
    return json.loads(json.dumps(document))  # type: ignore[no-any-return]


def _image_columns(images: Sequence[ImageEntry]) -> Document:
    labels = {label: number for number, label in enumerate(_distinct(images))}
    columns: Document = {
        "key": [image.key for image in images],
        "path": [image.path for image in images],
        "labels": list(labels),
        "label": [None if image.label is None else labels[image.label] for image in images],
        "id": {n: image.id for n, image in enumerate(images) if image.id != image.key},
    }
    for name in ("mask", "boxes", "error"):
        columns[name] = {
            n: getattr(image, name)
            for n, image in enumerate(images)
            if getattr(image, name) is not None
        }
    return columns


def _distinct(images: Sequence[ImageEntry]) -> list[str]:
    return list(dict.fromkeys(image.label for image in images if image.label is not None))


def plan_bytes(document: Document) -> bytes:
    """Return the text of ``plan.json``: a setting a line, the images compact."""
    lines = [
        f"{json.dumps(name)}: {json.dumps(value, separators=(',', ':'))}"
        for name, value in document.items()
    ]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode("ascii")


def read_document(path: Path) -> Document:
    """Read ``plan.json`` or ``run.json``.

    Raises:
        RunError: if it cannot be read, is damaged, or was written by a newer exporter.
    """
    try:
        document = json.loads(path.read_bytes())
        version = int(document["schema"])
    except OSError as error:
        raise RunError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError):
        raise RunError(f"{str(path)!r} is damaged; make the run again with --overwrite") from None
    if version > SCHEMA_VERSION:
        raise RunError(
            f"{str(path)!r} has schema version {version} and this exporter reads up to "
            f"{SCHEMA_VERSION}; install a newer exporter"
        )
    return document  # type: ignore[no-any-return]


def image_ids(document: Document) -> list[str]:
    """Return the ids of all images, in plan order, without building their records."""
    ids: list[str] = list(document["images"]["key"])
    for number, name in document["images"]["id"].items():
        ids[int(number)] = name
    return ids


def read_plan(document: Document, path: Path) -> Plan:
    """Build the plan from JSON values.

    Args:
        document: what ``read_document`` gave.
        path: where it was read, for the error.

    Raises:
        RunError: if something is missing or malformed.
    """
    try:
        return _plan(document)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise RunError(
            f"{str(path)!r} is damaged ({error}); make the run again with --overwrite"
        ) from None


def _plan(document: Document) -> Plan:
    values = dict(document)
    model = values["model"]
    given = model["preprocessing"]
    preprocessing = Preprocessing(**{name: _tuple(value) for name, value in given.items()})
    values["model"] = ModelRecord(
        **model | {"classes": tuple(model["classes"]), "preprocessing": preprocessing}
    )
    values["layers"] = tuple(
        LayerRecord(**layer | {"output": _tuple(layer["output"])}) for layer in values["layers"]
    )
    values["methods"] = tuple(MethodRecord(**method) for method in values["methods"])
    values["images"] = _images(values["images"], image_ids(document))
    values["shards"] = tuple((start, stop) for start, stop in values["shards"])
    for name in ("explained", "recorded", "notes"):
        values[name] = tuple(values[name])
    return Plan(**values)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _images(columns: Document, ids: list[str]) -> tuple[ImageEntry, ...]:
    names: list[str] = columns["labels"]
    count = len(ids)
    labels = (
        (None if number is None else names[number] for number in columns["label"])
        if names
        else repeat(None, count)
    )
    boxes = {
        number: tuple(tuple(box) for box in given) for number, given in columns["boxes"].items()
    }
    return tuple(
        map(
            ImageEntry,
            ids,
            columns["key"],
            columns["path"],
            labels,
            _sparse(columns["mask"], count),
            _sparse(boxes, count),
            _sparse(columns["error"], count),
        )
    )


def _sparse(given: Mapping[str, Any], count: int) -> Any:
    if not given:
        return repeat(None, count)
    values: list[Any] = [None] * count
    for number, value in given.items():
        values[int(number)] = value
    return values
