"""Contact sheets: the strongest channels of a layer for one image, and the kernels of a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from exporter.render.colormaps import get_colormap
from exporter.render.heatmaps import normalise
from exporter.render.text import draw_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from exporter.records import StoredActivation

GAP = 2
STRIP = 15
GRID_LIMIT = 256
"""Filters of a sheet whose filters are one cell each (RGB, or one input channel)."""

ROW_LIMIT = 64
"""Filters of a sheet whose filters are a row each."""

INPUT_LIMIT = 16
GRID_COLUMNS = 16


def activation_sheet(
    activation: StoredActivation, *, columns: int = 8, cell: int = 96, colormap: str = "viridis"
) -> NDArray[np.uint8]:
    """Draw the recorded channels of one layer for one image.

    Each channel is normalised over its own range, which is written above it, and drawn without
    interpolation: a square is a value.

    Args:
        activation: the strongest channels, strongest first.
        columns: channels per row.
        cell: width of a channel in pixels.
        colormap: name of the colour map.

    Returns:
        uint8 (H, W, 3) RGB; one grey cell where no channel is recorded.
    """
    table = get_colormap(colormap)
    values = activation.array()
    count = max(1, len(values))
    across = min(columns, count)
    down = -(-count // across)
    high = max(1, round(cell * activation.height / max(1, activation.width)))
    drawing = _drawing(down * (high + STRIP + GAP) + GAP, across * (cell + GAP) + GAP)
    for k, (channel, plane) in enumerate(zip(activation.channels, values, strict=True)):
        x, y = GAP + k % across * (cell + GAP), GAP + k // across * (high + STRIP + GAP)
        title = f"#{channel}  {activation.lo[k]:.3g} … {activation.hi[k]:.3g}"
        draw_text(drawing, title, (x, y + 11), size=11, width=cell)
        scaled = np.nan_to_num(normalise(plane, rectify=False))
        levels = np.floor(scaled * 255 + 0.5).astype(np.uint8)
        enlarged = cv2.resize(levels, (cell, high), interpolation=cv2.INTER_NEAREST)
        drawing[y + STRIP : y + STRIP + high, x : x + cell] = table[enlarged]
    return drawing


def kernel_sheet(
    values: NDArray[np.floating],
    *,
    limit: int | None = None,
    inputs: int = INPUT_LIMIT,
    rgb: bool | None = None,
) -> tuple[NDArray[np.uint8], int]:
    """Draw the kernels of a convolution.

    Three input channels are drawn as RGB, each filter scaled from its own smallest to its own
    largest weight. Otherwise each (filter, input) slice is drawn in the diverging map, blue below
    zero, white at zero, red above, on one scale for the whole layer: filters of one input in a
    grid, filters of several inputs in a row each.

    Args:
        values: weights (O, I, kh, kw).
        limit: the most filters drawn, `GRID_LIMIT` or `ROW_LIMIT` where None; the sheet says how
            many of how many.
        inputs: the most input channels drawn per filter.
        rgb: draw as RGB; None does so where there are three input channels.

    Returns:
        The sheet, uint8 (H, W, 3) RGB, and how many of the O filters it shows.
    """
    filters, channels = values.shape[:2]
    coloured = channels == 3 if rgb is None else rgb and channels == 3
    if limit is None:
        limit = GRID_LIMIT if coloured or channels == 1 else ROW_LIMIT
    shown, depth = min(filters, limit), min(channels, inputs)
    if coloured:
        cells = _as_rgb(values[:shown])
        across = GRID_COLUMNS
    else:
        cells = _as_diverging(values[:shown, :depth], reach=_reach(values))
        across = GRID_COLUMNS if depth == 1 else depth
    text = f"{shown} of {filters} filters"
    if not coloured and channels > 1:
        text += f" (rows), {depth} of {channels} input channels (columns)"
    if not coloured:
        text += f"; white is 0, ends are ±{_reach(values):.3g}"
    return _grid(cells, across, text), shown


def _reach(values: NDArray[np.floating]) -> float:
    finite = values[np.isfinite(values)]
    return float(np.abs(finite).max()) if finite.size else 0.0


def _as_rgb(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    own = np.nan_to_num(np.asarray(values, dtype=np.float64))
    lo = own.min(axis=(1, 2, 3), keepdims=True)
    span = own.max(axis=(1, 2, 3), keepdims=True) - lo
    scaled = np.where(span > 0, (own - lo) / np.where(span > 0, span, 1.0), 0.5)
    pixels: NDArray[np.uint8] = np.floor(scaled * 255 + 0.5).astype(np.uint8)
    return pixels.transpose(0, 2, 3, 1)


def _as_diverging(values: NDArray[np.floating], reach: float) -> NDArray[np.uint8]:
    own = np.nan_to_num(np.asarray(values, dtype=np.float64))
    scaled = own / (2 * reach) + 0.5 if reach > 0 else np.full(own.shape, 0.5)
    levels = np.clip(np.floor(scaled * 255 + 0.5), 0, 255).astype(np.uint8)
    return get_colormap("diverging")[levels.reshape(-1, *values.shape[2:])]


def _grid(cells: NDArray[np.uint8], across: int, text: str) -> NDArray[np.uint8]:
    """Lay (K, kh, kw, 3) cells out, each weight enlarged to a whole number of pixels."""
    count, rows, columns = cells.shape[:3]
    scale = max(1, 28 // max(rows, columns, 1))
    high, wide = rows * scale, columns * scale
    across = max(1, min(across, count))
    down = -(-count // across)
    width = max(across * (wide + GAP) + GAP, 320)
    drawing = _drawing(down * (high + GAP) + GAP + STRIP + 3, width)
    draw_text(drawing, text, (GAP + 2, 13), size=12, width=width - 2 * GAP - 2)
    for k, cell in enumerate(cells):
        x = GAP + k % across * (wide + GAP)
        y = STRIP + 3 + GAP + k // across * (high + GAP)
        enlarged = np.repeat(np.repeat(cell, scale, axis=0), scale, axis=1)
        drawing[y : y + high, x : x + wide] = enlarged
    return drawing


def _drawing(height: int, width: int) -> NDArray[np.uint8]:
    return np.full((height, width, 3), 228, dtype=np.uint8)
