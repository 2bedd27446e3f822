"""Pictures that excite channels and classes: their files in the report, and what captions say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.records import OUTPUT, ChannelRow, MaximisedPicture, own_name
from exporter.render import decode_image, encode_jpeg
from exporter.writers.html import text as words
from exporter.writers.html.index import CHANNELS_A_PAGE, PHOTOGRAPHS_A_FOLDER
from exporter.writers.html.layers import layer_file
from exporter.writers.maximised import how

if TYPE_CHECKING:
    from exporter.store import Run

OF_CLASSES = ""
"""What the pictures of classes are found by among those of layers: the model itself."""

_QUALITY = 90


@dataclass(frozen=True, slots=True)
class Made:
    """One picture in the report.

    Attributes:
        channel: number of the channel or class.
        name: what it is called.
        src: its file.
        width: in pixels.
        height: in pixels.
        before: the mean of the noise, in words.
        after: the mean of the picture, in words.
        peak: the largest place of the picture, in words.
        how: prior and settings.
        alt: what it shows, in words.
    """

    channel: int
    name: str
    src: str
    width: int
    height: int
    before: str
    after: str
    peak: str
    how: str
    alt: str


def write_pictures(run: Run, folder: Path) -> dict[str, list[Made]]:
    """Write every picture into the report, ``maximised/00/0.jpg``, one in memory at a time.

    Args:
        run: the run.
        folder: of the report.

    Returns:
        By layer, ``""`` (the model itself) for classes, its pictures in the order asked for.
    """
    found: dict[str, list[Made]] = {}
    for number, one in enumerate(run.maximised()):
        src = f"maximised/{number // PHOTOGRAPHS_A_FOLDER:02d}/{number}.jpg"
        (folder / src).parent.mkdir(parents=True, exist_ok=True)
        (folder / src).write_bytes(encode_jpeg(decode_image(one.picture), _QUALITY))
        # A layer that bears the name of the model's output is asked for as ``output#1``.
        name = OF_CLASSES if one.layer == OUTPUT else own_name(one.layer)
        found.setdefault(name, []).append(_made(one, src))
    return found


def _made(one: MaximisedPicture, src: str) -> Made:
    is_class = one.layer == OUTPUT
    name = one.name or f"{'class' if is_class else 'channel'} {one.channel}"
    excited = name if is_class else f"{name} of {own_name(one.layer)}"
    return Made(
        channel=one.channel,
        name=name,
        src=src,
        width=one.width,
        height=one.height,
        before=_said(one.before),
        after=_said(one.after),
        peak=_said(one.peak),
        how=how(one),
        alt=f"Picture made from noise that excites {excited}, from {_said(one.before)} to "
        f"{_said(one.after)}",
    )


def _said(value: float) -> str:
    return words.figure(value) if isfinite(value) else "not a number"


def gallery(
    made: list[Made], channels: Mapping[int, ChannelRow], number: int
) -> list[dict[str, Any]]:
    """Return the pictures of a layer for its page, those of the same settings together.

    Args:
        made: the layer's pictures.
        channels: what the set shows of its channels, if they are recorded.
        number: the layer's page number.
    """

    def item(one: Made) -> dict[str, Any]:
        page = layer_file(number, one.channel // CHANNELS_A_PAGE)
        row = channels.get(one.channel)
        return {"made": one, "row": row, "link": f"{page}#c{one.channel}" if row else None}

    return list(_by_settings(made, item))


def class_gallery(made: list[Made], with_page: set[int]) -> list[dict[str, Any]]:
    """Return the pictures of classes for the page of all, those of the same settings together.

    Args:
        made: the classes' pictures.
        with_page: classes that have a page.
    """

    def item(one: Made) -> dict[str, Any]:
        link = f"classes/{one.channel}.html" if one.channel in with_page else None
        return {"made": one, "row": None, "link": link}

    return list(_by_settings(made, item))


def _by_settings(
    made: list[Made], item: Callable[[Made], dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    for settings, same in groupby(made, key=lambda one: one.how):
        yield {"how": settings, "items": [item(one) for one in same]}
