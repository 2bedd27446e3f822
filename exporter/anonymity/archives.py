"""What is in zip, tar and packed files, and what they say of their entries."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Iterator

from exporter.anonymity.piece import LARGEST, Inside, Piece


def read_zip(place: str, content: bytes, inside: Inside) -> Iterator[Piece]:
    """Yield the comments, names, extra fields and contents of a zip."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        yield Piece(f"{place} (comment)", archive.comment, text=True)
        for entry in archive.infolist():
            inner = f"{place} › {entry.filename}"
            said = b"\n".join((entry.filename.encode(), entry.comment, entry.extra))
            yield Piece(f"{inner} (entry)", said, text=True)
            if entry.file_size > LARGEST:
                yield Piece(inner, b"", problem=f"it has {entry.file_size:,} bytes")
            elif not entry.is_dir():
                yield from inside(inner, archive.read(entry))


def read_tar(place: str, content: bytes, inside: Inside) -> Iterator[Piece]:
    """Yield the names, owners, links, extended headers and contents of a tar."""
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for entry in archive:
            inner = f"{place} › {entry.name}"
            headers = (text for header in entry.pax_headers.items() for text in header)
            said = "\n".join((entry.name, entry.uname, entry.gname, entry.linkname, *headers))
            yield Piece(f"{inner} (entry)", said.encode("utf-8", "replace"), text=True)
            file = archive.extractfile(entry) if entry.isfile() else None
            if file is not None:
                yield from inside(inner, file.read(LARGEST))


def read_gzip(place: str, content: bytes, inside: Inside) -> Iterator[Piece]:
    """Yield what was packed, and the header, which may have its name."""
    yield Piece(f"{place} (header)", content[:512])
    with gzip.open(io.BytesIO(content)) as file:
        yield from inside(f"{place} › gzip", file.read(LARGEST))


def read_bz2(place: str, content: bytes, inside: Inside) -> Iterator[Piece]:
    """Yield what was packed."""
    yield from inside(f"{place} › bzip2", bz2.BZ2Decompressor().decompress(content, LARGEST))


def read_xz(place: str, content: bytes, inside: Inside) -> Iterator[Piece]:
    """Yield what was packed."""
    yield from inside(f"{place} › xz", lzma.LZMADecompressor().decompress(content, LARGEST))
