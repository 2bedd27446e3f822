"""Images from a torch Dataset, or anything with a length and items.

Nothing here imports torch: a tensor is recognised by its methods.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from exporter.doors import load_reference
from exporter.errors import ImageError, ImageSetError, kind_of
from exporter.guard import is_shortage, passes, told, user_code
from exporter.images.files import Paths, exists, is_path
from exporter.images.labels import NAMES, class_names, label_text
from exporter.images.sources import Entry

_IMAGE_NAMES = ("image", "img", "pixel_values")
_REFERENCE = re.compile(r"(.+\.py|[\w.]+):[\w.]+")
# Few data sets promise that two threads may read them at once.
_READING = threading.Lock()


class DataSet:
    """The items of a data set; each is read by one thread at a time.

    One that can only be iterated over is a stream: its first items, up to a limit, are kept.
    """

    def __init__(self, where: Any) -> None:
        self.name = type(where).__name__
        self.stream = not hasattr(where, "__len__")
        self._given = where
        self._dataset: Any = [] if self.stream else where
        self._left_out: dict[str, str] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        """What kinds of label are left out, with an item of each."""
        return tuple(
            f"labels that are {kind} are left out: a label is a class's name or index ({path})"
            for kind, path in self._left_out.items()
        )

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
        with user_code(f"the data set {self.name!r}", error=ImageSetError):
            for item in self._given:
                self._dataset.append(item)
                yield item

    def load(self, entry: Entry) -> Any:
        """Return an item's image."""
        return self.read(entry)[0]

    def read(self, entry: Entry) -> tuple[Any, str | None]:
        """Return an item's image and its label.

        Raises:
            ImageError: whatever the data set raises, but for a lack of memory.
            MemoryError: likewise.
        """
        index = int(entry.path.rpartition("-")[2])
        try:
            with _READING, user_code(f"item {index} of the data set", error=ImageError):
                item = self._dataset[index]
        except ImageError as error:
            if is_shortage(error):
                raise MemoryError(str(error)) from error.__cause__
            raise
        image, label = item, None
        if isinstance(item, Mapping):
            image, label = (
                next((item[name] for name in names if name in item), None)
                for names in (_IMAGE_NAMES, NAMES)
            )
        elif isinstance(item, tuple | list) and item:
            image, label = item[0], item[1] if len(item) > 1 else None
        text = None if label is None else label_text(label, class_names(self._given, index))
        if text is None and label is not None and not isinstance(label, str | float):
            shape = getattr(label, "shape", None)
            of = "" if shape is None else f" of shape {tuple(shape)}"
            self._left_out.setdefault(f"{kind_of(label)}{of}", entry.path)
        return image, text


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


def is_dataset(value: object) -> bool:
    """Say whether an object has a length and items, or can be iterated over without a length."""
    return hasattr(value, "__getitem__" if hasattr(value, "__len__") else "__iter__")


def _call_factory(spec: str) -> Any:
    """Return the data set that a reference names or, being called without arguments, gives."""
    dataset = load_reference(spec, "factory", ImageSetError)
    if not is_dataset(dataset) or isinstance(dataset, type):
        if not callable(dataset):
            raise ImageSetError(f"{spec!r} is {kind_of(dataset)}; name a function or a data set")
        with user_code(repr(spec), error=ImageSetError):
            dataset = dataset()
    if not is_dataset(dataset):
        raise ImageSetError(
            f"{spec!r} gave {kind_of(dataset)}; it has to give a data set with "
            "__len__ and __getitem__"
        )
    return dataset
