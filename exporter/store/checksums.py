"""``checksums/``: what the files of a shard were when they were written.

They are written just before the shard's last file, whose presence commits all of them. So bytes
that rot between a kill and ``--resume``, or between a worker and ``finish``, are noticed.
``sha256sum --check checksums/*``, run in the run folder, reads the same files.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from exporter.errors import RunError
from exporter.store.files import RunFiles
from exporter.store.layout import checksum_file

_LINE = re.compile(r"([0-9a-f]{64})  ((?:shards|summaries|maximised)/[0-9a-z-]+\.parquet)")
_MOST = 1 << 20


def commit(run: RunFiles, files: Mapping[str, memoryview]) -> dict[str, str]:
    """Write files and their checksums; the last file commits the others.

    Returns:
        SHA-256 by name.

    Raises:
        RunError: if one cannot be written.
    """
    checksums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    *others, last = files
    for name in others:
        run.write(name, files[name])
    text = "".join(f"{checksum}  {name}\n" for name, checksum in checksums.items())
    run.write(checksum_file(last), text.encode())
    run.write(last, files[last])
    return checksums


def recorded(run: RunFiles, last: str) -> dict[str, str] | None:
    """Return the checksums that were kept with what a file commits; None if unreadable."""
    try:
        lines = run.read(checksum_file(last), _MOST).decode().splitlines()
    except (RunError, ValueError):
        return None
    matches = [_LINE.fullmatch(line) for line in lines]
    checksums = {match[2]: match[1] for match in matches if match}
    return checksums if len(checksums) == len(lines) and last in checksums else None


def verify(run: RunFiles, last: str) -> dict[str, str] | None:
    """Hold what a file commits against the checksums that were kept with it.

    Returns:
        SHA-256 by name; None if a file or its checksum is missing or differs.
    """
    checksums = recorded(run, last)
    if checksums and are_as_written(run, checksums):
        return checksums
    return None


def are_as_written(run: RunFiles, checksums: Mapping[str, str]) -> bool:
    """Say whether files have these SHA-256 sums, by name."""
    try:
        return all(run.sha256(name) == known for name, known in checksums.items())
    except RunError:
        return False
