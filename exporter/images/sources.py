"""What an image source is: one protocol for folders, lists, data sets and what plug-ins add."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Entry:
    """One image of a source.

    Attributes:
        path: its name in the source, such as a path below a folder.
        label: text of its class, or None.
        mask: path of a mask that the source can load, or None.
        boxes: (left, top, right, bottom) in pixels of the upright original, or None.
        key: ``hash_contents`` of the image, if the source has to read it to know its label;
            where it is None the image is loaded once to be hashed.
        error: why the image cannot be read, or None.

    Examples:
        >>> Entry("cats/1.jpg", label="cat", boxes=((0, 0, 10, 20),)).label
        'cat'
    """

    path: str
    label: str | None = None
    mask: str | None = None
    boxes: tuple[Box, ...] | None = None
    key: str | None = None
    error: str | None = None


class Source(Protocol):
    """Images from somewhere: a class that says which locations it accepts, made from one of them.

    ``__init__`` is given the location as it was given to ``--images`` or in Python. An object with
    ``entries`` and ``load`` can also be passed directly. Sentences for the user go into an
    attribute ``notes``, which is read after the entries.

    Examples:
        >>> import numpy as np
        >>> from exporter.images import open_images
        >>> class Greys:
        ...     def __init__(self, where):
        ...         self.count = int(where.removeprefix("greys:"))
        ...     @staticmethod
        ...     def matches(where):
        ...         return isinstance(where, str) and where.startswith("greys:")
        ...     def entries(self):
        ...         return [Entry(f"grey-{level}", label="grey") for level in range(self.count)]
        ...     def load(self, entry):
        ...         level = int(entry.path.removeprefix("grey-"))
        ...         return np.full((8, 8, 3), level, np.uint8)
        >>> [(entry.path, entry.label) for entry in open_images(Greys("greys:2")).entries]
        [('grey-0', 'grey'), ('grey-1', 'grey')]
    """

    @staticmethod
    def matches(where: Any) -> bool:
        """Say whether a location is one of this source's."""

    def entries(self) -> Iterable[Entry]:
        """Yield every image, in the order that the run keeps.

        Raises:
            ImageSetError: if there is no such set, or it cannot be read.
        """

    def load(self, entry: Entry) -> Any:
        """Return an image, or a mask; called from several threads.

        Args:
            entry: one of ``entries``; for a mask, an entry whose path is the mask's.

        Returns:
            The bytes of an image file, a Pillow image, or an array or tensor, as docs/image-sets.md
            describes the items of data sets; the same each time.

        Raises:
            ImageError: if it cannot be read: its row keeps the reason and the run goes on.
            OSError: likewise.
        """
