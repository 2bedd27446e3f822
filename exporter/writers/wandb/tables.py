"""The tables and charts of a W&B run, and the pictures in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from exporter.errors import ImageError
from exporter.records import GIVEN, Row, StoredMap
from exporter.render import decode_image, encode_png, painted, target_text
from exporter.render.boxes import box_in_view, explained_box, region_in_view
from exporter.writers import links
from exporter.writers.montages import deepest_maps, montage_jpeg, overlay_jpeg, stages_of
from exporter.writers.reading import in_order, kept_rows
from exporter.writers.scalars import THRESHOLDS, precision_recall
from exporter.writers.wandb import rows
from exporter.writers.wandb.rows import Columns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from exporter.records import Box, ChannelRow
    from exporter.store import Run
    from exporter.writers.options import WandbOptions

INSIDE, FOUND = 255, 254
"""Numbers of a given and of a predicted mask; apart from those of classes, which boxes have."""

QUARTERS = {
    250: "lowest quarter",
    251: "second quarter",
    252: "third quarter",
    253: "highest quarter",
}
"""Levels of a map that is laid over a photograph as a mask."""


@dataclass(frozen=True)
class Table:
    """A table of a job.

    Attributes:
        name: what it is logged as.
        columns: (name, kind) of each column.
        rows: its cells; see `rows.cells`.
        chart: (x, y, title) of a line chart of two of its columns, or None.
    """

    name: str
    columns: list[tuple[str, str]]
    rows: list[list[Any]]
    chart: tuple[str, str, str] | None = None


@dataclass(frozen=True)
class Pictures:
    """Where W&B takes pictures from.

    Attributes:
        folder: the writer's.
        work: the folder in it of what W&B copies.
        stay: that of what stays where it is; of the same name where nothing does.
    """

    folder: Path
    work: str
    stay: str

    def add(self, kind: str, name: str, encoded: bytes, *, stays: bool = False) -> str:
        """Write an encoded picture, and return its path from ``folder``."""
        form = "png" if encoded.startswith(b"\x89PNG") else "jpg"
        # A few hundred per folder: ids are hashes.
        folder = f"{self.stay if stays else self.work}/{name[:2]}"
        path = f"{folder}/{name}-{kind}.{form}" if kind else f"{folder}/{name}.{form}"
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded)
        return path


def tables_of(
    run: Run, channels: Sequence[ChannelRow], options: WandbOptions, pictures: Pictures
) -> tuple[list[Table], dict[str, str]]:
    """Return the tables of a run that have rows, and the photograph of each image in them."""
    columns, methods = rows.images(run, options), rows.methods(run)
    photographs, image_rows = _images(run, options, columns, pictures)
    most = rows.MAX_TABLE_ROWS
    parts = [image_rows[start : start + most] for start in range(0, len(image_rows), most)]
    names = ["images"] if len(parts) == 1 else [f"images/{n}" for n in range(len(parts))]
    tables = [_table(name, columns, part) for name, part in zip(names, parts, strict=True)]
    tables += [
        _table("kernels", rows.KERNELS, _kernels(run, pictures)),
        _table("maximised", rows.MAXIMISED, _maximised(run, pictures)),
        _table("channels", rows.CHANNELS, _channels(channels, photographs)),
        _table("classes", rows.CLASSES, _plain(rows.CLASSES, run.classes())),
        _table("confusion", rows.CONFUSION, _plain(rows.CONFUSION, run.confusion(most))),
        _table("methods", methods, _plain(methods, run.methods())),
        *_charts(run),
    ]
    return [table for table in tables if table.rows], photographs


def _table(
    name: str, columns: Columns, cells: list[list[Any]], chart: tuple[str, str, str] | None = None
) -> Table:
    told = [(column, kind) for column, kind, _ in columns]
    return Table(name, told, cells[: rows.MAX_TABLE_ROWS], chart)


def _plain(columns: Columns, records: Any) -> list[list[Any]]:
    return [rows.cells(columns, record) for record in records]


def _images(
    run: Run, options: WandbOptions, columns: Columns, pictures: Pictures
) -> tuple[dict[str, str], list[list[Any]]]:
    """Return the photograph of each kept image that could be read, by its id, and the rows."""
    photographs: dict[str, str] = {}
    table = []
    stages_of(run)  # before there are threads
    draw = partial(_draw, run, uniform=options.uniform_opacity)
    add = partial(pictures.add, stays=True)
    for row, drawn in in_order(draw, kept_rows(run, options.kept)):
        if row.image is None:
            continue
        photograph = photographs[row.id] = add("", row.id, row.image)
        shown = {name: add(links.safe_name(name), row.id, jpeg) for name, jpeg in drawn.items()}
        maps = deepest_maps(run, row) if options.wandb_masks else {}
        laid = _laid_over(run, row, maps, add)
        cells = [
            {"path": photograph, **laid} if laid else photograph,
            *(shown.get(f"map-{method.name}") for method in run.plan.methods),
            shown["montage"],
        ]
        table.append(rows.cells(columns, row, *cells))
    return photographs, table


def _draw(run: Run, row: Row, *, uniform: bool) -> dict[str, bytes]:
    """Return the montage of an image, and the overlay of each method where it is deepest."""
    view = cache(lambda: decode_image(row.image or b""))
    drawn = {"montage": montage_jpeg(run, row, uniform=uniform)}
    # What cannot be decoded has no overlay, and its montage says so.
    with suppress(ImageError):
        for name, stored in deepest_maps(run, row).items():
            drawn[f"map-{name}"] = overlay_jpeg(run, row, stored, view, uniform=uniform)
    return drawn


def _kernels(run: Run, pictures: Pictures) -> list[list[Any]]:
    return [
        rows.cells(
            rows.KERNELS, record, pictures.add("kernels", f"{n:04}", run.kernel_sheet(record))
        )
        for n, record in enumerate(run.kernels())
    ]


def _maximised(run: Run, pictures: Pictures) -> list[list[Any]]:
    return [
        rows.cells(rows.MAXIMISED, record, pictures.add("maximised", f"{n:05}", record.picture))
        for n, record in enumerate(run.maximised())
    ]


def _channels(channels: Sequence[ChannelRow], photographs: Mapping[str, str]) -> list[list[Any]]:
    """Return the rows of the channels; none where W&B would not show them all."""
    if len(channels) > rows.MAX_TABLE_ROWS:
        return []
    return [
        rows.cells(rows.CHANNELS, row, photographs.get(row.top[0]) if row.top else None)
        for row in channels
    ]


def _charts(run: Run) -> Iterator[Table]:
    """Yield the reliability diagram, and precision and recall where there are two classes."""
    summary = run.summary if run.complete else None
    bins = [own for own in summary.bins if own.images] if summary else []
    chart = ("confidence", "accuracy", "Calibration")
    yield _table("calibration", rows.CALIBRATION, _plain(rows.CALIBRATION, bins), chart)
    curve = precision_recall(run)
    if curve is not None:
        points = zip(np.linspace(0, 1, THRESHOLDS).tolist(), *curve[4:].tolist(), strict=True)
        name = links.class_name(run.plan.model, 1)
        chart = ("recall", "precision", f"Precision and recall of {name}")
        yield _table("precision and recall", rows.PRECISION, _plain(rows.PRECISION, points), chart)


def _laid_over(
    run: Run, row: Row, maps: Mapping[str, StoredMap], add: Callable[[str, str, bytes], str]
) -> dict[str, Any]:
    """Return the boxes and masks that W&B lays over a photograph; empty where there are none."""
    height, width = run.plan.model.preprocessing.size
    masks: dict[str, tuple[NDArray[np.uint8], dict[int, str]]] = {}
    for region in row.regions:
        given = region.target == GIVEN
        name = GIVEN if given else f"predicted {region.target}"
        label = GIVEN if given else target_text(region.target, row)
        number = INSIDE if given else FOUND
        masks[name] = (region_in_view(region, (width, height)) * np.uint8(number), {number: label})
    for name, stored in maps.items():
        masks[f"map {name}"] = (_quarters(stored, (width, height)), QUARTERS)
    boxes = _boxes(row, (width, height), run.plan.model.outputs)
    laid: dict[str, Any] = {"boxes": boxes} if boxes else {}
    if masks:
        laid["masks"] = {
            links.plain(name): {
                "path": add(f"mask-{number}", row.id, encode_png(cells)),
                "class_labels": {str(k): links.plain(label) for k, label in labels.items()},
            }
            for number, (name, (cells, labels)) in enumerate(masks.items())
        }
    return laid


def _quarters(stored: StoredMap, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return which of the `QUARTERS` of its values each pixel of a map belongs to; 0 for none."""
    values = cv2.resize(painted(stored), size, interpolation=cv2.INTER_LINEAR)
    if not np.isfinite(values).all():
        return np.zeros(size[::-1], np.uint8)
    ends = np.quantile(values, (0.25, 0.5, 0.75))
    levels = np.searchsorted(ends, values.ravel()) + min(QUARTERS)
    return levels.reshape(values.shape).astype(np.uint8)


def _boxes(row: Row, size: tuple[int, int], unknown: int) -> dict[str, Any]:
    """Return given and predicted boxes as W&B draws them; the one that is explained says so.

    Args:
        row: the image.
        size: (width, height) of the model's view in pixels.
        unknown: number of what a label names that is no class of the model.
    """
    explained = next((explained_box(stored.target) for stored in row.maps), None)
    predicted = zip(row.predicted_boxes or (), row.predictions, strict=False)
    known = unknown if row.label_index is None else row.label_index
    drawn: dict[str, list[tuple[Box, int, str, float | None, bool]]] = {
        GIVEN: [(box, known, row.label or GIVEN, None, False) for box in row.boxes or ()],
        "predicted": [
            (box, said.index, said.name, said.score, number == explained)
            for number, (box, said) in enumerate(predicted)
        ],
    }
    boxes = {}
    for layer, listed in drawn.items():
        placed = [
            {
                "position": position,
                "domain": "pixel",
                "class_id": index,
                "box_caption": caption_of(name, score, mark),
                **({} if score is None else {"scores": {"score": score}}),
            }
            for box, index, name, score, mark in listed
            if (position := _position(row, box, size)) is not None
        ]
        if placed:
            labels = {str(index): links.plain(name) for _, index, name, _, _ in listed}
            boxes[layer] = {"box_data": placed, "class_labels": labels}
    return boxes


def caption_of(name: str, score: float | None, explained: bool = False) -> str:
    """Return a class with its score, and whether it is what is explained."""
    said = name if score is None else f"{name} {score:.2f}"
    return links.plain(f"{said}, explained" if explained else said)


def _position(row: Row, box: Box, size: tuple[int, int]) -> dict[str, int] | None:
    """Return where a box lies in the model's view; None where it lies outside."""
    if row.crop is None:
        return None
    left, top, right, bottom = (
        min(max(end, 0), size[place % 2]) for place, end in enumerate(box_in_view(row, box, size))
    )
    if left >= right or top >= bottom:
        return None
    return {"minX": left, "minY": top, "maxX": right, "maxY": bottom}
