"""W&B's offline log: its records, the files they name, and those names made relative.

The log begins with seven bytes, then blocks of 32,768 bytes hold pieces of records; a piece is
CRC-32 of type and content (u32), length (u16), type (u8: 1 whole, 2 first, 3 middle, 4 last) and
content. A record is a protocol buffer, read here field by field so that checking a run needs no
W&B. Its field numbers cannot change: every W&B replays the logs of earlier ones.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_HEADER = b":W&B\xe1\xbe\x00"
_BLOCK = 32_768
_PIECE = struct.Struct("<IHB")
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4

# Record.artifact.manifest.contents, a file of an artifact, and what it says of it.
_CONTENTS = (8, 12, 4)
_MANIFEST_FILE = (8, 12, 5)
_ENTRY_PATH, _ENTRY_SIZE, _ENTRY_LOCAL = 1, 4, 6
# Record.files.files.path, a file under the run's own files/.
_RUN_FILES = (6, 1, 1)


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A file that a logged artifact is made of.

    Attributes:
        path: its name in the artifact.
        local: where its bytes lie, relative to the folder that ``wandb sync`` runs in.
        size: bytes.
    """

    path: str
    local: str
    size: int


def read_log(log: bytes) -> Iterator[bytes]:
    """Yield the records of an offline log.

    Raises:
        ValueError: if the log is cut, damaged or of another format.
    """
    if not log.startswith(_HEADER):
        raise ValueError("it does not begin as a W&B log does")
    position, parts = len(_HEADER), b""
    while position < len(log):
        left = _BLOCK - position % _BLOCK
        if left < _PIECE.size:
            position += left
            continue
        if position + _PIECE.size > len(log):
            raise ValueError("its last record is cut")
        checksum, length, kind = _PIECE.unpack_from(log, position)
        content = log[position + _PIECE.size : position + _PIECE.size + length]
        if len(content) < length or zlib.crc32(content, zlib.crc32(bytes([kind]))) != checksum:
            raise ValueError(f"it is damaged at byte {position}")
        position += _PIECE.size + length
        parts = content if kind in {_WHOLE, _FIRST} else parts + content
        if kind in {_WHOLE, _LAST}:
            yield parts


def write_log(records: Iterable[bytes]) -> bytes:
    """Return the log of these records, as `read_log` reads it."""
    log = bytearray(_HEADER)
    for record in records:
        rest, first = record, True
        while first or rest:
            left = _BLOCK - len(log) % _BLOCK
            if left < _PIECE.size:
                log += bytes(left)
                continue
            content, rest = rest[: left - _PIECE.size], rest[left - _PIECE.size :]
            kind = (_FIRST if rest else _WHOLE) if first else (_MIDDLE if rest else _LAST)
            checksum = zlib.crc32(content, zlib.crc32(bytes([kind])))
            log += _PIECE.pack(checksum, len(content), kind) + content
            first = False
    return bytes(log)


def staged_files(record: bytes) -> tuple[StagedFile, ...]:
    """Return the files of the artifact that a record logs; none for other records."""
    return tuple(_staged(entry) for entry in _find(record, _CONTENTS))


def run_files(record: bytes) -> tuple[str, ...]:
    """Return the files, under the run's ``files/``, that a record sends."""
    return tuple(path.decode("utf-8", "replace") for path in _find(record, _RUN_FILES))


def rename_staged(record: bytes, rename: Callable[[StagedFile], str]) -> bytes:
    """Return a record whose artifact's files lie where ``rename`` says.

    Raises:
        ValueError: if the artifact keeps its list of files in a file of its own, as those of more
            than 100,000 files do.
    """
    if any(_find(record, _MANIFEST_FILE)):
        raise ValueError("an artifact has too many files; log fewer rows a table")

    def renamed(entry: bytes) -> bytes:
        local = rename(_staged(entry))
        return _edit(entry, (_ENTRY_LOCAL,), lambda _: local.encode())

    return _edit(record, _CONTENTS, renamed)


def verify_offline(folder: Path) -> tuple[str, ...]:
    """Check that all that an offline W&B folder names is there, so that a sync loses nothing.

    W&B itself says that a sync finished, and sends no table, where its files are gone.

    Args:
        folder: what the W&B writer made, ``RUN/wandb``.

    Returns:
        What is wrong, a line each; nothing for a whole folder, or one that is absent or empty.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        return ()
    logs = sorted(folder.glob("*run-*/run-*.wandb"))
    if not logs:
        return (f"{folder.name}: there is no W&B log; write it again",)
    problems: list[str] = []
    for log in logs:
        name = f"{folder.name}/{log.relative_to(folder).as_posix()}"
        try:
            for record in read_log(log.read_bytes()):
                problems += _missing(folder, log, record)
        except (OSError, ValueError) as error:
            problems.append(f"{name}: the log cannot be read: {error}")
    return tuple(problems)


def _missing(folder: Path, log: Path, record: bytes) -> Iterator[str]:
    for staged in staged_files(record):
        file = folder / staged.local
        if not file.is_file():
            yield f"{folder.name}/{staged.local}: missing, and a sync would go without it"
        elif file.stat().st_size != staged.size:
            yield f"{folder.name}/{staged.local}: {file.stat().st_size} bytes, not {staged.size}"
    for path in run_files(record):
        if not (log.parent / "files" / path).is_file():
            yield f"{folder.name}/{log.parent.name}/files/{path}: missing"


# ------------------------------------------------------------ protocol buffers


def _staged(entry: bytes) -> StagedFile:
    texts = {_ENTRY_PATH: "", _ENTRY_LOCAL: ""}
    size = 0
    for number, start, content, end in _fields(entry):
        if number == _ENTRY_SIZE and content is None:
            size = _varint(entry, start)[0]
        elif number in texts and content is not None:
            texts[number] = entry[content:end].decode("utf-8", "replace")
    return StagedFile(texts[_ENTRY_PATH], texts[_ENTRY_LOCAL], size)


def _find(message: bytes, path: tuple[int, ...]) -> Iterator[bytes]:
    for number, _, content, end in _fields(message):
        if number == path[0] and content is not None:
            part = message[content:end]
            if len(path) == 1:
                yield part
            else:
                yield from _find(part, path[1:])


def _edit(message: bytes, path: tuple[int, ...], change: Callable[[bytes], bytes]) -> bytes:
    edited, position = bytearray(), 0
    for number, _, content, end in _fields(message):
        if number == path[0] and content is not None:
            part = message[content:end]
            new = change(part) if len(path) == 1 else _edit(part, path[1:], change)
            edited += _varint_bytes(number << 3 | 2) + _varint_bytes(len(new)) + new
        else:
            edited += message[position:end]
        position = end
    return bytes(edited)


def _fields(message: bytes) -> Iterator[tuple[int, int, int | None, int]]:
    """Yield (number, start of the value, start of its content if it has a length, end)."""
    position = 0
    while position < len(message):
        tag, start = _varint(message, position)
        number, wire = tag >> 3, tag & 7
        content = None
        if wire == 0:
            end = _varint(message, start)[1]
        elif wire == 2:
            length, content = _varint(message, start)
            end = content + length
        elif wire in {1, 5}:
            end = start + (8 if wire == 1 else 4)
        else:
            raise ValueError(f"a record has a field of the unknown kind {wire}")
        if end > len(message):
            raise ValueError("a record is cut")
        yield number, start, content, end
        position = end


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(message):
            raise ValueError("a record is cut")
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position


def _varint_bytes(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
