"""Who may write a run folder: a lock that the system releases when a process dies."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import IO

from exporter.errors import BusyError, RunError
from exporter.store.files import open_regular
from exporter.store.layout import LOCK
from exporter.stores import Address, Place

_TAKEN = frozenset({errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN})


class RunLock:
    """The right to write a run folder, held until ``release`` or the process' end.

    Planning, finishing and the writers hold it alone; workers, each of which writes shards of its
    own, share it. Where the file system has no locks (some network ones), or the run is in a store,
    nothing is held; on Windows workers hold nothing.

    Raises:
        BusyError: if another process, or another part of this one, is in the way.
        RunError: if the folder cannot be written.
    """

    def __init__(self, run: Place, *, shared: bool = False) -> None:
        self._shared = shared
        self._file: IO[bytes] | None = None
        if isinstance(run, Address):
            return
        self._run, self._path = run, run / LOCK
        while self._file is None:
            file = _open(self._path)
            try:
                self._take(file)
            except RunError:
                file.close()
                raise
            # Its last owner may have removed the file between our opening and locking it.
            if _same_file(file, self._path):
                self._file = file
            else:
                file.close()

    def hold(self, *, shared: bool) -> None:
        """Let workers in, or hold the lock alone again.

        Raises:
            BusyError: if another process is in the way.
        """
        if self._file is not None:
            self._shared = shared
            self._take(self._file)

    def release(self) -> None:
        """Give the run folder back; harmless when repeated."""
        if self._file is not None:
            # Whoever shares the lock has to find the file that the others have locked.
            if not self._shared:
                with suppress(OSError):  # an open file cannot be removed on Windows
                    self._path.unlink(missing_ok=True)
            self._file.close()
            self._file = None

    def _take(self, file: IO[bytes]) -> None:
        try:
            _lock(file, shared=self._shared)
        except OSError as error:
            if error.errno in _TAKEN:
                self._shared = True  # it is not ours to remove
                raise BusyError(
                    f"another process is writing the run {str(self._run)!r}; "
                    "wait until it is done, or use another folder"
                ) from None


def _open(path: Path) -> IO[bytes]:
    try:
        return open_regular(path, os.O_RDWR | os.O_CREAT, "r+b")
    except OSError as error:
        raise RunError(
            f"the run folder {str(path.parent)!r} cannot be written: {error.strerror or error}"
        ) from error


def _lock(file: IO[bytes], *, shared: bool) -> None:
    if sys.platform == "win32":
        import msvcrt

        file.seek(0)
        with suppress(OSError) if shared else nullcontext():
            msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK if shared else msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(file, kind | fcntl.LOCK_NB)


def _same_file(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.lstat())
    except FileNotFoundError:
        return False
