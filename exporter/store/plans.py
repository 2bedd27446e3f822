"""``plan.json``: a plan as JSON and back; the images as columns, so that 100,000 load quickly."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise, repeat
from typing import Any

from exporter.records import ImageEntry, Plan
from exporter.records.columns import Count, Id
from exporter.store.checksums import is_altered
from exporter.store.documents import AGAIN, damaged, read_json, validated
from exporter.store.files import RunFiles
from exporter.store.layout import PLAN, checksum_file
from exporter.store.recipes import plan_again

_GIVEN = ("mask", "boxes", "error")


@dataclass(frozen=True, slots=True)
class ImageColumns:
    """The images of a plan, as ``plan.json`` has them.

    Attributes:
        key: of every image.
        path: of every image.
        labels: the distinct labels.
        label: each image's place in them, or None.
        id: by image number, where it is not the key.
        mask: by image number, where it is given.
        boxes: likewise.
        error: likewise.
    """

    key: list[Id]
    path: list[str]
    labels: list[str]
    label: list[Count | None]
    id: dict[Count, Id]
    mask: dict[int, str]
    boxes: dict[int, tuple[tuple[float, float, float, float], ...]]
    error: dict[int, str]

    def __post_init__(self) -> None:
        """Refuse columns that do not fit one another; the types alone say the rest."""
        count = len(self.key)
        if not count == len(self.path) == len(self.label):
            raise ValueError("a column has another length than 'key'")
        if max((n for n in self.label if n is not None), default=-1) >= len(self.labels):
            raise ValueError("an image has a label that is not in 'labels'")
        if not all(0 <= n < count for part in (self.id, *self._given()) for n in part):
            raise ValueError("an image is named that is not there")
        if len(set(self.ids)) < count:
            raise ValueError("two images have the same id")

    @classmethod
    def of(cls, images: Sequence[ImageEntry]) -> ImageColumns:
        """Return images as columns."""
        labels = list(dict.fromkeys(image.label for image in images if image.label is not None))
        places: dict[str | None, int | None] = {label: place for place, label in enumerate(labels)}
        return cls(
            key=[image.key for image in images],
            path=[image.path for image in images],
            labels=labels,
            label=[places.get(image.label) for image in images],
            id={n: image.id for n, image in enumerate(images) if image.id != image.key},
            **{
                name: {n: value for n, value in enumerate(values) if value is not None}
                for name in _GIVEN
                for values in [[getattr(image, name) for image in images]]
            },
        )

    @property
    def ids(self) -> list[str]:
        """The ids of all images, in plan order."""
        ids = list(self.key)
        for number, id in self.id.items():
            ids[number] = id
        return ids

    def entries(self) -> tuple[ImageEntry, ...]:
        """Return the images."""
        count = len(self.key)
        labels = [None if place is None else self.labels[place] for place in self.label]
        given = (_spread(values, count) for values in self._given())
        return tuple(map(ImageEntry, self.ids, self.key, self.path, labels, *given))

    def _given(self) -> tuple[Mapping[int, Any], ...]:
        return self.mask, self.boxes, self.error


def _spread(given: Mapping[int, Any], count: int) -> Any:
    if not given:
        return repeat(None, count)
    return [given.get(number) for number in range(count)]


@dataclass(frozen=True, slots=True)
class PlanFile:
    """A plan as it was read: the images stay columns until they are asked for."""

    plan: Plan
    images: ImageColumns

    def whole(self) -> Plan:
        """Return the plan."""
        return replace(self.plan, images=self.images.entries())


def plan_bytes(plan: Plan) -> bytes:
    """Return the text of ``plan.json``: one setting per line, the images compact."""
    document = asdict(replace(plan, images=()))
    del document["images"]
    document["images"] = asdict(ImageColumns.of(plan.images))  # at the end, as they are long
    lines = [
        f"{json.dumps(name)}: {json.dumps(value, separators=(',', ':'))}"
        for name, value in document.items()
    ]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode("ascii")


def plan_is_altered(run: RunFiles) -> bool:
    """Say whether ``plan.json`` is known to have changed since it was written.

    One that has no checksum is of the first version, unless it holds what that did not write.

    Raises:
        RunError: if it has no checksum and cannot be read.
    """
    if run.exists(checksum_file(PLAN)):
        return is_altered(run, PLAN)
    return "findings" in read_json(run, PLAN, AGAIN, versioned=True)


def read_plan(run: RunFiles, *, altered: bool = False) -> PlanFile:
    """Read ``plan.json``.

    Raises:
        RunError: if it cannot be read, is damaged, or was written by a newer exporter.
    """
    if not altered and plan_is_altered(run):
        run.open(PLAN).close()  # a link or a pipe is said to be one
        raise damaged(run, PLAN, "its SHA-256 differs or is missing", plan_again(run))
    document = read_json(run, PLAN, AGAIN, versioned=True)
    try:
        images = validated(run, PLAN, ImageColumns, document["images"], AGAIN)
    except KeyError as error:
        raise damaged(run, PLAN, error, AGAIN) from None
    plan = validated(run, PLAN, Plan, document | {"images": ()}, AGAIN)
    ends = [0, *(stop for _, stop in plan.shards)]
    if list(plan.shards) != list(pairwise(ends)) or ends != sorted({*ends, len(images.key)}):
        raise damaged(run, PLAN, "shards: they do not cut the images in order", AGAIN)
    return PlanFile(plan, images)
