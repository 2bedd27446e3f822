"""Open an image set: every image named, hashed and in order before a model sees one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporter.errors import ImageError, ImageSetError, reason
from exporter.guard import user_code
from exporter.images.datasets import DataSet
from exporter.images.dicom import is_dicom
from exporter.images.files import as_text
from exporter.images.keys import hash_contents, hash_path, unique_ids, unique_texts
from exporter.images.pixels import Form, form_of, is_model_ready, prepare_contents, to_pixels
from exporter.images.preprocess import prepare
from exporter.images.reading import hash_entries, read_contents, refuse_random
from exporter.images.registry import Opened, open_source
from exporter.images.sources import Entry
from exporter.records import ImageEntry, Prepared, Preprocessing


class ImageSet:
    """The images of a run, in plan order.

    Several threads may read it; it can be pickled where its source can.

    Attributes:
        where: where they came from, as text.
        kind: which source took that: a key of ``BUILT_IN``, or the plug-in by name.
        entries: one per image, also for those that cannot be read.
        notes: what the user should know: unreadable folders, files that are not images.
        ready: whether all items are model-ready tensors; `settle` decides it.
        remote: whether the keys are those of a listing, and contents are hashed as they are loaded.
    """

    def __init__(
        self,
        opened: Opened,
        entries: tuple[ImageEntry, ...],
        texts: Mapping[str, str],
        forms: Mapping[Form, str] | None = None,
        *,
        ready: bool = False,
        listed: Sequence[Entry] = (),
    ) -> None:
        """Hold a source.

        Args:
            opened: the source.
            entries: its images.
            texts: shows its paths.
            forms: the first item of each form.
            ready: see the attribute.
            listed: what the source said of its images now, where the plan may be an earlier one.
        """
        self.kind, self.where, self._source = opened
        self.notes, self.entries, self.ready = opened.notes, entries, ready
        self._names = {text: path for path, text in texts.items() if text != path}
        self._forms = forms or {}
        self.remote = getattr(opened.source, "hashed_later", False)
        self._listed = {texts[e.path]: e.key for e in listed} if self.remote else {}
        self._first: dict[tuple[str, Preprocessing], Prepared] = {}

    def settle(self, preprocessing: Preprocessing) -> None:
        """Decide once for all items whether they are model-ready, and say so in the notes.

        Which bands are shown, and between which numbers, is said too.

        Raises:
            ImageSetError: if some are model-ready tensors and others pictures, or bands are chosen
                for a model that is given tensors as they are.
        """
        if not self.ready and is_model_ready(self._forms, preprocessing):
            self.ready = True
            note = "the items have the model's input shape: the model takes them as they are"
            if all(form.unit for form in self._forms):
                note += ", not normalised, though their values lie in [0, 1]"
            self.notes += (note,)
        elif self.remote:
            self.notes += (
                "the ids are those of the listing: images in a store are hashed as they are loaded",
            )
        elif isinstance(self._source, DataSet) and not self.ready:
            self.notes += (self._source.treated,)
        if self.ready and preprocessing.given:
            raise ImageSetError(
                "the items go to the model as they are, so [preprocessing] bands cannot choose "
                "what it is given; leave it out, or give pictures of another size"
            )
        if preprocessing.in_bands and preprocessing.shown_as:
            self.notes += (f"shown: {preprocessing.shown_as}",)

    def load(self, entry: ImageEntry, preprocessing: Preprocessing) -> Prepared:
        """Read, decode and prepare one image.

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
        contents = read_contents(self._source, Entry(path, entry.label, entry.mask, entry.boxes))
        key = hash_contents(contents)
        now = self._listed[entry.path] if self.remote else key
        if now != entry.key:
            what = "file" if isinstance(contents, bytes) else "item"
            raise ImageError(
                f"the {what} has changed since the run was planned: "
                f"its key was {entry.key} and is {now}"
            )
        prepared = prepare_contents(contents, preprocessing, ready=self.ready)
        prepared = replace(prepared, key=key) if self.remote else prepared
        if not self._first:
            if isinstance(contents, bytes) and is_dicom(contents) and not preprocessing.range:
                self.notes += (
                    "DICOM files are shown with the window of their header, or the whole range of "
                    "their bits",
                )
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
                prepared = self.load(entry, preprocessing)
            except ImageError as error:
                first = first or f"{entry.path!r}: {error}"
                continue
            if not self.ready:
                self.notes += _beside_the_range(prepared.view, preprocessing)
            return prepared
        raise ImageSetError(f"no image of {self.where!r} can be read; the first is {first}")

    def load_others(self, preprocessing: Preprocessing) -> Iterator[Prepared]:
        """Yield the images after the first, as far as they can be read."""
        for entry in self.entries:
            if entry.id not in {known for known, _ in self._first}:
                with suppress(ImageError):
                    yield self.load(entry, preprocessing)

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
            contents = read_contents(self._source, Entry(mask))
        except ImageError as error:
            raise ImageError(f"the mask {mask!r}: {error}") from None
        return np.asarray(to_pixels(contents).any(axis=2))


def _beside_the_range(view: NDArray[np.uint8], preprocessing: Preprocessing) -> tuple[str, ...]:
    """Say that a picture is nearly black or white, as numbers beside their range are."""
    low, high = view.min(), view.max()
    mend = "state another [preprocessing] range"
    if preprocessing.range and low > 239:
        return (f"the first image is nearly white, with values from {low} of 255; {mend}",)
    if high >= 16:
        return ()
    if not preprocessing.range:
        mend = "for files with 12 bits in 16, set [preprocessing] bits = 12"
    return (f"the first image is nearly black, with values up to {high} of 255; {mend}",)


def open_images(where: Any, *, limit: int | None = None, workers: int = 0) -> ImageSet:
    """Open an image set and hash every image.

    Args:
        where: a folder (searched at every depth; the first folder's name is the label), a glob, one
            image, a CSV, TSV, JSON-lines or Parquet list, tar archives of WebDataset, ``hf:`` and a
            data set of Hugging Face, ``package.module:factory`` or ``path/file.py:factory`` giving
            a torch Dataset, a location that a plug-in takes, a sequence of paths, an object with
            ``__len__`` and ``__getitem__``, or a ``Source``.
        limit: the first so many images, or None for all.
        workers: threads that hash; 0 chooses.

    Returns:
        The images: a folder's or glob's in natural order, others as given.

    Raises:
        ImageSetError: if there is no such set, it cannot be read, it is empty, or a data set gives
            other pixels when an item is read again.
    """
    opened, listed = _list(where, limit)
    if not listed:
        said = f" ({'; '.join(opened.notes)})" if opened.notes else ""
        raise ImageSetError(f"the image set {opened.where!r} has no images{said}")
    forms: dict[Form, str] = {}
    hashed = hash_entries(opened.source, listed, workers, forms)
    if isinstance(opened.source, DataSet):
        refuse_random(opened.source, opened.where, hashed)
    # Where a source gives the keys, its first image shows what kind of item it has.
    files = getattr(opened.source, "hashed_later", False)
    for entry in islice((e for e in hashed if e.error is None), 0 if forms or files else 1):
        with suppress(ImageError):  # its row will say so
            forms[form_of(read_contents(opened.source, entry))] = entry.path
    texts = unique_texts(entry.path for entry in listed)
    keys = [entry.key or hash_path(texts[entry.path]) for entry in hashed]
    entries = tuple(
        ImageEntry(
            id=name,
            key=key,
            path=texts[entry.path],
            label=entry.label and as_text(entry.label),
            mask=entry.mask and as_text(entry.mask),
            boxes=entry.boxes,
            error=entry.error,
        )
        for name, key, entry in zip(unique_ids(keys), keys, hashed, strict=True)
    )
    return ImageSet(opened, entries, texts, forms, listed=listed)


def reopen_images(
    where: Any, planned: Sequence[ImageEntry], *, limit: int | None = None, ready: bool = False
) -> ImageSet:
    """Open the image set of a plan again, such as in another process; no image is read.

    Args:
        where: as for ``open_images``.
        planned: the images of the plan. One whose contents changed is an error of its row.
        limit: as for ``open_images``.
        ready: what `ImageSet.settle` decided when the run was planned.

    Raises:
        ImageSetError: if there is no such set, or it does not have the paths that were planned.
    """
    opened, listed = _list(where, limit)
    texts = unique_texts(entry.path for entry in listed)
    paths = [texts[entry.path] for entry in listed]
    if paths != [entry.path for entry in planned]:
        present = set(paths)
        missing = [entry.path for entry in planned if entry.path not in present]
        what = f"{missing[0]!r} is not there" if missing else f"it has {len(paths):,} images"
        raise ImageSetError(
            f"the image set {opened.where!r} is not the one of the {len(planned):,} images that "
            f"were planned: {what}; plan the run again, or restore the images that were planned"
        )
    return ImageSet(opened, tuple(planned), texts, ready=ready, listed=listed)


def _list(where: Any, limit: int | None) -> tuple[Opened, list[Entry]]:
    opened = open_source(where)
    if limit is None and getattr(opened.source, "stream", False):
        said = f"the data set {opened.where!r} has no length; give --limit, or one with __len__"
        raise ImageSetError(said)
    with user_code(f"the {opened.kind}", repr(opened.where), error=ImageSetError):
        try:
            return opened, list(islice(opened.source.entries(), limit))
        except (OSError, ValueError) as error:
            said = f"the images {opened.where!r} cannot be read: {reason(error)}"
            raise ImageSetError(said) from None
