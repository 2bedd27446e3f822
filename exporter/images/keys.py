"""Stable keys: the hash of an image's bytes, the same in every run and on every machine."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from itertools import chain

_BLOCK = 1 << 20
_PATHS_A_TASK = 256
# Opening a named pipe for reading would otherwise wait for a writer for ever.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def hash_bytes(data: bytes | memoryview, *more: bytes | memoryview) -> str:
    """Return the BLAKE2b-128 hash of some bytes.

    Args:
        data: the bytes.
        *more: bytes that follow them.

    Returns:
        32 hexadecimal digits.

    >>> hash_bytes(b"a", b"b") == hash_bytes(b"ab")
    True
    """
    digest = blake2b(data, digest_size=16)
    for part in more:
        digest.update(part)
    return digest.hexdigest()


def hash_path(path: str) -> str:
    """Return the key of an image whose bytes cannot be read: a hash of its path.

    Args:
        path: the path as the run shows it.

    Returns:
        32 hexadecimal digits.
    """
    return hash_bytes(f"path:{path}".encode("utf-8", "surrogateescape"))


def hash_files(paths: Sequence[str], *, workers: int = 0) -> list[tuple[str | None, str | None]]:
    """Hash files in threads, one read each.

    Args:
        paths: the files, as the operating system names them.
        workers: threads; 0 chooses.

    Returns:
        For each path (key, None), or (None, why it cannot be read), in order.
    """
    threads = workers or min(16, 2 * (os.cpu_count() or 1))
    tasks = [paths[start : start + _PATHS_A_TASK] for start in range(0, len(paths), _PATHS_A_TASK)]
    if len(tasks) < 2:
        return [_hash_file(path) for path in paths]
    with ThreadPoolExecutor(threads, thread_name_prefix="hash") as pool:
        return list(chain.from_iterable(pool.map(_hash_some, tasks)))


def unique_ids(keys: Iterable[str]) -> list[str]:
    """Number repeated keys in order.

    Args:
        keys: a key an image, in plan order.

    Returns:
        The key itself the first time, then ``key-2``, ``key-3`` …

    >>> unique_ids(["a", "b", "a", "a"])
    ['a', 'b', 'a-2', 'a-3']
    """
    seen: dict[str, int] = {}
    ids = []
    for key in keys:
        count = seen[key] = seen.get(key, 0) + 1
        ids.append(key if count == 1 else f"{key}-{count}")
    return ids


def read_file(path: str) -> bytes:
    """Read a regular file whole.

    Args:
        path: the file, as the operating system names it.

    Returns:
        Its bytes.

    Raises:
        OSError: if it cannot be read, or is a folder, a pipe or a device.
    """
    return b"".join(_blocks(path))


def reason(error: OSError | ValueError) -> str:
    """Say why a file or folder cannot be read, without its path.

    Args:
        error: what the operating system said.

    Returns:
        A clause such as ``no such file or directory``.
    """
    text = getattr(error, "strerror", None) or str(error)
    return text[:1].lower() + text[1:]


def _hash_some(paths: Sequence[str]) -> list[tuple[str | None, str | None]]:
    return [_hash_file(path) for path in paths]


def _hash_file(path: str) -> tuple[str | None, str | None]:
    try:
        digest = blake2b(digest_size=16)
        for block in _blocks(path):
            digest.update(block)
    # A path with a null character is a ValueError.
    except (OSError, ValueError) as error:
        return None, f"the file cannot be read: {reason(error)}"
    return digest.hexdigest(), None


def _blocks(path: str) -> Iterable[bytes]:
    file = os.open(path, _FLAGS)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it is not a regular file")
        # One byte more than the file holds, so that one read sees its end.
        size = min(status.st_size + 1, _BLOCK)
        while block := os.read(file, size):
            yield block
            if len(block) < size < _BLOCK:
                return
    finally:
        os.close(file)
