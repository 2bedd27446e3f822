"""What the W&B run says: the columns of its tables, its config and its summary.

Text stays text: W&B escapes what a table shows, and a column never mixes kinds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

import numpy as np

from exporter.paths import command_without_folders, values_without_folders, without_folders
from exporter.records import (
    CalibrationBin,
    ChannelRow,
    ClassRow,
    ConfusedPair,
    MethodRow,
    ratio,
)
from exporter.summaries.sanity import overall
from exporter.writers import links
from exporter.writers.scalars import given_scalars, method_scalars, set_scalars

if TYPE_CHECKING:
    from exporter.store import Run
    from exporter.writers.options import WandbOptions
    from exporter.writers.reading import SetNumbers

MAX_TABLE_ROWS = 10_000
"""Rows per table: beyond, W&B's own page is slow, and beyond 200,000 it drops them."""

PREFIX = "exporter/"
"""Before all that is logged into a run that is another's, so that none is taken for its own."""

Columns = Sequence[tuple[str, str, Callable[[Any], Any]]]
"""Name, kind (``text``, ``number``, ``flag``, ``picture``) and value in a record of each column."""


Picture = str | dict[str, Any]
"""A picture's file, or that under ``path`` with the ``boxes`` and ``masks`` that lie over it."""


def _elsewhere(_: Any) -> None:
    """The value of a picture: its bytes are in a file, whose path is the cell."""


def columns_of(record: type, *left_out: str) -> Columns:
    """Return a column for each field of a record that is a text, a number or a flag."""
    kinds = {str: "text", int: "number", float: "number", bool: "flag"}
    told = {
        name: next((kinds[own] for own in (kind, *get_args(kind)) if own in kinds), None)
        for name, kind in get_type_hints(record).items()
        if get_origin(kind) is not tuple and name not in left_out
    }
    return [
        (name.replace("_", " "), kind, attrgetter(name))
        for name, kind in told.items()
        if kind is not None
    ]


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
    *columns_of(ChannelRow),
    ("top image", "text", lambda row: row.top[0] if row.top else None),
    ("top picture", "picture", _elsewhere),
)
CLASSES: Columns = columns_of(ClassRow)
CONFUSION: Columns = columns_of(ConfusedPair)
CALIBRATION: Columns = columns_of(CalibrationBin)
PRECISION: Columns = [
    (name, "number", itemgetter(place))
    for place, name in enumerate(("threshold", "precision", "recall"))
]


def methods(run: Run) -> Columns:
    """Return the columns of the methods' table: what the set shows of each at each layer."""
    stages = links.stage_names(run.plan)
    faith = {(row.method, row.layer): row for row in run.faithfulness()}
    checked, nothing = run.sanity(), (None, None)
    means = overall(checked)
    sane = {(row.method, row.layer): means[row.method] for row in checked}
    return [
        *columns_of(MethodRow),
        ("stage", "text", lambda row: stages.get(row.layer)),
        *(
            (
                name,
                "number",
                lambda row, name=name: getattr(faith.get((row.method, row.layer)), name, None),
            )
            for name in ("deletion", "insertion", "road")
            if faith
        ),
        *(
            (name, "number", lambda row, n=n: sane.get((row.method, row.layer), nothing)[n])
            for n, name in enumerate(("sanity rank correlation", "sanity ssim") if sane else ())
        ),
    ]


def images(run: Run, options: WandbOptions) -> Columns:
    """Return the columns of the images' table: the id first, links last."""
    kept = set(options.kept)
    measures = {row.id: row for row in run.measures() if row.id in kept}
    faith = {(row.id, row.method): row for row in run.image_faithfulness() if row.id in kept}
    measured_methods = {method for _, method in faith}
    model, step = run.plan.model, links.step_of(run.plan.model, options.step)

    def measured(name: str) -> Callable[[Any], Any]:
        return lambda row: getattr(measures.get(row.id), name, None)

    def faithful(method: str, name: str) -> Callable[[Any], Any]:
        return lambda row: getattr(faith.get((row.id, method)), name, None)

    first: list[tuple[str, str, Callable[[Any], Any]]] = [
        ("id", "text", attrgetter("id")),
        ("photograph", "picture", _elsewhere),
        ("prediction", "text", lambda row: row.predictions[0].name if row.predictions else None),
        ("confidence", "number", attrgetter("confidence")),
        (
            "top predictions",
            "text",
            lambda row: ", ".join(f"{said.name} {said.score:.3g}" for said in row.predictions[:5]),
        ),
        ("label", "text", attrgetter("label")),
        ("correct", "flag", attrgetter("correct")),
        ("loss", "number", attrgetter("loss")),
    ]
    last: list[tuple[str, str, Callable[[Any], Any]]] = [
        ("agreement", "number", measured("agreement")),
        ("entropy", "number", measured("entropy")),
        ("concentration", "number", measured("top_share")),
        *(
            (f"{name} {method.name}", "number", faithful(method.name, name))
            for name in ("deletion", "insertion", "road")
            for method in run.plan.methods
            if method.name in measured_methods
        ),
        ("montage", "picture", _elsewhere),
        ("kept because", "text", lambda row: options.kept_reason.get(row.id)),
        ("path", "text", lambda row: without_folders(row.path)),
        ("model", "text", lambda _: links.run_name(model)),
        ("step", "number", lambda _: step),
    ]
    if options.report_url is not None:
        last.append(("report", "text", partial(links.report_image_link, options.report_url)))
    if options.tensorboard_url is not None:
        last.append(("tensorboard", "text", partial(links.image_link, options.tensorboard_url)))
    taken = {name for name, _, _ in (*first, *last)}
    names = (method.name for method in run.plan.methods)
    maps = [(f"map {name}" if name in taken else name, "picture", _elsewhere) for name in names]
    return [*first, *maps, *last]


def cells(columns: Columns, record: Any, *pictures: Picture | None) -> list[Any]:
    """Return a row of a table; its pictures are in the order of their columns."""
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
        "command": "\n".join(map(command_without_folders, plan.commands)),
        "step": links.step_of(plan.model, options.step),
        "report": options.report_url,
        "tensorboard": options.tensorboard_url,
    }
    notes = (" ".join(map(without_folders, links.plain(note).split())) for note in plan.notes)
    own = [tag.strip() for tag in options.wandb_tags.split(",")]
    told: dict[str, Any] = {
        "project": options.wandb_project,
        "entity": options.wandb_entity,
        "name": options.wandb_name,
        "group": options.wandb_group,
        "job_type": options.wandb_job_type,
        "tags": [links.plain(tag)[:64] for tag in own if tag] or None,
        "notes": options.wandb_notes,
        "config": values_without_folders(config, _no_link),
    }
    if options.wandb_run is not None:  # whose name and settings are not ours
        told |= {"id": options.wandb_run, "resume": "allow"} if goes_on(options) else {}
        return told | {"config": {PREFIX.rstrip("/"): told["config"]}}
    tags = [links.plain(tag)[:64] for tag in (*own, *tags) if tag]
    return told | {
        "name": told["name"] or links.run_name(plan.model)[:128],
        "group": told["group"] or plan.model.name[:128] or None,
        "job_type": told["job_type"] or "explain",
        "tags": list(dict.fromkeys(tags)),
        "notes": told["notes"] or "\n".join(notes) or None,
    }


def goes_on(options: WandbOptions) -> bool:
    """Return whether a W&B run is gone on with by its id, rather than by a run of the caller's."""
    return isinstance(options.wandb_run, str)


def metric_values(run: Run, options: WandbOptions, numbers: SetNumbers) -> dict[str, float]:
    """Return what draws lines over ``step``: ``set/accuracy``, ``gradcam/agreement``, …."""
    told = {"set": set_scalars(run, numbers), **method_scalars(run)}
    told |= {"given": given_scalars(options.metrics)}
    values = {f"{group}/{name}": value for group, own in told.items() for name, value, _ in own}
    step = links.step_of(run.plan.model, options.step) or 0
    return {"step": step} | {
        name: float(value)
        for name, value in values.items()
        if value is not None and np.isfinite(value)
    }


def summary_values(run: Run, numbers: SetNumbers, shown: int) -> dict[str, Any]:
    """Return the run's scalars: images read, accuracy in [0, 1], …; None is left out.

    None is called as a table is, which W&B would no longer find under its name.
    """
    values = {
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
