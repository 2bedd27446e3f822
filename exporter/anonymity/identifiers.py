"""What identifies the user and the machine, and every form in which a file may have it."""

from __future__ import annotations

import getpass
import html
import json
import os
import platform
import re
import subprocess
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

_GENERAL = frozenset(
    "root user users admin administrator home localhost localdomain ubuntu debian runner docker "  # noqa: SIM905
    "nobody guest default host work data main origin github gitlab none".split()
)
"""Names that half the world's machines and users have, and that are words of their own."""

_LEAST = 3
_SHORT = 6
"""Letters below which a name is looked for as a whole word only."""


@dataclass(frozen=True)
class Identifier:
    """A text that says who or where."""

    kind: str
    text: str

    @cached_property
    def forms(self) -> tuple[bytes, ...]:
        """Its bytes in every form that is looked for, in lower case as `bytes.lower` has it."""
        spellings = dict.fromkeys(
            unicodedata.normalize(form, text)
            for form in ("NFC", "NFD")
            for text in (self.text, self.text.lower(), self.text.upper())
        )
        written = [
            form
            for text in spellings
            for form in (text, quote(text), json.dumps(text)[1:-1], html.escape(text))
        ]
        # Of two-byte units the order is not known: a zero at either end belongs to it or does not.
        coded = [text.encode() for text in written]
        # EXIF and PNG's older texts are of one byte per letter.
        coded += [text.encode("latin-1", "ignore") for text in spellings if max(text) < "Ā"]
        coded += [text.encode("utf-16-le").rstrip(b"\0") for text in spellings]
        coded += [text.encode("utf-16-be").lstrip(b"\0") for text in spellings]
        return tuple(dict.fromkeys(form.lower() for form in coded))

    @cached_property
    def whole(self) -> bool:
        """Whether it is looked for as a whole word only, because it is short."""
        return len(self.text) < _SHORT

    @property
    def general(self) -> bool:
        """Whether it says nothing of anybody, or is in every file."""
        return len(self.text) < _LEAST or self.text.lower() in _GENERAL


def named(also: str) -> list[Identifier]:
    """Return the identifiers that the user lists, with commas between them."""
    texts = [text.strip() for text in also.split(",")]
    return [Identifier("what --also lists", text) for text in dict.fromkeys(texts) if text]


def identifiers_here() -> tuple[list[Identifier], list[Identifier]]:
    """Return what identifies this user and this machine, and what is too general to be looked for.

    User, home folder, host, working folder, and git's name, mail and remotes.
    """
    told: dict[str, Identifier] = {}
    for kind, said in (*_user(), *_machine(), *_git()):
        identifier = Identifier(kind, said.strip())
        if identifier.text:
            told.setdefault(identifier.text.lower(), identifier)
    general = [identifier for identifier in told.values() if identifier.general]
    return [each for each in told.values() if not each.general], general


def _user() -> Iterator[tuple[str, str]]:
    names = [os.environ.get(name, "") for name in ("USER", "LOGNAME", "USERNAME")]
    with suppress(Exception):  # a user without an entry
        names.append(getpass.getuser())
    with suppress(ImportError, KeyError):
        import pwd

        entry = pwd.getpwuid(os.getuid())
        names.append(entry.pw_name)
        yield "the user's full name", entry.pw_gecos.split(",")[0]
    yield from (("the user's name", name) for name in names)
    with suppress(RuntimeError):
        yield "the home folder", str(Path.home())
        yield "the home folder's name", Path.home().name


def _machine() -> Iterator[tuple[str, str]]:
    for name in (platform.node(), os.environ.get("HOSTNAME", "")):
        yield "the host's name", name
        yield "the host's name", name.partition(".")[0]
    yield "the working folder", str(Path.cwd())


def _git() -> Iterator[tuple[str, str]]:
    yield "git's user name", _git_says("config", "user.name")
    mail = _git_says("config", "user.email")
    yield "git's mail address", mail
    yield "git's mail address", mail.partition("@")[0]
    for line in _git_says("remote", "-v").splitlines():
        address = line.split()[1] if len(line.split()) > 1 else ""
        place = re.sub(r"^[a-z+]+://([^@/]*@)?|^[^@/]+@|\.git/?$", "", address)
        parts = [part for part in re.split(r"[/:]", place) if part]
        yield "a remote of git", place
        if len(parts) > 2:  # host, owner, project
            yield "a remote of git", "/".join(parts[-2:])
            yield "the owner of a remote of git", parts[-2]


def _git_says(*arguments: str) -> str:
    try:
        said = subprocess.run(
            ["git", *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return said.stdout.strip()


def listed(identifiers: Iterable[Identifier]) -> str:
    """Return identifiers in words."""
    return ", ".join(f"{each.kind} {each.text!r}" for each in identifiers)
