"""Stable keys and names: the same in every run and on every machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any

from PIL import Image

from exporter.images.files import as_text
from exporter.images.pixels import as_array

_VERSIONS = (
    *("ETag", "etag", "md5Hash", "md5", "content_md5", "blob_id", "checksum", "generation"),
    *("LastModified", "last_modified", "updated", "mtime", "modified", "created"),
)
"""What stores call that which changes with a file's contents, the surest first."""


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
    if isinstance(contents, Image.Image):
        contents = f"{contents.mode} {contents.size}".encode() + contents.tobytes()
    elif not isinstance(contents, bytes):
        values = as_array(contents)
        contents = f"{values.dtype.str} {values.shape}".encode() + values.tobytes()
    return blake2b(contents, digest_size=16).hexdigest()


def hash_path(path: str) -> str:
    """Return the key of an image that cannot be read: a hash of its path, 32 hexadecimal digits."""
    return hash_contents(f"path:{path}".encode("utf-8", "surrogateescape"))


def key_of_listing(path: str, info: Mapping[str, Any], *more: object) -> str:
    """Return the key of an image that is not read yet.

    Args:
        path: its path in the set.
        info: what the store says of its file: the size, and what changes with the contents.
        more: where in the file it is.
    """
    version = next((info[name] for name in _VERSIONS if info.get(name) is not None), "")
    told = (path, info.get("size"), version, *more)
    return hash_contents("\0".join(map(str, ("listed", *told))).encode("utf-8", "surrogateescape"))


def unique_ids(keys: Iterable[str]) -> list[str]:
    """Return each key the first time it comes, then ``key-2``, ``key-3`` and so on.

    >>> unique_ids(["a", "b", "a", "a"])
    ['a', 'b', 'a-2', 'a-3']
    """
    seen: dict[str, int] = {}
    ids = []
    for key in keys:
        count = seen[key] = seen.get(key, 0) + 1
        ids.append(key if count == 1 else f"{key}-{count}")
    return ids


def unique_texts(paths: Iterable[str]) -> dict[str, str]:
    r"""Return each path as text; two that differ only in what cannot be shown get different texts.

    >>> unique_texts(["a.jpg", "caf\udce9", "caf\udcea"])
    {'a.jpg': 'a.jpg', 'caf\udce9': 'caf�', 'caf\udcea': 'caf��'}
    """
    texts = dict.fromkeys(paths, "")
    taken = set(texts)
    for path in texts:
        text = as_text(path)
        while text != path and text in taken:
            text += "�"
        taken.add(text)
        texts[path] = text
    return texts
