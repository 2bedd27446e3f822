"""Boxes and regions over a picture: those that are given or predicted, and what is explained."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from exporter.records import GIVEN as MASK
from exporter.records import Box, Region, Row
from exporter.render.captions import target_name
from exporter.render.text import draw_text, text_width

GIVEN = (255, 255, 255)
PREDICTED = (255, 176, 0)
THICK = 3
LEGEND = (("given", GIVEN, 1), ("predicted", PREDICTED, 1), ("explained", PREDICTED, THICK))
"""What a line's colour and thickness in pixels mean."""

_DARK = (20, 20, 20)
_TEXT = 11


def explained_box(target: str) -> int | None:
    """Return the number of the box that a map explains, None for other targets.

    >>> explained_box("box:3"), explained_box("class:3")
    (3, None)
    """
    kind, _, number = target.partition(":")
    return int(number) if kind == "box" and number.isdecimal() else None


def box_in_view(row: Row, box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return where a box of the original lies in the model's view, drawn at a size.

    Args:
        row: the image, with its crop.
        box: left, top, right, bottom in pixels of the original.
        size: (width, height) of the drawn view in pixels.
    """
    assert row.crop is not None
    left, top, right, bottom = row.crop
    x, y = size[0] / (right - left), size[1] / (bottom - top)
    ends = ((box[0] - left) * x, (box[1] - top) * y, (box[2] - left) * x, (box[3] - top) * y)
    reach = 4 * max(size)  # far outside is as good as any outside, and OpenCV's numbers are small
    a, b, c, d = (round(min(max(end, -reach), reach)) for end in ends)
    return a, b, c, d


def region_in_view(region: Region, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return which pixels of the model's view a region covers, 0 or 1, drawn at a size.

    Args:
        region: a given mask, or a predicted region.
        size: (width, height) of the drawn view in pixels.
    """
    cells = region.array().astype(np.uint8)
    return np.asarray(cv2.resize(cells, size, interpolation=cv2.INTER_NEAREST), np.uint8)


def draw_boxes(
    view: NDArray[np.uint8], row: Row, explained: int | None = None, *, alone: bool = False
) -> None:
    """Draw the boxes of an image over its view, in place.

    Args:
        view: uint8 (H, W, 3) RGB, contiguous.
        row: the image; nothing is drawn where it has no boxes.
        explained: number of the predicted box that has a thick line.
        alone: draw that box only, without its name.
    """
    if row.crop is None:
        return
    size = (view.shape[1], view.shape[0])
    for box in () if alone else row.boxes or ():
        place = box_in_view(row, box, size)
        _outline(view, place, GIVEN, 1)
        if row.label is not None:
            _name(view, row.label, place, GIVEN)
    predicted = list(zip(row.predicted_boxes or (), row.predictions, strict=False))
    # The surest last, so that it lies on top.
    for number, (box, said) in reversed(list(enumerate(predicted))):
        if alone and number != explained:
            continue
        place = box_in_view(row, box, size)
        _outline(view, place, PREDICTED, THICK if number == explained else 1)
        if not alone:
            _name(view, f"{said.name} {said.score:.2f}", place)


def draw_region(view: NDArray[np.uint8], row: Row, target: str, *, alone: bool = False) -> None:
    """Outline where a segmentation predicts what a map explains, or the given mask, in place.

    Args:
        view: uint8 (H, W, 3) RGB, contiguous.
        row: the image; nothing is drawn where it has no such region.
        target: what the map explains, or ``given``.
        alone: without the name of its class.
    """
    region = next((known for known in row.regions if known.target == target), None)
    if region is None:
        return
    size = (view.shape[1], view.shape[0])
    inside = region_in_view(region, size)
    edges, _ = cv2.findContours(inside, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    own = GIVEN if target == MASK else PREDICTED
    for colour, width in ((_DARK, 3), (own, 1)):
        cv2.drawContours(view, edges, -1, colour, width)
    name = row.label if target == MASK else target_name(target, row)
    if edges and name is not None and not alone:
        # Where the largest part begins: the given name below, for both often begin together.
        left, top, _, height = cv2.boundingRect(max(edges, key=cv2.contourArea))
        _name(view, name, (left, top + (height - _TEXT - 2 if target == MASK else 0), 0, 0), own)


def _outline(
    view: NDArray[np.uint8],
    place: tuple[int, int, int, int],
    colour: tuple[int, int, int],
    thickness: int,
) -> None:
    left, top, right, bottom = place
    for line, width in ((_DARK, thickness + 2), (colour, thickness)):
        cv2.rectangle(view, (left, top), (right - 1, bottom - 1), line, width)


def _name(
    view: NDArray[np.uint8],
    text: str,
    place: tuple[int, int, int, int],
    colour: tuple[int, int, int] = PREDICTED,
) -> None:
    x, y = max(0, place[0]), min(max(0, place[1]), view.shape[0] - _TEXT - 2)
    wide = min(text_width(text, _TEXT) + 4, view.shape[1] - x)
    if wide < 8 or y < 0:
        return
    cv2.rectangle(view, (x, y), (x + wide, y + _TEXT + 2), colour, cv2.FILLED)
    draw_text(view, text, (x + 2, y + _TEXT - 1), size=_TEXT, colour=_DARK, width=wide - 2)
