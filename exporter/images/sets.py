"""Open an image set: every image named, hashed and in order before a model sees one."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from exporter.errors import ImageError, ImageSetError, choices
from exporter.images.datasets import (
    is_dataset,
    item_index,
    item_path,
    load_dataset,
    prepare_item,
    read_key,
)
from exporter.images.decode import decode
from exporter.images.folders import as_text, find_by_glob, find_in_folder, is_image_name
from exporter.images.keys import hash_files, hash_path, read_file, reason, unique_ids
from exporter.images.lists import FORMATS, Listed, read_list
from exporter.images.preprocess import prepare
from exporter.records import ImageEntry, Prepared

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from exporter.records import Preprocessing

_FACTORY = re.compile(r"[\w.]+:[\w.]+")


@dataclass(frozen=True)
class ImageSet:
    """The images of a run, in plan order.

    Safe to read from several threads; it can be pickled where its data set can.

    Attributes:
        where: where they came from, as text.
        root: the folder that their paths are relative to, or None for a data set.
        entries: one an image, also for those that cannot be read.
        notes: what the user should know: unreadable folders, files that are not images.
    """

    where: str
    root: Path | None
    entries: tuple[ImageEntry, ...]
    notes: tuple[str, ...] = ()
    _names: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    _dataset: Any = field(default=None, repr=False, compare=False)

    def load(self, entry: ImageEntry, preprocessing: Preprocessing) -> Prepared:
        """Read, decode and prepare one image.

        Args:
            entry: one of ``entries``.
            preprocessing: from photograph to the model's input.

        Returns:
            The view, where it lies in the original, and the tensor where a data set gives one.

        Raises:
            ImageError: if the image cannot be read; one sentence that says why.
        """
        if entry.error is not None:
            raise ImageError(entry.error)
        if self._dataset is not None:
            return prepare_item(self._dataset, item_index(entry.path), preprocessing)
        try:
            data = read_file(_real(self.root, self._names.get(entry.path, entry.path)))
        except (OSError, ValueError) as error:
            raise ImageError(f"the file cannot be read: {reason(error)}") from None
        return Prepared(*prepare(decode(data), preprocessing))

    def load_mask(
        self, entry: ImageEntry, preprocessing: Preprocessing
    ) -> NDArray[np.uint8] | None:
        """Read the mask given with an image, as the model's view of the image lies on it.

        Args:
            entry: one of ``entries``.
            preprocessing: of the image; the mask is resized to the nearest pixel.

        Returns:
            uint8 (h, w), 1 where the mask is not black; None where the image has no mask.

        Raises:
            ImageError: if there is a mask that cannot be read; one sentence that says why.
        """
        if entry.mask is None:
            return None
        inside = self.read_mask(entry.mask).astype(np.uint8)[:, :, None]
        plain = replace(preprocessing, interpolation="nearest", antialias=False, channels=1)
        return prepare(inside, plain)[0][:, :, 0]

    def read_mask(self, mask: str) -> NDArray[np.bool_]:
        """Read a given mask in its own pixels.

        Args:
            mask: an entry's ``mask``.

        Returns:
            bool (height, width), true where the mask is not black.

        Raises:
            ImageError: if it cannot be read; one sentence that says why.
        """
        try:
            data = read_file(_real(self.root, mask))
        except (OSError, ValueError) as error:
            raise ImageError(f"the mask {mask!r} cannot be read: {reason(error)}") from None
        return np.asarray(decode(data).any(axis=2))


def open_images(
    where: str | Path | object, *, limit: int | None = None, workers: int = 0
) -> ImageSet:
    """Open an image set and hash every image.

    Args:
        where: a folder (searched at every depth; the first folder's name is the label), a glob, one
            image, a CSV, TSV, JSON-lines or Parquet list, ``module:factory`` giving a torch
            Dataset, a sequence of paths, or an object with ``__len__`` and ``__getitem__``.
        limit: the first so many images, or None for all.
        workers: threads that hash; 0 chooses.

    Returns:
        The images: a folder's or glob's in natural order, others as given.

    Raises:
        ImageSetError: if there is no such set, it cannot be read, or it is empty.
    """
    if isinstance(where, str | os.PathLike):
        images = _open_text(os.fspath(where), limit, workers)
    elif isinstance(where, Sequence) and where and all(_is_path(item) for item in where):
        images = _open_sequence([os.fspath(item) for item in where], limit, workers)
    elif is_dataset(where):
        images = _open_dataset(where, type(where).__name__, limit)
    else:
        raise ImageSetError(
            f"the images are a {type(where).__name__}; give a folder, a glob, a list, paths or a "
            "data set with __len__ and __getitem__"
        )
    if not images.entries:
        notes = f" ({'; '.join(images.notes)})" if images.notes else ""
        raise ImageSetError(f"the image set {images.where!r} has no images{notes}")
    return images


def _open_text(text: str, limit: int | None, workers: int) -> ImageSet:
    path, shown = Path(text), as_text(text)
    try:
        if path.is_dir():
            found = find_in_folder(path)
            return _open_files(
                shown, found.root, _labelled(found.paths), found.notes, limit=limit, workers=workers
            )
        if path.exists():
            if path.suffix.lower() in FORMATS:
                return _open_files(
                    shown, path.parent, read_list(path), limit=limit, workers=workers
                )
            if is_image_name(path.name):
                return _open_files(
                    shown, path.parent, [Listed(path.name)], limit=limit, workers=workers
                )
            raise ImageSetError(
                f"the file {shown!r} is neither an image nor a list; "
                f"a list ends in {', '.join(FORMATS)}"
            )
    except (OSError, ValueError) as error:
        raise ImageSetError(f"the images {shown!r} cannot be read: {reason(error)}") from None
    if glob.has_magic(text):
        found = find_by_glob(text)
        return _open_files(
            shown, found.root, _labelled(found.paths), found.notes, limit=limit, workers=workers
        )
    if _FACTORY.fullmatch(text):
        return _open_dataset(load_dataset(text), shown, limit)
    raise ImageSetError(f"there are no images at {shown!r}: {_nearby(path)}")


def _open_files(
    where: str,
    root: Path,
    listed: Iterable[Listed],
    notes: Sequence[str] = (),
    *,
    limit: int | None,
    workers: int,
) -> ImageSet:
    items = list(listed)[:limit]
    shown, names = _shown_paths([item.path for item in items])
    hashes = hash_files([_real(root, item.path) for item in items], workers=workers)
    keys = [key or hash_path(path) for path, (key, _) in zip(shown, hashes, strict=True)]
    entries = tuple(
        ImageEntry(
            id=name,
            key=key,
            path=path,
            label=None if item.label is None else as_text(item.label),
            mask=None if item.mask is None else as_text(item.mask),
            boxes=item.boxes,
            error=error,
        )
        for name, key, path, item, (_, error) in zip(
            unique_ids(keys), keys, shown, items, hashes, strict=True
        )
    )
    return ImageSet(where, root, entries, tuple(notes), names)


def _open_sequence(paths: list[str], limit: int | None, workers: int) -> ImageSet:
    paths = [os.path.abspath(path) for path in paths[:limit]]  # noqa: PTH100 — keeps ".." out of links
    try:
        root = os.path.commonpath([os.path.dirname(path) for path in paths])  # noqa: PTH120
    except ValueError:
        raise ImageSetError("the paths have no folder in common: give paths of one drive") from None
    listed = [Listed(PurePath(path).relative_to(root).as_posix()) for path in paths]
    count = f"{len(paths):,} path{'' if len(paths) == 1 else 's'}"
    return _open_files(count, Path(root), listed, limit=limit, workers=workers)


def _open_dataset(dataset: Any, where: str, limit: int | None) -> ImageSet:
    try:
        count = len(dataset)
    except Exception as error:  # the user's own code, or a length that is not known
        raise ImageSetError(
            f"the data set {where!r} has no length ({error}); give one with __len__ and __getitem__"
        ) from error
    count = count if limit is None else min(limit, count)
    read = [read_key(dataset, index) for index in range(count)]
    keys = [key or hash_path(item_path(index)) for index, (key, _, _) in enumerate(read)]
    entries = tuple(
        ImageEntry(id=name, key=key, path=item_path(index), label=label, error=error)
        for index, (name, key, (_, label, error)) in enumerate(
            zip(unique_ids(keys), keys, read, strict=True)
        )
    )
    return ImageSet(where, None, entries, (), {}, dataset)


def _labelled(paths: Iterable[str]) -> Iterable[Listed]:
    for path in paths:
        folder, slash, _ = path.partition("/")
        yield Listed(path, folder if slash else None)


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


def _real(root: Path | None, path: str) -> str:
    return os.path.join(root or "", path)  # noqa: PTH118 — called for every image


def _is_path(item: object) -> bool:
    return isinstance(item, str | os.PathLike)


def _nearby(path: Path) -> str:
    try:
        names = [item.name for item in path.parent.iterdir() if not item.name.startswith(".")]
    except OSError:
        return f"the folder {as_text(str(path.parent))!r} cannot be read"
    return choices(as_text(path.name), sorted(as_text(name) for name in names))
