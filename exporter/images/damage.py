"""Damage that no decoder notices: wrong checksums, and downloads that are padded with zeros."""

from __future__ import annotations

import struct
import zlib
from typing import Any

# Tags of a TIFF: how its strips or tiles are packed, where they lie, how long they are.
_PACKED, _CODED, _PLACES = 259, (5, 7, 8, 32946), ((273, 324), (279, 325))
_HEIGHT, _ROWS = 257, 278
# Coded pixels hardly ever end in so many zeros; a download that was padded with them does.
_ZEROS = 64


def png_chunks(content: bytes) -> list[bytes]:
    """Return the kinds of chunk of a PNG in order, once each; every checksum has to be right."""
    kinds, view, end = list[bytes](), memoryview(content), 8
    while kinds[-1:] != [b"IEND"]:
        start = end + 4
        end = start + 8 + int.from_bytes(view[end:start])
        kind, checksum = content[start : start + 4], int.from_bytes(view[end - 4 : end])
        if end > len(content) or end < start + 8:
            raise OSError(f"it ends in its chunk {_name(kind)}")
        if zlib.crc32(view[start : end - 4]) != checksum:
            raise OSError(f"the checksum of its chunk {_name(kind)} is wrong")
        kinds += [] if kind == b"IDAT" and kinds[-1:] == [kind] else [kind]
    return kinds


def check_webp(content: bytes) -> None:
    """Raise ``OSError`` where a chunk of a WebP is cut off or padded."""
    end, stop = 12, struct.unpack_from("<I", content, 4)[0] + 8
    while end + 8 <= stop:
        if end + 8 > len(content):
            raise OSError("it ends where a chunk should begin")
        kind, length = struct.unpack_from("<4sI", content, end)
        start, end = end + 8, end + 8 + length + length % 2
        if start + length > len(content):
            raise OSError(f"it ends in its chunk {_name(kind)}")
        if kind in (b"VP8 ", b"VP8L"):
            # A lossy picture of one colour does end in zeros, about a twentieth of it.
            refuse_zeros(content[start : start + length], length // 8 if kind == b"VP8 " else 0)


def check_strips(content: bytes, tags: Any) -> None:
    """Raise ``OSError`` where a strip of a TIFF is not there, or a packed one is padded."""
    offsets, counts = (tags.get(strips) or tags.get(tiles) or () for strips, tiles in _PLACES)
    height = tags.get(_HEIGHT, 0)
    if _PLACES[0][0] in tags and len(offsets) * tags.get(_ROWS, height) < height:
        raise OSError("some of its strips are not there")
    if tags.get(_PACKED) not in _CODED:
        return
    for offset, count in zip(offsets, counts, strict=False):
        refuse_zeros(content[max(offset, offset + count - _ZEROS) : offset + count])


def refuse_zeros(coded: bytes, least: int = 0) -> None:
    """Raise ``OSError`` where coded pixels end in more zeros than they would."""
    zeros = max(least, _ZEROS)
    if coded.endswith(bytes(zeros)):
        raise OSError(f"it ends in {zeros:,} zeros or more, as a broken download does")


def _name(kind: bytes) -> str:
    return repr(kind.decode("latin-1").strip())
