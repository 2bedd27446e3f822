"""Images from a torch Dataset, or anything with a length and items.

Nothing here imports torch: a tensor is recognised by its methods.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from exporter.doors import load_reference
from exporter.errors import ImageError, ImageSetError, kind_of
from exporter.guard import AGAIN, is_shortage, passes, sentence, told, user_code
from exporter.images.files import Paths, exists, is_path
from exporter.images.items import Item, read_item
from exporter.images.labels import origin_of
from exporter.images.pixels import read_pixels
from exporter.images.sources import Entry
from exporter.stores import is_address

_REFERENCE = re.compile(r"(.+\.py|[\w.]+):[\w.]+")
# Few data sets promise that two threads may read them at once.
_READING = threading.Lock()


class DataSet:
    """The items of a data set; each is read by one thread at a time.

    One that can only be iterated over is a stream: its first items, up to a limit, are kept.
    """

    def __init__(self, where: Any) -> None:
        if isinstance(where, Mapping):
            raise ImageSetError(
                f"the images are {kind_of(where)} of {', '.join(map(str, where)) or 'nothing'}; "
                "give one of its data sets"
            )
        self.name = type(where).__name__
        self.stream = not hasattr(where, "__len__")
        self._given = where
        self._dataset: Any = [] if self.stream else where
        self._left_out: dict[str, str] = {}
        self._unnamed = ""
        self._columns: tuple[str, ...] = ()

    @property
    def treated(self) -> str:
        """How its items are taken where they are pictures."""
        columns = zip(("image", "label"), self._columns, strict=False)
        parts = [f"the {part} is {name!r}" for part, name in columns]
        said = "the items are pictures, resized, cropped and normalised as files are"
        return "; ".join([said, *parts])

    @property
    def notes(self) -> tuple[str, ...]:
        """What kinds of label are left out or have no name, with an item of each."""
        left_out = tuple(
            f"labels that are {kind} are left out: a label is a class's name or index ({path})"
            for kind, path in self._left_out.items()
        )
        unnamed = (
            "labels are numbers without names, so they match no class; give the data set "
            f"'classes', a list of names ({self._unnamed})"
        )
        return (*left_out, unnamed) if self._unnamed else left_out

    @staticmethod
    def matches(where: Any) -> bool:
        """Say whether an object has a length and items, and they are not paths."""
        return is_dataset(where) and not is_path(where) and not Paths.matches(where)

    def entries(self) -> Iterator[Entry]:
        """Name the items, in the order of their index; only those of a stream are read."""
        if self.stream:
            return (Entry(f"item-{index:06d}") for index, _ in enumerate(self._kept()))
        try:
            count = len(self._dataset)
        except BaseException as error:  # the user's code, or a length that is not known
            if passes(error):
                raise
            raise ImageSetError(
                f"the data set {self.name!r} has no length ({told(error)}); give one with "
                "__len__ and __getitem__"
            ) from error
        return (Entry(f"item-{index:06d}") for index in range(count))

    def _kept(self) -> Iterator[Any]:
        self._dataset = []
        with user_code(f"the data set {self.name!r}", error=ImageSetError, advice=AGAIN):
            for item in self._given:
                self._dataset.append(item)
                yield item

    def load(self, entry: Entry) -> Any:
        """Return an item's image."""
        return self.read(entry).image

    def read(self, entry: Entry) -> Item:
        """Return what an item holds.

        Raises:
            ImageError: whatever the data set raises, but for a lack of memory.
            MemoryError: likewise.
        """
        index = int(entry.path.rpartition("-")[2])
        who = f"item {index} of the data set"
        try:
            with user_code(who, error=ImageError, advice=AGAIN):
                with _READING:
                    given = self._dataset[index]
                item = read_item(given, origin_of(self._given, index))
                read_pixels(item.image)
        except ImageError as error:
            if error.__cause__ and is_shortage(error):
                raise MemoryError(sentence(who, error.__cause__)) from error.__cause__
            raise
        self._columns = self._columns or item.columns
        if item.left_out:
            self._left_out.setdefault(item.left_out, entry.path)
        if item.unnamed:
            self._unnamed = self._unnamed or entry.path
        return item


class Factory(DataSet):
    """A data set of the user's own code: ``package.module:factory`` or ``path/file.py:factory``."""

    def __init__(self, where: str) -> None:
        super().__init__(_call_factory(where))
        self.name = where

    @staticmethod
    def matches(where: Any) -> bool:
        """Say whether this names something in a module or a file, and is no file itself."""
        return (
            is_path(where)
            and _REFERENCE.fullmatch(os.fspath(where)) is not None
            and not exists(where)
        )


class HuggingFace(DataSet):
    """A data set that Hugging Face's ``datasets`` loads: ``hf:PATH``, ``hf:NAME#SPLIT``."""

    def __init__(self, where: str) -> None:
        super().__init__(_load_split(*os.fspath(where).removeprefix("hf:").partition("#")[::2]))
        self.name = where

    @staticmethod
    def matches(where: Any) -> bool:
        """Say whether this begins with ``hf:``, and is no file itself."""
        named = is_path(where) and os.fspath(where).startswith("hf:")
        return named and not is_address(where) and not exists(where)


def is_dataset(value: object) -> bool:
    """Say whether an object has a length and items, or can be iterated over without a length."""
    return hasattr(value, "__getitem__" if hasattr(value, "__len__") else "__iter__")


def _call_factory(spec: str) -> Any:
    """Return the data set that a reference names or, being called without arguments, gives."""
    dataset = load_reference(spec, "factory", ImageSetError)
    if not is_dataset(dataset) or isinstance(dataset, type):
        if not callable(dataset):
            raise ImageSetError(f"{spec!r} is {kind_of(dataset)}; name a function or a data set")
        with user_code(repr(spec), error=ImageSetError, advice=AGAIN):
            dataset = dataset()
    if not is_dataset(dataset):
        raise ImageSetError(
            f"{spec!r} gave {kind_of(dataset)}; it has to give a data set with "
            "__len__ and __getitem__"
        )
    return dataset


def _load_split(name: str, split: str) -> Any:
    """Load a data set that was saved to a folder, or that lies in one or on the hub."""
    try:
        import datasets
    except ImportError:
        raise ImageSetError(
            f"{name!r} needs Hugging Face's datasets; install exporter[datasets]"
        ) from None
    saved = any(Path(name, file).is_file() for file in ("state.json", "dataset_dict.json"))
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        with user_code(f"the data set {name!r}", error=ImageSetError):
            loaded = datasets.load_from_disk(name) if saved else datasets.load_dataset(name)
    finally:
        if shown:
            datasets.enable_progress_bars()
    if not isinstance(loaded, Mapping):
        loaded = {"": loaded}
    if split not in loaded and (split or len(loaded) > 1):
        has = ", ".join(filter(None, loaded)) or "none"
        raise ImageSetError(
            f"the data set {name!r} has the splits {has}; give one of them, as hf:{name}#SPLIT"
        )
    return loaded[split] if split else next(iter(loaded.values()))
