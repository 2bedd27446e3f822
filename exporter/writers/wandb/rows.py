"""What the W&B run says: the columns and cells of its tables, its config and its summary.

Text stays text: W&B escapes what a table shows, and a column never mixes kinds.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from exporter.records import ChannelRow, KernelRecord, MaximisedPicture, Row, ratio
from exporter.writers.links import image_link, plain, report_image_link, run_name
from exporter.writers.maximised import channel_name, how
from exporter.writers.reading import set_numbers

if TYPE_CHECKING:
    from exporter.store import Run
    from exporter.writers.wandb.options import WandbOptions

_ROOT = r"(?:/(?!/)|~[^\\/]*[\\/]|[A-Za-z]:[\\/]|\\\\)"
# A path that a text is, or ends with after = or : or a comma; else one in quotes or brackets.
# The slashes of a web address are none.
_ABSOLUTE = re.compile(
    rf"""(?:^|(?<=[=:,])){_ROOT}(?:.*[\\/])?|(?<=['"(]){_ROOT}(?:[^'")]*[\\/])?"""
)

MAX_TABLE_ROWS = 10_000
"""Rows per table: beyond, W&B's own page is slow, and beyond 200,000 it drops them."""

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


def image_cells(row: Row, photograph: str, montage: str, options: WandbOptions) -> list[Any]:
    """Return the cells of one image, as `image_columns` names them.

    Args:
        row: the image.
        photograph: path of the model's view.
        montage: path of all its maps in one picture.
        options: the rule that kept it and where the report and TensorBoard are.
    """
    first = row.predictions[0] if row.predictions else None
    cells: list[Any] = [
        row.id,
        photograph,
        None if first is None else _text(first.name),
        None if first is None else _number(first.score),
        _text(row.label),
        row.correct,
        _number(row.loss),
        montage,
        _text(options.kept_reason.get(row.id)),
        _text(without_folders(row.path)),
    ]
    if options.report_url is not None:
        cells.append(report_image_link(options.report_url, row))
    if options.tensorboard_url is not None:
        cells.append(image_link(options.tensorboard_url, row))
    return cells


def kernel_cells(record: KernelRecord, sheet: str) -> list[Any]:
    """Return the cells of one sheet of kernels, as `KERNEL_COLUMNS` names them."""
    shape = " × ".join(map(str, record.shape))
    lowest, highest = _number(record.lo), _number(record.hi)
    return [
        _text(record.name),
        sheet,
        _text(record.type),
        shape,
        lowest,
        highest,
        record.shown,
        record.total,
    ]


def maximised_cells(maximised: MaximisedPicture, picture: str) -> list[Any]:
    """Return the cells of one maximised channel or class, as `MAXIMISED_COLUMNS` names them."""
    return [
        _text(maximised.layer),
        maximised.channel,
        _text(channel_name(maximised)),
        picture,
        _number(maximised.after),
        _number(maximised.before),
        _number(maximised.peak),
        how(maximised),
    ]


def channel_cells(row: ChannelRow) -> list[Any]:
    """Return the cells of one channel, as `CHANNEL_COLUMNS` names them."""
    return [
        _text(row.layer),
        row.channel,
        _number(row.mean),
        _number(row.maximum),
        _number(row.sparsity),
        row.dead,
        row.images,
        row.top[0] if row.top else None,
    ]


def init_arguments(run: Run, options: WandbOptions) -> dict[str, Any]:
    """Return what ``wandb.init`` is told: names, tags, and the run's settings as its config."""
    plan = run.plan
    name = run_name(plan.model)[:128]
    tags = [plan.model.name, *(method.name for method in plan.methods)]
    tags.append(f"target:{without_folders(plan.target)}")
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
        "command": _command(plan.command),
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
        "notes": "\n".join(
            " ".join(map(without_folders, plain(note).split())) for note in plan.notes
        )
        or None,
        "config": _plain_config(config),
    }


def summary_values(run: Run, shown: int) -> dict[str, Any]:
    """Return the run's scalars: images, accuracy in [0, 1], mean confidence; None is left out."""
    numbers = set_numbers(run)
    values = {
        "images": len(run.plan.images),
        "read": numbers.read,
        "skipped": numbers.skipped,
        "shown": shown,
        "labelled": numbers.judged,
        "correct": numbers.correct,
        "accuracy": ratio(numbers.correct, numbers.judged),
        "mean_confidence": float(numbers.scores.mean()) if numbers.scores.size else None,
        "complete": run.complete,
    }
    return {name: value for name, value in values.items() if value is not None}


def _number(value: float | None) -> float | None:
    # A table's JSON has no NaN; W&B would show it as text.
    return None if value is None or not np.isfinite(value) else float(value)


def _text(value: str | None) -> str | None:
    """Return text as a table shows it; what begins as W&B's own links do would be followed."""
    if value is None:
        return None
    line = plain(value)
    return f" {line}" if line.startswith("wandb-") else line


def without_folders(text: str) -> str:
    """Return text in which an absolute path is its last part only; other text is left as it is.

    >>> [without_folders(text) for text in ("/home/me/photos", "--out=~/runs/a", "a/b")]
    ['photos', '--out=a', 'a/b']
    """
    return _ABSOLUTE.sub("", text.rstrip("/") or "/")


def _command(command: str) -> str:
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    return (
        shlex.join(map(without_folders, words)) if any("/" in word for word in words) else command
    )


def _plain_config(value: Any) -> Any:
    """Return JSON values, and no absolute path among them."""
    if isinstance(value, Mapping):
        return {str(name): _plain_config(part) for name, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain_config(part) for part in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    text = without_folders(str(value))
    return f" {text}" if text.startswith("wandb-") else text
