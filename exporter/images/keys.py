"""Stable keys: the hash of an image's contents, the same in every run and on every machine."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

from PIL import Image

from exporter.images.pixels import as_array


def hash_contents(contents: Any) -> str:
    """Return the key of what a source gives for an image.

    Args:
        contents: a file's bytes, which are hashed as they are, or a Pillow image, an array or a
            tensor, whose pixels are hashed with their type and shape.

    Returns:
        BLAKE2b-128, 32 hexadecimal digits.

    Raises:
        ImageError: if it is none of these.

    Examples:
        >>> hash_contents(b"a")
        '27c35e6e9373877f29e562464e46497e'
    """
    if isinstance(contents, bytes):
        return blake2b(contents, digest_size=16).hexdigest()
    if isinstance(contents, Image.Image):
        head, pixels = f"{contents.mode} {contents.size}", contents.tobytes()
    else:
        values = as_array(contents)
        head, pixels = f"{values.dtype.str} {values.shape}", values.tobytes()
    digest = blake2b(head.encode(), digest_size=16)
    digest.update(pixels)
    return digest.hexdigest()


def hash_path(path: str) -> str:
    """Return the key of an image that cannot be read: a hash of its path.

    Returns:
        32 hexadecimal digits.
    """
    return hash_contents(f"path:{path}".encode("utf-8", "surrogateescape"))


def unique_ids(keys: Iterable[str]) -> list[str]:
    """Number repeated keys in order.

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
