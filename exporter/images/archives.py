"""Images in archives as WebDataset has them: ``train-{000..010}.tar``.

The files of a sample lie side by side and have the same name up to its first dot. Nothing is ever
unpacked: a member is read where it lies, and its name is only text.
"""

from __future__ import annotations

import glob
import json
import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from exporter.errors import ImageError, ImageSetError, reason
from exporter.images.files import ARCHIVE, as_text, is_file, is_image_name, is_path, natural
from exporter.images.items import LABELS
from exporter.images.labels import label_text
from exporter.images.sources import Entry

_CLASSES = ("classnames.txt", "classes.txt")
_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")
_MOST_ARCHIVES = 100_000
_LABEL_BYTES = 100_000


class Archives:
    """The samples of tar archives, in their order; ``cls`` or a label in ``json`` is the label."""

    def __init__(self, where: str | Path) -> None:
        text = os.fspath(where)
        self._files = [text] if is_file(text) else list(_files(text))
        missing = next((file for file in self._files if not is_file(file)), None)
        if missing is not None or not self._files:
            raise ImageSetError(f"there is no archive {as_text(missing or text)!r}")
        self._root = os.path.commonpath([Path(file).absolute().parent for file in self._files])
        self._places: dict[str, tuple[str, int, int]] = {}
        self._said: dict[str, str] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        """What of the archives is left out, with an example of each."""
        return tuple(f"{said} ({as_text(example)})" for said, example in self._said.items())

    @staticmethod
    def matches(where: Any) -> bool:
        """Say whether this is a file, or a pattern with a wildcard or braces, that ends in .tar."""
        if not (is_path(where) and os.fspath(where).endswith(ARCHIVE)):
            return False
        text = os.fspath(where)
        return is_file(text) or glob.has_magic(text) or _BRACES.search(text) is not None

    def entries(self) -> Iterator[Entry]:
        """Yield the samples that have an image."""
        for file in self._files:
            shown = Path(os.path.relpath(file, self._root)).as_posix()
            classes = _class_names(Path(file).absolute().parent)
            for _, sample in groupby(
                self._members(file, shown), key=lambda member: _parts(member)[0]
            ):
                entry = self._entry(file, shown, list(sample), classes)
                if entry is not None:
                    yield entry

    def load(self, entry: Entry) -> bytes:
        """Return the bytes of an image."""
        return _read(*self._places[entry.path])

    def _members(self, file: str, shown: str) -> list[tarfile.TarInfo]:
        """Return the members of an archive that are files, as far as it can be read."""
        members: list[tarfile.TarInfo] = []
        try:
            with tarfile.open(file, "r:") as archive:
                for member in archive:
                    if member.isfile() and not member.name.rpartition("/")[2].startswith("."):
                        members.append(member)
                end = archive.offset
            # What is not a header ends an archive without a word; a block of zeros should.
            with Path(file).open("rb") as content:
                content.seek(end)
                if content.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                    raise tarfile.ReadError(f"after {end:,} bytes it is cut off or damaged")
        except (tarfile.TarError, OSError, ValueError) as error:
            said = reason(error) if isinstance(error, OSError) else str(error)
            self._said[f"an archive cannot be read to its end: {said}"] = shown
        return members

    def _entry(
        self, file: str, shown: str, sample: list[tarfile.TarInfo], classes: list[str]
    ) -> Entry | None:
        kinds = {_parts(member)[1]: member for member in sample}
        pictures = [member for kind, member in kinds.items() if is_image_name(f"x.{kind}")]
        if not pictures:
            self._said.setdefault("a sample without an image is left out", sample[0].name)
            return None
        picture = min(pictures, key=lambda member: _parts(member)[1].count("."))
        if len(pictures) > 1:
            self._said.setdefault("of several images of a sample one is used", picture.name)
        path = f"{shown}/{picture.name}"
        if path in self._places:
            self._said.setdefault("a member that occurs twice is left out", picture.name)
            return None
        self._places[path] = file, picture.offset_data, picture.size
        error = (
            "it is a sparse member of its archive, which is not read"
            if picture.issparse()
            else None
        )
        return Entry(path, _label(file, kinds, classes), error=error)


def _files(pattern: str) -> Iterator[str]:
    """Yield the archives of a pattern: braces in their order, wildcards in natural order."""
    braces = _BRACES.search(pattern)
    if braces is None:
        matches = sorted(glob.glob(pattern), key=natural)  # noqa: PTH207
        yield from matches if glob.has_magic(pattern) else [pattern]
        return
    first, last, names = braces.groups()
    parts: Iterable[str] = (names or "").split(",")
    if names is None:
        if not int(first) <= int(last) < int(first) + _MOST_ARCHIVES:
            raise ImageSetError(
                f"the archives {braces[0]} are none, or more than {_MOST_ARCHIVES:,}; give the "
                "first and the last, such as {000..010}"
            )
        parts = (f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1))
    for part in parts:
        yield from _files(pattern[: braces.start()] + part + pattern[braces.end() :])


def _class_names(folder: Path) -> list[str]:
    """Return the class names that lie beside the archives, or in the folder above; else none."""
    for file in (place / name for place in (folder, folder.parent) for name in _CLASSES):
        if file.is_file():
            return file.read_text("utf-8", "replace").splitlines()
    return []


def _label(file: str, kinds: dict[str, tarfile.TarInfo], classes: list[str]) -> str | None:
    member = kinds.get("cls") or kinds.get("json")
    if member is None or member.size > _LABEL_BYTES or member.issparse():
        return None
    try:
        content: Any = _read(file, member.offset_data, member.size)
        if "cls" not in kinds:
            told = json.loads(content)
            content = next((told[name] for name in LABELS if name in told), None)
    except (ImageError, ValueError, TypeError, RecursionError):
        return None
    return label_text(content, classes)


def _read(file: str, offset: int, size: int) -> bytes:
    with Path(file).open("rb") as archive:
        if offset + size > os.fstat(archive.fileno()).st_size:
            raise ImageError("the archive ends in the middle of it")
        archive.seek(offset)
        return archive.read(size)


def _parts(member: tarfile.TarInfo) -> tuple[str, str]:
    """Return the name of a member's sample and its kind: what comes after the first dot."""
    folder, slash, name = member.name.rpartition("/")
    stem, _, kind = name.partition(".")
    return folder + slash + stem, kind.lower()
