"""What a source gives for its images: read once for their keys, and again for the model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from itertools import chain, islice
from typing import Any

from exporter.errors import ImageError, ImageSetError, one_line, reason
from exporter.guard import AGAIN, FAILURES, is_shortage, sentence
from exporter.images.datasets import DataSet
from exporter.images.files import as_text
from exporter.images.keys import hash_contents
from exporter.images.pixels import Form, form_of, read_pixels
from exporter.images.sources import Entry, Source

_CHUNK = 256
# So many items of a data set are read twice, which shows all but rarely that it augments at random.
_READ_TWICE = 8


def hash_entries(
    source: Source, listed: Sequence[Entry], workers: int, forms: dict[Form, str]
) -> list[Entry]:
    """Give each image its key, or the reason why it cannot be read; collect the forms they have."""

    def identified(entry: Entry) -> Entry:
        if entry.key is not None or entry.error is not None:
            return entry
        try:
            if isinstance(source, DataSet):
                item = source.read(entry)
                contents, entry = item.image, replace(entry, label=item.label, boxes=item.boxes)
            else:
                contents = read_contents(source, entry)
            key = hash_contents(contents)
            forms.setdefault(form_of(contents), entry.path)
        except ImageError as error:
            return replace(entry, error=str(error))
        except MemoryError as error:
            said = f"there is not enough memory to read {as_text(entry.path)!r}: {error}"
            raise ImageSetError(
                f"{said.rstrip(': ')}; free memory, or give fewer --workers, and try again"
            ) from error
        return replace(entry, key=key)

    chunks = [listed[start : start + _CHUNK] for start in range(0, len(listed), _CHUNK)]
    threads = workers or min(16, 2 * (os.cpu_count() or 1))
    with ThreadPoolExecutor(threads, thread_name_prefix="hash") as pool:
        return list(chain.from_iterable(pool.map(lambda chunk: [*map(identified, chunk)], chunks)))


def refuse_random(source: DataSet, shown: str, hashed: Iterable[Entry]) -> None:
    """Refuse a data set whose first items are others when they are read again."""
    for entry in islice((entry for entry in hashed if entry.error is None), _READ_TWICE):
        with suppress(ImageError):  # its row will say so
            if hash_contents(source.load(entry)) != entry.key:
                raise ImageSetError(
                    f"the data set {shown!r} gives other pixels each time it is read "
                    f"({entry.path!r}): turn its random augmentation off, or seed it by the index"
                )


def read_contents(source: Source, entry: Entry) -> Any:
    """Return what a source gives for an image, or raise ``ImageError`` or ``MemoryError``."""
    try:
        contents = source.load(entry)
        read_pixels(contents)
        return contents
    except (ImageError, MemoryError):
        raise
    except (OSError, ValueError) as error:  # a path with a null character is a ValueError
        if is_shortage(error):
            raise MemoryError(reason(error)) from error
        raise ImageError(f"the file cannot be read: {reason(error)}") from None
    except FAILURES as error:  # a plug-in's code
        if is_shortage(error):
            raise MemoryError(one_line(error)) from error
        raise ImageError(sentence("the image source", error, advice=AGAIN)) from error
