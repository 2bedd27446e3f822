"""Open an image set: every image named, hashed and in order before a model sees one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exporter.errors import ImageError, ImageSetError, reason
from exporter.guard import FAILURES, sentence, user_code
from exporter.images.datasets import DataSet
from exporter.images.files import as_text
from exporter.images.keys import hash_contents, hash_path, unique_ids
from exporter.images.pixels import prepare_contents, to_pixels
from exporter.images.preprocess import prepare
from exporter.images.registry import open_source
from exporter.images.sources import Entry, Source
from exporter.records import ImageEntry, Prepared

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from exporter.records import Preprocessing

_CHUNK = 256


@dataclass(frozen=True)
class ImageSet:
    """The images of a run, in plan order.

    Safe to read from several threads; it can be pickled where its source can.

    Attributes:
        where: where they came from, as text.
        kind: which source took that: a key of ``BUILT_IN``, or the plug-in by name.
        entries: one per image, also for those that cannot be read.
        notes: what the user should know: unreadable folders, files that are not images.
    """

    where: str
    kind: str
    entries: tuple[ImageEntry, ...]
    notes: tuple[str, ...]
    _source: Source = field(repr=False, compare=False)
    _names: Mapping[str, str] = field(repr=False, compare=False)
    _first: dict[tuple[str, Preprocessing], Prepared] = field(
        default_factory=dict, repr=False, compare=False
    )

    @property
    def root(self) -> Path | None:
        """The folder that paths are relative to, or None if they are not paths of files."""
        return getattr(self._source, "root", None)

    def load(self, entry: ImageEntry, preprocessing: Preprocessing) -> Prepared:
        """Read, decode and prepare one image.

        Args:
            entry: one of ``entries``.
            preprocessing: from photograph to the model's input.

        Returns:
            The view, where it lies in the original, and the tensor where a data set gives one.

        Raises:
            ImageError: if the image cannot be read, or is not the one that was planned; one
                sentence that says why.
        """
        if entry.error is not None:
            raise ImageError(entry.error)
        # Planning looks at the first image and so does the first batch.
        if (entry.id, preprocessing) in self._first:
            return self._first[entry.id, preprocessing]
        path = self._names.get(entry.path, entry.path)
        contents = _load(self._source, Entry(path, entry.label, entry.mask, entry.boxes))
        key = hash_contents(contents)
        if key != entry.key:
            what = "file" if isinstance(contents, bytes) else "item"
            raise ImageError(
                f"the {what} has changed since the run was planned: "
                f"its key was {entry.key} and is {key}"
            )
        prepared = prepare_contents(contents, preprocessing)
        if not self._first:
            self._first[entry.id, preprocessing] = prepared
        return prepared

    def load_first(self, preprocessing: Preprocessing) -> Prepared:
        """Return the first image that can be read.

        Raises:
            ImageSetError: if none can.
        """
        first = ""
        for entry in self.entries:
            try:
                return self.load(entry, preprocessing)
            except ImageError as error:
                first = first or f"{entry.path!r}: {error}"
        raise ImageSetError(f"no image of {self.where!r} can be read; the first is {first}")

    def load_mask(
        self, entry: ImageEntry, preprocessing: Preprocessing
    ) -> NDArray[np.uint8] | None:
        """Read the mask given with an image, as the model's view of the image lies on it.

        Returns:
            uint8 (h, w), 1 where the mask is not black, resized to the nearest pixel; None where
            the image has no mask.

        Raises:
            ImageError: if there is a mask that cannot be read; one sentence that says why.
        """
        if entry.mask is None:
            return None
        inside = self.read_mask(entry.mask).astype(np.uint8)[:, :, None]
        plain = replace(preprocessing, interpolation="nearest", antialias=False, channels=1)
        return prepare(inside, plain)[0][:, :, 0]

    def read_mask(self, mask: str) -> NDArray[np.bool_]:
        """Read an entry's mask in its own pixels.

        Returns:
            bool (height, width), true where the mask is not black.

        Raises:
            ImageError: if it cannot be read; one sentence that says why.
        """
        try:
            contents = _load(self._source, Entry(mask))
        except ImageError as error:
            raise ImageError(f"the mask {mask!r}: {error}") from None
        return np.asarray(to_pixels(contents).any(axis=2))


def open_images(where: Any, *, limit: int | None = None, workers: int = 0) -> ImageSet:
    """Open an image set and hash every image.

    Args:
        where: a folder (searched at every depth; the first folder's name is the label), a glob, one
            image, a CSV, TSV, JSON-lines or Parquet list, ``package.module:factory`` or
            ``path/file.py:factory`` giving a torch Dataset, a location that a plug-in takes, a
            sequence of paths, an object with ``__len__`` and ``__getitem__``, or a ``Source``.
        limit: the first so many images, or None for all.
        workers: threads that hash; 0 chooses.

    Returns:
        The images: a folder's or glob's in natural order, others as given.

    Raises:
        ImageSetError: if there is no such set, it cannot be read, or it is empty.
    """
    kind, shown, source = open_source(where)
    listed = _list(kind, shown, source, limit)
    notes = tuple(getattr(source, "notes", ()))
    if not listed:
        said = f" ({'; '.join(notes)})" if notes else ""
        raise ImageSetError(f"the image set {shown!r} has no images{said}")
    paths, names = _shown_paths([entry.path for entry in listed])
    hashed = _hash(source, listed, workers)
    keys = [entry.key or hash_path(path) for path, entry in zip(paths, hashed, strict=True)]
    entries = tuple(
        ImageEntry(
            id=name,
            key=key,
            path=path,
            label=None if entry.label is None else as_text(entry.label),
            mask=None if entry.mask is None else as_text(entry.mask),
            boxes=entry.boxes,
            error=entry.error,
        )
        for name, key, path, entry in zip(unique_ids(keys), keys, paths, hashed, strict=True)
    )
    return ImageSet(shown, kind, entries, notes, source, names)


def reopen_images(
    where: Any, planned: Sequence[ImageEntry], *, limit: int | None = None
) -> ImageSet:
    """Open the image set of a plan again, such as in another process; nothing is hashed.

    Args:
        where: as for ``open_images``.
        planned: the images of the plan. One whose contents changed is an error of its row.
        limit: as for ``open_images``.

    Raises:
        ImageSetError: if there is no such set, or it does not have the paths that were planned.
    """
    kind, shown, source = open_source(where)
    if isinstance(source, DataSet):  # its entries are known only by reading every item
        listed = source.paths()[:limit]
    else:
        listed = [entry.path for entry in _list(kind, shown, source, limit)]
    paths, names = _shown_paths(listed)
    if paths != [entry.path for entry in planned]:
        present = set(paths)
        missing = [entry.path for entry in planned if entry.path not in present]
        what = f"{missing[0]!r} is not there" if missing else f"it has {len(paths):,} images"
        raise ImageSetError(
            f"the image set {shown!r} is not the one of the {len(planned):,} images that were "
            f"planned: {what}; plan the run again, or give back what was planned"
        )
    notes = tuple(getattr(source, "notes", ()))
    return ImageSet(shown, kind, tuple(planned), notes, source, names)


def _list(kind: str, shown: str, source: Source, limit: int | None) -> list[Entry]:
    with user_code(f"the {kind}", repr(shown), error=ImageSetError):
        try:
            return list(islice(source.entries(), limit))
        except (OSError, ValueError) as error:
            raise ImageSetError(f"the images {shown!r} cannot be read: {reason(error)}") from None


def _hash(source: Source, listed: Sequence[Entry], workers: int) -> list[Entry]:
    """Give each image its key, or the reason why it cannot be read."""
    chunks = [listed[start : start + _CHUNK] for start in range(0, len(listed), _CHUNK)]
    threads = workers or min(16, 2 * (os.cpu_count() or 1))
    with ThreadPoolExecutor(threads, thread_name_prefix="hash") as pool:
        done = pool.map(lambda chunk: [_hash_one(source, entry) for entry in chunk], chunks)
        return list(chain.from_iterable(done))


def _hash_one(source: Source, entry: Entry) -> Entry:
    if entry.key is not None or entry.error is not None:
        return entry
    try:
        return replace(entry, key=hash_contents(_load(source, entry)))
    except ImageError as error:
        return replace(entry, error=str(error))


def _load(source: Source, entry: Entry) -> Any:
    try:
        return source.load(entry)
    except (ImageError, MemoryError):
        raise
    except (OSError, ValueError) as error:  # a path with a null character is a ValueError
        raise ImageError(f"the file cannot be read: {reason(error)}") from None
    except FAILURES as error:  # a plug-in's code
        raise ImageError(sentence("the image source", error)) from error


def _shown_paths(paths: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Show paths as text, and remember the real name of each whose text would not open it."""
    shown: list[str] = []
    names: dict[str, str] = {}
    texts: dict[str, str] = {}
    taken = set(paths)
    for path in paths:
        if path not in texts:
            text = as_text(path)
            # Two names that differ only in bytes that cannot be shown must not open the same file.
            while text != path and (text in names or text in taken):
                text += "�"
            texts[path] = text
            if text != path:
                names[text] = path
        shown.append(texts[path])
    return shown, names
