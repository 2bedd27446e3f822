"""Looking for identifiers in everything that files hold."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from exporter.anonymity.decoding import pieces
from exporter.anonymity.identifiers import Identifier
from exporter.anonymity.piece import Piece
from exporter.errors import ConfigError, reason

_LARGEST = 4 << 30
_RUN = 8
"""Printable characters in a row that bytes have, around a short name that is not by chance."""


@dataclass(frozen=True)
class Trace:
    """An identifier in a place."""

    place: str
    identifier: Identifier


@dataclass(frozen=True)
class Searched:
    """What a search came to."""

    traces: tuple[Trace, ...]
    unread: tuple[str, ...]
    files: int


def search(path: Path, identifiers: Sequence[Identifier]) -> Searched:
    """Look for identifiers in a file or in everything of a folder.

    Raises:
        ConfigError: if there is neither.
    """
    if not path.exists():
        raise ConfigError(f"there is no {str(path)!r}; give a zip or a folder")
    traces: dict[tuple[str, str], Trace] = {}
    unread: dict[str, None] = {}
    files = 0
    for piece in _contents(path):
        files += piece.place.endswith(_NAME)
        place = piece.place.removesuffix(_NAME)
        if piece.problem:
            unread[f"{place}: {piece.problem}"] = None
        lower = piece.content.lower()
        for identifier in identifiers:
            key = (place, identifier.text)
            if key not in traces and _is_in(lower, identifier, text=piece.text):
                traces[key] = Trace(place, identifier)
    return Searched(tuple(traces.values()), tuple(unread), files)


_NAME = " (name)"


def _contents(path: Path) -> Iterator[Piece]:
    if path.is_dir():  # which is what a zip of it is called
        name = path.resolve().name
        yield Piece(f"{name} (the folder itself)", os.fsencode(name), text=True)
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    for file in files:
        name = file.name if file == path else file.relative_to(path).as_posix()
        if file.is_symlink():
            yield Piece(f"{name} (link)", os.fsencode(file.readlink()), text=True)
        elif file.is_dir():
            yield Piece(f"{name} (folder)", os.fsencode(name), text=True)
        elif file.is_file():
            yield Piece(f"{name}{_NAME}", os.fsencode(name), text=True)
            try:
                size = file.stat().st_size
                if size > _LARGEST:
                    yield Piece(name, b"", problem=f"it has {size:,} bytes and was not searched")
                    continue
                content = file.read_bytes()
            except OSError as error:
                yield Piece(name, b"", problem=f"it cannot be read: {reason(error)}")
            else:
                yield from pieces(name, content)


def _is_in(lower: bytes, identifier: Identifier, *, text: bool) -> bool:
    for form in identifier.forms:
        at = lower.find(form)
        while at >= 0:
            if not identifier.whole or _is_word(lower, at, at + len(form), text=text):
                return True
            at = lower.find(form, at + 1)
    return False


def _is_word(lower: bytes, begin: int, end: int, *, text: bool) -> bool:
    """Say whether bytes are a word of their own, and in text rather than by chance."""
    if _letter(lower[begin - 1 : begin]) or _letter(lower[end : end + 1]):
        return False
    if text:
        return True
    first, last = begin, end
    while first and 32 <= lower[first - 1] < 127 and end - first < _RUN:
        first -= 1
    while last < len(lower) and 32 <= lower[last] < 127 and last - first < _RUN:
        last += 1
    return last - first >= _RUN


def _letter(byte: bytes) -> bool:
    return byte.isalnum() or byte >= b"\x80"
