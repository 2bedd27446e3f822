"""Addresses of stores, such as ``s3://bucket/run``, and what is read and written there by fsspec.

Only what a user types is taken for an address. Who may read and write there is known to the store's
own library, from its own files and variables; nothing of that is looked at or kept here.
"""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar

from exporter.errors import ConfigError, ExporterError, one_line

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(::[A-Za-z0-9+.-]+)*://")
"""A protocol has two letters at least: one is a drive of Windows."""

_LOST = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")

_SECRET = re.compile(r"://[^/@\s]*:[^/@\s]*@")

_ON_DISK = ("file", "local")
_WEB = ("http", "https")

WAITS = (0.5, 2.0, 8.0)
"""Seconds before each further try of what a store did not answer; many libraries try again, too."""

_FINAL = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError, ImportError)
"""Answers that another try would not change."""

NEAR = 1 << 17
"""Bytes that are read beyond those asked for of an open file, as they are often asked for next."""

_V = TypeVar("_V")


class Address(PurePosixPath):
    """A place in a store, joined and taken apart as a path is.

    Examples:
        >>> str(Address("s3://bucket/runs") / "a"), Address("s3://bucket/runs").name
        ('s3://bucket/runs/a', 'runs')
    """

    __slots__ = ()

    def __str__(self) -> str:
        return super().__str__().replace(":/", "://", 1)

    def absolute(self) -> Address:
        """Return the address, which starts from no folder."""
        return self

    resolve = absolute


Place = Path | Address
"""A folder on the disk, or an address."""


def is_address(where: object) -> bool:
    """Say whether something is the text of an address, or one.

    >>> [is_address(text) for text in ("s3://bucket/run", "photos/a", "C:/photos", "hf:name")]
    [True, False, False, False]
    """
    return isinstance(where, str | Address) and _ADDRESS.match(str(where)) is not None


def place_of(where: str | Path | Address, start: Place = Path()) -> Place:
    """Return an address, or a path; ``file://`` is a path.

    Args:
        where: as it was typed or recorded.
        start: the folder that a path is relative to.

    Raises:
        ConfigError: if several addresses are chained, one holds a password, or one was made a path
            and lost its slashes.
    """
    if not is_address(where):
        path = Path(where)
        if path.parts and _LOST.fullmatch(path.parts[0]) and not Path(path.parts[0]).exists():
            raise ConfigError(f"{str(path)!r} was an address and is a path; give it as text")
        return start / path
    text = str(where)
    _refuse(text)
    protocol, _, rest = text.partition("://")
    return Path(rest) if protocol in _ON_DISK else Address(text)


def on_disk(where: str | Place, why: str) -> Path:
    """Return the path of a folder, for what is done on the disk alone.

    Args:
        where: as it was typed.
        why: such as ``a comparison is written to the disk``.

    Raises:
        ConfigError: if it is an address.
    """
    place = place_of(where)
    if isinstance(place, Address):
        raise ConfigError(f"{why}; give a folder instead of {str(where)!r}")
    return place


def is_web(where: object) -> bool:
    """Say whether something is a web address, ``http`` or ``https``."""
    return is_address(where) and str(where).partition("://")[0].lower() in _WEB


def _refuse(address: str) -> None:
    """Refuse an address that holds a secret, or leads on to another one."""
    shown = _SECRET.sub("://", address)
    if is_web(address):
        shown = shown.partition("?")[0]
    if "::" in address:
        raise ConfigError(f"{shown!r} chains several addresses; give a single one")
    if shown != address:
        raise ConfigError(
            f"the address {shown!r} has a password or a key in it, which would be recorded: leave "
            "it out, and say who may read there as the library of the store takes it"
        )


def file_system(where: str | Address) -> tuple[Any, str]:
    """Return the file system of an address, and what the address is called there.

    Raises:
        ConfigError: if there is no such protocol, its library is missing, or a password is part of
            the address.
    """
    from fsspec.core import url_to_fs

    _refuse(str(where))
    try:
        system, root = url_to_fs(str(where))
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"{str(where)!r} cannot be opened: {one_line(error)}; stores need a library of their "
            "own, such as pip install 'exporter[stores]' for s3://"
        ) from error
    cache = getattr(system, "dircache", None)
    if cache is not None and getattr(cache, "use_listings_cache", False):
        # What other processes write has to be seen.
        cache.use_listings_cache = False
        cache.clear()
    return system, str(root)


@contextmanager
def answering(what: str, error: type[Exception]) -> Iterator[None]:
    """Turn whatever the library of a store raises into one sentence; each has errors of its own.

    Args:
        what: begins the sentence, such as ``'s3://bucket/run' cannot be read``.
        error: is raised; what is not there is a ``FileNotFoundError`` as before.
    """
    try:
        yield
    except (ExporterError, FileNotFoundError, MemoryError):
        raise
    except Exception as failure:
        raise error(f"{what}: {one_line(failure)}") from failure


def tried(call: Callable[[], _V]) -> _V:
    """Return what a store answers; ask again, a little later each time, where it does not."""
    for wait in WAITS:
        try:
            return call()
        except Exception as error:
            status = getattr(error, "status", 500)  # of a web server
            unanswered = status >= 500 or status in (408, 429) if isinstance(status, int) else True
            if isinstance(error, (*_FINAL, ExporterError, MemoryError)) or not unanswered:
                raise
        time.sleep(wait)
    return call()


class _Ranges(io.RawIOBase):
    """A file in a store, of which only the bytes that are asked for are fetched."""

    def __init__(self, where: str) -> None:
        self._system, self._path = file_system(where)
        self.where, self._at = where, 0
        self.size = int(tried(lambda: self._system.info(self._path)["size"]))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readall(self) -> bytes:
        return self._fetch(self.size)

    def readinto(self, buffer: Any) -> int:
        content = self._fetch(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def _fetch(self, count: int) -> bytes:
        start, stop = self._at, min(self._at + count, self.size)
        content = read_range(self.where, start, stop - start) if start < stop else b""
        self._at += len(content)
        return content


def open_at(where: str | Address, near: int | None = None) -> IO[bytes]:
    """Open a file at an address, of which only what is read is fetched.

    Args:
        where: the address.
        near: bytes that are fetched at once at least; `NEAR` if None.

    Raises:
        OSError: if there is none, or the store does not answer, then or later.
    """
    with answering(repr(str(where)), OSError):
        return io.BufferedReader(_Ranges(str(where)), near or NEAR)


def read_range(where: str, start: int, count: int) -> bytes:
    """Return bytes of a file at an address.

    Raises:
        OSError: if it ends before, is not there, or the store does not answer.
    """
    system, path = file_system(where)
    with answering(repr(where), OSError):
        content: bytes = tried(lambda: system.cat_file(path, start=start, end=start + count))
    if len(content) != count:
        raise OSError(f"{len(content):,} bytes came of the {count:,} that it should have")
    return content
