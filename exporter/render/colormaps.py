"""Colour maps as data: 256 RGB triplets each, the same in all pictures and in the report."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import cv2
import numpy as np
from numpy.typing import NDArray

from exporter.errors import ConfigError, choices

_BLUE = (33, 102, 172)
_RED = (178, 24, 43)
_LEVELS = np.arange(256, dtype=np.uint8)[:, None]


def _diverging() -> NDArray[np.float64]:
    """Blue over white to red; white lies between levels 127 and 128, which mirror each other."""
    distance = np.abs(_LEVELS - 127.5) / 127.5
    ends = np.where(_LEVELS < 128, _BLUE, _RED)
    table: NDArray[np.float64] = np.floor(255 + (ends - 255) * distance + 0.5)
    return table


def _sealed(table: NDArray[np.generic]) -> NDArray[np.uint8]:
    own = np.ascontiguousarray(table, dtype=np.uint8)
    own.setflags(write=False)
    return own


def _from_opencv(number: int) -> NDArray[np.uint8]:
    return _sealed(cv2.applyColorMap(_LEVELS, number)[:, 0, ::-1])


COLORMAPS: Mapping[str, NDArray[np.uint8]] = MappingProxyType(
    {
        "viridis": _from_opencv(cv2.COLORMAP_VIRIDIS),
        "inferno": _from_opencv(cv2.COLORMAP_INFERNO),
        "turbo": _from_opencv(cv2.COLORMAP_TURBO),
        "jet": _from_opencv(cv2.COLORMAP_JET),
        "grey": _sealed(np.repeat(_LEVELS, 3, axis=1)),
        "diverging": _sealed(_diverging()),
    }
)
"""Name to a (256, 3) uint8 RGB table, read-only; ``viridis`` is the default, ``jet`` on request."""


def get_colormap(name: str) -> NDArray[np.uint8]:
    """Return the (256, 3) uint8 RGB table of a colour map.

    Raises:
        ConfigError: if there is no such colour map.
    """
    if name not in COLORMAPS:
        raise ConfigError(f"there is no colour map {name!r}; {choices(name, COLORMAPS)}")
    return COLORMAPS[name]
