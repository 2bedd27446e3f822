"""Contact sheets: the strongest channels of a layer for one image, and the kernels of a layer."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from exporter.records import StoredActivation
from exporter.render.colormaps import get_colormap
from exporter.render.heatmaps import normalise
from exporter.render.text import draw_text

GAP = 2
STRIP = 15
GRID_LIMIT = 256
"""Kernels of a sheet whose kernels are one cell each (RGB, or one input channel)."""

ROW_LIMIT = 64
"""Kernels of a sheet whose kernels are a row each."""

INPUT_LIMIT = 16
GRID_COLUMNS = 16
SHEET_COLUMNS = 8
"""Channels per row of an activation sheet."""

CELL = 96
"""Width of a channel on it, in pixels."""


def activation_sheet(activation: StoredActivation) -> NDArray[np.uint8]:
    """Draw the recorded channels of one layer for one image, the strongest first.

    Each channel is normalised over its own range, which is written above it, and drawn without
    interpolation: a square is a value.

    Returns:
        uint8 (H, W, 3) RGB; one grey cell where no channel is recorded.
    """
    table = get_colormap("viridis")
    values = activation.array()
    count = max(1, len(values))
    across = min(SHEET_COLUMNS, count)
    down = -(-count // across)
    high = max(1, round(CELL * activation.height / max(1, activation.width)))
    drawing = _sheet(down * (high + STRIP + GAP) + GAP, across * (CELL + GAP) + GAP)
    for k, (channel, plane) in enumerate(zip(activation.channels, values, strict=True)):
        x, y = GAP + k % across * (CELL + GAP), GAP + k // across * (high + STRIP + GAP)
        title = f"#{channel}  {activation.lo[k]:.3g} … {activation.hi[k]:.3g}"
        draw_text(drawing, title, (x, y + 11), size=11, width=CELL)
        scaled = np.nan_to_num(normalise(plane, rectify=False))
        levels = np.floor(scaled * 255 + 0.5).astype(np.uint8)
        enlarged = cv2.resize(levels, (CELL, high), interpolation=cv2.INTER_NEAREST)
        drawing[y + STRIP : y + STRIP + high, x : x + CELL] = table[enlarged]
    return drawing


def kernel_sheet(
    values: NDArray[np.floating],
    *,
    limit: int | None = None,
    inputs: int = INPUT_LIMIT,
    rgb: bool | None = None,
) -> tuple[NDArray[np.uint8], int]:
    """Draw the kernels of a convolution.

    Three input channels are drawn as RGB, each kernel scaled from its own smallest to its own
    largest weight. Otherwise each (kernel, input) slice is drawn in the diverging map, blue below
    zero, white at zero, red above, on one scale for the whole layer: kernels of one input in a
    grid, kernels of several inputs in a row each.

    Args:
        values: weights (O, I, kh, kw).
        limit: the most kernels drawn, `GRID_LIMIT` or `ROW_LIMIT` if None; the sheet says how
            many of how many.
        inputs: the most input channels drawn per kernel.
        rgb: draw as RGB; None does so where there are three input channels.

    Returns:
        The sheet, uint8 (H, W, 3) RGB, and how many of the O kernels it shows.
    """
    kernels, channels = values.shape[:2]
    coloured = channels == 3 if rgb is None else rgb and channels == 3
    if limit is None:
        limit = GRID_LIMIT if coloured or channels == 1 else ROW_LIMIT
    shown, depth = min(kernels, limit), min(channels, inputs)
    text = f"{shown} of {kernels} kernels"
    finite = np.asarray(values, dtype=np.float64)[np.isfinite(values)]
    reach = np.abs(finite).max() if finite.size else 0.0
    own = np.nan_to_num(values[:shown].astype(np.float64), posinf=reach, neginf=-reach)
    if coloured:
        lo, hi = (end(axis=(1, 2, 3), keepdims=True) for end in (own.min, own.max))
        cells = _levels(own, lo, hi).transpose(0, 2, 3, 1)
        return _grid(cells, GRID_COLUMNS, text), shown
    if channels > 1:
        text += f" (rows), {depth} of {channels} input channels (columns)"
    text += f"; white is 0, ends are ±{reach:.3g}"
    levels = _levels(own[:, :depth], np.array(-reach), np.array(reach)).reshape(
        -1, *values.shape[2:]
    )
    across = GRID_COLUMNS if depth == 1 else depth
    return _grid(get_colormap("diverging")[levels], across, text), shown


def kernel_places(
    shape: tuple[int, ...], shown: int
) -> tuple[tuple[int, int], list[tuple[int, int, int, int]]]:
    """Return where the filters of a shape (O, I, kh, kw) lie on the sheet of so many.

    Returns:
        The sheet's (width, height), and for each filter left, top, width and height, in pixels.
    """
    _, channels, rows, columns = shape
    depth = 1 if channels == 3 else min(channels, INPUT_LIMIT)
    across = GRID_COLUMNS if depth == 1 else depth
    size, cells = _places(shown * depth, rows, columns, across)
    spans = [(cells[k], cells[k + depth - 1]) for k in range(0, len(cells), depth)]
    return size, [
        (first[0], first[1], last[0] + last[2] - first[0], first[3]) for first, last in spans
    ]


def _places(
    count: int, rows: int, columns: int, across: int
) -> tuple[tuple[int, int], list[tuple[int, int, int, int]]]:
    """Return a grid's (width, height), and each cell's left, top, width and height."""
    scale = max(1, 28 // max(rows, columns, 1))
    high, wide = rows * scale, columns * scale
    across = max(1, min(across, count))
    down = -(-count // across)
    top = STRIP + 3 + GAP
    size = (max(across * (wide + GAP) + GAP, 320), down * (high + GAP) + GAP + STRIP + 3)
    return size, [
        (GAP + k % across * (wide + GAP), top + k // across * (high + GAP), wide, high)
        for k in range(count)
    ]


def _levels(values: NDArray[Any], lo: NDArray[Any], hi: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the level of each value between two ends, 0 to 255; the middle where they are one."""
    span = np.subtract(hi, lo)
    scaled = np.where(span > 0, (values - lo) / np.where(span > 0, span, 1.0), 0.5)
    return np.floor(scaled * 255 + 0.5).astype(np.uint8)


def _grid(cells: NDArray[np.uint8], across: int, text: str) -> NDArray[np.uint8]:
    """Lay (K, kh, kw, 3) cells out, each weight enlarged to a whole number of pixels."""
    count, rows, columns = cells.shape[:3]
    (width, height), places = _places(count, rows, columns, across)
    drawing = _sheet(height, width)
    draw_text(drawing, text, (GAP + 2, 13), size=12, width=width - 2 * GAP - 2)
    for cell, (x, y, wide, high) in zip(cells, places, strict=True):
        enlarged = cell.repeat(high // cell.shape[0], axis=0).repeat(wide // cell.shape[1], axis=1)
        drawing[y : y + high, x : x + wide] = enlarged
    return drawing


def _sheet(height: int, width: int) -> NDArray[np.uint8]:
    return np.full((height, width, 3), 228, dtype=np.uint8)
