"""Images from a torch Dataset, or anything with a length and items.

Nothing here imports torch: a tensor is recognised by its methods.
"""

from __future__ import annotations

import math
import os
import re
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from exporter.doors import load_reference
from exporter.errors import ImageError, ImageSetError, kind_of
from exporter.guard import FAILURES, told, user_code
from exporter.images.files import Paths, exists, is_path
from exporter.images.keys import hash_contents
from exporter.images.sources import Entry

_IMAGE_NAMES = ("image", "img", "pixel_values")
_LABEL_NAMES = ("label", "labels", "target")
_REFERENCE = re.compile(r"(.+\.py|[\w.]+):[\w.]+")
# Few data sets promise that two threads may read them at once.
_READING = threading.Lock()


class DataSet:
    """The items of a data set; each is read by one thread at a time."""

    def __init__(self, where: Any) -> None:
        self.name = type(where).__name__
        self._dataset = where

    @staticmethod
    def matches(where: Any) -> bool:
        """Say whether an object has a length and items, and they are not paths."""
        return is_dataset(where) and not is_path(where) and not Paths.matches(where)

    def paths(self) -> list[str]:
        """Return the items' names, without reading one."""
        try:
            return [f"item-{index:06d}" for index in range(len(self._dataset))]
        except FAILURES as error:  # the user's own code, or a length that is not known
            raise ImageSetError(
                f"the data set {self.name!r} has no length ({told(error)}); give one with "
                "__len__ and __getitem__"
            ) from error

    def entries(self) -> Iterator[Entry]:
        """Yield the items in the order of their index; each is read, for its label and its key."""
        for index, path in enumerate(self.paths()):
            try:
                image, label = self._item(index)
                yield Entry(path, self._label(label), key=hash_contents(image))
            except ImageError as error:
                yield Entry(path, error=str(error))

    def load(self, entry: Entry) -> Any:
        """Return an item's image."""
        return self._item(int(entry.path.rpartition("-")[2]))[0]

    def _item(self, index: int) -> tuple[Any, Any]:
        with _READING, user_code(f"item {index} of the data set", error=ImageError):
            item = self._dataset[index]
        if isinstance(item, Mapping):
            image = next((item[name] for name in _IMAGE_NAMES if name in item), None)
            return image, next((item[name] for name in _LABEL_NAMES if name in item), None)
        if isinstance(item, tuple | list) and item:
            return item[0], item[1] if len(item) > 1 else None
        return item, None

    def _label(self, label: Any) -> str | None:
        shape = getattr(label, "shape", None)
        if shape is not None and hasattr(label, "item") and math.prod(shape) == 1:
            label = label.item()
        if isinstance(label, str):
            return label or None
        if not isinstance(label, int):
            return None
        names = getattr(self._dataset, "classes", None)
        if isinstance(names, list | tuple) and 0 <= label < len(names):
            return str(names[label])
        return str(label)


class Factory(DataSet):
    """A data set of the user's own code: ``package.module:factory`` or ``path/file.py:factory``."""

    def __init__(self, where: str) -> None:
        super().__init__(_call_factory(where))
        self.name = where

    @staticmethod
    def matches(where: Any) -> bool:
        """Say whether this names something in a module or a file, and is no file itself."""
        if not is_path(where):
            return False
        return _REFERENCE.fullmatch(os.fspath(where)) is not None and not exists(where)


def is_dataset(value: object) -> bool:
    """Say whether an object has a length and items."""
    return hasattr(value, "__len__") and hasattr(value, "__getitem__")


def _call_factory(spec: str) -> Any:
    """Return the data set that a reference names or, being called without arguments, gives."""
    factory = load_reference(spec, "factory", ImageSetError)
    if is_dataset(factory) and not isinstance(factory, type):
        return factory
    if not callable(factory):
        raise ImageSetError(f"{spec!r} is {kind_of(factory)}; name a function or a data set")
    with user_code(repr(spec), error=ImageSetError):
        dataset = factory()
    if not is_dataset(dataset):
        raise ImageSetError(
            f"{spec!r} gave {kind_of(dataset)}; it has to give a data set with "
            "__len__ and __getitem__"
        )
    return dataset
