"""Images in archives as WebDataset has them: ``train-{000..010}.tar``, on the disk or in a store.

The files of a sample lie side by side and have the same name up to its first dot. Nothing is ever
unpacked: a member is read where it lies, and its name is only text. In a store the headers alone
are fetched while the set is listed, and each image when the model is given it.
"""

from __future__ import annotations

import glob
import json
import os
import posixpath
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

from exporter.errors import ImageError, ImageSetError, reason
from exporter.images.files import ARCHIVE, as_text, is_file, is_image_name, is_path, natural
from exporter.images.items import LABELS
from exporter.images.keys import key_of_listing
from exporter.images.labels import label_text
from exporter.images.sources import Entry
from exporter.paths import without_folders
from exporter.stores import (
    answering,
    file_system,
    is_address,
    open_at,
    place_of,
    read_range,
    tried,
)

_CLASSES = ("classnames.txt", "classes.txt")
_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")
_MOST_ARCHIVES = 100_000
_LABEL_BYTES = 100_000


_V = TypeVar("_V")

_TOGETHER = 16
"""Archives of a store whose headers are fetched at the same time."""


class _Member(NamedTuple):
    """A file in an archive, and what it holds where it is a label."""

    name: str
    offset: int
    size: int
    sparse: bool
    label: bytes | None

    @property
    def parts(self) -> tuple[str, str]:
        """The name of its sample, and its kind: what comes after the first dot."""
        folder, slash, name = self.name.rpartition("/")
        stem, _, kind = name.partition(".")
        return folder + slash + stem, kind.lower()


class Archives:
    """The samples of tar archives, in their order; ``cls`` or a label in ``json`` is the label."""

    def __init__(self, where: str | Path) -> None:
        text = os.fspath(where)
        self.hashed_later = is_address(text)
        self.name = as_text(without_folders(text) if self.hashed_later else text)
        with answering(f"{self.name!r} cannot be listed", ImageSetError):
            whole = not self.hashed_later and is_file(text)
            self._files = [text] if whole else list(_files(text))
            told = self._together(_told, self._files)
            self._told = dict(zip(self._files, told, strict=True))
        missing = next((file for file, told in self._told.items() if told is None), None)
        if missing is not None or not self._files:
            raise ImageSetError(f"there is no archive {as_text(missing or text)!r}")
        folders = [str(place_of(file).absolute().parent) for file in self._files]
        common = posixpath.commonpath if self.hashed_later else os.path.commonpath
        self._root = common(folders)
        self._places: dict[str, tuple[str, int, int]] = {}
        self._said: dict[str, str] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        """What of the archives is left out, with an example of each."""
        return tuple(f"{said} ({as_text(example)})" for said, example in self._said.items())

    @staticmethod
    def matches(where: Any) -> bool:
        """Say whether this is a file, an address or a pattern that ends in .tar."""
        if not (is_path(where) and os.fspath(where).endswith(ARCHIVE)):
            return False
        text = os.fspath(where)
        named = is_address(text) or is_file(text) or glob.has_magic(text)
        return named or _BRACES.search(text) is not None

    def entries(self) -> Iterator[Entry]:
        """Yield the samples that have an image."""
        classes: list[str] = []
        before = None
        members = self._together(self._members, self._files)
        for file, inside in zip(self._files, members, strict=True):
            folder = place_of(file).absolute().parent
            if folder != before:
                classes, before = _class_names(str(folder)), folder
            for _, sample in groupby(inside, key=lambda member: member.parts[0]):
                entry = self._entry(file, list(sample), classes)
                if entry is not None:
                    yield entry

    def load(self, entry: Entry) -> bytes:
        """Return the bytes of an image."""
        return _read(*self._places[entry.path])

    def _together(self, call: Callable[[str], _V], files: Sequence[str]) -> Iterator[_V]:
        """Yield what a call gives for each file, in order; several at a time where they are far."""
        if not self.hashed_later:
            yield from map(call, files)
            return
        pool = ThreadPoolExecutor(_TOGETHER, thread_name_prefix="archive")
        try:
            yield from pool.map(call, files)
        finally:
            pool.shutdown(cancel_futures=True)

    def _shown(self, file: str) -> str:
        if self.hashed_later:
            return posixpath.relpath(str(place_of(file)), self._root)
        return Path(os.path.relpath(file, self._root)).as_posix()

    def _members(self, file: str) -> list[_Member]:
        """Return the members of an archive that are files, as far as it can be read."""
        members: list[_Member] = []
        try:
            with _opened(file) as content:
                with tarfile.open(fileobj=content, mode="r:") as archive:
                    for member in archive:
                        if member.isfile() and not member.name.rpartition("/")[2].startswith("."):
                            members.append(_member(archive, member))
                    end = archive.offset
                # What is not a header ends an archive without a word; a block of zeros should.
                content.seek(end)
                if content.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                    raise tarfile.ReadError(f"after {end:,} bytes it is cut off or damaged")
        except (tarfile.TarError, OSError, ValueError) as error:
            said = reason(error) if isinstance(error, OSError) else str(error)
            self._said[f"an archive cannot be read to its end: {said}"] = self._shown(file)
        return members

    def _entry(self, file: str, sample: list[_Member], classes: list[str]) -> Entry | None:
        kinds = {member.parts[1]: member for member in sample}
        pictures = [member for kind, member in kinds.items() if is_image_name(f"x.{kind}")]
        if not pictures:
            self._said.setdefault("a sample without an image is left out", sample[0].name)
            return None
        picture = min(pictures, key=lambda member: member.parts[1].count("."))
        if len(pictures) > 1:
            self._said.setdefault("of several images of a sample one is used", picture.name)
        path = f"{self._shown(file)}/{picture.name}"
        if path in self._places:
            self._said.setdefault("a member that occurs twice is left out", picture.name)
            return None
        self._places[path] = file, picture.offset, picture.size
        key, told = None, self._told[file]
        if self.hashed_later and told is not None:
            key = key_of_listing(path, told, picture.offset, picture.size)
        error = (
            "it is a sparse member of its archive, which is not read" if picture.sparse else None
        )
        return Entry(path, _label(kinds, classes), key=key, error=error)


def _files(pattern: str) -> Iterator[str]:
    """Yield the archives of a pattern: braces in their order, wildcards in natural order."""
    braces = _BRACES.search(pattern)
    if braces is None:
        yield from sorted(_matching(pattern), key=natural) if glob.has_magic(pattern) else [pattern]
        return
    first, last, names = braces.groups()
    parts: Iterable[str] = (names or "").split(",")
    if names is None:
        if not int(first) <= int(last) < int(first) + _MOST_ARCHIVES:
            raise ImageSetError(
                f"{braces[0]} names no archive, or more than {_MOST_ARCHIVES:,}; give the "
                "first and the last, such as {000..010}"
            )
        parts = (f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1))
    for part in parts:
        yield from _files(pattern[: braces.start()] + part + pattern[braces.end() :])


def _matching(pattern: str) -> list[str]:
    if not is_address(pattern):
        return glob.glob(pattern)  # noqa: PTH207
    system, path = file_system(pattern)
    return [system.unstrip_protocol(match) for match in tried(lambda: system.glob(path))]


def _told(file: str) -> Mapping[str, Any] | None:
    """Return what a store says of a file, nothing of one on the disk; None where there is none."""
    if not is_address(file):
        return {} if is_file(file) else None
    system, path = file_system(file)
    try:
        told: Mapping[str, Any] = tried(lambda: system.info(path))
    except FileNotFoundError:
        return None
    return told


def _opened(file: str) -> IO[bytes]:
    return open_at(file) if is_address(file) else Path(file).open("rb")


def _member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> _Member:
    """Return a member; a label is read while its archive is open."""
    kept = _Member(member.name, member.offset_data, member.size, member.issparse(), None)
    if kept.parts[1] not in ("cls", "json") or kept.sparse or kept.size > _LABEL_BYTES:
        return kept
    content = archive.extractfile(member)
    return kept if content is None else kept._replace(label=content.read())


def _class_names(folder: str) -> list[str]:
    """Return the class names that lie beside the archives, or in the folder above; else none."""
    place = place_of(folder)
    for file in (str(beside / name) for beside in (place, place.parent) for name in _CLASSES):
        told = _told(file)
        if told is not None:
            with _opened(file) as content:
                return content.read().decode("utf-8", "replace").splitlines()
    return []


def _label(kinds: Mapping[str, _Member], classes: list[str]) -> str | None:
    member = kinds.get("cls") or kinds.get("json")
    if member is None or member.label is None:
        return None
    content: Any = member.label
    try:
        if "cls" not in kinds:
            told = json.loads(content)
            content = next((told[name] for name in LABELS if name in told), None)
    except (ValueError, TypeError, RecursionError):
        return None
    return label_text(content, classes)


def _read(file: str, offset: int, size: int) -> bytes:
    if is_address(file):
        return read_range(file, offset, size)
    with Path(file).open("rb") as archive:
        if offset + size > os.fstat(archive.fileno()).st_size:
            raise ImageError("the archive ends in the middle of it")
        archive.seek(offset)
        return archive.read(size)
