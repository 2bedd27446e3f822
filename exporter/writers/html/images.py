"""Photographs, shards of maps and lists of the report, in one pass over a run's rows."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.errors import WriterError
from exporter.records import MethodRecord, Plan, Row
from exporter.writers.html.figures import draw_figure
from exporter.writers.html.index import (
    IMAGES_A_SHARD,
    SetIndex,
    explained_layers,
    photograph,
    shows_probability,
)
from exporter.writers.html.options import HtmlOptions
from exporter.writers.html.pages import list_row
from exporter.writers.html.shards import pack_shard
from exporter.writers.html.site import Site

if TYPE_CHECKING:
    from exporter.store import Run

FIRST_PHOTOGRAPHS = 200
"""Photographs that the images page shows without JavaScript."""

_ID = re.compile(r"[0-9A-Za-z_-]{1,120}")


@dataclass(slots=True)
class Images:
    """What the pages about the whole set need of its images.

    Attributes:
        index: columns over all of them.
        first: lines of the first photographs.
        figures: drawn images by id, for the overview's strips.
    """

    index: SetIndex
    first: list[dict[str, Any]] = field(default_factory=list)
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)


def write_images(run: Run, site: Site, options: HtmlOptions, drawn: Collection[str]) -> Images:
    """Write every photograph, shard and list.

    Args:
        run: the run, complete or partial.
        site: where they go.
        options: which images are kept.
        drawn: ids of the images that are drawn with a map over them.

    Raises:
        WriterError: if an image's id could not be a file's name.
    """
    for name in ("data", "photos", "list", "figures"):
        (site.folder / name).mkdir()
    plan, kept = run.plan, set(options.kept)
    methods, layers = places(plan)
    images = Images(SetIndex(probability=shows_probability(plan)))
    total = sum(stop - start for start, stop in (plan.shards[index] for index in run.shards))
    folders: set[str] = set()
    for number, rows in enumerate(_batches(run.rows(), IMAGES_A_SHARD)):
        lines = []
        for row in rows:
            position = len(images.index.ids)
            if not _ID.fullmatch(row.id):
                raise WriterError(f"the id {row.id!r} cannot name a file; ids are hexadecimal")
            images.index.add(row, kept=row.id in kept)
            line = list_row(row, position, probability=images.index.probability)
            lines.append(line)
            if row.image is not None:
                _write_photograph(site.folder, photograph(position, row.id), row.image, folders)
                if len(images.first) < FIRST_PHOTOGRAPHS:
                    images.first.append(line)
                if row.id in drawn:
                    shown, picture = draw_figure(row, row.image, line, plan)
                    shown["reason"] = options.kept_reason.get(row.id, "")
                    if picture:
                        (site.folder / shown["src"]).write_bytes(picture)
                    images.figures[row.id] = shown
        site.write(f"data/{number:05d}.js", pack_shard(number, rows, methods, layers, kept))
        name = f"list/{number:05d}.html"
        site.page(name, "list.html", "list", list_contents(plan, lines, number, total))
    return images


def places(plan: Plan) -> tuple[dict[str, tuple[int, MethodRecord]], dict[str, int]]:
    """Return name to place and record of each method, and name to place of each layer."""
    methods = {one.name: (place, one) for place, one in enumerate(plan.methods)}
    return methods, {name: place for place, name in enumerate(explained_layers(plan))}


def list_contents(
    plan: Plan, lines: Sequence[Mapping[str, Any]], number: int, total: int
) -> dict[str, Any]:
    """Return what the page of one list is filled with.

    Args:
        plan: what ran.
        lines: a line an image, of at most ``IMAGES_A_SHARD``.
        number: of the list, from 0.
        total: images in all lists.
    """
    height, width = plan.model.preprocessing.size
    start = number * IMAGES_A_SHARD
    return {
        "rows": lines,
        "first": start + 1,
        "last": start + len(lines),
        "of": total,
        "before": f"{number - 1:05d}.html" if number else None,
        "after": f"{number + 1:05d}.html" if start + len(lines) < total else None,
        "thumb": round(96 * height / width),
    }


def _write_photograph(folder: Path, name: str, encoded: bytes, folders: set[str]) -> None:
    parent = name.rpartition("/")[0]
    if parent not in folders:
        (folder / parent).mkdir(exist_ok=True)
        folders.add(parent)
    # Of 100,000 files each call counts.
    with open(f"{folder}/{name}", "wb", buffering=0) as file:  # noqa: PTH123
        file.write(encoded)


def _batches(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    while batch := list(islice(rows, size)):
        yield batch
