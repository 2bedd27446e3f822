"""W&B: a table of the kept images with their montages, kernels, channels, config and summary.

The log is always written offline first, with W&B's own library in a process of its own
(`exporter.writers.wandb.session`); online is that log, synced. So a lost network loses nothing.
Where W&B's paths cannot be kept free of it (`exporter.writers.wandb.process.HERE`), the log names
the folder, so it is written where it stays.
"""

from __future__ import annotations

import json
import shlex
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.errors import WriterError
from exporter.records import Written
from exporter.writers.montages import montage_jpegs
from exporter.writers.reading import kept_rows
from exporter.writers.wandb import rows
from exporter.writers.wandb.place import note_place
from exporter.writers.wandb.process import WORK, environment, run_python
from exporter.writers.wandb.sync import sync

if TYPE_CHECKING:
    from exporter.store import Run
    from exporter.writers.options import WandbOptions

SECONDS = 300.0
"""The most seconds that W&B may take to write a log, and `SECONDS_PER_ROW` more per row."""

SECONDS_PER_ROW = 0.5


def write(run: Run, folder: Path, options: WandbOptions) -> Written:
    """Write the W&B run of a run folder, offline, and sync it where it is asked for.

    Args:
        run: the run folder, complete or partial.
        folder: ``RUN/wandb``.
        options: the kept images and where W&B is.

    Returns:
        What was written; ``open`` is the run's address, or the command that syncs it.

    Raises:
        WriterError: if W&B is not installed, refuses the names given, does not finish, or has no
            key to go online.
    """
    total = len(run.plan.images)
    if options.wandb == "off":
        return Written("wandb", "wandb", "", 0, total, ("W&B is off: nothing was written",))
    if find_spec("wandb") is None:
        raise WriterError("the wandb writer needs W&B, which is not installed: pip install wandb")
    (folder / WORK / "temp").mkdir(parents=True)
    try:
        shown, notes = _record(run, folder, options)
        logs = sorted(folder.glob("offline-run-*"))
        if len(logs) != 1:
            raise WriterError(f"W&B left {len(logs)} offline logs instead of one; try again")
        for extra in (logs[0] / "logs", logs[0] / "tmp", folder / "logs"):
            shutil.rmtree(extra, ignore_errors=True)
        for staged in (folder / "artifacts").rglob("*"):
            if staged.is_file():
                # W&B lets only the user read them, and a run folder may be a team's.
                staged.chmod(0o644)
        note_place(folder)
        command = f"cd {shlex.quote(str(folder))} && wandb sync {shlex.quote(logs[0].name)}"
        where = command
        if options.wandb == "online":
            address, error = sync(folder, logs[0])
            if error is None:
                where = address or command
            else:
                kept = f"it is kept offline, send it with: {command}"
                notes += (f"not all reached W&B ({error}); {kept}",)
        return Written("wandb", "wandb", where, shown, total, notes)
    finally:
        shutil.rmtree(folder / WORK, ignore_errors=True)


def _record(run: Run, folder: Path, options: WandbOptions) -> tuple[int, tuple[str, ...]]:
    """Have W&B log the run, and return how many images it shows, and notes."""
    columns = rows.images(options)
    images = [
        rows.cells(
            columns,
            row,
            _picture(folder, "photographs", row.id, row.image),
            _picture(folder, "montages", row.id, montage),
        )
        for row, montage in montage_jpegs(run, kept_rows(run, options.kept))
        if row.image is not None
    ]
    sheets = ((record, run.kernel_sheet(record)) for record in run.kernels())
    kernels = [
        rows.cells(rows.KERNELS, record, _picture(folder, "kernels", f"{number:04}", sheet))
        for number, (record, sheet) in enumerate(sheets)
    ]
    excited = ((record, record.picture) for record in run.maximised())
    maximised = [
        rows.cells(rows.MAXIMISED, record, _picture(folder, "maximised", f"{number:05}", picture))
        for number, (record, picture) in enumerate(excited)
    ]
    channels = [rows.cells(rows.CHANNELS, channel) for channel in run.channels()]
    notes = []
    if len(channels) > rows.MAX_TABLE_ROWS:
        notes.append(
            f"the statistics of {len(channels)} channels are not in W&B, which shows "
            f"{rows.MAX_TABLE_ROWS} rows per table: see channels.parquet and the report"
        )
        channels = []
    most = rows.MAX_TABLE_ROWS
    parts = [images[start : start + most] for start in range(0, len(images), most)]
    names = ["images"] if len(parts) == 1 else [f"images/{n}" for n in range(len(parts))]
    tables = [
        *((name, columns, part) for name, part in zip(names, parts, strict=True)),
        ("kernels", rows.KERNELS, kernels),
        ("maximised", rows.MAXIMISED, maximised),
        ("channels", rows.CHANNELS, channels),
    ]
    job = {
        "init": rows.init_arguments(run, options),
        "tables": [
            {"name": name, "columns": [(column, kind) for column, kind, _ in columns], "rows": own}
            for name, columns, own in tables
            if own
        ],
        "summary": rows.summary_values(run, len(images)),
    }
    _log(folder, job)
    if len(parts) > 1:
        notes.append(f"the images are in {len(parts)} tables, images/0 to images/{len(parts) - 1}")
    if len(images) < len(run.plan.images):
        notes.append(
            f"W&B shows {len(images)} of {len(run.plan.images)} images; the report has all"
        )
    return len(images), tuple(notes)


def _log(folder: Path, job: dict[str, Any]) -> None:
    count = sum(len(table["rows"]) for table in job["tables"])
    file = folder / WORK / "job.json"
    file.write_text(json.dumps(job), encoding="utf-8")
    program = Path(__file__).resolve().with_name("session.py")
    status, refused, errors = run_python(
        (str(program), str(file.resolve())),
        folder,
        environment(folder, online=False),
        SECONDS + count * SECONDS_PER_ROW,
    )
    if refused:
        raise WriterError(f"W&B refused the run: {refused.strip()}")
    if status != 0:
        said = errors.strip().splitlines()
        raise WriterError(f"W&B's process ended early: {said[-1] if said else 'no reason given'}")


def _picture(folder: Path, kind: str, name: str, encoded: bytes) -> str:
    """Write an encoded picture to where W&B takes it from, and return its path from ``folder``."""
    form = "png" if encoded.startswith(b"\x89PNG") else "jpg"
    # At most 1,000 or so per folder, also of the largest sets: ids are hashes.
    file = folder / WORK / kind / name[:2] / f"{name}.{form}"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(encoded)
    return file.relative_to(folder).as_posix()
