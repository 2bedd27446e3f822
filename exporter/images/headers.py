"""Which files are plain enough for OpenCV's decoder: whole, 8 bits a channel, opaque, unanimated.

OpenCV is the fastest decoder at hand, but some versions return a truncated JPEG as a half grey
picture, and it has its own ideas of transparency and CMYK. Only what these headers prove ordinary
goes to it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

_ORIENTATION = 0x0112
_JPEG_SCAN = 0xDA
_JPEG_HUFFMAN = (0xC0, 0xC1, 0xC2)
_JPEG_OTHER_FRAMES = frozenset(range(0xC3, 0xD0)) - {0xC4, 0xC8, 0xCC}
_XMP_ORIENTATION = b"tiff:Orientation"
_PNG_SPECIAL = (b"tRNS", b"acTL", b"eXIf", _XMP_ORIENTATION)
_PNG_END = b"IEND\xaeB`\x82"


@dataclass(frozen=True, slots=True)
class Plain:
    """What the header of an ordinary file says.

    Attributes:
        width: stored width in pixels, before any rotation.
        height: stored height in pixels, before any rotation.
        orientation: EXIF orientation, 1 to 8; 1 is upright.
    """

    width: int
    height: int
    orientation: int = 1


def read_plain(data: bytes) -> Plain | None:
    """Read the header of an ordinary JPEG, PNG, BMP or WebP file.

    Args:
        data: the file's bytes.

    Returns:
        What it says, or None where the file is damaged, unusual or of another format: then it takes
        a decoder that reports what is wrong.
    """
    try:
        if data.startswith(b"\xff\xd8\xff"):
            return _read_jpeg(data)
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return _read_png(data)
        if data.startswith(b"BM"):
            return _read_bmp(data)
        if data.startswith(b"RIFF") and data[8:16] == b"WEBPVP8 ":
            return _read_webp(data)
    except (struct.error, IndexError):
        pass
    return None


def _read_jpeg(data: bytes) -> Plain | None:
    frame: tuple[int, int] | None = None
    exif: list[bytes] = []
    # Only a file that ends in the end-of-image marker is surely whole.
    ordinary = data.endswith(b"\xff\xd9")
    for marker, segment in _jpeg_segments(data):
        if marker in _JPEG_HUFFMAN:
            bits, height, width, components = struct.unpack_from(">BHHB", segment)
            frame = (width, height)
            ordinary &= bits == 8 and components in (1, 3) and height > 0
        elif marker in _JPEG_OTHER_FRAMES or (marker == 0xE1 and _XMP_ORIENTATION in segment):
            ordinary = False
        elif marker == 0xE1 and segment.startswith(b"Exif\0\0"):
            exif.append(segment)
    if frame is None or not ordinary or len(exif) > 1:
        return None
    return Plain(*frame, orientation=_orientation(exif[0]) if exif else 1)


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield marker and content up to the first scan; an error where the file ends or derails."""
    position = 2
    marker = 0
    while marker != _JPEG_SCAN:
        while data[position + 1] == 0xFF:
            position += 1
        lead, marker, length = struct.unpack_from(">BBH", data, position)
        if lead != 0xFF or length < 2:
            raise IndexError(position)
        yield marker, data[position + 4 : position + 2 + length]
        position += 2 + length


def _orientation(exif: bytes | None) -> int:
    if exif is None:
        return 1
    tags = Image.Exif()
    try:
        tags.load(exif)
        value = tags.get(_ORIENTATION, 1)
    except (
        Exception
    ):  # Pillow's parser raises anything on a damaged tag; the picture itself is whole
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _read_png(data: bytes) -> Plain | None:
    width, height, bits, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    ordinary = data[12:16] == b"IHDR" and bits == 8 and colour in (0, 2) and not interlaced
    whole = data.endswith(_PNG_END)
    if not (ordinary and whole) or any(chunk in data for chunk in _PNG_SPECIAL):
        return None
    return Plain(width, height)


def _read_bmp(data: bytes) -> Plain | None:
    start, header, width, height, _, bits, compression = struct.unpack_from("<IIiiHHI", data, 10)
    row = (width * 3 + 3) // 4 * 4
    whole = len(data) >= start + row * abs(height)
    if header < 40 or bits != 24 or compression or width <= 0 or not height or not whole:
        return None
    return Plain(width, abs(height))


def _read_webp(data: bytes) -> Plain | None:
    (size,) = struct.unpack_from("<I", data, 4)
    if len(data) < size + 8 or data[23:26] != b"\x9d\x01\x2a":
        return None
    width, height = struct.unpack_from("<HH", data, 26)
    return Plain(width & 0x3FFF, height & 0x3FFF)
