"""Sending an offline W&B run to a server, with W&B's own ``wandb sync``."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.errors import WriterError
from exporter.writers import check_writer
from exporter.writers.wandb.place import is_own
from exporter.writers.wandb.process import WORK, environment, run_python, work_folder

if TYPE_CHECKING:
    from exporter.store import Run
    from exporter.watch import Watch

# Without these a dead network is retried for hours; the offline copy can be sent again at any time.
_PATIENCE = {"RETRY_MAX": "4", "RETRY_WAIT_MIN_SECONDS": "0.5", "RETRY_WAIT_MAX_SECONDS": "8"}
_CHANNELS = ("GRAPHQL", "FILE_TRANSFER", "FILE_STREAM")
_ADDRESS = re.compile(r"(?:View run .*? at:?|Syncing:)\s+(https?://\S+)")

NO_KEY = "W&B has no key to go online with; run wandb login or set WANDB_API_KEY"

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
    folder = run.files.place("wandb")
    again = f"exporter render {shlex.quote(str(run.path))} --writer wandb"
    logs = sorted(folder.glob("offline-run-*")) if folder.is_dir() else []
    if len(logs) != 1:
        raise WriterError(
            f"the run {str(run.path)!r} has no offline W&B run; write it with {again}"
        )
    problem = next(check_writer(run, "wandb", watch), None)
    if problem is not None:
        raise WriterError(f"nothing was sent of {str(run.path)!r}: {problem}")
    if (project is None or entity is None) and not is_own(folder):
        raise WriterError(
            f"nothing was sent of {str(run.path)!r}: its W&B log does not bear your seal (another "
            "user, another machine or an earlier version wrote it) and would choose where your "
            "data goes; say where to with "
            f"--wandb-project and --wandb-entity, or write it yourself with {again}"
        )
    with work_folder(folder):
        address, error = sync(folder, logs[0], project=project, entity=entity)
    if error is not None:
        command = f"exporter sync {shlex.quote(str(run.path))}"
        raise WriterError(f"not all reached W&B ({error}); send it again with {command}")
    return address or "W&B"


def sync(
    folder: Path, place: Path, *, project: str | None = None, entity: str | None = None
) -> tuple[str | None, str | None]:
    """Send an offline run; to another project or entity than its log says, where one is given.

    Returns:
        The address of the run, if the server gave one; why not all of it arrived, one line, or
        None if it did.

    Raises:
        WriterError: if there is no key.
    """
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    address: re.Match[str] | None = None
    named = [("--project", project), ("--entity", entity)]
    elsewhere = [part for flag, value in named if value is not None for part in (flag, value)]
    try:
        status, *streams = run_python(
            ("-m", "wandb", "sync", *elsewhere, place.name),
            folder,
            patience() | environment(folder, online=True),
            SECONDS + size / BYTES_PER_SECOND,
        )
    except WriterError as late:
        error: str | None = str(late)
    else:
        said = "\n".join(streams).strip()
        if "No API key" in said or "Not authenticated" in said:
            raise WriterError(f"{NO_KEY}, or write it offline: --wandb offline")
        address = _ADDRESS.search(said)
        error = _failure(folder, place, status, said)
    if error is not None:
        # W&B marks a run as sent although files of it failed, and would then skip it.
        for marker in place.glob("*.wandb.sync*"):
            marker.unlink()
    return address.group(1) if address else None, error


def patience() -> dict[str, str]:
    """Return the environment variables that keep W&B from retrying for hours."""
    return {
        f"WANDB__{channel}_{name}": value
        for channel in _CHANNELS
        for name, value in _PATIENCE.items()
    }


def _failure(folder: Path, place: Path, status: int, said: str) -> str | None:
    """Return why a sync that has ended failed, or None if it did not."""
    if status != 0 or not any(place.glob("*.wandb.synced")):
        lines = said.splitlines() or [f"wandb sync ended with status {status}"]
        return _first_line(next((line for line in lines if "rror" in line), lines[-1]))
    # Of files that were refused the command says nothing: they are in W&B's own log only.
    for log in sorted((folder / WORK / "wandb" / "logs").glob("debug-sync*.log")):
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
            if '"level":"ERROR"' in line:
                return _first_line(str(json.loads(line).get("msg", line)))
    return None


def _first_line(text: str) -> str:
    first = text.strip().split("\n")[0]
    return re.sub(r"^(wandb: )?(ERROR )?(Error: )?", "", first).rstrip(".")[:300]
