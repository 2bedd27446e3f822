"""What the W&B run says: the columns of its tables, its config and its summary.

Text stays text: W&B escapes what a table shows, and a column never mixes kinds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from exporter.paths import command_without_folders, values_without_folders, without_folders
from exporter.records import ratio
from exporter.writers import links
from exporter.writers.reading import set_numbers

if TYPE_CHECKING:
    from exporter.store import Run
    from exporter.writers.options import WandbOptions

MAX_TABLE_ROWS = 10_000
"""Rows per table: beyond, W&B's own page is slow, and beyond 200,000 it drops them."""

Columns = Sequence[tuple[str, str, Callable[[Any], Any]]]
"""Name, kind (``text``, ``number``, ``flag``, ``picture``) and value in a record of each column."""


def _elsewhere(_: Any) -> None:
    """The value of a picture: its bytes are in a file, whose path is the cell."""


KERNELS: Columns = (
    ("layer", "text", attrgetter("name")),
    ("kernels", "picture", _elsewhere),
    ("type", "text", attrgetter("type")),
    ("shape", "text", lambda record: " × ".join(map(str, record.shape))),
    ("lowest", "number", attrgetter("lo")),
    ("highest", "number", attrgetter("hi")),
    ("shown", "number", attrgetter("shown")),
    ("total", "number", attrgetter("total")),
)
MAXIMISED: Columns = (
    ("layer", "text", attrgetter("layer")),
    ("channel", "number", attrgetter("channel")),
    ("name", "text", links.channel_name),
    ("picture", "picture", _elsewhere),
    ("mean", "number", attrgetter("after")),
    ("mean of noise", "number", attrgetter("before")),
    ("largest", "number", attrgetter("peak")),
    ("made", "text", links.how),
)
CHANNELS: Columns = (
    ("layer", "text", attrgetter("layer")),
    ("channel", "number", attrgetter("channel")),
    ("mean", "number", attrgetter("mean")),
    ("maximum", "number", attrgetter("maximum")),
    ("sparsity", "number", attrgetter("sparsity")),
    ("dead", "flag", attrgetter("dead")),
    ("images", "number", attrgetter("images")),
    ("top image", "text", lambda row: row.top[0] if row.top else None),
)


def images(options: WandbOptions) -> Columns:
    """Return the columns of the images' table: the id first, links last.

    Args:
        options: the rules that kept them and where the report and TensorBoard are.
    """
    columns: list[tuple[str, str, Callable[[Any], Any]]] = [
        ("id", "text", attrgetter("id")),
        ("photograph", "picture", _elsewhere),
        ("prediction", "text", lambda row: row.predictions[0].name if row.predictions else None),
        ("confidence", "number", attrgetter("confidence")),
        ("label", "text", attrgetter("label")),
        ("correct", "flag", attrgetter("correct")),
        ("loss", "number", attrgetter("loss")),
        ("montage", "picture", _elsewhere),
        ("kept because", "text", lambda row: options.kept_reason.get(row.id)),
        ("path", "text", lambda row: without_folders(row.path)),
    ]
    if options.report_url is not None:
        columns.append(("report", "text", partial(links.report_image_link, options.report_url)))
    if options.tensorboard_url is not None:
        columns.append(("tensorboard", "text", partial(links.image_link, options.tensorboard_url)))
    return columns


def cells(columns: Columns, record: Any, *pictures: str) -> list[Any]:
    """Return a row of a table.

    Args:
        columns: of the table.
        record: what the row says.
        *pictures: the files of its pictures, in the order of their columns.
    """
    files = iter(pictures)
    cleaning: dict[str, Callable[[Any], Any]] = {
        "text": _text,
        "number": _number,
        "flag": lambda flag: flag,
        "picture": lambda _: next(files),
    }
    return [cleaning[kind](value(record)) for _, kind, value in columns]


def init_arguments(run: Run, options: WandbOptions) -> dict[str, Any]:
    """Return what ``wandb.init`` is told: names, tags, and the run's settings as its config."""
    plan = run.plan
    methods = [method.name for method in plan.methods]
    tags = [plan.model.name, *methods, f"target:{without_folders(plan.target)}"]
    config = {
        **plan.settings,
        "model": dataclasses.asdict(plan.model) | {"classes": len(plan.model.classes)},
        "maps": methods,
        "layers": plan.explained,
        "layer_reason": plan.layer_reason,
        "recorded_layers": plan.recorded,
        "target": plan.target,
        "images_planned": len(plan.images),
        "label_match": plan.label_match,
        "execution": plan.computed_on,
        "versions": plan.versions,
        "command": command_without_folders(plan.command),
        "step": options.step,
        "report": options.report_url,
        "tensorboard": options.tensorboard_url,
    }
    notes = (" ".join(map(without_folders, links.plain(note).split())) for note in plan.notes)
    return {
        "project": options.wandb_project,
        "entity": options.wandb_entity,
        "name": links.run_name(plan.model)[:128],
        "group": plan.model.name[:128] or None,
        "job_type": "explain",
        "tags": list(dict.fromkeys(links.plain(tag)[:64] for tag in tags if tag)),
        "notes": "\n".join(notes) or None,
        "config": values_without_folders(config, _no_link),
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
    return None if value is None or not np.isfinite(value) else value


def _text(value: str | None) -> str | None:
    """Return text as a table shows it."""
    return None if value is None else _no_link(links.plain(value))


def _no_link(text: str) -> str:
    """Return text that W&B does not follow, as it does what begins as its own links do."""
    return f" {text}" if text.startswith("wandb-") else text
