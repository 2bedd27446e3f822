"""TIFF files of other bands and numbers than photographs have, read by tifffile."""

from __future__ import annotations

from importlib.util import find_spec
from io import BytesIO
from typing import Any

import numpy as np
from PIL.ExifTags import Base
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    IMAGELENGTH,
    IMAGEWIDTH,
    PHOTOMETRIC_INTERPRETATION,
    SAMPLEFORMAT,
    SAMPLESPERPIXEL,
    TILEOFFSETS,
    ImageFileDirectory_v2,
)

from exporter.errors import ImageError, counted
from exporter.images.bands import Bands, refuse_bands, refuse_size, takes, upright
from exporter.images.damage import check_strips
from exporter.records import Preprocessing

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MINISWHITE = 0
_TILE = 2048**2
"""Pixels that a tile of a smaller picture may have: it is unpacked whole."""
_NUMBERS = {1: "", 2: "signed ", 3: "floating-point ", 5: "complex ", 6: "complex "}


def is_tiff(content: bytes) -> bool:
    """Say whether a file is a TIFF, or a BigTIFF."""
    return content[:4] in _MAGIC


def tiff_tags(content: bytes) -> ImageFileDirectory_v2 | None:
    """Return the tags of a TIFF's first picture; None where its header is damaged.

    Raises:
        ImageError: if the picture is too large.
    """
    big = b"+" in content[2:4]
    try:
        tags = ImageFileDirectory_v2(content[: 16 if big else 8])
        stream = BytesIO(content)
        stream.seek(tags.next)
        tags.load(stream)
        width, height, (bands, *_) = tags[IMAGEWIDTH], tags[IMAGELENGTH], _numbers(tags)
    except Exception:  # Pillow raises anything on damaged bytes
        return None
    try:
        refuse_size(width, height, bands)
    except ImageError as error:
        tiled = ", in tiles as whole slides and maps are; cut it up or save a smaller level"
        raise ImageError(f"{error}{tiled if TILEOFFSETS in tags else ''}") from None
    return tags


def describe_tiff(content: bytes) -> str | None:
    """Say what bands a TIFF has; None where its header is damaged."""
    tags = tiff_tags(content)
    if tags is None:
        return None
    bands, bits, form = _numbers(tags)
    kind = _NUMBERS.get(form, "")
    return f"the TIFF has {counted(bands, 'band')} of {bits}-bit {kind}numbers"


def read_tiff(content: bytes, steps: Preprocessing) -> Bands | None:
    """Read the bands of a TIFF's first picture.

    Pages of one band each are taken for the bands of one picture where the model is given several.

    Returns:
        The bands; None for what Pillow reads as well: a photograph of 8 bits, and where tifffile is
        not installed one of 16 or 32.

    Raises:
        ImageError: if it is too large, has other axes than bands, rows and columns, is compressed
            in a way that cannot be read, or tifffile is needed and not installed.
    """
    tags = tiff_tags(content)
    if tags is None:
        return None  # Pillow says what is wrong
    bands, bits, form = _numbers(tags)
    several = bands == 1 and not takes(1, steps)
    if bits <= 8 and not several and (bands in (1, 3) or (bands == 4 and not takes(4, steps))):
        return None
    try:
        import tifffile
    except ImportError:
        if bands in (1, 3) and not several:
            return None
        said = f"{describe_tiff(content)}; install exporter[tiff] to read it"
        raise ImageError(said) from None
    with tifffile.TiffFile(BytesIO(content)) as file:
        picture: Any = file.series[0] if several else file.pages.first
        axes = picture.axes
        if not {"Y", "X"} < {*axes, "S"} or picture.ndim > 3:
            raise ImageError(
                f"the TIFF has the axes {axes} of {picture.shape}; save one picture of bands, rows "
                "and columns"
            )
        width, height = (picture.shape[axes.index(axis)] for axis in "XY")
        count = picture.size // max(width * height, 1)
        refuse_size(width, height, count)
        if not several:
            refuse_bands(count, steps)
        for page in picture.pages if several else [picture]:
            _refuse_cut(page, len(content))
        check_strips(content, tags)
        packed = picture.keyframe.compression
        # Without it tifffile unpacks whatever a strip claims to be, however much that is.
        if packed != tifffile.COMPRESSION.NONE and find_spec("imagecodecs") is None:
            named = packed.name.replace("_", " ")
            raise ImageError(f"the TIFF is compressed ({named}); install exporter[tiff] to read it")
        values = picture.asarray(maxworkers=1)
    if values.ndim == 2:
        values = values[:, :, None]
    elif axes[-1] == "X" and (axes[0] == "S" or takes(values.shape[0], steps)):
        values = np.moveaxis(values, 0, 2)
    packed_bits = (0.0, 2.0**bits - 1) if form == 1 and 8 < bits < 16 else None
    inverted = tags.get(PHOTOMETRIC_INTERPRETATION) == _MINISWHITE
    return Bands(upright(values, _orientation(tags)), packed_bits, inverted)


def _orientation(tags: ImageFileDirectory_v2) -> int:
    value = tags.get(Base.Orientation, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _numbers(tags: ImageFileDirectory_v2) -> tuple[int, int, int]:
    """Return how many bands there are, bits per number and form of number."""
    bits, form = tags.get(BITSPERSAMPLE, (1,))[0], tags.get(SAMPLEFORMAT, (1,))[0]
    return tags.get(SAMPLESPERPIXEL, 1), bits, form


def _refuse_cut(page: Any, length: int) -> None:
    ends = [*map(sum, zip(page.dataoffsets, page.databytecounts, strict=True))]
    if max(ends, default=0) > length or len(ends) < int(np.prod(page.chunked)):
        raise OSError("some of its strips or tiles are not there")
    if page.is_tiled and int(np.prod(page.chunks)) > max(page.size, page.samplesperpixel * _TILE):
        raise OSError("its tiles are larger than the picture")
