"""W&B: a table of the kept images with their montages, kernels, channels, config and summary.

The log is always written offline first, with W&B's own library in a process of its own
(`exporter.writers.wandb.session`); online is that log, synced. So a lost network loses nothing.
All paths in the log are relative to the sink's folder: it can be moved, copied and synced there.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.errors import RunError, WriterError
from exporter.records import Row, Written
from exporter.writers.montages import montage_jpegs
from exporter.writers.wandb import rows
from exporter.writers.wandb.log import (
    StagedFile,
    read_log,
    rename_staged,
    verify_offline,
    write_log,
)
from exporter.writers.wandb.process import WORK, environment, session
from exporter.writers.wandb.sync import Synced, sync

if TYPE_CHECKING:
    from exporter.store import Run
    from exporter.writers.wandb.options import WandbOptions

__all__ = ["verify_offline", "write"]


def write(run: Run, folder: Path, options: WandbOptions) -> Written:
    """Write the W&B run of a run folder, offline, and sync it where it is asked for.

    Args:
        run: the run folder, complete or partial.
        folder: an empty folder, where all of it goes; it may be renamed afterwards.
        options: the kept images and where W&B is.

    Returns:
        What was written; ``open`` is the run's address, or the command that syncs it.

    Raises:
        WriterError: if W&B is not installed, refuses the names given, or has no key to go online.
    """
    total = len(run.plan.images)
    if options.wandb == "off":
        return Written("wandb", "wandb", "", 0, total, ("W&B is off: nothing was written",))
    if find_spec("wandb") is None:
        raise WriterError("the wandb writer needs W&B, which is not installed: pip install wandb")
    work = folder / WORK
    (work / "temp").mkdir(parents=True)
    try:
        shown, notes = _record(run, folder, options)
        place = _settle(folder)
        problems = verify_offline(folder)
        if problems:
            raise WriterError(f"W&B's log is not whole: {problems[0]}; write it again")
        command = _command(run.path / "wandb", place.name)
        if options.wandb == "offline":
            return Written("wandb", "wandb", command, shown, total, notes)
        synced = sync(folder, place, environment(work, online=True))
        return _online(synced, command, shown, total, notes)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _record(run: Run, folder: Path, options: WandbOptions) -> tuple[int, tuple[str, ...]]:
    notes: list[str] = []
    shown = 0
    with session(folder) as wandb:
        wandb.send({"do": "start", "init": rows.init_arguments(run, options)})
        columns = rows.image_columns(options)
        tables = max(1, -(-len(options.kept) // rows.MAX_TABLE_ROWS))
        for row, montage in montage_jpegs(run, _kept(run, options.kept)):
            number, place = divmod(shown, rows.MAX_TABLE_ROWS)
            if place == 0:
                wandb.table("images" if tables == 1 else f"images/{number}", columns)
            assert row.image is not None
            photograph = rows.picture(folder, "photographs", row.id, row.image)
            drawn = rows.picture(folder, "montages", row.id, montage)
            wandb.row(rows.image_cells(row, photograph, drawn, options))
            shown += 1
        kernels = run.kernels()
        if kernels:
            wandb.table("kernels", rows.KERNEL_COLUMNS)
        for number, record in enumerate(kernels):
            sheet = rows.picture(folder, "kernels", f"{number:04}", run.kernel_sheet(record))
            wandb.row(rows.kernel_cells(record, sheet))
        for number, one in enumerate(run.maximised()):
            if number == 0:
                wandb.table("maximised", rows.MAXIMISED_COLUMNS)
            made = rows.picture(folder, "maximised", f"{number:05}", one.picture)
            wandb.row(rows.maximised_cells(one, made))
        channels = run.channels()
        if len(channels) > rows.MAX_TABLE_ROWS:
            notes.append(
                f"the statistics of {len(channels)} channels are not in W&B, which shows "
                f"{rows.MAX_TABLE_ROWS} rows a table: see channels.parquet and the report"
            )
        elif channels:
            wandb.table("channels", rows.CHANNEL_COLUMNS)
            for channel in channels:
                wandb.row(rows.channel_cells(channel))
        wandb.send({"do": "summary", "values": rows.summary_values(run, shown)})
        answer = wandb.finish()
    if not answer["fast"] and shown:
        notes.append("this W&B takes pictures in a way not known here: written its slower way")
    if tables > 1:
        notes.append(f"the images are in {tables} tables, images/0 to images/{tables - 1}")
    left = len(run.plan.images) - shown
    if left:
        notes.append(f"W&B shows {shown} of {len(run.plan.images)} images; the report has all")
    return shown, tuple(notes)


def _kept(run: Run, kept: Sequence[str]) -> Iterator[Row]:
    """Yield the kept images that are there and were read, in plan order."""
    wanted = set(kept)
    if 4 * len(wanted) >= len(run.plan.images):
        yield from (row for row in run.rows() if row.id in wanted and row.image is not None)
        return
    for entry in kept:
        try:
            row = run.row(entry)
        except RunError:
            # Its shard is not there yet: the run is partial, and its summary says so.
            continue
        if row.image is not None:
            yield row


def _settle(folder: Path) -> Path:
    """Move the log out of the work folder and make every path in it relative to ``folder``."""
    found = sorted((folder / WORK / "wandb").glob("offline-run-*"))
    if len(found) != 1:
        raise WriterError(f"W&B left {len(found)} offline logs where one was expected; try again")
    place = folder / found[0].name
    found[0].rename(place)
    for extra in ("logs", "tmp"):
        shutil.rmtree(place / extra, ignore_errors=True)

    def relative(staged: StagedFile) -> str:
        if not Path(staged.local).is_absolute():
            return staged.local
        target = folder / "staged" / staged.path
        target.parent.mkdir(parents=True, exist_ok=True)
        Path(staged.local).rename(target)
        target.chmod(0o644)
        return target.relative_to(folder).as_posix()

    log = next(place.glob("run-*.wandb"))
    try:
        whole = write_log(
            [rename_staged(record, relative) for record in read_log(log.read_bytes())]
        )
    except ValueError as error:
        raise WriterError(f"W&B's log cannot be moved into the run ({error})") from None
    log.write_bytes(whole)
    return place


def _command(final: Path, name: str) -> str:
    return f"cd {shlex.quote(str(final))} && wandb sync {shlex.quote(name)}"


def _online(synced: Synced, command: str, shown: int, total: int, notes: Iterable[str]) -> Written:
    if synced.error is None:
        return Written("wandb", "wandb", synced.url or command, shown, total, tuple(notes))
    note = f"not all reached W&B ({synced.error}); it is kept offline, send it with: {command}"
    return Written("wandb", "wandb", command, shown, total, (*notes, note))
