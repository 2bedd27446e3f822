"""The confusion matrix as a picture."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from exporter.render.colormaps import get_colormap
from exporter.render.text import draw_text, text_width

CELL = 44
SIZE = 13
MARGIN = 8
LONGEST = 180
"""The most pixels that a class's name takes."""

_DARK, _LIGHT = (32, 32, 32), (255, 255, 255)


def confusion_sheet(names: Sequence[str], counts: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Draw how often each label (a row) was predicted as each class (a column).

    Args:
        names: of the classes, in the order of rows and columns.
        counts: images (K, K); a cell's colour is its share of its row.

    Returns:
        uint8 (H, W, 3) RGB.
    """
    count = len(names)
    room = min(LONGEST, max((text_width(name, SIZE) for name in names), default=0)) + 2 * MARGIN
    side = room + count * CELL + MARGIN
    drawing = np.full((side, side, 3), 255, np.uint8)
    for place, name in enumerate(names):
        line = (MARGIN, room + place * CELL + CELL // 2 + 5)
        draw_text(drawing, name, line, size=SIZE, width=room - 2 * MARGIN)
    # Names of columns are written upwards: those of the rows, turned.
    drawing[:room, room:] = cv2.rotate(drawing[room:, :room], cv2.ROTATE_90_COUNTERCLOCKWISE)
    table = get_colormap("viridis")
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    levels = np.floor(shares * 255 + 0.5).astype(np.uint8)
    for row, column in np.ndindex(count, count):
        x, y = room + column * CELL, room + row * CELL
        level = levels[row, column]
        drawing[y : y + CELL - 1, x : x + CELL - 1] = table[level]
        text = str(counts[row, column])
        colour = _DARK if level > 140 else _LIGHT
        left = x + (CELL - text_width(text, SIZE)) // 2
        draw_text(drawing, text, (left, y + CELL // 2 + 5), size=SIZE, colour=colour, width=CELL)
    return drawing
