"""The moving patch: a texture at one of five places of a flat image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LOUDEST, QUIETEST = 0.25, 1 / 64
"""Contrasts of the texture, in standard deviations of a normalised pixel."""
_LEVEL = 1.0
_PATCH = 0.3
_MARGIN = 0.2
_CELL = 32
_GRAIN = 8


@dataclass(frozen=True)
class Places:
    """Where the patch lies, in whole cells.

    Attributes:
        height: of the image, in pixels.
        width: of the image, in pixels.
    """

    height: int
    width: int

    @property
    def patch(self) -> tuple[int, int]:
        """(height, width) of the patch in pixels."""
        return tuple(  # type: ignore[return-value]
            max(1, round(side // _CELL * _PATCH)) * _CELL for side in (self.height, self.width)
        )

    @property
    def corners(self) -> tuple[tuple[int, int], ...]:
        """(top, left) of the patch at each place, in pixels: towards the corners, and amid."""
        ends = []
        for side, length in zip((self.height, self.width), self.patch, strict=True):
            free = side // _CELL - length // _CELL
            near = int(free * _MARGIN)
            ends.append(tuple(cell * _CELL for cell in (near, free - near, free // 2)))
        (top, bottom, mid), (left, right, amid) = ends
        return ((top, left), (top, right), (bottom, left), (bottom, right), (mid, amid))

    @property
    def centres(self) -> Tensor:
        """(y, x) of each place's centre as shares of the image, float64 (5, 2)."""
        corners = torch.tensor(self.corners, dtype=torch.float64)
        patch = torch.tensor(self.patch, dtype=torch.float64)
        return (corners + patch / 2) / torch.tensor((self.height, self.width))

    def inside(self, height: int, width: int) -> Tensor:
        """Say which points of a map lie in the patch, bool (5, height, width)."""
        own = torch.tensor(self.patch, dtype=torch.float64) / torch.tensor(
            (self.height, self.width)
        )
        ys, xs = middles(height), middles(width)
        found = []
        for y, x in self.centres:
            down, along = (ys - y).abs(), (xs - x).abs()
            # A coarse map may have no point inside: the nearest counts.
            rows = down <= torch.maximum(own[0] / 2, down.min())
            columns = along <= torch.maximum(own[1] / 2, along.min())
            found.append(rows[:, None] & columns)
        return torch.stack(found)


def textured(size: tuple[int, int], contrast: float = LOUDEST, *, seed: int = 0) -> Tensor:
    """Return the flat image, and one for each place with the patch there, (6, 3, H, W)."""
    places = Places(*size)
    generator = torch.Generator().manual_seed(seed)
    rows, columns = places.patch
    noise = torch.randn((3, rows // _GRAIN, columns // _GRAIN), generator=generator) * contrast
    patch = noise.repeat_interleave(_GRAIN, 1).repeat_interleave(_GRAIN, 2)
    images = torch.full((1 + len(places.corners), 3, *size), _LEVEL)
    for image, (top, left) in zip(images[1:], places.corners, strict=True):
        image[:, top : top + rows, left : left + columns] += patch
    return images


def middles(length: int) -> Tensor:
    """Return where the middles of equal parts of a side lie, as shares of it, float64."""
    return (torch.arange(length, dtype=torch.float64) + 0.5) / length
