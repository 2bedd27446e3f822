"""The one way in which files of a run are opened: beneath the run, and never through a link.

A run folder may come from somebody else, and what it names is data. So no name leads out of it,
only regular files are opened and only up to a size, and what is written is built under a name that
nothing has yet. A file is there as a whole or not at all.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from os.path import basename
from pathlib import Path
from stat import S_ISDIR, S_ISLNK, S_ISREG
from typing import IO

from exporter.errors import RunError, reason
from exporter.stores import Place

LARGEST = 8 << 30
"""Bytes of the largest file: Arrow ends each of a shard's three columns of bytes at 2 GiB."""

DEEPEST = 100
"""Folders of a run in one another; its own are at most six."""

# A pipe without a writer would block; on systems without these flags ``lstat`` has to do.
_AS_IT_IS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_FOLDER = getattr(os, "O_DIRECTORY", 0)


class RunFiles:
    """The files of a run, by their names relative to it, such as ``shards/00000.parquet``.

    Everything raises `RunError`, one sentence, for a name that leads out of the run or through a
    link, for what is no regular file, and for what the system refuses.

    Attributes:
        run: the run folder.
        look: seconds between two looks at what other processes have written.
    """

    run: Place
    look = 0.2

    def __init__(self, run: Path) -> None:
        self.run = self._folder = run

    def place(self, name: str) -> Path:
        """Return where a name leads; the folders on the way are real ones, where they are there."""
        return Path(self._where(name))

    def _where(self, name: str) -> str:
        parts = [str(self._folder), *self.parts(name)]
        for depth in range(2, len(parts)):
            if (status := _status(path := "/".join(parts[:depth]))) is None:
                break
            if not S_ISDIR(status.st_mode):
                raise _refusal(path, status, "a folder")
        return "/".join(parts)

    def parts(self, name: str) -> list[str]:
        """Return the folders on the way to a file and its own name, which stay in the run."""
        parts = name.split("/")
        # Not `Path.name`: Python keeps every part of a path, and there may be a file per image.
        if "\0" in name or any(p in ("", ".", "..") or basename(p) != p for p in parts):  # noqa: PTH119
            raise RunError(
                f"{name!r} is not a file of the run {str(self.run)!r}; names may not lead out of it"
            )
        return parts

    def modified(self, name: str) -> int | None:
        """Return when a file was written, in ns since 1970; None where nothing is there."""
        status = self.status(name)
        return None if status is None else status.st_mtime_ns

    def status(self, name: str) -> os.stat_result | None:
        """Return the status of a file, a folder or a link itself; None where nothing is there."""
        return _status(self._where(name))

    def exists(self, name: str) -> bool:
        """Say whether anything is there."""
        return self.status(name) is not None

    def is_folder(self, name: str) -> bool:
        """Say whether a folder, not a link to one, is there."""
        status = self.status(name)
        return status is not None and S_ISDIR(status.st_mode)

    def names(self, folder: str = "") -> list[str]:
        """Return the names in a folder, sorted; none where it is not there."""
        path = self._where(f"{folder}/_").removesuffix("/_") if folder else str(self._folder)
        try:
            with os.scandir(path) as entries:
                return sorted(entry.name for entry in entries)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RunError(f"the folder {path!r} cannot be read: {reason(error)}") from error

    def below(self, folder: str) -> Iterator[str]:
        """Yield the names of all that is below a folder and is no folder itself.

        Raises:
            RunError: if folders are nested deeper than any that the exporter makes.
        """
        folders = [folder]
        while folders:
            folder = folders.pop()
            if folder.count("/") > DEEPEST:
                raise RunError(
                    f"{str(self.run / folder.split('/')[0])!r} has folders nested more than "
                    f"{DEEPEST} deep, which the exporter does not make; remove them"
                )
            for name in self.names(folder):
                inner = f"{folder}/{name}"
                if self.is_folder(inner):
                    folders.append(inner)
                else:
                    yield inner

    def open(self, name: str, most: int = LARGEST) -> IO[bytes]:
        """Open a file for reading."""
        path = self._where(name)
        try:
            with _folder_of(self._folder, name) as folder:
                file = open_regular(path, os.O_RDONLY, "rb", folder)
        except OSError as error:
            raise RunError(f"{path!r} cannot be read: {reason(error)}") from error
        if (size := os.fstat(file.fileno()).st_size) > most:
            file.close()
            raise RunError(
                f"{path!r} has {size:,} bytes, more than the {most:,} that such a file may "
                "have; remove it"
            )
        return file

    def read(self, name: str, most: int = LARGEST) -> bytes:
        """Return what is in a file of at most so many bytes."""
        with self.open(name, most) as file:
            return file.read()

    def sha256(self, name: str) -> str:
        """Return the SHA-256 of a file in hexadecimal, read in pieces."""
        with self.open(name) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]

    def write(self, name: str, content: bytes | memoryview) -> None:
        """Write a file under a new name, wait for the disk, and rename it into place."""
        with self.built(name) as half:
            with open_regular(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            half.replace(self.place(name))

    @contextmanager
    def built(self, name: str) -> Iterator[Path]:
        """Give a new name beside the final one, and remove what is half-written after an error."""
        path = self.place(name)
        half = path.with_name(f".{path.name.removesuffix('.parquet')}.{secrets.token_hex(6)}.tmp")
        try:
            yield half
            sync_folder(path.parent)
        except OSError as error:
            _remove(half, quiet=True)
            raise not_written(path, error) from error
        except BaseException:
            _remove(half, quiet=True)
            raise

    def make_folder(self, name: str = "") -> None:
        """Make a folder of the run, or the run and the folders above; one that is there stays."""
        path = self.place(name) if name else self._folder
        try:
            path.mkdir(parents=not name, exist_ok=True)
        except OSError as error:
            raise RunError(
                f"the run folder {str(path)!r} cannot be made: {reason(error)}"
            ) from error
        if name:
            self.place(f"{name}/_")  # a link to a folder is there, too

    def rename(self, name: str, to: str) -> None:
        """Give a file, a link itself or a folder another name, in the place of a file there."""
        path = self.place(name)
        try:
            path.replace(self._where(to))
        except OSError as error:
            raise RunError(f"{str(path)!r} cannot be renamed: {reason(error)}") from error

    def remove(self, name: str, *, quiet: bool = False) -> None:
        """Remove a file, a link itself or a folder; quietly, one that cannot be removed is left."""
        _remove(self.place(name), quiet=quiet)


def open_regular(path: Path | str, flags: int, mode: str, folder: int | None = None) -> IO[bytes]:
    """Open a regular file, not through a link, and not waiting for anybody.

    Args:
        path: the file.
        flags: those of ``os.open``.
        mode: that of ``open``, which the flags have to fit.
        folder: a descriptor of its folder, where that is open.

    Raises:
        RunError: if it is anything else.
        OSError: if the system refuses.
    """
    if (status := _status(path)) is not None and not S_ISREG(status.st_mode):
        raise _refusal(path, status, "a regular file")
    name = path if folder is None else str(path).rpartition("/")[2]
    file: IO[bytes] = os.fdopen(os.open(name, flags | _AS_IT_IS, 0o666, dir_fd=folder), mode)
    if not S_ISREG((status := os.fstat(file.fileno())).st_mode):
        file.close()
        raise _refusal(path, status, "a regular file")
    return file


@contextmanager
def _folder_of(run: Path, name: str) -> Iterator[int | None]:
    """Open the folder of a file, each folder on the way from the one before and none by a link.

    So what is opened in it is in the run, whatever somebody else renames meanwhile. None on
    systems that cannot.
    """
    if os.open not in os.supports_dir_fd:
        yield None
        return
    folder = os.open(run, os.O_RDONLY | _FOLDER)
    try:
        for part in name.split("/")[:-1]:
            outer, folder = folder, os.open(part, os.O_RDONLY | _FOLDER | _AS_IT_IS, dir_fd=folder)
            os.close(outer)
        yield folder
    finally:
        os.close(folder)


def sync_folder(folder: Path) -> None:
    """Wait until the folder's names are on the disk."""
    if os.name == "nt":  # a folder cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _status(path: Path | str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:  # a name with a null byte
        raise RunError(f"{str(path)!r} cannot be read: {reason(error)}") from error


def _refusal(path: Path | str, status: os.stat_result, expected: str) -> RunError:
    if S_ISLNK(status.st_mode):
        return RunError(
            f"{str(path)!r} is a link, and nothing of a run is opened through links; remove it, or "
            "put there what it leads to"
        )
    return RunError(f"{str(path)!r} is not {expected}; remove it")


def _remove(path: Path, *, quiet: bool) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        if not quiet:
            raise RunError(f"{str(path)!r} cannot be removed: {reason(error)}") from error
    except RecursionError:
        if not quiet:
            raise RunError(
                f"{str(path)!r} cannot be removed: its folders are nested too deep; remove it "
                "with a tool of the system"
            ) from None


def not_written(path: Path, error: OSError) -> RunError:
    """Return the error that says why something could not be written."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return RunError(
            f"there is no space left on the disk for {str(path)!r}; "
            "free some and go on with --resume"
        )
    return RunError(f"{str(path)!r} cannot be written: {reason(error)}")
