"""What is beside the pixels of pictures; compressed pixels hold every short name by chance."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from exporter.anonymity.piece import Inside, Piece

_PIXELS = (b"IDAT", b"fdAT", b"PLTE")


def read_png(place: str, content: bytes, inside: Inside) -> Iterator[Piece]:
    """Yield the texts and other chunks of a PNG, and what follows its end."""
    at = 8
    while at + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        kind, value = content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        at += 12 + length
        named = f"{place} › {kind.decode('latin-1')}"
        if kind in (b"tEXt", b"zTXt", b"iTXt", b"iCCP"):
            yield from inside(named, _text(kind, value))
        elif kind not in _PIXELS:
            yield Piece(named, value)
        if kind == b"IEND":
            break
    if at < len(content):
        yield from inside(f"{place} › after its end", content[at:])


def _text(kind: bytes, value: bytes) -> bytes:
    keyword, _, rest = value.partition(b"\0")
    if kind != b"iTXt":
        text = rest if kind == b"tEXt" else zlib.decompress(rest[1:])
        return keyword + b"\n" + text
    packed, rest = rest[:1] == b"\1", rest[2:]
    language, _, rest = rest.partition(b"\0")
    translated, _, text = rest.partition(b"\0")
    return b"\n".join((keyword, language, translated, zlib.decompress(text) if packed else text))


def read_jpeg(place: str, content: bytes, inside: Inside) -> Iterator[Piece]:
    """Yield the comments and application segments of a JPEG, such as EXIF, and what follows."""
    at = 2
    while at + 4 <= len(content) and content[at] == 0xFF and content[at + 1] != 0xDA:
        kind = content[at + 1]
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        if kind == 0xFE:
            yield from inside(f"{place} › comment", content[at + 4 : end])
        elif 0xE0 <= kind <= 0xEF:
            yield Piece(f"{place} › APP{kind - 0xE0}", content[at + 4 : end], text=True)
        at = end
    # In the scans no 0xFF is followed by the end's second byte.
    end = content.find(b"\xff\xd9", at)
    after = content[end + 2 :]
    if end >= 0 and after:
        yield from inside(f"{place} › after its end", after)
