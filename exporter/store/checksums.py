"""``checksums/``: what the files of a run were when they were written.

A shard's are written just before its rows, whose presence commits all of its files; so bytes that
rot between a kill and ``--resume``, or between a worker and ``finish``, are noticed. The plan, the
recipe, the kernels, the writers' note, ``run.json`` and each writer's folder have theirs likewise.
``sha256sum --check checksums/*``, run in the run folder, reads the same files.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping

from exporter.errors import RunError
from exporter.store.files import RunFiles
from exporter.store.layout import CHECKSUMS, PLAN, checksum_file

_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
_NOTE = re.compile(r"# (.+) ([0-9a-f]{64})")
_MOST = 1 << 26


def commit(
    run: RunFiles, files: Mapping[str, bytes | memoryview], note: str = ""
) -> dict[str, str]:
    """Write files and their checksums; the last file commits the others.

    Args:
        run: the run folder.
        files: contents by name.
        note: see `record`.

    Returns:
        SHA-256 by name, that of the checksums themselves too.

    Raises:
        RunError: if one cannot be written.
    """
    *others, last = files
    for name in others:
        run.write(name, files[name])
    checksums = record(run, last, {name: sum_of(files[name]) for name in files}, note)
    run.write(last, files[last])
    return checksums


def record(
    run: RunFiles, last: str, checksums: Mapping[str, str], note: str = ""
) -> dict[str, str]:
    """Keep the checksums of files.

    Args:
        run: the run folder.
        last: the file that commits them, or the folder that they are in.
        checksums: SHA-256 by name.
        note: kept as a comment.

    Returns:
        SHA-256 by name, that of the checksums themselves too.

    Raises:
        RunError: if they cannot be written.
    """
    name = checksum_file(last)
    text = f"# {note} {sum_of(note.encode())}\n" * bool(note)
    text += "".join(f"{checksum}  {file}\n" for file, checksum in checksums.items())
    run.make_folder(CHECKSUMS)
    run.write(name, text.encode())
    return {**checksums, name: sum_of(text.encode())}


def recorded(run: RunFiles, last: str) -> dict[str, str] | None:
    """Return the checksums that were kept with a file, and their own; None if unreadable."""
    kept = _read(run, last)
    return kept and kept[0]


def noted(run: RunFiles, last: str) -> str:
    """Return the note that was kept with a file's checksums; ``""`` where there is none."""
    kept = _read(run, last)
    return kept[1] if kept else ""


def _read(run: RunFiles, last: str) -> tuple[dict[str, str], str] | None:
    name = checksum_file(last)
    try:
        content = run.read(name, _MOST)
        *lines, end = content.decode().split("\n")
    except (RunError, ValueError):
        return None
    note = _NOTE.fullmatch(lines[0]) if lines else None
    matches = [_LINE.fullmatch(line) for line in lines[1 if note else 0 :]]
    if end or not matches or not all(matches) or (note and note[2] != sum_of(note[1].encode())):
        return None
    checksums = {match[2]: match[1] for match in matches if match}
    return {**checksums, name: sum_of(content)}, note[1] if note else ""


def verify(run: RunFiles, last: str) -> dict[str, str] | None:
    """Hold what a file commits against the checksums that were kept with it.

    Returns:
        SHA-256 by name; None if a file or its checksum is missing or differs.
    """
    checksums = recorded(run, last)
    try:
        whole = checksums is not None and last in checksums and not any(altered(run, checksums))
    except RunError:
        return None
    return checksums if whole else None


def is_altered(run: RunFiles, last: str) -> bool:
    """Say whether a file is known not to be as it was written.

    False where no checksum was kept: in a run of the first version, of whose plan there is none.
    """
    kept = any(run.exists(checksum_file(name)) for name in (last, PLAN))
    return kept and verify(run, last) is None


def altered(run: RunFiles, checksums: Mapping[str, str]) -> Iterator[str]:
    """Yield of every file that does not have its SHA-256 sum, by name, what is wrong with it."""
    for name, expected in checksums.items():
        if not run.exists(name):
            yield f"{name} is missing"
        elif run.sha256(name) != expected:
            yield f"{name} is not as it was written (SHA-256 differs)"


def sum_of(content: bytes | memoryview) -> str:
    """Return the SHA-256 of bytes in hexadecimal."""
    return hashlib.sha256(content).hexdigest()
