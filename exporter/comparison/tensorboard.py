"""TensorBoard of a comparison: steps become a slider, models neighbouring runs.

    contact sheets   METHOD/<stage> 01: rows are images, columns are runs
    RUN              difference/METHOD/<path>: the run's map less the baseline's, side by side
                     with both overlays; scalars, and HParams across runs

Checkpoints of one model are the steps of one RUN. Only the images that changed most are here, as
the server keeps them in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from heapq import nsmallest
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from exporter.comparison.aligning import at_stage
from exporter.comparison.folder import Comparison
from exporter.comparison.joining import Joined
from exporter.comparison.records import Compared, ImageComparison, Stage
from exporter.comparison.similarity import first_maps, fitted
from exporter.records import MAP_LEVELS, Row, StoredMap
from exporter.render import decode_image, draw_text, encode_jpeg, get_colormap, overlay_map
from exporter.store import Run
from exporter.store.replacing import new_folder
from exporter.watch import Watch
from exporter.writers import links
from exporter.writers.reading import seconds_of, set_numbers
from exporter.writers.scalars import Scalar, method_scalars, set_scalars
from exporter.writers.tensorboard.events import EventFile, image_summary
from exporter.writers.tensorboard.numbers import scalar_summaries
from exporter.writers.tensorboard.sessions import layout_summary, session_summaries

IMAGES: Final = 32
"""Images that are shown: half of them flipped, the others' maps moved most."""

PER_SHEET: Final = 8
TILE, NAMES, LINE, GAP = 112, 150, 16, 4
"""Pixels of a sheet: side of a tile, width of the names, height of a line, between tiles."""

Picture = NDArray[np.uint8]


def write_log(comparison: Comparison, joined: Joined, watch: Watch) -> None:
    """Write ``tensorboard/`` of a comparison folder, whole or not at all."""
    chosen = choose(comparison)
    with new_folder(comparison.files, "tensorboard") as (place, building), ExitStack() as files:
        folder = place.place(building)
        opened = [_open(files, folder, joined, run) for run in range(len(joined.runs))]
        sheets = files.enter_context(EventFile(folder / "contact sheets", _seconds(joined), 0))
        for run, file in enumerate(opened):
            for summary in _numbers(comparison, joined, run):
                file.add(summary)
        ids = [row.id for row in chosen]
        columns = ("image", "crop", "maps", "predictions", "correct", "label")
        rows = list(joined.rows(ids, columns))
        for method in joined.methods:
            for stage in comparison.stages_of(method):
                for summary in contact_sheets(rows, joined, method, stage):
                    sheets.add(summary)
            deepest = comparison.stages_of(method)[-1:]
            for image in rows if deepest else ():
                for run, summary in _differences(image, joined, method, deepest[0]):
                    opened[run].add(summary)
        watch.advance(len(rows))


def choose(comparison: Comparison) -> list[ImageComparison]:
    """Choose the images that are shown, in the order of the set; no others stay in memory."""
    flipped: dict[int, ImageComparison] = {}

    def rows() -> Iterator[tuple[int, ImageComparison]]:
        for at, row in enumerate(comparison.images()):
            if len(flipped) < IMAGES // 2 and any(verdict.flip for verdict in row.verdicts):
                flipped[at] = row
            yield at, row

    def moved(place: tuple[int, ImageComparison]) -> float:
        return 2 if place[1].likeness is None else place[1].likeness

    others = [(at, row) for at, row in nsmallest(IMAGES, rows(), key=moved) if at not in flipped]
    chosen = flipped | dict(others[: IMAGES - len(flipped)])
    return [chosen[at] for at in sorted(chosen)]


def _open(files: ExitStack, folder: Path, joined: Joined, run: int) -> EventFile:
    """Open the event file of a run; checkpoints are steps of one."""
    step = joined.steps[run]
    name = joined.plans[run].model.name if step is not None else joined.names[run]
    where = folder / links.safe_name(name)
    file: EventFile = files.enter_context(EventFile(where, _seconds(joined), step or 0, str(run)))
    return file


def _seconds(joined: Joined) -> float:
    return seconds_of(joined.plans[joined.baseline].created)


def _numbers(comparison: Comparison, joined: Joined, at: int) -> Iterator[Any]:
    """Yield a run's scalars, those against the baseline too, and what HParams reads."""
    run: Run = joined.runs[at]
    scalars = [*set_scalars(run, set_numbers(run)), *_against(comparison, joined, at)]
    yield from scalar_summaries(scalars)
    known = {name for name, value, _ in scalars if value is not None}
    methods: Mapping[str, Sequence[Scalar]] = method_scalars(run)
    yield from session_summaries(run, joined.steps[at], methods, _seconds(joined))
    yield layout_summary(known)


def _against(comparison: Comparison, joined: Joined, run: int) -> Iterator[Scalar]:
    base = joined.names[joined.baseline]
    for row in comparison.contents.contrasts:
        if row.run == run:
            yield "right to wrong", row.lost, f"Images that {base} has right and this run wrong."
            yield "wrong to right", row.won, f"Images that {base} has wrong and this run right."
    for alike in comparison.records("similarity"):
        if {alike.first, alike.second} == {run, joined.baseline}:
            said = f"Mean rank correlation of the maps with those of {base}, {alike.images} images."
            yield f"likeness/{alike.method} at {alike.stage}", alike.spearman, said


def contact_sheets(
    rows: Sequence[Sequence[Row]], joined: Joined, method: Compared, stage: Stage
) -> Iterator[Any]:
    """Yield pages of images by rows and runs by columns, with one method's maps at one stage."""
    pages = [rows[start : start + PER_SHEET] for start in range(0, len(rows), PER_SHEET)]
    for number, page in enumerate(pages, 1):
        picture = sheet(page, joined, method, stage)
        tag = f"{links.tag_text(method.name)}/{links.tag_text(stage.name)} {number:02d}"
        yield image_summary(
            tag,
            [encode_jpeg(picture, 88)],
            (picture.shape[1], picture.shape[0]),
            title=f"{method.title} at {at_stage(stage.name)}, {number} of {len(pages)}",
            description=f"Rows are images, columns are runs: {', '.join(joined.names)}.",
        )


def sheet(rows: Sequence[Sequence[Row]], joined: Joined, method: Compared, stage: Stage) -> Picture:
    """Draw a page: uint8 (H, W, 3) RGB."""
    wide = NAMES + len(joined.runs) * (TILE + GAP)
    picture = np.full((LINE + GAP + len(rows) * (TILE + LINE + GAP), wide, 3), 255, np.uint8)
    for run, name in enumerate(joined.names):
        draw_text(picture, name, (NAMES + run * (TILE + GAP), LINE - 4), size=12, width=TILE)
    for number, image in enumerate(rows):
        top = LINE + GAP + number * (TILE + LINE + GAP)
        base = image[joined.baseline]
        draw_text(picture, base.path, (0, top + 12), size=12, width=NAMES - 8)
        draw_text(picture, base.label or "", (0, top + 12 + LINE), size=12, width=NAMES - 8)
        for run, row in enumerate(image):
            left = NAMES + run * (TILE + GAP)
            stored = map_of(row, method, stage, run)
            tile = overlaid(row, stored, relu=method.relu[run])
            picture[top : top + TILE, left : left + TILE] = cv2.resize(
                tile, (TILE, TILE), interpolation=cv2.INTER_AREA
            )
            if row.predictions:
                mark = {True: "right: ", False: "wrong: ", None: ""}[row.correct]
                said = f"{mark}{row.predictions[0].name}"
                draw_text(picture, said, (left, top + TILE + 12), size=12, width=TILE)
    return picture


def map_of(row: Row, method: Compared, stage: Stage, run: int) -> StoredMap | None:
    """Return a run's map of an image by a method at a stage, or None."""
    return first_maps(row).get((method.methods[run], stage.layers[run]))


def overlaid(row: Row, stored: StoredMap | None, *, relu: bool) -> Picture:
    """Return the model's view with a map over it, uint8 (H, W, 3) RGB."""
    view = decode_image(row.image or b"")
    if view.shape[2] == 1:
        view = np.repeat(view, 3, axis=2)
    height, width = view.shape[:2]
    scale = TILE / min(height, width)
    if scale > 1:  # a digit of 32 pixels is drawn as large as a photograph
        view = np.asarray(cv2.resize(view, (round(width * scale), round(height * scale))), np.uint8)
    return view if stored is None else overlay_map(view, stored, rectify=relu)


def _differences(
    image: Sequence[Row], joined: Joined, method: Compared, stage: Stage
) -> Iterator[tuple[int, Any]]:
    """Yield each run's difference from the baseline, with both overlays, as samples of a card."""
    base = joined.baseline
    first = map_of(image[base], method, stage, base)
    for run, row in enumerate(image):
        second = map_of(row, method, stage, run)
        if run == base or first is None or second is None:
            continue
        size = (min(first.height, second.height), min(first.width, second.width))
        a, b = (
            _share(stored, image[at], image[base], size, relu=method.relu[at])
            for at, stored in ((base, first), (run, second))
        )
        tile = overlaid(image[base], first, relu=method.relu[base])
        high, wide = tile.shape[:2]
        levels = cv2.resize((127.5 * (1 + b - a)).astype(np.float32), (wide, high))
        pictures = [
            tile,
            cv2.resize(overlaid(row, second, relu=method.relu[run]), (wide, high)),
            get_colormap("diverging")[np.rint(levels).astype(np.uint8)],
        ]
        yield (
            run,
            image_summary(
                links.image_tag(f"difference {method.name}", image[base]),
                [encode_jpeg(np.asarray(p, np.uint8), 88) for p in pictures],
                (wide, high),
                title=links.plain(image[base].path),
                description=f"{joined.names[base]}, {joined.names[run]}, and the second less the "
                f"first: {method.title} at {at_stage(stage.name)}, each map between 0 and 1 of "
                "its own range; blue -1, red +1.",
            ),
        )


def _share(
    stored: StoredMap, row: Row, base: Row, size: tuple[int, int], *, relu: bool
) -> NDArray[np.float64]:
    """Return a map over the baseline's view, between 0 and 1 of its range as it is painted."""
    levels = fitted(stored, row.crop, None if row.crop == base.crop else base.crop, size)
    span = stored.hi - stored.lo
    zero = np.clip(-stored.lo / span, 0, 1) if relu and span > 0 else 0.0
    share = np.clip((levels / MAP_LEVELS - zero) / (1 - zero or 1), 0, 1)
    return np.asarray(share if span > 0 else np.zeros(size))
