"""A figure for a paper: images × maps of one run or several, drawn with matplotlib.

Photographs and maps are pictures, text is text. The same runs give the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from exporter.errors import ConfigError, choices
from exporter.publish.choosing import Grid, grid_of, unnamed
from exporter.publish.geometry import in_original
from exporter.publish.look import Look, Type
from exporter.publish.provenance import Provenance
from exporter.publish.saving import DPI, SAME, save
from exporter.publish.texts import Text, captions_of, headings_of
from exporter.records import Row
from exporter.render import (
    decode_image,
    fading_map,
    get_colormap,
    overlay_map,
)
from exporter.store import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTHS = {
    "neurips": 5.5,
    "iclr": 5.5,
    "icml": 6.75,
    "icml-column": 3.25,
    "cvpr": 6.875,
    "cvpr-column": 3.25,
    "aaai": 7.0,
    "aaai-column": 3.3,
    "eccv": 12.2 / 2.54,
}
"""Inches of a page's text, or of one column, by venue: the author kits as of 2025."""

_PER_INCH = {"in": 1.0, "cm": 2.54, "mm": 25.4, "pt": 72.27, "": 1.0}
_GAP, _BAR, _BAR_TEXT, _LEAST = 0.04, 0.07, 0.3, 0.2
"""Inches between tiles, of the scale of colours, of its numbers, and of the narrowest tile."""
_LINE = 1.25


def figure(
    *runs: str | Path | Run,
    images: Sequence[str | PathLike[str]] = (),
    show: str = "",
    maps: Sequence[str] = (),
    layers: Sequence[str] = (),
    target: str | None = None,
    width: str | float = "cvpr-column",
    font: str = "DejaVu Sans",
    font_size: float = 7.0,
    colormap: str = "viridis",
    opacity: float | None = None,
    uniform_opacity: bool = False,
    threshold: float = 0.0,
    original: str | Path | None = None,
    anonymous: bool = False,
    out: str | Path | None = None,
) -> Figure:
    """Draw images × maps for a paper.

    Each row is an image: the photograph, then a map per run, method and layer over it. Below are
    the prediction with its score and, under each map, the smallest and largest value, which are
    the ends of its colours.

    Args:
        *runs: run folders, or one comparison folder.
        images: ids or paths of images; if there are none, ``show`` chooses them.
        show: ``chosen`` (the first image of each strip of the report or comparison, four at most),
            also the meaning of an empty text; ``random=N:SEED``; or a text file with an id or path
            per line.
        maps: names of methods, or ``METHOD@LAYER`` for a method at only this layer; all of the
            first run if there are none.
        layers: names of layers, or ``deepest``, which is the default.
        target: such as ``class:281``; the first stored if None.
        width: inches, or text such as ``8.5cm``, ``234pt`` or ``neurips`` (`WIDTHS`).
        font: a family that matplotlib finds; it is embedded (TrueType).
        font_size: of headings, in points; captions are a seventh smaller. Both shrink if a
            method's name or a number would not fit its column.
        colormap: name of a colour map; ``diverging`` shows maps signed, zero in the middle.
        opacity: where a map is largest, 0 to 1; as in the report if None.
        uniform_opacity: whether a map is equally opaque everywhere, not fading where it is low.
        threshold: share of a map's range below which it is not drawn, 0 to 1.
        original: a folder with the photographs: each is shown whole, in its own shape, with the map
            where the model saw it.
        anonymous: identify runs only by the hash of their plans, for double-blind review.
        out: a PDF, SVG or PNG file to write.

    Returns:
        The figure, of the given width; its height follows.

    Raises:
        RunError: if a run has no such image, method or layer, or a photograph is not the run's.
        ConfigError: if matplotlib is not installed, or a setting is invalid.

    Examples:
        >>> from exporter.demo import example_run
        >>> drawn = figure(example_run(), images=["astronaut.jpg"], width="3.25in")
        >>> float(drawn.get_figwidth())
        3.25
    """
    grid = grid_of(runs, images=images, show=show, maps=maps, layers=layers)
    grid = unnamed(grid) if anonymous else grid
    look = Look.of(
        target, colormap, opacity, original, uniform=uniform_opacity, threshold=threshold
    )
    drawn = draw(grid, look, Type(font, font_size), inches(width))
    if out is not None:
        save(drawn, Path(out), Provenance.of(grid.runs, unnamed=anonymous))
    return drawn


def inches(width: str | float) -> float:
    """Return a width in inches.

    Raises:
        ConfigError: if it is neither a number with a unit nor a venue.

    Examples:
        >>> inches("neurips"), inches("2.54cm"), inches(3)
        (5.5, 1.0, 3.0)
    """
    text = str(width).strip()
    size = WIDTHS.get(text)
    parts = re.fullmatch(r"(\d*\.?\d+)\s*(in|cm|mm|pt|)", text)
    if size is None and parts:
        size = float(parts[1]) / _PER_INCH[parts[2]]
    if size is None:
        raise ConfigError(
            f"the width {width!r} is neither a length such as 3.25in or 8.5cm nor a venue; "
            f"{choices(text, WIDTHS)}"
        )
    if not 0.5 <= size <= 40:
        raise ConfigError(f"a figure {size:g} inches wide cannot be drawn; give 0.5 to 40")
    return size


def draw(grid: Grid, look: Look, type: Type, width: float) -> Figure:
    """Draw a grid at a width in inches, whatever matplotlib is set to; see `figure`."""
    from matplotlib import style

    with style.context(["default", SAME]):
        return _drawn(grid, look, type, width)


def _drawn(grid: Grid, look: Look, type: Type, width: float) -> Figure:
    from matplotlib.figure import Figure

    across = 1 + len(grid.columns)
    tile = (width - _BAR - _BAR_TEXT - across * _GAP) / across
    if tile < _LEAST:
        raise ConfigError(
            f"{across} columns do not fit into {width:.3g} inches; give a greater width, or fewer "
            "maps or layers"
        )
    headings = list(headings_of(grid))
    pictures = [list(_pictures(grid, row, look)) for row in grid.rows]
    captions = [list(captions_of(grid, row, look)) for row in grid.rows]
    heights = [tile * each[0].shape[0] / each[0].shape[1] for each in pictures]
    # Names of methods and numbers are never cut.
    head = type.shrunk(_whole(headings), type.size, tile)
    small = type.shrunk(_whole(under for row in captions for under in row), type.small, tile)
    line = _LINE / 72
    top = max(map(len, headings)) * head * line + 2 * _GAP
    below = [max(map(len, row)) * small * line + _GAP for row in captions]
    height = top + sum(heights) + sum(below)
    drawn = Figure(figsize=(width, height), dpi=DPI)

    def write(texts: Sequence[Text], size: float, x: float, y: float) -> None:
        for number, text in enumerate(texts):
            if not text.said:
                continue
            type.refuse_missing(text.said)
            said, room = text.said, text.over * (tile + _GAP) - _GAP
            if not text.whole:
                said = type.fitted(said, size, room, end=text.end, tail=text.tail)
            drawn.text(
                x + room / 2,
                y - number * size * line,
                said,
                ha="center",
                va="top",
                fontsize=size,
                fontfamily=type.family,
                parse_math=False,
                transform=drawn.dpi_scale_trans,
            )

    def axes(x: float, y: float, wide: float, tall: float) -> Axes:
        return drawn.add_axes((x / width, y / height, wide / width, tall / height))

    for column, heading in enumerate(headings):
        write(heading, head, column * (tile + _GAP), height - _GAP)
    y = height - top
    for row, tall, under, said in zip(pictures, heights, below, captions, strict=True):
        for column, picture in enumerate(row):
            x = column * (tile + _GAP)
            place = axes(x, y - tall, tile, tall)
            place.imshow(picture, interpolation="none", aspect="auto")
            place.set_axis_off()
            write(said[column], small, x, y - tall - _GAP / 2)
        y -= tall + under
    bar = axes(across * (tile + _GAP), height - top - heights[0], _BAR, heights[0])
    _draw_bar(bar, look, type, small)
    return drawn


def _whole(texts: Iterable[Sequence[Text]]) -> list[str]:
    return [text.said for lines in texts for text in lines if text.whole]


def _draw_bar(axes: Axes, look: Look, type: Type, size: float) -> None:
    """Draw the scale of colours: from the smallest to the largest value of each map."""
    axes.imshow(get_colormap(look.colormap)[::-1, None], aspect="auto", extent=(0, 1, 0, 1))
    axes.set_xticks([])
    axes.yaxis.tick_right()
    axes.set_yticks([0, 0.5, 1], ["−1", "0", "1"] if look.signed else ["0", "0.5", "1"])
    axes.tick_params(length=1.5, width=0.4, pad=1, labelsize=size, labelfontfamily=type.family)
    for side in axes.spines.values():
        side.set_linewidth(0.4)


def _pictures(grid: Grid, images: Sequence[Row], look: Look) -> Iterator[NDArray[np.uint8]]:
    """Yield the photograph and the maps over it, uint8 (H, W, 3) of one shape."""
    place = None if look.original is None else in_original(images[0], look.original)
    views = [decode_image(row.image or b"") for row in images]
    yield _in_colour(views[0]) if place is None else place.photograph
    for column in grid.columns:
        stored, view = grid.map(images, column, look.target), views[column.of]
        if place is None:
            yield overlay_map(
                view,
                stored,
                rectify=column.relu and not look.signed,
                colormap=look.colormap,
                opacity=look.opacity,
                uniform=look.uniform,
                threshold=look.threshold,
            )
        else:
            coloured = fading_map(
                stored,
                (view.shape[1], view.shape[0]),
                rectify=column.relu and not look.signed,
                colormap=look.colormap,
                uniform=look.uniform,
                threshold=look.threshold,
            )
            yield place.under(coloured, images[column.of].crop, look.opacity)


def _in_colour(view: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(view, 3, axis=2) if view.shape[2] == 1 else view
