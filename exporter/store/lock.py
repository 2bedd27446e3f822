"""One writer a run folder: a lock that the system releases when a process dies."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO

from exporter.errors import RunError
from exporter.store.layout import LOCK

_TAKEN = frozenset({errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN})


class RunLock:
    """The exclusive right to write a run folder, held until ``release`` or the process' end.

    Where the file system has no locks (some network ones), nothing is held.

    Args:
        run: the run folder; it must exist.

    Raises:
        RunError: if another process, or another part of this one, writes the run.
    """

    def __init__(self, run: Path) -> None:
        self._path = run / LOCK
        self._file: IO[bytes] | None = None
        while self._file is None:
            file = _open(self._path)
            try:
                _take(file)
            except OSError as error:
                file.close()
                if error.errno in _TAKEN:
                    raise RunError(
                        f"another process is writing the run {str(run)!r}; "
                        "wait until it is done, or use another folder"
                    ) from None
                return
            # Its last owner may have removed the file between our opening and locking it.
            if _same_file(file, self._path):
                self._file = file
            else:
                file.close()

    def release(self) -> None:
        """Give the run folder back; harmless when repeated."""
        if self._file is not None:
            with suppress(OSError):  # an open file cannot be removed on Windows
                self._path.unlink(missing_ok=True)
            self._file.close()
            self._file = None


def _open(path: Path) -> IO[bytes]:
    try:
        return path.open("ab")
    except OSError as error:
        raise RunError(
            f"the run folder {str(path.parent)!r} cannot be written: {error.strerror or error}"
        ) from error


def _take(file: IO[bytes]) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _same_file(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
