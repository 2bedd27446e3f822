"""W&B: tables of the kept images and of what the set shows, metrics over steps, config, summary.

The log is always written offline first, with W&B's own library in a process of its own
(`exporter.writers.wandb.session`); online is that log, synced. So a lost network loses nothing.
Where W&B's paths cannot be kept free of it (`exporter.writers.wandb.process.HERE`), the log names
the folder, so it is written where it stays.
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.errors import WriterError, one_line
from exporter.records import Written
from exporter.stores import on_disk
from exporter.writers.reading import seconds_of, set_numbers
from exporter.writers.wandb import rows
from exporter.writers.wandb.artifacts import artifacts_of, artifacts_used
from exporter.writers.wandb.media import media_of
from exporter.writers.wandb.place import note_place, seal_log
from exporter.writers.wandb.process import (
    HERE,
    WORK,
    NoKeyError,
    environment,
    run_python,
    work_folder,
)
from exporter.writers.wandb.sync import sync
from exporter.writers.wandb.tables import Pictures, tables_of

if TYPE_CHECKING:
    from exporter.store import Run
    from exporter.writers.options import WandbOptions

SECONDS = 300.0
"""The most seconds that W&B may take to write a log, and `SECONDS_PER_ROW` more per row."""

SECONDS_PER_ROW = 0.5


def write(run: Run, folder: Path, options: WandbOptions) -> Written:
    """Write the W&B run of a run folder, offline, and sync it where it is asked for.

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
    with work_folder(folder):
        job, shown, notes = _job(run, folder, options)
        if _is_callers(options):
            from exporter.writers.wandb.session import log

            options.wandb_run.config.update(job["init"]["config"], allow_val_change=True)
            log(options.wandb_run, job, folder)
            notes += tuple(_use(options.wandb_run, artifacts_used(run.settings)))
            where = options.wandb_run.url or f"the W&B run {options.wandb_run.id}"
            return Written("wandb", "wandb", where, shown, total, notes)
        offline = log_offline(folder, job)
        seal_log(folder)
        command = f"exporter sync {shlex.quote(str(run.path))}"
        where = command
        if options.wandb == "online":
            try:
                address, error = sync(folder, offline, uses=artifacts_used(run.settings))
            except NoKeyError as keyless:
                raise NoKeyError(f"{keyless}, or write it offline: --wandb offline") from None
            if error is None:
                where = address or command
            else:
                kept = f"it is kept offline, send it with: {command}"
                notes += (f"not all reached W&B ({error}); {kept}",)
        return Written("wandb", "wandb", where, shown, total, notes)


def _use(own: Any, uses: Sequence[str]) -> Iterator[str]:
    """Note in the caller's run what a run was made from, and yield why where W&B refuses it."""
    for name in () if own.offline else uses:
        try:
            own.use_artifact(name)
        except Exception as error:
            yield f"the W&B run does not name {name} as its input ({one_line(error)})"


def _job(
    run: Run, folder: Path, options: WandbOptions
) -> tuple[dict[str, Any], int, tuple[str, ...]]:
    """Return what W&B is to log, how many images it shows, and notes."""
    channels, numbers = run.channels(), set_numbers(run)
    pictures = Pictures(folder, WORK, WORK if _is_callers(options) else "artifacts/pictures")
    tables, photographs = tables_of(run, channels, options, pictures)
    shown = len(photographs)
    job = {
        "init": rows.init_arguments(run, options),
        "prefix": "" if options.wandb_run is None else rows.PREFIX,
        "tables": [asdict(table) for table in tables],
        "photographs": photographs,
        "media": media_of(run, pictures) if options.kept else {},
        "metrics": rows.metric_values(run, options, numbers),
        "summary": rows.summary_values(run, numbers, shown),
        "artifacts": _artifacts(run, options) if options.wandb_artifacts else [],
        "day": seconds_of(run.plan.created) if options.anonymous else None,
    }
    notes = []
    if len(channels) > rows.MAX_TABLE_ROWS:
        notes.append(
            f"the statistics of {len(channels)} channels are not in W&B, which shows "
            f"{rows.MAX_TABLE_ROWS} rows per table: see channels.parquet and the report"
        )
    parts = sum(table.name.startswith("images/") for table in tables)
    if parts:
        notes.append(f"the images are in {parts} tables, images/0 to images/{parts - 1}")
    if not run.complete:
        there = numbers.read + numbers.skipped
        notes.append(f"the run is partial: {there} of {len(run.plan.images)} images are computed")
    if shown < numbers.read:
        notes.append(
            f"W&B shows {shown} of {len(run.plan.images)} images; --keep N shows more, and the "
            "report has all"
        )
    return job, shown, tuple(notes)


def _artifacts(run: Run, options: WandbOptions) -> list[dict[str, Any]]:
    path = on_disk(run.path, "--wandb-artifacts takes a run from the disk")
    here = None if _is_callers(options) else HERE
    return list(artifacts_of(run, path if here is None else here / ".."))


def _is_callers(options: WandbOptions) -> bool:
    """Return whether it is logged into a run that the caller has open."""
    return options.wandb_run is not None and not rows.goes_on(options)


def log_offline(folder: Path, job: dict[str, Any]) -> Path:
    """Log a job into an offline run, in W&B's own process, and return its folder.

    Args:
        folder: where it stays; its pictures are in a folder `WORK` below it, which the caller
            removes.
        job: see `exporter.writers.wandb.session.record`.

    Raises:
        WriterError: if W&B refuses the job, or does not finish.
    """
    _log(folder, job)
    logs = sorted(folder.glob("offline-run-*"))
    if len(logs) != 1:
        raise WriterError(f"W&B left {len(logs)} offline logs instead of one; try again")
    for extra in (logs[0] / "logs", logs[0] / "tmp", folder / "logs"):
        shutil.rmtree(extra, ignore_errors=True)
    for staged in (folder / "artifacts" / "staging").rglob("*"):
        if staged.is_file():
            # W&B lets only the user read them, and a run folder may be a team's.
            staged.chmod(0o644)
    note_place(folder)
    return logs[0]


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
