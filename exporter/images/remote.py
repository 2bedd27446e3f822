"""Images in a store: below an address such as ``s3://bucket/photos``, matching one, or in a list.

Nothing is read before the model is given it: the key of an image is that of what the store says of
it, and its contents are hashed as they are loaded.
"""

from __future__ import annotations

import glob
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from exporter.doors import RUN_FOLDERS
from exporter.errors import ImageError, ImageSetError
from exporter.images.files import ARCHIVE, Files, as_text, is_image_name
from exporter.images.keys import key_of_listing
from exporter.images.lists import FORMATS, read_list
from exporter.images.sources import Entry
from exporter.paths import without_folders
from exporter.stores import answering, file_system, is_address, is_web, tried

_ASKING = 16
"""Threads that ask a store for one file each."""


class Stored(Files):
    """The images below an address, or those that match its wildcards, or a single one."""

    hashed_later = True

    def __init__(self, where: str) -> None:
        self._system, path = file_system(where)
        self.name, self._path = without_folders(where), path
        self._pattern = "*" in path if is_web(where) else glob.has_magic(path)
        self._single = not self._pattern and is_image_name(path.partition("?")[0])
        self._sizes: dict[str, int | None] = {}
        parts = path.rstrip("/").split("/")
        fixed = next((n for n, part in enumerate(parts) if glob.has_magic(part)), len(parts))
        self._root = "/".join(parts[: fixed if self._pattern else len(parts) - self._single])
        super().__init__(self._root)

    @staticmethod
    def matches(where: Any) -> bool:
        """Say whether this is an address, and not of archives or a list."""
        return is_address(where) and not str(where).lower().endswith((ARCHIVE, *FORMATS))

    def entries(self) -> Iterator[Entry]:
        """Find the images, in natural order; hidden files and folders are skipped."""
        with answering(f"{self.name!r} cannot be listed", ImageSetError):
            listed: Mapping[str, Mapping[str, Any]] = {}
            with suppress(FileNotFoundError):
                listed = self._listed()
        if not listed:
            raise ImageSetError(f"there is nothing at {self.name!r}")
        told = {path[len(self._root) :].lstrip("/"): info for path, info in listed.items()}
        shown = [path for path in told if not any(part[:1] == "." for part in path.split("/"))]
        for entry in [Entry(path) for path in shown] if self._single else self._labelled(shown):
            info = told[entry.path]
            self._sizes[entry.path] = info.get("size")
            yield replace(entry, key=key_of_listing(entry.path, info))

    def load(self, entry: Entry) -> bytes:
        """Return a file's bytes.

        Raises:
            ImageError: if it is not there, or is longer or shorter than it was listed.
        """
        path = posixpath.normpath(entry.path)
        with answering(f"{path!r} cannot be read from {self.name!r}", ImageError):
            try:
                content: bytes = tried(lambda: self._system.cat_file(f"{self._root}/{path}"))
            except FileNotFoundError:
                raise ImageError("the file is not there") from None
        size = self._sizes.get(entry.path)
        if size is not None and len(content) != size:
            raise ImageError(
                f"the file has changed since it was listed: it had {size:,} bytes and has "
                f"{len(content):,}"
            )
        return content

    def _listed(self) -> Mapping[str, Mapping[str, Any]]:
        if self._single:
            return {self._path: tried(lambda: self._system.info(self._path))}
        ask = self._system.glob if self._pattern else self._system.find
        listed = tried(lambda: ask(self._path, detail=True))
        return {str(path): info for path, info in listed.items() if info["type"] == "file"}

    def _outside_runs(self, paths: Iterable[str]) -> list[str]:
        names = list(paths)
        tops: dict[str, set[str]] = {}
        for name in names:
            parts = name.split("/")
            for depth in range(len(parts)):
                tops.setdefault("/".join(parts[:depth]), set()).add(parts[depth])
        signs = {*RUN_FOLDERS, "recipe.json", "run.json"}
        runs = [top for top, inside in tops.items() if "plan.json" in inside and inside & signs]
        said = "is left out: a run's own pictures do not belong to an image set"
        self.notes += tuple(f"the run folder {as_text(run or '.')!r} {said}" for run in runs)
        within = tuple(f"{run}/".lstrip("/") for run in runs)
        return [name for name in names if not name.startswith(within)] if runs else names


class StoredList(Stored):
    """The images of a list at an address; paths in it are relative to its folder."""

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self._root, _, self._file = self._path.rpartition("/")

    @staticmethod
    def matches(where: Any) -> bool:
        """Say whether this is an address with a list's extension."""
        return is_address(where) and str(where).lower().endswith(FORMATS)

    def entries(self) -> Iterator[Entry]:
        """Yield the images in the order of the list."""
        with TemporaryDirectory(prefix="exporter-") as folder:
            copy = Path(folder) / self._file
            copy.write_bytes(self._list())
            listed = read_list(copy)
        with ThreadPoolExecutor(_ASKING, thread_name_prefix="list") as pool:
            yield from pool.map(self._entry, listed)

    def _list(self) -> bytes:
        with answering(f"the list {self.name!r} cannot be read", ImageSetError):
            try:
                content: bytes = tried(lambda: self._system.cat_file(self._path))
            except FileNotFoundError:
                raise ImageSetError(f"there is no list {self.name!r}") from None
        return content

    def _entry(self, entry: Entry) -> Entry:
        path = f"{self._root}/{posixpath.normpath(entry.path)}"
        try:
            with answering(f"{entry.path!r} cannot be found", ImageError):
                info = tried(lambda: self._system.info(path))
        except FileNotFoundError:
            return replace(entry, error="the file is not there")
        except ImageError as error:
            return replace(entry, error=str(error))
        self._sizes[entry.path] = info.get("size")
        return replace(entry, key=key_of_listing(entry.path, info))
