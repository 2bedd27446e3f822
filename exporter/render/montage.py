"""One picture per image: the input beside every map, with what the model said.

Titles are the same for every image of a run, so they are drawn once into a frame, of which each
montage begins as a copy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from exporter.errors import ImageError
from exporter.records import ATTENTION, GIVEN, MethodRecord, Plan, Row, parse_target
from exporter.render.boxes import LEGEND, draw_boxes, draw_region, explained_box
from exporter.render.captions import caption, flag_text, target_text
from exporter.render.colormaps import get_colormap
from exporter.render.encode import decode_image, encode_jpeg
from exporter.render.heatmaps import overlay_map
from exporter.render.text import draw_text, text_width

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


@dataclass
class _Line:
    """A row of tiles.

    Attributes:
        layer: where its maps are; ``""`` where each is the only one of its method.
        slot: which of the targets they are for.
        methods: its columns, from the second.
        titled: whether the methods' titles stand above it.
        top: where its tiles begin, in pixels from the top.
    """

    layer: str
    slot: int
    methods: Sequence[MethodRecord]
    titled: bool = False
    top: int = CAPTION + HEADER + STRIP


class MontageLayout:
    """Where everything lies in the montages of a run.

    A row of tiles for each layer and target, a column for each method; the first column is the
    input and, below it, the predictions. Methods with one map, such as those of pixels, come below
    in rows of their own, not in columns that would be empty at every layer.

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
    ) -> None:
        """Lay out and draw the frame.

        Args:
            methods: what the maps are made by.
            layers: the rows, shallow to deep; that of methods with one map is left out.
            targets: maps kept per method and layer; each has a row of its own.
            view: (width, height) of the model's view in pixels.
        """
        single = [method for method in methods if method.pixel or method.attended]
        shared = [method for method in methods if method not in single]
        slots = range(targets)
        self._lines = [
            _Line(layer, slot, shared)
            for layer in layers
            for slot in slots
            if shared and layer not in {"", ATTENTION}
        ]
        across = max(1, len(shared), ceil(len(single) ** 0.5))
        for first in range(0, len(single), across):
            group = single[first : first + across]
            self._lines += [_Line("", slot, group, titled=slot == 0) for slot in slots]
        for line in self._lines[:1]:
            line.titled = True
        self._spots = {
            (method.name, line.layer or _place_of(method), line.slot): (number, column)
            for number, line in enumerate(self._lines)
            for column, method in enumerate(line.methods, 1)
        }
        self._relu = {method.name: method.relu for method in methods}
        self.tile = _tile_size(view, (across + 1) * max(1, len(self._lines)))
        wide, high = self.tile
        bottom = CAPTION
        for line in self._lines:
            line.top = bottom + HEADER * line.titled + STRIP
            bottom = line.top + high
        self.size = (
            max(GAP + (across + 1) * (wide + GAP), 240),
            max(bottom, CAPTION + HEADER + STRIP + high) + GAP,
        )
        self._reduced = min(view) >= 2 * min(self.tile)
        self._frame = np.full((self.size[1], self.size[0], 3), BACKGROUND, dtype=np.uint8)
        self._legend = _draw_legend(self._frame)
        self._draw_titles()

    def draw(self, row: Row, *, uniform: bool = False) -> NDArray[np.uint8]:
        """Draw the montage of a row; safe in several threads.

        Args:
            row: with image and maps; one that could not be read gives the frame and the reason.
            uniform: blend maps evenly, rather than as they are high.

        Returns:
            uint8 (H, W, 3) RGB.
        """
        drawing = self._frame.copy()
        draw_text(drawing, caption(row), (GAP, 16), size=14, width=self._legend - 3 * GAP)
        error = row.error or ("the run holds no image for it" if row.image is None else None)
        try:
            image = None if error else decode_image(row.image or b"", reduced=self._reduced)
        except ImageError as damage:
            image, error = None, str(damage)
        if image is None:
            x, y = self._corner(0, 0)
            drawing[CAPTION:] = BACKGROUND
            for text, down, colour in (("could not be read", 14, ALARM), (error or "", 36, FAINT)):
                _say(drawing, text, (x, y + down), self.size[0] - 2 * GAP, colour)
            return drawing
        view = np.asarray(cv2.resize(image, self.tile, interpolation=cv2.INTER_AREA), np.uint8)
        if self._lines:
            self._paste(drawing, self._with_boxes(drawing, row, view), 0, 0)
        if len(self._lines) > 1:
            self._write_predictions(drawing, row)
        self._draw_maps(drawing, row, view, uniform=uniform)
        return drawing

    def jpeg(self, row: Row, *, uniform: bool = False) -> bytes:
        """Draw the montage of a row and encode it; the arguments are those of `draw`."""
        return encode_jpeg(self.draw(row, uniform=uniform))

    def _corner(self, column: int, line: int) -> tuple[int, int]:
        top = self._lines[line].top if self._lines else CAPTION + HEADER + STRIP
        return GAP + column * (self.tile[0] + GAP), top

    def _paste(
        self, drawing: NDArray[np.uint8], picture: ArrayLike, column: int, line: int
    ) -> None:
        x, y = self._corner(column, line)
        drawing[y : y + self.tile[1], x : x + self.tile[0]] = picture

    def _draw_titles(self) -> None:
        self._draw_title("Input", 0, 0)
        for number, line in enumerate(self._lines):
            for column, method in enumerate(line.methods, 1):
                self._paste(self._frame, EMPTY, column, number)
                if line.titled:
                    self._draw_title(method.title, column, number)
            x, y = self._corner(1, number)
            where = line.layer or " and ".join(
                dict.fromkeys(_place_of(method) or "input" for method in line.methods)
            )
            _say(self._frame, where, (x, y - 4), (self.size[0] - x) * 2 // 3)

    def _draw_title(self, title: str, column: int, line: int) -> None:
        x, y = self._corner(column, line)
        draw_text(self._frame, title, (x, y - STRIP - 4), size=13, width=self.tile[0])

    def _draw_maps(
        self, drawing: NDArray[np.uint8], row: Row, view: NDArray[np.uint8], *, uniform: bool
    ) -> None:
        seen: Counter[tuple[str, str]] = Counter()
        named: set[int] = set()
        for stored in row.maps:
            slot = seen[stored.method, stored.layer]
            seen[stored.method, stored.layer] += 1
            line, column = self._spots.get((stored.method, stored.layer, slot), (-1, 0))
            if not column:
                continue
            if line not in named:
                named.add(line)
                self._name_target(drawing, target_text(stored.target, row), line)
            relu, note = self._relu[stored.method], flag_text(stored)
            heat = overlay_map(view, stored, rectify=relu, uniform=uniform)
            draw_boxes(heat, row, explained_box(stored.target), alone=True)
            draw_region(heat, row, stored.target, alone=True)
            self._paste(drawing, heat, column, line)
            if stored.flags or (relu and stored.hi <= 0):
                x, y = self._corner(column, line)
                wide, bottom = self.tile[0], y + self.tile[1]
                drawing[bottom - STRIP : bottom, x : x + wide] = BACKGROUND
                _say(drawing, note, (x + 2, bottom - 4), wide - 4, ALARM)

    def _with_boxes(
        self, drawing: NDArray[np.uint8], row: Row, view: NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        """Return the view with the image's boxes, and say above it what their lines mean."""
        if not (row.boxes or row.predicted_boxes or row.regions):
            return view
        explained = next((explained_box(stored.target) for stored in row.maps), None)
        boxed = view.copy()
        draw_boxes(boxed, row, explained)
        for target in (GIVEN, *(stored.target for stored in row.maps[:1])):
            draw_region(boxed, row, target)
        x, y = self._corner(0, 0)
        for word, colour, line in LEGEND if explained is not None else LEGEND[:2]:
            if x + 8 > GAP + self.tile[0]:
                break
            drawing[y - 12 : y - 4, x : x + 8] = FAINT
            drawing[y - 11 : y - 5, x + 1 : x + 7] = colour
            drawing[y - 11 + line : y - 5 - line, x + 1 + line : x + 7 - line] = BACKGROUND
            _say(drawing, word, (x + 11, y - 4), max(0, self.tile[0] - x + GAP - 11))
            x += 19 + text_width(word, 12)
        return boxed

    def _name_target(self, drawing: NDArray[np.uint8], text: str, line: int) -> None:
        x, y = self._corner(1, line)
        room = (self.size[0] - x) // 3 - 2 * GAP
        right = self.size[0] - GAP - min(room, text_width(text, 12))
        _say(drawing, text, (right, y - 4), room)

    def _write_predictions(self, drawing: NDArray[np.uint8], row: Row) -> None:
        x, y = self._corner(0, 1)
        lines = [] if row.label is None else [(f"label {row.label}", FAINT)]
        if row.correct is not None:
            lines.append(("right", FAINT) if row.correct else ("wrong", ALARM))
        lines += [(f"{said.score:.3g} {said.name}", FAINT) for said in row.predictions]
        for k, (text, colour) in enumerate(lines[: (self.size[1] - y) // STRIP]):
            _say(drawing, text, (x, y + k * STRIP + 11), self.tile[0], colour)


def layout_of(plan: Plan) -> MontageLayout:
    """Return the layout of a run's montages: its methods by its explained layers."""
    height, width = plan.model.preprocessing.size
    return MontageLayout(
        plan.methods,
        plan.map_layers,
        targets=parse_target(plan.target, plan.model.classes).k,
        view=(width, height),
    )


def _place_of(method: MethodRecord) -> str:
    """Return where the only map of a method is, as its maps say it."""
    return "" if method.pixel else ATTENTION


def _tile_size(view: tuple[int, int], tiles: int) -> tuple[int, int]:
    width, height = max(1, view[0]), max(1, view[1])
    area = min(AREA / tiles, 224.0 * 224.0)
    wide = (area * width / height) ** 0.5
    return max(24, round(wide)), max(24, round(wide * height / width))


def _draw_legend(frame: NDArray[np.uint8]) -> int:
    """Draw what the colours mean at the top right; return where it begins."""
    bar = 48
    right = frame.shape[1] - GAP - text_width("max", 12)
    left = right - GAP - bar
    begin: int = left - GAP - text_width("min", 12)
    _say(frame, "max", (right, 16))
    _say(frame, "min", (begin, 16))
    frame[6:17, left : left + bar] = get_colormap("viridis")[np.linspace(0, 255, bar).astype(int)]
    return begin


def _say(
    drawing: NDArray[np.uint8],
    text: str,
    origin: tuple[int, int],
    width: int | None = None,
    colour: tuple[int, int, int] = FAINT,
) -> None:
    draw_text(drawing, text, origin, size=12, colour=colour, width=width)
