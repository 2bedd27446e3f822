"""Maps where the model saw them: in the whole photograph, which a run folder does not hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from exporter.errors import ImageError, RunError, reason
from exporter.images import decode, hash_contents
from exporter.images.files import read_file
from exporter.records import Box, Row
from exporter.render import hatch, overlay

_LONGEST = 900
"""Pixels of a photograph's longer side in a figure."""


@dataclass(frozen=True)
class Photograph:
    """A whole photograph, scaled down to what a figure can show.

    Attributes:
        photograph: uint8 (H, W, 3) RGB.
        scale: its pixels per pixel of the original.
    """

    photograph: NDArray[np.uint8]
    scale: float

    def under(
        self, coloured: NDArray[np.uint8] | None, crop: Box | None, opacity: float
    ) -> NDArray[np.uint8]:
        """Lay a coloured map over the part of the photograph that the model saw.

        Args:
            coloured: uint8 (h, w, 4) RGBA of the model's view; None for a map that is not a number.
            crop: left, top, right, bottom of that view in the original, in pixels; it may reach
                beyond it. None is all of it.
            opacity: where the map is largest, 0 to 1.

        Returns:
            uint8 (H, W, 3) RGB.
        """
        height, width = self.photograph.shape[:2]
        ends = (0, 0, width, height) if crop is None else (end * self.scale for end in crop)
        left, top, right, bottom = map(round, ends)
        size = max(1, right - left), max(1, bottom - top)
        if coloured is None:
            coloured = np.dstack((hatch(size), np.full(size[::-1], 255, np.uint8)))
        whole = cv2.resize(coloured, size, interpolation=cv2.INTER_LINEAR)
        # The view may reach beyond the photograph, where the model saw padding.
        seen = np.s_[max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
        part = whole[max(-top, 0) : height - top, max(-left, 0) : width - left]
        drawn = self.photograph.copy()
        share = part[..., 3] * np.float32(opacity / 255)
        picture = np.ascontiguousarray(drawn[seen])
        heat = np.ascontiguousarray(part[..., :3], np.uint8)
        drawn[seen] = overlay(picture, heat, share)
        return drawn


def in_original(row: Row, folder: Path) -> Photograph:
    """Read the photograph of an image.

    Raises:
        RunError: if it is not there, cannot be read, or is not the one that the run has.
    """
    file = folder / row.path
    try:
        contents = read_file(str(file))
        if hash_contents(contents) != row.key:
            raise RunError(f"the file {str(file)!r} is not the run's {row.path!r}: it differs")
        pixels = decode(contents)
    except OSError as error:
        raise RunError(f"the photograph {str(file)!r} cannot be read: {reason(error)}") from error
    except ImageError as error:
        raise RunError(f"the photograph {str(file)!r} cannot be read: {error}") from error
    scale = min(1.0, _LONGEST / max(pixels.shape[:2]))
    size = round(pixels.shape[1] * scale), round(pixels.shape[0] * scale)
    shown = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return Photograph(np.ascontiguousarray(shown.reshape(*shown.shape[:2], -1)), scale)
