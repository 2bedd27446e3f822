"""Sending an offline W&B run to a server, with W&B's own ``wandb sync``."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.errors import WriterError
from exporter.writers import check_writer
from exporter.writers.wandb.artifacts import artifacts_used, ask
from exporter.writers.wandb.place import is_own
from exporter.writers.wandb.process import WORK, NoKeyError, last_line, run_remote, work_folder

if TYPE_CHECKING:
    from exporter.store import Run
    from exporter.store.files import RunFiles
    from exporter.watch import Watch

_ADDRESS = re.compile(r"(?:View run .*? at:?|Syncing:)\s+(https?://\S+)")

SECONDS = 600.0
"""The most seconds a sync may take, and one more for each `BYTES_PER_SECOND` that it sends."""

BYTES_PER_SECOND = 100_000


def sync_run(
    run: Run,
    watch: Watch | None = None,
    *,
    project: str | None = None,
    entity: str | None = None,
) -> str:
    """Send the offline run of a run folder, once every file that it names is known to be there.

    Args:
        run: the run folder.
        watch: told how the check goes on.
        project: where the run belongs; None for what its log says, if the user wrote it.
        entity: likewise.

    Returns:
        The address of the run.

    Raises:
        WriterError: if a file is missing or changed, only a stranger's log says where to, or not
            all of it arrived.
    """
    return send(
        run.files,
        check_writer(run, "wandb", watch),
        project=project,
        entity=entity,
        uses=artifacts_used(run.settings),
    )


def send(
    files: RunFiles,
    problems: Iterator[str],
    *,
    project: str | None,
    entity: str | None,
    uses: Sequence[str],
) -> str:
    """Send the offline run in the ``wandb/`` of a run or a comparison.

    Args:
        files: the run or the comparison.
        problems: what is wrong with ``wandb/``; nothing is sent where there is any.
        project: where it belongs; None for what its log says, if the user wrote it.
        entity: likewise.
        uses: what it was made from, as of `sync`.

    Returns:
        The address of the run.

    Raises:
        WriterError: as of `sync_run`.
    """
    where, folder = str(files.run), files.place("wandb")
    again = f"exporter render {shlex.quote(where)} --writer wandb"
    logs = sorted(folder.glob("offline-run-*")) if folder.is_dir() else []
    if len(logs) != 1:
        raise WriterError(f"{where!r} has no offline W&B run; write it with {again}")
    problem = next(problems, None)
    if problem is not None:
        raise WriterError(f"nothing was sent of {where!r}: {problem}")
    if (project is None or entity is None) and not is_own(folder):
        raise WriterError(
            f"nothing was sent of {where!r}: its W&B log does not bear your seal (another "
            "user, another machine or an earlier version wrote it) and would choose where your "
            "data goes; say where to with "
            f"--wandb-project and --wandb-entity, or write it yourself with {again}"
        )
    with work_folder(folder):
        address, error = sync(folder, logs[0], project=project, entity=entity, uses=uses)
    if error is not None:
        command = f"exporter sync {shlex.quote(where)}"
        raise WriterError(f"not all reached W&B ({error}); send it again with {command}")
    return address or "W&B"


def sync(
    folder: Path,
    place: Path,
    *,
    project: str | None = None,
    entity: str | None = None,
    uses: Sequence[str] = (),
) -> tuple[str | None, str | None]:
    """Send an offline run; to another project or entity than its log says, where one is given.

    Args:
        folder: ``RUN/wandb``.
        place: the offline run in it.
        project: where it belongs.
        entity: likewise.
        uses: what it was made from: artifacts, ``ENTITY/PROJECT/NAME:VERSION``, and other runs of
            the same project, by their ids.

    Returns:
        The address of the run, if the server gave one; why not all of it arrived, one line, or
        None if it did.

    Raises:
        NoKeyError: if there is no key.
    """
    # All of the run folder may be among what is sent.
    size = sum(file.stat().st_size for file in folder.parent.rglob("*") if file.is_file())
    address: str | None = None
    named = [("--project", project), ("--entity", entity)]
    elsewhere = [part for flag, value in named if value is not None for part in (flag, value)]
    try:
        limit = SECONDS + size / BYTES_PER_SECOND
        status, *streams = run_remote(("sync", *elsewhere, place.name), folder, limit)
    except NoKeyError:
        raise
    except WriterError as late:
        why: str | None = str(late)
    else:
        said = "\n".join(streams)
        told = _ADDRESS.search(said)
        address = told and told[1]
        why = _failure(folder, place, status, said)
        if why is None and uses:
            why = _use(address or "", uses)
    if why is not None:
        # W&B marks a run as sent although files of it failed, and would then skip it.
        for marker in place.glob("*.wandb.sync*"):
            marker.unlink()
    return address, why


def _failure(folder: Path, place: Path, status: int, said: str) -> str | None:
    """Return why a sync that has ended failed, or None if it did not.

    Of files that were refused neither its status nor what it prints says anything: they are among
    the records of W&B's own log.
    """
    logs = sorted((folder / WORK / "wandb" / "logs").glob("debug-sync*.log"))
    lines = (line for log in logs for line in log.read_text("utf-8", "replace").splitlines())
    errors = [json.loads(line) for line in lines if '"level":"ERROR"' in line]
    if errors:
        told = (errors[0].get(name) for name in ("msg", "error"))
        return _first_line(": ".join(str(part) for part in told if part))
    if status != 0 or not any(place.glob("*.wandb.synced")):
        return _first_line(last_line(said, status))
    return None


def _use(address: str, uses: Sequence[str]) -> str | None:
    """Note what a run that was sent was made from; return why that failed, or None."""
    entity, project, _, run = ["", "", "", "", *address.split("/")][-4:]
    try:
        here = f"{entity}/{project}"
        ask("use", f"{here}/{run}", *(use if ":" in use else f"{here}/{use}" for use in uses))
    except WriterError as error:
        return f"the run has arrived, but not what it was made from, {', '.join(uses)}: {error}"
    return None


def _first_line(text: str) -> str:
    first = text.strip().split("\n")[0]
    return re.sub(r"^(wandb: )?(ERROR )?(Error: )?", "", first).rstrip(".")[:300]
