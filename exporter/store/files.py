"""Files that are there as a whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from exporter.errors import RunError
from exporter.store.layout import temporary


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write a file under a temporary name, wait for the disk, and rename it into place.

    Raises:
        RunError: if the disk is full, or the place cannot be written.
    """
    half = temporary(path)
    with writing(path, half):
        with half.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        half.replace(path)
        sync_folder(path.parent)


@contextmanager
def writing(path: Path, half: Path) -> Iterator[None]:
    """Turn what the disk refuses into one sentence, and remove what is half-written."""
    try:
        yield
    except OSError as error:
        remove(half, quiet=True)
        raise RunError(_sentence(path, error)) from error
    except BaseException:
        remove(half, quiet=True)
        raise


def _sentence(path: Path, error: OSError) -> str:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return (
            f"there is no space left on the disk for {str(path)!r}; "
            "free some and go on with --resume"
        )
    return f"{str(path)!r} cannot be written: {error.strerror or error}"


def sync_folder(folder: Path) -> None:
    """Wait until the folder's names are on the disk."""
    if os.name == "nt":  # a folder cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def parquet_bytes(table: pa.Table, **options: Any) -> memoryview:
    """Return the table as the bytes of a Parquet file: the same for the same table."""
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, **options)
    return memoryview(buffer.getvalue())


def make_folder(folder: Path) -> None:
    """Make a folder of a run, and those above it; one that is there stays.

    Raises:
        RunError: if it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"the run folder {str(folder)!r} cannot be made: {error.strerror or error}"
        ) from error


def remove(path: Path, *, quiet: bool = False) -> None:
    """Remove a file, a link or a whole folder, if it is there.

    Raises:
        RunError: if it cannot be removed, unless ``quiet``.
    """
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        if not quiet:
            raise RunError(f"{str(path)!r} cannot be removed: {error.strerror or error}") from error


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
