"""Maximised pictures of channels and classes: their files in the report, and their captions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, NamedTuple

from exporter.records import OUTPUT, MaximisedPicture, own_name
from exporter.render import decode_image, encode_jpeg
from exporter.store import Run
from exporter.writers.html.index import PHOTOGRAPHS_PER_FOLDER
from exporter.writers.html.text import figure
from exporter.writers.links import how

OF_CLASSES = ""
"""What the pictures of classes are found by among those of layers: the model itself."""

_JPEG_QUALITY = 90


class Picture(NamedTuple):
    """A maximised picture in the report: its numbers, and its name, file and settings in words."""

    record: MaximisedPicture
    name: str
    src: str
    how: str
    alt: str


def write_pictures(run: Run, write: Callable[[str, bytes], None]) -> Mapping[str, list[Picture]]:
    """Write every picture into the report, ``maximised/00/0.jpg``, one in memory at a time.

    Returns:
        By layer, `OF_CLASSES` for classes, its pictures in the order asked for.
    """
    pictures: Mapping[str, list[Picture]] = defaultdict(list)
    for number, record in enumerate(run.maximised()):
        src = f"maximised/{number // PHOTOGRAPHS_PER_FOLDER:02d}/{number}.jpg"
        write(src, encode_jpeg(decode_image(record.picture), _JPEG_QUALITY))
        # A layer that bears the name of the model's output is asked for as ``output#1``.
        layer = OF_CLASSES if record.layer == OUTPUT else own_name(record.layer)
        name = record.name or f"{'channel' if layer else 'class'} {record.channel}"
        alt = (
            f"Picture optimised from noise to excite {name}{f' of {layer}' if layer else ''}, "
            f"from {figure(record.before)} to {figure(record.after)}"
        )
        picture = Picture(replace(record, picture=b""), name, src, how(record), alt)
        pictures[layer].append(picture)
    return pictures


def by_settings(
    items: Iterable[tuple[Picture, *tuple[Any, ...]]],
) -> list[tuple[str, Sequence[tuple[Any, ...]]]]:
    """Return pictures, each with what stands beside it, those of the same settings together."""
    return [(how, list(same)) for how, same in groupby(items, key=lambda item: item[0].how)]
