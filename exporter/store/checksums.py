"""``checksums/``: what the files of a run were when they were written.

A shard's are written just before its rows, whose presence commits all of its files; so bytes that
rot between a kill and ``--resume``, or between a worker and ``finish``, are noticed. The plan, the
recipe, the kernels, the writers' note, ``run.json`` and each writer's folder have theirs likewise.
``sha256sum --check checksums/*``, run in the run folder, reads the same files.

What is written again has two of them for a moment: its new checksums are kept beside the old ones,
and take their place once it is there. A file that fits either has not changed since.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from io import BytesIO
from typing import NamedTuple

from exporter.errors import RunError
from exporter.store.files import RunFiles
from exporter.store.layout import CHECKSUMS, NEXT, PLAN, checksum_file, next_checksum_file
from exporter.watch import Watch

_LINE = re.compile(r"([0-9a-f]{64})  (.+)\n")
_NOTE = re.compile(r"# (.+) ([0-9a-f]{64})\n")
_MOST = 1 << 26

VERIFYING = "verifying what is there"
"""What is being done while all bytes of a run are read."""


def commit(
    run: RunFiles, files: Mapping[str, bytes | memoryview], note: str = ""
) -> dict[str, str]:
    """Write files and their checksums; the last file commits the others.

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
    settle(run, last)
    return checksums


def record(
    run: RunFiles, last: str, checksums: Mapping[str, str], note: str = ""
) -> dict[str, str]:
    """Keep the checksums of files; `settle` has to follow once the files are there.

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
    name, newer = checksum_file(last), next_checksum_file(last)
    text = f"# {note} {sum_of(note.encode())}\n" * bool(note)
    text += "".join(f"{checksum}  {file}\n" for file, checksum in checksums.items())
    run.make_folder(CHECKSUMS)
    # Those of what is there stay until it is replaced: a run is whole at every moment.
    again = run.exists(name) or run.exists(newer)
    run.write(newer if again else name, text.encode())
    return {**checksums, name: sum_of(text.encode())}


def settle(run: RunFiles, last: str) -> None:
    """Have the checksums that were kept last take the place of those before."""
    with suppress(RunError):  # another worker has done so, or will
        run.rename(next_checksum_file(last), checksum_file(last))


def forget(run: RunFiles, file: str) -> None:
    """Remove a file and its checksums, as far as they can be removed."""
    for name in (file, checksum_file(file), next_checksum_file(file)):
        run.remove(name, quiet=True)


def settle_interrupted(run: RunFiles) -> None:
    """Settle what commands did not come to that were killed; nobody else may be writing."""
    for name in run.names(CHECKSUMS):
        if name.startswith(".") and name.endswith(NEXT):
            newer = f"{CHECKSUMS}/{name}"
            kept = _read(run, newer)
            if kept is not None and _fit(run, kept.of_files):
                run.rename(newer, f"{CHECKSUMS}/{name[1 : -len(NEXT)]}")
            else:
                run.remove(newer)


class _Kept(NamedTuple):
    """What a file of checksums says: SHA-256 by name, its own, and the note."""

    of_files: dict[str, str]
    own: str
    note: str


def _kept(run: RunFiles, last: str) -> _Kept | None:
    """Read the checksums of a file; the newer ones where they fit, so that it was replaced."""
    newer = _read(run, next_checksum_file(last))
    if newer is not None and _fit(run, newer.of_files):
        return newer
    return _read(run, checksum_file(last))


def _read(run: RunFiles, name: str) -> _Kept | None:
    checksums, note = dict[str, str](), ""
    try:
        content = run.read(name, _MOST)
        # A report of 10,000 images has as many files: line by line, nothing is there twice.
        for number, line in enumerate(map(bytes.decode, BytesIO(content))):
            match = _LINE.fullmatch(line)
            if match:
                checksums[match[2]] = match[1]
                continue
            noted = None if number else _NOTE.fullmatch(line)
            if noted is None or noted[2] != sum_of(noted[1].encode()):
                return None
            note = noted[1]
    except (RunError, ValueError):
        return None
    return _Kept(checksums, sum_of(content), note) if checksums else None


def recorded(run: RunFiles, last: str) -> dict[str, str] | None:
    """Return the checksums that were kept with a file or folder; None if unreadable."""
    kept = _kept(run, last)
    return kept and kept.of_files


def noted(run: RunFiles, last: str) -> str:
    """Return the note that was kept with a file's checksums; ``""`` where there is none."""
    kept = _kept(run, last)
    return kept.note if kept else ""


def verify(run: RunFiles, last: str) -> dict[str, str] | None:
    """Hold what a file commits against the checksums that were kept with it.

    Returns:
        SHA-256 by name; None if a file or its checksum is missing or differs.
    """
    kept = _kept(run, last)
    if kept is None or last not in kept.of_files or not _fit(run, kept.of_files):
        return None
    return {**kept.of_files, checksum_file(last): kept.own}


def _fit(run: RunFiles, checksums: Mapping[str, str]) -> bool:
    try:
        return not any(altered(run, checksums))
    except RunError:
        return False


def is_altered(run: RunFiles, last: str) -> bool:
    """Say whether a file is known to have changed since it was written.

    False where no checksum was kept: in a run of the first version, of whose plan there is none.
    """
    kept = any(run.exists(checksum_file(name)) for name in (last, PLAN))
    return kept and verify(run, last) is None


def altered(
    run: RunFiles, checksums: Mapping[str, str], watch: Watch | None = None
) -> Iterator[tuple[str, str]]:
    """Yield every file that does not have its SHA-256 sum, and what is wrong with it."""
    if watch is not None:
        watch.begin(VERIFYING, len(checksums))
    for name, expected in checksums.items():
        if not run.exists(name):
            yield name, f"{name} is missing"
        elif run.sha256(name) != expected:
            yield name, f"{name} has changed since it was written (SHA-256 differs)"
        if watch is not None:
            watch.advance()


def sum_of(content: bytes | memoryview) -> str:
    """Return the SHA-256 of bytes in hexadecimal."""
    return hashlib.sha256(content).hexdigest()
