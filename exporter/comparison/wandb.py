"""W&B of a comparison: one offline run of job type ``compare``.

Its table ``images`` has a row per image and columns per run and method, to be joined by ``id`` with
the runs' own tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain, islice
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

from exporter.comparison.folder import Comparison
from exporter.comparison.joining import Joined
from exporter.comparison.records import (
    ClassChange,
    ImageComparison,
    LayerDrift,
    Likeness,
    Shift,
)
from exporter.comparison.tensorboard import choose, map_of, overlaid
from exporter.render import encode_jpeg
from exporter.store.checksums import settle
from exporter.store.layout import writer_folder
from exporter.store.replacing import folder_in_place
from exporter.watch import Watch
from exporter.writers import altered_files, record_files
from exporter.writers.options import WandbSettings
from exporter.writers.reading import seconds_of
from exporter.writers.wandb.place import seal_log, verify_offline, wandb_ids
from exporter.writers.wandb.process import WORK, work_folder
from exporter.writers.wandb.rows import MAX_TABLE_ROWS, columns_of
from exporter.writers.wandb.sync import send
from exporter.writers.wandb.tables import Table
from exporter.writers.wandb.writer import log_offline

RECORDS: Final = {
    "classes": ClassChange,
    "similarity": Likeness,
    "measures": Shift,
    "layers": LayerDrift,
}
"""Tables of the comparison that W&B has, too."""

_RUNS: Final = ("run", "first", "second")
"""Columns that are places of runs, in the table their names."""


def write_wandb(comparison: Comparison, joined: Joined) -> None:
    """Write ``wandb/`` of a comparison folder: an offline run, which `sync_comparison` sends."""
    folder = comparison.files.place("wandb")
    with folder_in_place(comparison.files, "wandb") as (_, name):
        _write(comparison, joined, folder)
        record_files(comparison.files, comparison.files, name, "wandb")
    settle(comparison.files, writer_folder("wandb"))


def _write(comparison: Comparison, joined: Joined, folder: Path) -> None:
    told = comparison.contents
    with work_folder(folder):
        images = list(islice(comparison.images(), MAX_TABLE_ROWS))
        tables = [
            wide(comparison, images, joined),
            flips(images, joined),
            pictures(comparison, joined, folder),
            *(_table(name, record, comparison, joined) for name, record in RECORDS.items()),
        ]
        log_offline(
            folder,
            {
                "init": {
                    "project": WandbSettings().wandb_project,
                    "name": " and ".join(joined.names)[:128],
                    "job_type": "compare",
                    "tags": [told.axis],
                    "config": {
                        "baseline": joined.names[joined.baseline],
                        "axis": told.axis,
                        "runs": [asdict(run) for run in told.runs],
                    },
                },
                "prefix": "",
                "tables": [asdict(table) for table in tables if table.rows],
                "photographs": {},
                "media": {},
                "artifacts": [],
                "metrics": {"step": max((run.step or 0 for run in told.runs), default=0)},
                "summary": dict(_summary(comparison)),
                "day": seconds_of(joined.plans[joined.baseline].created)
                if comparison.anonymous
                else None,
            },
        )
        seal_log(folder)


def sync_comparison(
    comparison: Comparison,
    watch: Watch | None = None,
    *,
    project: str | None = None,
    entity: str | None = None,
) -> str:
    """Send the offline run of a comparison, and note that it was made from the runs' artifacts.

    The W&B runs of the compared runs have to be in the project, so they are sent first.

    Args:
        comparison: the comparison; its runs have to be where they were compared.
        watch: told how the check goes on, and which runs have no W&B run of their own.
        project: where the run belongs; None for what its log says, if the user wrote it.
        entity: likewise.

    Returns:
        The address of the run.

    Raises:
        RunError: if the comparison is anonymous, or a run is gone.
        WriterError: if a file is missing or changed, only a stranger's log says where to, or not
            all of it arrived.
    """
    uses = []
    for told in comparison.contents.runs:
        ids = wandb_ids(comparison.open(told).files)
        uses += ids
        if not ids and watch is not None:
            watch.say(f"{told.name} has no W&B run that could be noted as an input")
    problems = chain(
        altered_files(comparison.files, "wandb", watch), verify_offline(comparison.files)
    )
    return send(comparison.files, problems, project=project, entity=entity, uses=uses)


def _summary(comparison: Comparison) -> Iterator[tuple[str, float | str]]:
    told = comparison.contents
    yield "images compared", told.images
    for run in told.runs:
        if run.accuracy is not None:
            yield f"accuracy of {run.name}", run.accuracy
    for finding in told.findings:
        yield f"finding/{finding.about}", finding.text


def wide(comparison: Comparison, images: Sequence[ImageComparison], joined: Joined) -> Table:
    """Return a row per image: what each run predicts, and how its maps moved."""
    columns = [("id", "text"), ("path", "text"), ("label", "text")]
    for name in joined.names:
        kinds = (("prediction", "text"), ("score", "number"), ("right", "flag"), ("flip", "text"))
        columns += [(f"{name} {what}", kind) for what, kind in kinds]
    moves = [
        (run, method.name, comparison.stages_of(method)[-1].name)
        for run in range(len(joined.runs))
        for method in joined.methods
        if run != joined.baseline and comparison.stages_of(method)
    ]
    columns += [(f"{joined.names[run]} {method} likeness", "number") for run, method, _ in moves]
    rows = []
    for image in images:
        row: list[Any] = [image.id, image.path, image.label]
        for verdict in image.verdicts:
            row += [verdict.name, verdict.score, verdict.correct, verdict.flip]
        known: Mapping[Any, float | None] = {
            (change.run, change.method, change.stage): change.spearman for change in image.maps
        }
        rows.append(row + [known.get(move) for move in moves])
    return Table("images", columns, rows)


def flips(images: Sequence[ImageComparison], joined: Joined) -> Table:
    """Return a row per image and run whose prediction changed against the baseline's."""
    names = ("id", "path", "label", "run", "flip", "from", "to")
    rows: list[list[Any]] = [
        [image.id, image.path, image.label, joined.names[run], verdict.flip,
         image.verdicts[joined.baseline].name, verdict.name]
        for image in images
        for run, verdict in enumerate(image.verdicts)
        if verdict.flip
    ]  # fmt: skip
    return Table("flips", [(name, "text") for name in names], rows[:MAX_TABLE_ROWS])


def pictures(comparison: Comparison, joined: Joined, folder: Path) -> Table:
    """Draw the images that changed most: a picture per run, of the first method where deepest."""
    method = next((own for own in joined.methods if comparison.stages_of(own)), None)
    deepest = comparison.stages_of(method)[-1] if method else None
    chosen = choose(comparison)
    ids = [row.id for row in chosen]
    images = joined.rows(ids, ("image", "maps"))
    rows: list[list[Any]] = []
    for number, (row, image) in enumerate(zip(chosen, images, strict=True)):
        cells: list[Any] = [row.id, row.path, row.label, row.likeness]
        for run, own in enumerate(image):
            stored = map_of(own, method, deepest, run) if method and deepest else None
            drawn = overlaid(own, stored, relu=bool(method and method.relu[run]))
            file = f"{WORK}/{number}-{run}.jpg"
            (folder / file).write_bytes(encode_jpeg(drawn, 88))
            cells.append(file)
        rows.append(cells)
    named = [("id", "text"), ("path", "text"), ("label", "text"), ("likeness", "number")]
    return Table("pictures", named + [(name, "picture") for name in joined.names], rows)


def _table(name: str, record: type, comparison: Comparison, joined: Joined) -> Table:
    """Return a table of the comparison, runs by their names."""
    columns = [
        (title, "text" if title in _RUNS else kind, attrgetter(title.replace(" ", "_")))
        for title, kind, _ in columns_of(record)
    ]
    rows = [
        [joined.names[value(row)] if title in _RUNS else value(row) for title, _, value in columns]
        for row in comparison.records(name)[:MAX_TABLE_ROWS]
    ]
    return Table(name, [(title, kind) for title, kind, _ in columns], rows)
