"""The montages of a run, each drawn and encoded once for every writer in this process.

TensorBoard and W&B show the same picture of an image. The first that asks for it has it drawn; its
bytes are kept in an unnamed temporary file (of 100,000 images they would not fit in memory), which
the system removes with the process, however that ends.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

from exporter.render import MontageLayout, layout_of
from exporter.writers.reading import in_order

if TYPE_CHECKING:
    from exporter.records import Row
    from exporter.store import Run


def _unnamed_file() -> IO[bytes]:
    return tempfile.TemporaryFile(prefix="montages-")


@dataclass
class _Kept:
    """Encoded montages of one run: where each lies in the file."""

    file: IO[bytes] = field(default_factory=_unnamed_file)
    positions: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    end: int = 0


_lock = threading.Lock()
_kept: dict[tuple[str, str], _Kept] = {}
_local = threading.local()


def montage_jpeg(run: Run, row: Row, layout: MontageLayout | None = None) -> bytes:
    """Return the montage of an image as JPEG: the same bytes each time within this process.

    Safe in several threads, if each gives its own layout or none.

    Args:
        run: the run the row is of.
        row: the image, with its picture and maps; one that could not be read gives a picture that
            says why.
        layout: how to draw it, and then nothing is kept; None uses the run's own layout and keeps
            the bytes until `forget`.

    Returns:
        JPEG bytes of ``layout.size`` pixels.
    """
    if layout is not None:
        return layout.jpeg(row)
    key = _key(run)
    # A row read without its maps must not stand for one with them.
    place = (row.id, f"{len(row.maps)}{row.image is not None}")
    encoded = _recall(key, place)
    if encoded is None:
        encoded = own_layout(run).jpeg(row)
        _keep(key, place, encoded)
    return encoded


def montage_jpegs(
    run: Run, rows: Iterable[Row], *, threads: int | None = None
) -> Iterator[tuple[Row, bytes]]:
    """Return each row with its montage, in order, drawn a few at a time in threads.

    Args:
        run: the run the rows are of.
        rows: images with their pictures and maps; read from the calling thread only.
        threads: how many; the machine's processors (at most 8) where None.
    """
    return in_order(lambda row: montage_jpeg(run, row), rows, threads)


def own_layout(run: Run) -> MontageLayout:
    """Return this thread's layout of a run's montages."""
    key = _key(run)
    if getattr(_local, "key", None) != key:
        _local.key, _local.layout = key, layout_of(run.plan)
    layout: MontageLayout = _local.layout
    return layout


def forget(run: Run) -> None:
    """Drop the montages kept of a run, after its last writer."""
    with _lock:
        dropped = _kept.pop(_key(run), None)
    if dropped is not None:
        dropped.file.close()


def _key(run: Run) -> tuple[str, str]:
    return str(run.path.resolve()), run.plan.created


def _recall(key: tuple[str, str], place: tuple[str, str]) -> bytes | None:
    with _lock:
        kept = _kept.get(key)
        if kept is None or place not in kept.positions:
            return None
        start, length = kept.positions[place]
        kept.file.seek(start)
        return kept.file.read(length)


def _keep(key: tuple[str, str], place: tuple[str, str], encoded: bytes) -> None:
    with _lock:
        if key not in _kept:
            # One run at a time is the rule; an older one's bytes are not worth their disk.
            while len(_kept) >= 2:
                _kept.pop(next(iter(_kept))).file.close()
            _kept[key] = _Kept()
        kept = _kept[key]
        if place in kept.positions:
            return
        kept.file.seek(kept.end)
        kept.file.write(encoded)
        kept.positions[place] = (kept.end, len(encoded))
        kept.end += len(encoded)
