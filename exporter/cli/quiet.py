"""Keep off the terminal what image libraries write about damaged files: the rows say it."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# How their lines begin; every other line is passed on.
_NOISE = re.compile(
    rb"libpng (error|warning): |Corrupt JPEG data: |Premature end of JPEG file|Invalid JPEG file"
    rb"|Unsupported marker type |Inconsistent progression sequence|\[ ?(WARN|ERROR):\d+@"
    rb"|tempfile\.tif: |TIFF[A-Z]\w+: |(ZIP|LZW|JPEG|Fax3|LZMA|ZSTD|WebP)\w*Decode\w*: "
)

_LOGGERS = ("pydicom", "tifffile")


@contextmanager
def quiet_codecs() -> Iterator[None]:
    """Pass standard error on line by line, but for what libpng, libjpeg, libtiff and OpenCV write.

    They write to the file descriptor. Python's own messages go straight to the terminal meanwhile.
    Where ``sys.stderr`` is not the process's own, nothing is done.
    """
    stream = sys.stderr
    if stream is not sys.__stderr__ or stream is None or stream.fileno() != 2:
        yield
        return
    terminal = os.dup(2)
    reading, writing = os.pipe()
    passing = threading.Thread(target=_pass_on, args=(reading, terminal), daemon=True)
    try:
        passing.start()
    except RuntimeError:  # the system starts no more threads
        yield
        return
    stream.flush()
    os.dup2(writing, 2)
    os.close(writing)
    encoding, errors = stream.encoding, stream.errors
    # Not closed: a logger may have got hold of it meanwhile.
    own = os.fdopen(os.dup(terminal), "w", buffering=1, encoding=encoding, errors=errors)
    sys.stderr = own
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(PIL|pydicom)\b")
            for name in _LOGGERS:
                logging.getLogger(name).addFilter(_nothing)
            yield
    finally:
        for name in _LOGGERS:
            logging.getLogger(name).removeFilter(_nothing)
        with suppress(OSError, ValueError):  # it may take nothing, or the user's code closed it
            own.flush()
        sys.stderr = stream
        os.dup2(terminal, 2)  # the last end that writes is closed, unless a child holds it
        passing.join(timeout=1)


def _nothing(_: logging.LogRecord) -> bool:
    return False


def _pass_on(reading: int, terminal: int) -> None:
    with os.fdopen(reading, "rb", buffering=0) as lines:
        rest = b""
        while part := lines.read(1 << 16):
            *whole, rest = (rest + part).split(b"\n")
            kept = b"".join(line + b"\n" for line in whole if not _NOISE.match(line))
            with suppress(OSError):  # whoever writes must never wait
                os.write(terminal, kept)
        with suppress(OSError):
            os.write(terminal, b"" if _NOISE.match(rest) else rest)
