"""The montages of a run, each drawn and encoded once for the writers in this process.

TensorBoard and W&B show the same picture of an image. The bytes of the first `MOST` stay in memory
until the last writer of the run is done; a later one is drawn for each writer, in 1.5 ms.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from exporter.render import MontageLayout, layout_of
from exporter.writers.reading import in_order

if TYPE_CHECKING:
    from exporter.records import Row
    from exporter.store import Run

MOST = 1024
"""Montages in memory, about 60 kB each."""

_Place = tuple[str, int, bool]
# By run, of which there is one at a time.
_kept: dict[tuple[str, str], tuple[MontageLayout, dict[_Place, bytes]]] = {}


def montage_jpeg(run: Run, row: Row) -> bytes:
    """Return the montage of an image as JPEG: the same bytes each time within this process.

    Args:
        run: the run the row is of.
        row: the image, with its picture and maps; one that could not be read gives a picture that
            says why.
    """
    layout, encoded = _of(run)
    # A row read without its maps must not stand for one with them.
    place = (row.id, len(row.maps), row.image is not None)
    jpeg = encoded.get(place) or layout.jpeg(row)
    if len(encoded) < MOST:
        encoded[place] = jpeg
    return jpeg


def montage_jpegs(
    run: Run, rows: Iterable[Row], *, threads: int | None = None
) -> Iterator[tuple[Row, bytes]]:
    """Return each row with its montage, in order, drawn a few at a time in threads.

    Args:
        run: the run the rows are of.
        rows: images with their pictures and maps; read from the calling thread only.
        threads: how many; the machine's processors (at most 8) where None.
    """
    _of(run)
    return in_order(lambda row: montage_jpeg(run, row), rows, threads)


def montage_size(run: Run) -> tuple[int, int]:
    """Return (width, height) of a run's montages in pixels."""
    return _of(run)[0].size


def forget(run: Run) -> None:
    """Drop the montages kept of a run, after its last writer."""
    _kept.pop(_key(run), None)


def _key(run: Run) -> tuple[str, str]:
    return str(run.path.resolve()), run.plan.created


def _of(run: Run) -> tuple[MontageLayout, dict[_Place, bytes]]:
    key = _key(run)
    if key not in _kept:
        _kept.clear()
        _kept[key] = (layout_of(run.plan), {})
    return _kept[key]
