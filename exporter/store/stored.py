"""The files of a run in a store, such as ``s3://bucket/run``: the same names, and whole objects.

A file is written by one request, so that it is there as a whole or not at all; what a writer makes
is built on the disk and uploaded when it is whole. A store has no links and no locks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, TypeVar

from exporter.errors import RunError
from exporter.store.files import LARGEST, RunFiles
from exporter.stores import Address, answering, file_system, open_at, place_of, tried

_PIECE = 1 << 23
"""Bytes that are fetched at once where a file is read from its beginning to its end."""

_V = TypeVar("_V")


def run_files(run: str | Path | Address) -> RunFiles:
    """Return what opens the files of a run on the disk or in a store.

    Raises:
        ConfigError: if it is an address that nothing here can open.
    """
    where = place_of(run)
    return StoredFiles(where) if isinstance(where, Address) else RunFiles(where)


class StoredFiles(RunFiles):
    """The files of a run at an address; `RunFiles` says what each method does.

    Attributes:
        run: the address.
    """

    look = 2.0

    def __init__(self, run: Address) -> None:
        self.run = run
        self._system, root = file_system(run)
        self._root = root.rstrip("/")

    def place(self, name: str) -> Path:
        """Refuse: a file in a store has no path.

        Raises:
            RunError: always.
        """
        raise RunError(f"{self._called(name)!r} is in a store; copy the run to a folder for this")

    def modified(self, name: str) -> int | None:
        """Return when a file was written, in ns since 1970; None where nothing is there."""
        with suppress(FileNotFoundError):
            told = self._ask(name, "read", self._system.modified)
            return int(told.timestamp() * 1e9)
        return None

    def exists(self, name: str) -> bool:
        """Say whether anything is there."""
        return self._info(name) is not None

    def is_folder(self, name: str) -> bool:
        """Say whether there are files below this name."""
        info = self._info(name)
        return info is not None and info["type"] == "directory"

    def names(self, folder: str = "") -> list[str]:
        """Return the names in a folder, sorted; none where it is not there."""
        try:
            paths = self._ask(folder, "read", lambda at: self._system.ls(at, detail=False))
        except (FileNotFoundError, NotADirectoryError):
            return []
        # A store lists a folder itself where an object was made to stand for it.
        own = self._at(folder).rstrip("/").lstrip("/")
        inside = (str(path).rstrip("/").lstrip("/") for path in paths)
        return sorted(path.rpartition("/")[2] for path in inside if path != own)

    def below(self, folder: str) -> Iterator[str]:
        """Yield the names of all that is below a folder."""
        start = len(self._at("").strip("/")) + 1
        try:
            paths = self._ask(folder, "read", self._system.find)
        except FileNotFoundError:
            return
        yield from (str(path).lstrip("/")[start:] for path in sorted(paths))

    def open(self, name: str, most: int = LARGEST, piece: int | None = None) -> IO[bytes]:
        """Open a file for reading; only what is read of it is fetched.

        Args:
            name: the file.
            most: bytes that it may have.
            piece: bytes that are fetched at once.
        """
        where = self._called(name)
        try:
            file = open_at(where, piece)
        except OSError as error:
            said = "it is not there" if isinstance(error, FileNotFoundError) else str(error)
            raise RunError(f"{where!r} cannot be read: {said}") from error
        size = file.seek(0, 2)
        if size > most:
            raise RunError(
                f"{where!r} has {size:,} bytes, more than the {most:,} that such a file may have; "
                "remove it"
            )
        file.seek(0)
        return file

    def sha256(self, name: str) -> str:
        """Return the SHA-256 of a file in hexadecimal, read in pieces."""
        digest = hashlib.sha256()
        with self.open(name, piece=_PIECE) as file:
            try:
                while piece := file.read(_PIECE):
                    digest.update(piece)
            except OSError as error:
                raise RunError(str(error)) from error
        return digest.hexdigest()

    def write(self, name: str, content: bytes | memoryview) -> None:
        """Write a file whole, in the place of one that is there."""
        self._ask(name, "written", lambda at: self._system.pipe_file(at, bytes(content)))

    def make_folder(self, name: str = "") -> None:
        """Do nothing: in a store a folder is the files that are in it."""
        self.parts(name or "_")

    def rename(self, name: str, to: str) -> None:
        """Give a file another name, in the place of a file there."""
        target = self._at(to)
        try:
            self._ask(name, "renamed", lambda at: self._system.cp_file(at, target))
        except FileNotFoundError:
            raise RunError(f"{self._called(name)!r} cannot be renamed: it is not there") from None
        self.remove(name)

    def remove(self, name: str, *, quiet: bool = False) -> None:
        """Remove a file or a whole folder, if it is there."""
        try:
            with suppress(FileNotFoundError):
                info = self._info(name)
                if info is not None:
                    folder = info["type"] == "directory"
                    self._ask(name, "removed", lambda at: self._system.rm(at, recursive=folder))
        except RunError:
            if not quiet:
                raise

    @contextmanager
    def staged(self, name: str) -> Iterator[RunFiles]:
        """Have a folder of the run built on the disk, and upload it when it is whole.

        Of a folder that stays empty nothing changes. Links are left out.
        """
        with TemporaryDirectory(prefix="exporter-") as place:
            files = RunFiles(Path(place))
            files.make_folder(name)
            yield files
            built = [n for n in sorted(files.below(name)) if not files.place(n).is_symlink()]
            if not built:
                return
            stale = set(self.below(name)).difference(built)
            here, there = [str(files.place(n)) for n in built], list(map(self._at, built))
            # Files, and not their bytes: so the store is told of what kind each is.
            self._ask(name, "written", lambda _: self._system.put(here, there))
            for former in stale:
                self.remove(former)

    def _at(self, name: str) -> str:
        return "/".join([self._root, *(self.parts(name) if name else ())])

    def _called(self, name: str) -> str:
        return "/".join([str(self.run), *(self.parts(name) if name else ())])

    def _info(self, name: str) -> dict[str, Any] | None:
        with suppress(FileNotFoundError, NotADirectoryError):
            return dict(self._ask(name, "read", self._system.info))
        return None

    def _ask(self, name: str, what: str, call: Callable[[str], _V]) -> _V:
        at = self._at(name)
        with answering(f"{self._called(name)!r} cannot be {what}", RunError):
            return tried(lambda: call(at))
