"""What is written above and below the pictures of a figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from exporter.publish.choosing import Column, Grid
from exporter.publish.look import Look
from exporter.records import Row, StoredMap
from exporter.render import flag_text


class Text(NamedTuple):
    """A line above or below a picture.

    Attributes:
        said: the line.
        whole: whether the type shrinks until it fits; it is cut otherwise,
        end: and keeps its end.
        tail: what follows it, never cut.
        over: columns that it stands over, in their middle.
    """

    said: str
    whole: bool = False
    end: bool = False
    tail: str = ""
    over: int = 1


def headings_of(grid: Grid) -> Iterator[list[Text]]:
    """Yield what stands over each column: what its maps differ in, and always the method."""
    yield [Text("Image")]
    several = len(grid.runs) > 1
    layers = len({column.layer for column in grid.columns}) > 1
    for column, over in _with_widths(grid):
        lines = [Text(grid.runs[column.of].name if over else "", over=over)] if several else []
        lines.append(Text(column.title, whole=True))
        yield [*lines, Text(column.layer or "input", end=True)] if layers else lines


def _with_widths(grid: Grid) -> Iterator[tuple[Column, int]]:
    """Yield each column and, with the first of each run, how many the run has; 0 with others."""
    for _, columns in groupby(grid.columns, lambda column: column.of):
        own = list(columns)
        yield from zip(own, [len(own)] + [0] * (len(own) - 1), strict=True)


def captions_of(grid: Grid, images: Sequence[Row], look: Look) -> Iterator[list[Text]]:
    """Yield what stands below the photograph, and below each map."""
    yield [*_predicted(images[0]), *_label(images)] if len(grid.runs) == 1 else _label(images)
    for column, over in _with_widths(grid):
        stored = grid.map(images, column, look.target)
        says = over and len(grid.runs) > 1
        yield [
            _range(stored, look.signed or not column.relu),
            *(_predicted(images[column.of], over) if says else []),
        ]


def _predicted(row: Row, over: int = 1) -> list[Text]:
    first = row.predictions[:1]
    return [Text(each.name, tail=f" {each.score:.2f}", over=over) for each in first]


def _label(images: Sequence[Row]) -> list[Text]:
    """Say the label where a run is wrong about it, or several are shown."""
    label, right = images[0].label, all(row.correct is not False for row in images)
    return [] if label is None or (right and len(images) == 1) else [Text(f"label: {label}")]


def _range(stored: StoredMap, signed: bool) -> Text:
    """Say the smallest and the largest value; that of a rectified map is zero at least."""
    lo = stored.lo if signed else max(stored.lo, 0.0)
    # What a ReLU would leave nothing of is a map like others where it is shown signed.
    flags = stored.flags.replace("negative", "") if signed else stored.flags
    if flags or not stored.hi > lo:
        return Text(flag_text(stored))
    return Text(f"{_number(lo)} to {_number(stored.hi)}", whole=True)


def _number(value: float) -> str:
    """Write a number with two digits, as short as it can be."""
    digits, _, power = f"{value:.2g}".partition("e")
    return (digits + (f"e{int(power)}" if power else "")).replace("-", "−")
