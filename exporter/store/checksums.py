"""``checksums/``: what the files of a shard were when they were written.

They are written just before the shard's last file, whose presence commits all of them. So bytes
that rot between a kill and ``--resume``, or between a worker and ``finish``, are noticed.
``sha256sum --check checksums/*``, run in the run folder, reads the same files.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from exporter.store.files import sha256, write_whole
from exporter.store.layout import checksum_file

_LINE = re.compile(r"([0-9a-f]{64})  ((?:shards|summaries|maximised)/[0-9a-z-]+\.parquet)")


def commit(run: Path, files: Mapping[Path, memoryview]) -> dict[str, str]:
    """Write files and their checksums; the last file commits the others.

    Returns:
        SHA-256 by path relative to the run.

    Raises:
        RunError: if one cannot be written.
    """
    checksums = {
        path.relative_to(run).as_posix(): hashlib.sha256(content).hexdigest()
        for path, content in files.items()
    }
    *others, last = files
    for path in others:
        write_whole(path, files[path])
    text = "".join(f"{checksum}  {name}\n" for name, checksum in checksums.items())
    write_whole(checksum_file(run, last), text.encode())
    write_whole(last, files[last])
    return checksums


def recorded(run: Path, last: Path) -> dict[str, str] | None:
    """Return the checksums that were kept with the files that a file commits; None if unreadable.

    Args:
        run: the run folder.
        last: the file that commits the others.
    """
    try:
        lines = checksum_file(run, last).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return None
    matches = [_LINE.fullmatch(line) for line in lines]
    checksums = {match[2]: match[1] for match in matches if match}
    whole = len(checksums) == len(lines) and last.relative_to(run).as_posix() in checksums
    return checksums if whole else None


def verify(run: Path, last: Path) -> dict[str, str] | None:
    """Hold what a file commits against the checksums that were kept with it.

    Args:
        run: the run folder.
        last: the file that commits the others.

    Returns:
        SHA-256 by path relative to the run; None if a file or its checksum is missing or differs.
    """
    checksums = recorded(run, last)
    try:
        if checksums and all(sha256(run / name) == known for name, known in checksums.items()):
            return checksums
    except OSError:
        return None
    return None
