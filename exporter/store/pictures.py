"""JPEG and PNG without what is said beside their pixels: EXIF, comments, texts, times."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"gAMA", b"cHRM", b"sRGB"}
_APP0, _APP14, _APP15, _COMMENT, _SCAN = 0xE0, 0xEE, 0xEF, 0xFE, 0xDA


def without_metadata(picture: bytes) -> bytes:
    """Return a JPEG or PNG file with the same pixels and no metadata; other bytes as they are."""
    if picture.startswith(b"\xff\xd8"):
        return b"\xff\xd8" + b"".join(_jpeg(picture))
    if picture.startswith(_PNG):
        return _PNG + b"".join(_png(picture))
    return picture


def _jpeg(picture: bytes) -> Iterator[bytes]:
    """Yield the segments that decoders need: APP0 is JFIF, APP14 says how colours are coded."""
    at = 2
    while at + 4 <= len(picture) and picture[at] == 0xFF:
        kind = picture[at + 1]
        end = at + 2 + int.from_bytes(picture[at + 2 : at + 4], "big")
        if kind == _SCAN:
            # In the scans no 0xFF is followed by the end's second byte; nothing hides behind it.
            close = picture.find(b"\xff\xd9", at)
            yield picture[at : close + 2 if close > at else None]
            return
        named = _APP0 < kind <= _APP15 and kind != _APP14
        if not named and kind != _COMMENT:
            yield picture[at:end]
        at = end


def _png(picture: bytes) -> Iterator[bytes]:
    at = len(_PNG)
    while at + 12 <= len(picture):
        (length,) = struct.unpack_from(">I", picture, at)
        end = at + 12 + length
        kind = picture[at + 4 : at + 8]
        if kind in _PNG_KEPT:
            yield picture[at:end]
        if kind == b"IEND":
            return
        at = end
