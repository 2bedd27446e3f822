"""A run as a stranger may see it: what says who made it, where and on what is not in its records.

Everything that writers show comes from a run's records, so that a writer that is given this view of
a run cannot show what is not in it. Numbers, maps and photographs' pixels are the run's own.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from exporter.errors import RunError, TargetError
from exporter.records import (
    KernelRecord,
    LayoutRecord,
    MaximisedPicture,
    MethodRecord,
    ModelRecord,
    Plan,
    StageTime,
    Totals,
    parse_target,
)
from exporter.store.layout import PLAN
from exporter.store.pictures import without_metadata
from exporter.store.plans import PlanFile
from exporter.store.reader import Run, open_run

UNTOLD = "not told"
"""What stands in the place of a text that may say who the authors are."""

_KEY = ("run", "shown as", "path")
_UNREAD = "it could not be read"
_FOREIGN = {"model", "images", "checkpoint", "classes", "reshape", "encoder", "weights", "output"}
"""Settings that name the authors' files, code or data; the plan says which model it is."""
_PLACE = re.compile(r"[/\\~@]|\.py\b|^[^:\s]+:[A-Za-z_][\w.]*$")
"""What is in a path, in an address, or in a reference to code."""
_LIBRARY = re.compile(r"((torchvision|timm):)?[A-Za-z0-9_.]+")
_RELEASE = re.compile(r"\d+(\.\d+)*")
_LAST_NUMBER = re.compile(r"(\d{1,12})\D*(\.[A-Za-z]\w*)?$")


def anonymous(run: Run) -> Run:
    """Return a view of a run for double-blind review.

    Gone are the command, paths and file names (an image's path is its id), references to the
    authors' code, the names of checkpoint and image set, web addresses, notes, what of a version
    names a build, times of day, and the metadata of pictures. What stays is what a paper speaks of:
    classes, labels, layers, methods, numbers and pictures.
    """
    return run if isinstance(run, _Anonymous) else _Anonymous(run)


def key_of(shown: Path, *, overwrite: bool) -> Path:
    """Return where the key of what is shown to others is kept, beside it.

    Raises:
        RunError: if there is one, which is not to be replaced, or the file is something else.
    """
    key = shown.with_name(f"{shown.name}.key.csv")
    if key.exists():
        if not overwrite:
            raise RunError(
                f"{str(key)!r} is the key of one that was made before; give --overwrite to replace "
                "it, or another --out"
            )
        with key.open(encoding="utf-8", errors="replace") as opened:
            if opened.readline().rstrip("\n") != ",".join(_KEY):
                raise RunError(f"{str(key)!r} is something else; give another --out")
    return key


def write_key(runs: Iterable[Run], file: Path) -> None:
    """Write which file each image of some runs was, by its id: only their author sees this."""
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow(_KEY)
        for run in runs:
            for image in open_run(run.path).plan.images:
                writer.writerow((run.path.resolve().name, image.id, image.path))


class _Anonymous(Run):
    """The run whose plan, rows and pictures say nothing of their authors."""

    def __init__(self, run: Run) -> None:
        images = run._planned.images
        shown = replace(
            images,
            path=images.ids,
            mask=dict.fromkeys(images.mask, UNTOLD),
            error=dict.fromkeys(images.error, _UNREAD),
        )
        self._id_of = dict(zip(images.path, images.ids, strict=True))
        super().__init__(run.files, PlanFile(_plan(run._planned.plan), shown))

    @property
    def name(self) -> str:
        return f"run {self.files.sha256(PLAN)[:6]}"

    @property
    def totals(self) -> Totals | None:
        told = super().totals
        if told is None:
            return None
        skipped = tuple((self._id_of.get(path, UNTOLD), _UNREAD) for path, _ in told.skipped)
        return replace(told, skipped=skipped, finished=_day(told.finished))

    def profile(self) -> tuple[StageTime, ...]:
        """Return nothing: how fast a machine is may tell whose it is."""
        return ()

    def kernel_sheet(self, record: KernelRecord) -> bytes:
        return without_metadata(super().kernel_sheet(record))

    def maximised(self, layer: str | None = None) -> Iterator[MaximisedPicture]:
        for picture in super().maximised(layer):
            yield replace(picture, picture=without_metadata(picture.picture))

    def _read(
        self, index: int, columns: Sequence[str], groups: Sequence[int] | None = None
    ) -> pa.Table:
        table = super()._read(index, [*columns, *({"id"} - set(columns))], groups)
        for name, shown in _COLUMNS.items():
            if name in columns:
                kept = table.column(name).to_pylist()
                ids = table.column("id").to_pylist()
                values = [
                    None if value is None else shown(id, value)
                    for id, value in zip(ids, kept, strict=True)
                ]
                kind = table.schema.field(name)
                place = table.schema.get_field_index(name)
                table = table.set_column(place, kind, pa.array(values, kind.type))
        return table if "id" in columns else table.drop_columns(["id"])


_COLUMNS: Mapping[str, Any] = {
    "path": lambda id, _: id,
    "mask": lambda _, __: UNTOLD,
    "error": lambda _, __: _UNREAD,
    "image": lambda _, kept: {**kept, "bytes": kept["bytes"] and without_metadata(kept["bytes"])},
}
"""What is shown of an image in the place of what is stored, by column."""


def _plan(plan: Plan) -> Plan:
    findings = plan.findings and replace(plan.findings, untold="")
    notes = (*(findings.notes if findings else ()),)
    if plan.precision is not None:
        notes += (plan.precision.sentence,)
    return replace(
        plan,
        settings={
            name: _target(value, plan.model.classes)
            if name == "target" and isinstance(value, str)
            else _value(value)
            for name, value in plan.settings.items()
            if name not in _FOREIGN
        },
        model=_model(plan.model),
        methods=tuple(map(_method, plan.methods)),
        target=_target(plan.target, plan.model.classes),
        image_set="the image set",
        versions={name: release(text) for name, text in plan.versions.items()},
        command="",
        added_by=(),
        created=_day(plan.created),
        notes=notes,
        layouts={name: _layout(laid) for name, laid in plan.layouts.items()},
        findings=findings,
    )


def _model(model: ModelRecord) -> ModelRecord:
    known = _LIBRARY.fullmatch(model.spec) is not None
    name = model.name if known else model.title.rpartition("/")[2]
    return replace(
        model,
        name=name,
        spec=model.spec if known else name,
        weights=_value(model.weights),
        checkpoint=model.checkpoint and _checkpoint(model.checkpoint),
        preprocessing=replace(
            model.preprocessing, source=_value(model.preprocessing.source) or UNTOLD
        ),
        code="",
    )


def _checkpoint(name: str) -> str:
    """Return the name of a checkpoint with the number alone, by which checkpoints are ordered.

    >>> _checkpoint("lab-net-epoch040.pt"), _checkpoint("lab.safetensors")
    ('checkpoint-040', 'checkpoint')
    """
    number = _LAST_NUMBER.search(name)
    return f"checkpoint-{number[1]}" if number else "checkpoint"


def _method(method: MethodRecord) -> MethodRecord:
    settings = {name: _value(text) for name, text in method.settings.items()}
    return replace(method, url="", settings=settings)


def _layout(laid: LayoutRecord) -> LayoutRecord:
    return replace(laid, evidence="") if laid.kind == "given" else laid


def _target(target: str, classes: Sequence[str]) -> str:
    """Return a target without the name of an image or of the authors' function.

    >>> [_target(text, ()) for text in ("similar:a b.jpg", "our lab/a.py:f", "mask:predicted")]
    ['similar:image', 'authors:target', 'mask:predicted']
    """
    try:
        kind = parse_target(target, classes).kind
    except TargetError:
        kind = "function"
    return {"similar": "similar:image", "function": "authors:target"}.get(kind, target)


def _value(value: Any) -> Any:
    """Return JSON values without texts that name a place."""
    if isinstance(value, Mapping):
        return {name: _value(part) for name, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_value(part) for part in value]
    return UNTOLD if isinstance(value, str) and _PLACE.search(value) else value


def release(version: str) -> str:
    """Return what of a version many have: no build, no commit.

    >>> release("2.9.0+cu128.fork"), release("0.4.dev3+gabc123")
    ('2.9.0', '0.4')
    """
    match = _RELEASE.match(version)
    return match[0] if match else UNTOLD


def _day(moment: str) -> str:
    """Return the day of an ISO 8601 time."""
    return moment[:10]
