"""``plan.json``: a plan as JSON and back; the images as columns, so that 100,000 load quickly."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from itertools import repeat
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from exporter.errors import RunError
from exporter.records import SCHEMA_VERSION, ImageEntry, Plan

Document = dict[str, Any]
Record = TypeVar("Record")

_AGAIN = "make the run again with --overwrite"


def plan_document(plan: Plan) -> Document:
    """Return the plan as JSON values.

    ``images`` holds columns: ``key`` and ``path`` for every image, ``labels`` and each image's
    place in them, and by image number only where they are given: ``id`` (where it is not the
    key), ``mask``, ``boxes``, ``error``.
    """
    document = asdict(replace(plan, images=()))
    del document["images"]
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
    """Return the text of ``plan.json``: one setting per line, the images compact."""
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
        raise RunError(f"{str(path)!r} is damaged; {_AGAIN}") from None
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

    Raises:
        RunError: if something is missing or malformed.
    """
    try:
        images = _images(document["images"], image_ids(document))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise RunError(f"{str(path)!r} is damaged ({error!r}); {_AGAIN}") from None
    return validated(Plan, document | {"images": images}, path, _AGAIN)


def validated(record: type[Record], values: object, path: Path, remedy: str) -> Record:
    """Build a record from JSON values.

    Args:
        record: a dataclass, or a tuple of them.
        values: what was read.
        path: where it was read, for the error.
        remedy: what to do where it is damaged.

    Raises:
        RunError: if a value is missing or of another type.
    """
    try:
        checked: Record = _adapter(cast(Any, record)).validate_python(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        reason = f"{where}: {first['msg']}" if where else first["msg"]
        raise RunError(f"{str(path)!r} is damaged ({reason}); {remedy}") from None
    return checked


@cache
def _adapter(record: Any) -> TypeAdapter[Any]:
    return TypeAdapter(record)


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
