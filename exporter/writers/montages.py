"""The pictures of a run, each drawn and encoded once for the writers in this process.

TensorBoard and W&B show the same montage of an image, and the same overlays of its deepest stage.
Those of the first `MOST` images stay in memory until the last writer of the run is done; a later
montage is drawn for each writer, in 2.5 ms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from exporter.records import Row, StoredMap
from exporter.render import MontageLayout, encode_jpeg, layout_of, overlay_map
from exporter.render.boxes import draw_boxes, draw_region, explained_box
from exporter.store import Run
from exporter.writers import links
from exporter.writers.reading import in_order

MOST = 1024
"""Images whose pictures stay in memory: a montage of about 60 kB, overlays of 12 kB each."""

QUALITY = 88
"""Of the JPEGs of single maps."""


@dataclass(frozen=True)
class _Pictures:
    layout: MontageLayout
    stages: dict[str, str]
    rectified: dict[str, bool]
    montages: dict[tuple[str, int, bool, bool], bytes] = field(default_factory=dict)
    overlays: dict[str, dict[tuple[str, str, str, bool], bytes]] = field(default_factory=dict)


# By run, of which there is one at a time.
_kept: dict[tuple[str, str], _Pictures] = {}


def montage_jpeg(run: Run, row: Row, *, uniform: bool = False) -> bytes:
    """Return the montage of an image as JPEG, the same bytes each time within this process."""
    pictures = _of(run)
    # A row read without its maps must not stand for one with them.
    place = (row.id, len(row.maps), row.image is not None, uniform)
    jpeg = pictures.montages.get(place) or pictures.layout.jpeg(row, uniform=uniform)
    if len(pictures.montages) < MOST:
        pictures.montages[place] = jpeg
    return jpeg


def overlay_jpeg(
    run: Run,
    row: Row,
    stored: StoredMap,
    view: Callable[[], NDArray[np.uint8]],
    *,
    uniform: bool = False,
) -> bytes:
    """Return a map over the model's view as JPEG, with the box or the region that it explains."""
    pictures, place = _of(run), (stored.method, stored.layer, stored.target, uniform)
    jpeg = pictures.overlays.get(row.id, {}).get(place)
    if jpeg is None:
        rectify = pictures.rectified[stored.method]
        drawn = overlay_map(view(), stored, rectify=rectify, uniform=uniform)
        draw_boxes(drawn, row, explained_box(stored.target), alone=True)
        draw_region(drawn, row, stored.target, alone=True)
        jpeg = encode_jpeg(drawn, QUALITY)
        if pictures.stages.get(stored.layer) == links.DEEPEST and len(pictures.overlays) < MOST:
            pictures.overlays.setdefault(row.id, {})[place] = jpeg
    return jpeg


def input_jpeg(row: Row, view: Callable[[], NDArray[np.uint8]]) -> bytes:
    """Return the model's view of an image as stored, or with what is boxed in it drawn over it."""
    if not (row.boxes or row.predicted_boxes or row.regions):
        return row.image or b""
    pixels = view()
    drawn = np.broadcast_to(pixels, (*pixels.shape[:2], 3)).copy()
    draw_boxes(drawn, row, next((explained_box(stored.target) for stored in row.maps), None))
    for region in row.regions:
        draw_region(drawn, row, region.target)
    return encode_jpeg(drawn, QUALITY)


def stages_of(run: Run) -> dict[str, str]:
    """Return the short name of every place of a run that has maps, see `links.stage_names`."""
    return _of(run).stages


def deepest_maps(run: Run, row: Row) -> dict[str, StoredMap]:
    """Return the map of each method that stands for an image, of its first target, by method."""
    stages = _of(run).stages
    maps: dict[str, StoredMap] = {}
    for stored in row.maps:
        if stages.get(stored.layer) == links.DEEPEST:
            maps.setdefault(stored.method, stored)
    return maps


def montage_jpegs(
    run: Run, rows: Iterable[Row], *, uniform: bool = False, threads: int | None = None
) -> Iterator[tuple[Row, bytes]]:
    """Return each row with its montage, in order, drawn a few at a time in threads.

    Args:
        run: the run the rows are of.
        rows: images with their pictures and maps; read from the calling thread only.
        uniform: blend maps evenly, instead of fading them where they are low.
        threads: how many; the machine's processors (at most 8) if None.

    Examples:
        >>> from exporter.demo import example_run
        >>> run = example_run()
        >>> [(row.path, jpeg[6:10]) for row, jpeg in montage_jpegs(run, run.rows())]
        [('astronaut.jpg', b'JFIF'), ('brick.jpg', b'JFIF')]
    """
    _of(run)
    return in_order(lambda row: montage_jpeg(run, row, uniform=uniform), rows, threads)


def montage_size(run: Run) -> tuple[int, int]:
    """Return (width, height) of a run's montages in pixels."""
    return _of(run).layout.size


def forget(run: Run) -> None:
    """Drop the pictures kept of a run, after its last writer."""
    _kept.pop(_key(run), None)


def _key(run: Run) -> tuple[str, str]:
    return str(run.path.absolute()), run.plan.created


def _of(run: Run) -> _Pictures:
    key = _key(run)
    if key not in _kept:
        _kept.clear()
        rectified = {method.name: method.relu for method in run.plan.methods}
        _kept[key] = _Pictures(layout_of(run.plan), links.stage_names(run.plan), rectified)
    return _kept[key]
