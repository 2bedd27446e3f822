"""One picture per image: the input beside every map, with what the model said.

Titles are the same for every image of a run, so they are drawn once into a frame; a row then costs
a copy of it, one colouring of all tiles and a line of text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

from exporter.errors import ImageError
from exporter.records import MethodRecord, Plan, Row, StoredMap, parse_target
from exporter.render.captions import caption, flag_text, target_text
from exporter.render.colormaps import get_colormap
from exporter.render.encode import decode_image, encode_jpeg
from exporter.render.heatmaps import hatch, overlay
from exporter.render.stack import TileStack
from exporter.render.text import draw_text, text_width

if TYPE_CHECKING:
    from numpy.typing import NDArray

GAP = 4
CAPTION = 22
HEADER = 17
STRIP = 15
BACKGROUND = (255, 255, 255)
EMPTY = (236, 236, 236)
FAINT = (110, 110, 110)
ALARM = (160, 30, 30)
AREA = 180_000
"""Pixels that all tiles of a montage share, so that 24 tiles make about 560 x 448 pixels."""


class MontageLayout:
    """Where everything lies in the montages of a run; one per thread, as its buffers are reused.

    A row of tiles for each layer and target, a column for each method; the first column is the
    input and, below it, the predictions.

    Attributes:
        size: (width, height) of the picture in pixels.
        tile: (width, height) of a tile in pixels, in the proportions of the model's view.
    """

    def __init__(
        self,
        methods: Sequence[MethodRecord],
        layers: Sequence[str],
        *,
        targets: int = 1,
        view: tuple[int, int] = (224, 224),
        colormap: str = "viridis",
        opacity: float = 0.5,
    ) -> None:
        """Lay out and draw the frame.

        Args:
            methods: the columns.
            layers: the rows, shallow to deep; ``""`` is the input's own resolution.
            targets: maps kept per method and layer; each has a row of its own.
            view: (width, height) of the model's view in pixels.
            colormap: name of the colour map.
            opacity: share of the heatmap in an overlay, in [0, 1].
        """
        self._methods = tuple(methods)
        self._rows = tuple((layer, slot) for layer in layers for slot in range(targets))
        self._relu = {method.name: method.relu for method in methods}
        self._column = {method.name: k + 1 for k, method in enumerate(methods)}
        self._opacity = opacity
        self.tile = _tile_size(view, (len(methods) + 1) * max(1, len(self._rows)))
        wide, high = self.tile
        columns = len(methods) + 1
        self.size = (
            max(GAP + columns * (wide + GAP), 240),
            CAPTION + HEADER + max(1, len(self._rows)) * (STRIP + high) + GAP,
        )
        self._reduced = min(view) >= 2 * min(self.tile)
        self._stack = TileStack(max(1, len(methods) * len(self._rows)), self.tile, colormap)
        self._legend = 0
        self._frame = self._draw_frame(colormap)
        self._drawing = self._frame.copy()

    def draw(self, row: Row) -> NDArray[np.uint8]:
        """Draw the montage of a row.

        Args:
            row: with image and maps; one that could not be read gives the frame and the reason.

        Returns:
            uint8 (H, W, 3) RGB; the same buffer each time, so encode or copy it before the next.
        """
        drawing = self._drawing
        np.copyto(drawing, self._frame)
        draw_text(drawing, caption(row), (GAP, 16), size=14, width=self._legend - 3 * GAP)
        if row.image is None or row.error is not None:
            return self._refuse(row.error or "the run holds no image for it")
        try:
            image = decode_image(row.image, reduced=self._reduced)
        except ImageError as error:
            return self._refuse(str(error))
        image = _shrink(image, self.tile)
        if self._rows:
            self._paste(image, 0, 0)
        self._write_predictions(row)
        self._draw_maps(row, image)
        return drawing

    def jpeg(self, row: Row, quality: int = 85) -> bytes:
        """Draw the montage of a row and encode it."""
        return encode_jpeg(self.draw(row), quality)

    def _corner(self, column: int, line: int) -> tuple[int, int]:
        wide, high = self.tile
        return GAP + column * (wide + GAP), CAPTION + HEADER + line * (STRIP + high) + STRIP

    def _paste(self, picture: NDArray[np.uint8], column: int, line: int) -> None:
        x, y = self._corner(column, line)
        self._drawing[y : y + self.tile[1], x : x + self.tile[0]] = picture

    def _draw_frame(self, colormap: str) -> NDArray[np.uint8]:
        width, height = self.size
        frame = np.full((height, width, 3), BACKGROUND, dtype=np.uint8)
        self._legend = _draw_legend(frame, colormap)
        for column, title in enumerate(("Input", *(method.title for method in self._methods))):
            x, _ = self._corner(column, 0)
            draw_text(frame, title, (x, CAPTION + 13), size=13, width=self.tile[0])
        for line, (layer, _) in enumerate(self._rows):
            for column in range(1, len(self._methods) + 1):
                x, y = self._corner(column, line)
                frame[y : y + self.tile[1], x : x + self.tile[0]] = EMPTY
            x, y = self._corner(1, line)
            room = (width - x) * 2 // 3
            draw_text(frame, layer or "input", (x, y - 4), size=12, colour=FAINT, width=room)
        return frame

    def _draw_maps(self, row: Row, image: NDArray[np.uint8]) -> None:
        spots = {spot: line for line, spot in enumerate(self._rows)}
        seen: dict[tuple[str, str], int] = {}
        chosen: list[tuple[StoredMap, int, int]] = []
        named: set[int] = set()
        for stored in row.maps:
            slot = seen.get((stored.method, stored.layer), 0)
            seen[stored.method, stored.layer] = slot + 1
            line, column = spots.get((stored.layer, slot)), self._column.get(stored.method)
            if line is None or column is None:
                continue
            if line not in named:
                named.add(line)
                self._name_target(stored, line, row)
            if "nan" in stored.flags:
                self._paste(hatch(self.tile), column, line)
                self._note("not a number", column, line)
            else:
                chosen.append((stored, column, line))
        relu = [self._relu[stored.method] for stored, _, _ in chosen]
        tiles = self._stack.colour([stored for stored, _, _ in chosen], relu)
        for (stored, column, line), heat, positive in zip(chosen, tiles, relu, strict=True):
            self._paste(overlay(image, heat, self._opacity), column, line)
            if stored.flags or (positive and stored.hi <= 0):
                self._note(flag_text(stored), column, line)

    def _name_target(self, stored: StoredMap, line: int, row: Row) -> None:
        x, y = self._corner(1, line)
        left = x + (self.size[0] - x) * 2 // 3 + GAP
        room = self.size[0] - left - GAP
        text = target_text(stored.target, row)
        right = self.size[0] - GAP - min(room, text_width(text, 12))
        draw_text(self._drawing, text, (right, y - 4), size=12, colour=FAINT, width=room)

    def _note(self, text: str, column: int, line: int) -> None:
        x, y = self._corner(column, line)
        bottom = y + self.tile[1]
        self._drawing[bottom - STRIP : bottom, x : x + self.tile[0]] = BACKGROUND
        draw_text(
            self._drawing, text, (x + 2, bottom - 4), size=12, colour=ALARM, width=self.tile[0] - 4
        )

    def _write_predictions(self, row: Row) -> None:
        if len(self._rows) < 2:
            return
        x, y = self._corner(0, 1)
        lines = [] if row.label is None else [(f"label {row.label}", FAINT)]
        if row.correct is not None:
            lines.append(("right", FAINT) if row.correct else ("wrong", ALARM))
        lines += [(f"{said.score:.3g} {said.name}", FAINT) for said in row.predictions]
        room = (self.size[1] - y) // STRIP
        for k, (text, colour) in enumerate(lines[:room]):
            draw_text(
                self._drawing,
                text,
                (x, y + k * STRIP + 11),
                size=12,
                colour=colour,
                width=self.tile[0],
            )

    def _refuse(self, reason: str) -> NDArray[np.uint8]:
        x, y = self._corner(0, 0)
        drawing = self._drawing
        drawing[CAPTION:] = BACKGROUND
        width = self.size[0] - 2 * GAP
        draw_text(drawing, "could not be read", (x, y + 14), size=15, colour=ALARM, width=width)
        draw_text(drawing, reason, (x, y + 36), size=12, colour=FAINT, width=width)
        return drawing


def layout_of(plan: Plan, *, colormap: str = "viridis", opacity: float = 0.5) -> MontageLayout:
    """Return the layout of a run's montages: its methods by its explained layers."""
    layers = [*plan.explained, *([""] if any(method.pixel for method in plan.methods) else [])]
    height, width = plan.model.preprocessing.size
    return MontageLayout(
        plan.methods,
        layers,
        targets=parse_target(plan.target, plan.model.classes).k,
        view=(width, height),
        colormap=colormap,
        opacity=opacity,
    )


def _shrink(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _tile_size(view: tuple[int, int], tiles: int) -> tuple[int, int]:
    width, height = max(1, view[0]), max(1, view[1])
    area = min(AREA / tiles, 224.0 * 224.0)
    wide = (area * width / height) ** 0.5
    return max(24, round(wide)), max(24, round(wide * height / width))


def _draw_legend(frame: NDArray[np.uint8], colormap: str) -> int:
    """Draw what the colours mean at the top right; return where it begins."""
    ends = ("-", "+") if colormap == "diverging" else ("min", "max")
    bar = 48
    right = frame.shape[1] - GAP - text_width(ends[1], 12)
    left = right - GAP - bar
    begin: int = left - GAP - text_width(ends[0], 12)
    draw_text(frame, ends[1], (right, 16), size=12, colour=FAINT)
    draw_text(frame, ends[0], (begin, 16), size=12, colour=FAINT)
    frame[6:17, left : left + bar] = get_colormap(colormap)[np.linspace(0, 255, bar).astype(int)]
    return begin
