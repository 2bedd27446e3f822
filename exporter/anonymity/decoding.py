"""What is inside files: everything that can be decoded, down to the texts and pictures in it."""

from __future__ import annotations

import html
import re
from base64 import b64decode
from collections.abc import Callable, Iterator
from functools import partial
from urllib.parse import unquote_to_bytes

from exporter.anonymity.archives import read_bz2, read_gzip, read_tar, read_xz, read_zip
from exporter.anonymity.documents import read_events, read_parquet, read_pdf, read_wandb
from exporter.anonymity.pictures import read_jpeg, read_png
from exporter.anonymity.piece import Decode, Inside, Piece

_DEEPEST = 8
"""Things inside one another."""

_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{12,}={0,2}")
_LONG = 200
"""Bytes from which what Base64 holds is searched whatever it is: a map, a table of numbers."""
_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})")


def _begins(*magic: bytes) -> Callable[[bytes], bool]:
    return lambda content: content.startswith(magic)


_FORMATS: tuple[tuple[Callable[[bytes], bool], Decode], ...] = (
    (_begins(b"PK\x03\x04", b"PK\x05\x06"), read_zip),
    (_begins(b"\x1f\x8b\x08"), read_gzip),
    (_begins(b"BZh"), read_bz2),
    (_begins(b"\xfd7zXZ\0"), read_xz),
    (_begins(b"PAR1"), read_parquet),
    (_begins(b"\x89PNG\r\n\x1a\n"), read_png),
    (_begins(b"\xff\xd8\xff"), read_jpeg),
    (_begins(b"%PDF"), read_pdf),
    (_begins(b":W&B"), read_wandb),
    (lambda content: content[257:262] == b"ustar", read_tar),
    (lambda content: b"brain.Event:" in content[:64], read_events),
)


def pieces(place: str, content: bytes, depth: int = 0) -> Iterator[Piece]:
    """Yield everything that can be decoded of some bytes."""
    if depth > _DEEPEST:
        yield Piece(place, content, problem="things are too deep inside one another")
        return
    decode = next((decode for fits, decode in _FORMATS if fits(content)), _plain)
    try:
        yield from decode(place, content, partial(pieces, depth=depth + 1))
    except Exception as error:  # what the libraries of formats raise has no kind in common
        said = " ".join(str(error).split())[:120]
        yield Piece(place, content, problem=f"it cannot be decoded ({said})")


def _plain(place: str, content: bytes, inside: Inside) -> Iterator[Piece]:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        yield Piece(place, content)
    else:
        yield Piece(place, content, text=True)
        yield from _escapes(place, content, text)
    for match in _BASE64.finditer(content):
        run = match[0].rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
        run = run[: len(run) - (len(run) % 4 == 1)]
        inner = b64decode(run + b"=" * (-len(run) % 4))
        # Words and hashes are Base64 of nothing.
        if len(inner) > _LONG or _reads(inner) or any(fits(inner) for fits, _ in _FORMATS):
            yield from inside(f"{place} › Base64", inner)


def _escapes(place: str, content: bytes, text: str) -> Iterator[Piece]:
    """Yield text without the escapes of HTML, of addresses, and of JavaScript and JSON."""
    if "&" in text and (plain := html.unescape(text)) != text:
        yield Piece(place, plain.encode(), text=True)
    if "%" in text:
        yield Piece(place, unquote_to_bytes(content), text=True)
    if "\\u" in text or "\\x" in text:
        plain = _ESCAPED.sub(lambda match: chr(int(match[1] or match[2], 16)), text)
        yield Piece(place, plain.encode("utf-8", "replace"), text=True)


def _reads(content: bytes) -> bool:
    try:
        return content.decode("utf-8").isprintable()
    except UnicodeDecodeError:
        return False
