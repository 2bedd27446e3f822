"""What decoders give."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple


class Piece(NamedTuple):
    """Bytes, and where they were.

    Attributes:
        place: the file, and what inside it, with › between them.
        content: the bytes.
        text: whether they are text, so that a short name in them is not there by chance.
        problem: why what is inside could not be decoded; the bytes are then what can be searched.
    """

    place: str
    content: bytes
    text: bool = False
    problem: str = ""


Inside = Callable[[str, bytes], Iterator[Piece]]
"""Decodes, at a place, what was inside of something."""

Decode = Callable[[str, bytes, Inside], Iterator[Piece]]
"""Decodes a format: ``decode(place, content, inside)``."""

LARGEST = 1 << 30
"""Bytes of the largest thing that is unpacked."""
