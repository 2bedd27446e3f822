"""What may be recorded of paths: a relative one as it was typed, of an absolute one the last part.

Of a web address, who logs in there is left out. Run folders are given away, and an absolute path
tells of the machine and of who uses it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_ROOT = r"(?:/(?!/)|~[^\\/]*[\\/]|[A-Za-z]:[\\/]|\\\\)"
# A path that a text is, or ends with after = or : or a comma; else one in quotes or brackets.
# The slashes of a web address are none.
_ABSOLUTE = re.compile(
    rf"""(?:^|(?<=[=:,])){_ROOT}(?:.*[\\/])?|(?<=['"(]){_ROOT}(?:[^'")]*[\\/])?"""
)
# What stands before the @ of a web address, or has a password; Azure's container@account has none.
_LOGIN = re.compile(r"(?<=://)(?:[^/@\s:]*:[^/@\s]*@|(?<=https://)[^/@\s]+@)")


def without_folders(text: str) -> str:
    """Return text in which an absolute path is its last part only, and no address has a password.

    >>> [without_folders(text) for text in ("/home/me/photos", "--out=~/runs/a", "a/b")]
    ['photos', '--out=a', 'a/b']
    >>> without_folders("ftp://me:secret@example.org/maps")
    'ftp://example.org/maps'
    """
    return _LOGIN.sub("", _ABSOLUTE.sub("", text.rstrip("/") or "/"))


def command_without_folders(command: str) -> str:
    """Return a command line with no absolute path among its words."""
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    named = any("/" in word for word in words)
    return shlex.join(map(without_folders, words)) if named else command


def values_without_folders(value: Any, shown: Callable[[str], str] = str) -> Any:
    """Return JSON values with no absolute path among them.

    Args:
        value: what settings hold; what JSON has no form for becomes text.
        shown: what is then made of each text, but for the names in mappings.
    """
    if isinstance(value, Mapping):
        return {str(name): values_without_folders(part, shown) for name, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [values_without_folders(part, shown) for part in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return shown(without_folders(str(value)))
