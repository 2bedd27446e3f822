"""What the W&B run says: the columns and cells of its tables, its config and its summary.

Text stays text: W&B escapes what a table shows, and a column never mixes kinds.
"""

from __future__ import annotations

import dataclasses
import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from exporter.records import ChannelRow, KernelRecord, MaximisedPicture, Row
from exporter.writers.links import image_link, plain, run_name
from exporter.writers.maximised import channel_name, how

if TYPE_CHECKING:
    from exporter.store import Run
    from exporter.writers.wandb.options import WandbOptions

MAX_TABLE_ROWS = 10_000
"""Rows a table: beyond, W&B's own page is slow, and beyond 200,000 it drops them."""

KERNEL_COLUMNS = (
    ("layer", "text"),
    ("kernels", "picture"),
    ("type", "text"),
    ("shape", "text"),
    ("lowest", "number"),
    ("highest", "number"),
    ("shown", "number"),
    ("total", "number"),
)
MAXIMISED_COLUMNS = (
    ("layer", "text"),
    ("channel", "number"),
    ("name", "text"),
    ("picture", "picture"),
    ("mean", "number"),
    ("mean of noise", "number"),
    ("largest", "number"),
    ("made", "text"),
)
CHANNEL_COLUMNS = (
    ("layer", "text"),
    ("channel", "number"),
    ("mean", "number"),
    ("maximum", "number"),
    ("sparsity", "number"),
    ("dead", "flag"),
    ("images", "number"),
    ("top image", "text"),
)


def image_columns(options: WandbOptions) -> tuple[tuple[str, str], ...]:
    """Return the columns of the images' table: (name, kind) each, the id first, links last."""
    links = (("report", options.report_url), ("tensorboard", options.tensorboard_url))
    return (
        ("id", "text"),
        ("photograph", "picture"),
        ("prediction", "text"),
        ("confidence", "number"),
        ("label", "text"),
        ("correct", "flag"),
        ("loss", "number"),
        ("montage", "picture"),
        ("kept because", "text"),
        ("path", "text"),
        *((name, "text") for name, address in links if address is not None),
    )


def image_cells(
    row: Row, photograph: Mapping[str, Any], montage: Mapping[str, Any], options: WandbOptions
) -> list[Any]:
    """Return the cells of one image, as `image_columns` names them.

    Args:
        row: the image.
        photograph: the model's view, as `picture` gives it.
        montage: all its maps in one picture, as `picture` gives it.
        options: the rule that kept it and where the other sinks are.
    """
    first = row.predictions[0] if row.predictions else None
    cells: list[Any] = [
        row.id,
        photograph,
        None if first is None else plain(first.name),
        None if first is None else _number(first.score),
        None if row.label is None else plain(row.label),
        row.correct,
        _number(row.loss),
        montage,
        options.kept_reason.get(row.id),
        plain(row.path),
    ]
    if options.report_url is not None:
        base = options.report_url.removesuffix("index.html").rstrip("/")
        cells.append(f"{base}/images.html#image={quote(row.id, safe='')}")
    if options.tensorboard_url is not None:
        cells.append(image_link(options.tensorboard_url, row))
    return cells


def kernel_cells(record: KernelRecord, sheet: Mapping[str, Any]) -> list[Any]:
    """Return the cells of one sheet of kernels, as `KERNEL_COLUMNS` names them."""
    shape = " × ".join(map(str, record.shape))
    lowest, highest = _number(record.lo), _number(record.hi)
    return [
        plain(record.name),
        sheet,
        plain(record.type),
        shape,
        lowest,
        highest,
        record.shown,
        record.total,
    ]


def maximised_cells(one: MaximisedPicture, made: Mapping[str, Any]) -> list[Any]:
    """Return the cells of one maximised channel or class, as `MAXIMISED_COLUMNS` names them."""
    return [
        plain(one.layer),
        one.channel,
        plain(channel_name(one)),
        made,
        _number(one.after),
        _number(one.before),
        _number(one.peak),
        how(one),
    ]


def channel_cells(row: ChannelRow) -> list[Any]:
    """Return the cells of one channel, as `CHANNEL_COLUMNS` names them."""
    return [
        plain(row.layer),
        row.channel,
        _number(row.mean),
        _number(row.maximum),
        _number(row.sparsity),
        row.dead,
        row.images,
        row.top[0] if row.top else None,
    ]


def picture(folder: Path, kind: str, name: str, encoded: bytes) -> dict[str, Any]:
    """Write an encoded picture and return what W&B wants to know of it, without decoding it.

    Args:
        folder: the sink's folder.
        kind: its folder under ``media/``, such as ``photographs``.
        name: its name there, unique in its kind: an id or a number.
        encoded: JPEG or PNG bytes, written as they are.

    Returns:
        Path relative to ``folder``, width and height in pixels, format, SHA-256 and size in bytes.

    Raises:
        ValueError: if the bytes are neither.
    """
    width, height, form = _size(encoded)
    # At most 1,000 or so a folder of the largest sets: ids are hashes.
    place = f"media/{kind}/{name[:2]}/{name}.{form}"
    file = folder / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(encoded)
    return {
        "path": place,
        "width": width,
        "height": height,
        "format": form,
        "sha256": hashlib.sha256(encoded).hexdigest(),
        "size": len(encoded),
    }


def init_arguments(run: Run, options: WandbOptions) -> dict[str, Any]:
    """Return what ``wandb.init`` is told: names, tags, and the run's settings as its config."""
    plan = run.plan
    name = run_name(plan.model)[:128]
    tags = [plan.model.name, *(method.name for method in plan.methods), f"target:{plan.target}"]
    config = {
        **plan.settings,
        "model": {
            **dataclasses.asdict(plan.model),
            "classes": len(plan.model.classes),
        },
        "maps": [method.name for method in plan.methods],
        "layers": list(plan.explained),
        "layer_reason": plan.layer_reason,
        "recorded_layers": list(plan.recorded),
        "target": plan.target,
        "images_planned": len(plan.images),
        "label_match": plan.label_match,
        "execution": dict(plan.execution),
        "versions": dict(plan.versions),
        "command": plan.command,
        "step": options.step,
        "report": options.report_url,
        "tensorboard": options.tensorboard_url,
    }
    return {
        "project": options.wandb_project,
        "entity": options.wandb_entity,
        "name": name,
        "group": plan.model.name[:128] or None,
        "job_type": "explain",
        "tags": list(dict.fromkeys(plain(tag)[:64] for tag in tags if tag)),
        "notes": "\n".join(plain(note) for note in plan.notes) or None,
        "config": _plain_config(config),
    }


def summary_values(run: Run, shown: int) -> dict[str, Any]:
    """Return the run's scalars: images, accuracy in [0, 1], mean confidence; None is left out."""
    light = run.table(["predictions", "correct", "error"])
    scores = _first_scores(light.column("predictions").chunks)
    judged = [value for value in light.column("correct").to_pylist() if value is not None]
    skipped = len(light) - light.column("error").null_count
    values = {
        "images": len(run.plan.images),
        "read": len(light) - skipped,
        "skipped": skipped,
        "shown": shown,
        "labelled": len(judged),
        "correct": sum(judged),
        "accuracy": sum(judged) / len(judged) if judged else None,
        "mean_confidence": _number(float(np.mean(scores))) if len(scores) else None,
        "complete": run.complete,
    }
    return {name: value for name, value in values.items() if value is not None}


def _first_scores(chunks: Iterable[Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    found = []
    for chunk in chunks:
        offsets = np.asarray(chunk.offsets)
        starts = offsets[:-1][np.diff(offsets) > 0]
        # `values` counts from the start of the buffer, as the offsets do.
        found.append(np.asarray(chunk.values.field("score"), dtype=np.float64)[starts])
    return np.concatenate(found) if found else np.zeros(0)


def _number(value: float | None) -> float | None:
    # A table's JSON has no NaN; W&B would show it as text.
    return None if value is None or not np.isfinite(value) else float(value)


def _plain_config(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain_config(part) for name, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain_config(part) for part in value]
    if isinstance(value, str):
        return f" {value}" if value.startswith("wandb-") else value
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def _size(encoded: bytes) -> tuple[int, int, str]:
    if encoded.startswith(b"\x89PNG\r\n\x1a\n"):
        width, height = struct.unpack_from(">II", encoded, 16)
        return width, height, "png"
    if not encoded.startswith(b"\xff\xd8"):
        raise ValueError("a stored picture is neither JPEG nor PNG")
    position = 2
    while position + 9 <= len(encoded):
        marker, length = encoded[position + 1], struct.unpack_from(">H", encoded, position + 2)[0]
        # Start of frame, of whatever coding; not the tables that share its range.
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:
            height, width = struct.unpack_from(">HH", encoded, position + 5)
            return width, height, "jpg"
        position += 2 + length
    raise ValueError("a stored picture is a JPEG without a size")
