"""TensorBoard's projector: a point per image, from what the model's linear head reads of it.

The features are the spatial means of the layer in front of the head, as the run folder keeps them
of the kept images: each channel within 1/510 of its own range.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from exporter.errors import ImageError
from exporter.records import Row
from exporter.render import decode_image, encode_jpeg
from exporter.store import Run
from exporter.summaries.neighbours import embeddings
from exporter.writers import links
from exporter.writers.options import TensorBoardOptions

TILE = 64
SPRITE = 8192
"""The most pixels of a sprite's side that a browser's graphics card takes."""

COLUMNS = ("path", "label", "prediction", "confidence", "right", "id", "report")
_READ = ("image", "label", "predictions", "correct")


def why_none(run: Run) -> str:
    """Return why there are no features to show, or an empty string where there are some."""
    head = run.plan.head
    if head is None:
        return "the run was made without --live"
    return head.why


def write_projector(run: Run, folder: Path, options: TensorBoardOptions) -> int:
    """Write the features, labels and pictures of the kept images, and what names them.

    Returns:
        How many images there are.
    """
    from google.protobuf import text_format
    from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

    features = embeddings(run, set(options.kept))
    shown = [id for id in options.kept if id in features]
    rows = [row for row in run.chosen(shown, _READ) if row.image]
    if not rows:
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    matrix = np.stack([features[row.id] for row in rows]).astype("<f4")
    (folder / "features.bytes").write_bytes(matrix.tobytes())
    (folder / "images.tsv").write_text(_labels(rows, options), encoding="utf-8")
    sprite, tile = _sprite(rows)
    (folder / "sprite.jpg").write_bytes(encode_jpeg(sprite, 85))
    config: Any = ProjectorConfig()
    config.embeddings.add(
        tensor_name=f"what {links.plain(run.plan.model.title)} reads at the end",
        tensor_path="features.bytes",
        tensor_shape=matrix.shape,
        metadata_path="images.tsv",
        sprite={"image_path": "sprite.jpg", "single_image_dim": [tile, tile]},
    )
    (folder / "projector_config.pbtxt").write_text(text_format.MessageToString(config))
    return len(rows)


def _labels(rows: Sequence[Row], options: TensorBoardOptions) -> str:
    lines = ["\t".join(COLUMNS)]
    for row in rows:
        told = (
            links.shown_path(row.path),
            row.label or "",
            row.predictions[0].name if row.predictions else "",
            "" if row.confidence is None else f"{row.confidence:.3g}",
            "" if row.correct is None else str(row.correct),
            row.id,
            links.report_image_link(options.report_url, row) if options.report_url else "",
        )
        lines.append("\t".join(map(links.plain, told)))
    return "\n".join(lines) + "\n"


def _sprite(rows: Sequence[Row]) -> tuple[NDArray[np.uint8], int]:
    """Return the pictures of all images in one, row by row, and the side of each in pixels."""
    across = int(np.ceil(np.sqrt(len(rows))))
    tile = max(1, min(TILE, SPRITE // across))
    sprite = np.full((across * tile, across * tile, 3), 255, np.uint8)
    for place, row in enumerate(rows):
        y, x = (part * tile for part in divmod(place, across))
        try:
            view = decode_image(row.image or b"", reduced=True)
        except ImageError:  # stays white; its montage says so
            continue
        sprite[y : y + tile, x : x + tile] = cv2.resize(
            view, (tile, tile), interpolation=cv2.INTER_AREA
        )
    return sprite, tile
