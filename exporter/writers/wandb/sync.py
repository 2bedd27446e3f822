"""Sending an offline W&B run to a server, with W&B's own ``wandb sync``."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from exporter.errors import WriterError

# Without these a dead network is retried for hours; the offline copy can be sent again at any time.
_PATIENCE = {"RETRY_MAX": "4", "RETRY_WAIT_MIN_SECONDS": "0.5", "RETRY_WAIT_MAX_SECONDS": "8"}
_CHANNELS = ("GRAPHQL", "FILE_TRANSFER", "FILE_STREAM")
_ADDRESS = re.compile(r"(?:View run .*? at:?|Syncing:)\s+(https?://\S+)")


@dataclass(frozen=True, slots=True)
class Synced:
    """What a sync came to.

    Attributes:
        url: address of the run, if the server gave one.
        error: why not all of it arrived, one line; None if it did.
    """

    url: str | None
    error: str | None


def sync(folder: Path, place: Path, environment: Mapping[str, str]) -> Synced:
    """Send an offline run.

    Args:
        folder: the sink's folder, which the paths in the log are relative to.
        place: the run's folder in it.
        environment: of the process: key, server, and where W&B may write.

    Returns:
        The run's address and what went wrong.

    Raises:
        WriterError: if there is no key.
    """
    patience = {
        f"WANDB__{channel}_{name}": value
        for channel in _CHANNELS
        for name, value in _PATIENCE.items()
    }
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "wandb", "sync", place.name],
        cwd=folder,
        env={**patience, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    try:
        said, _ = process.communicate()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    if "No API key" in said or "Not authenticated" in said:
        raise WriterError(
            "W&B has no key to go online with; run wandb login or set WANDB_API_KEY, "
            "or write it offline: --wandb offline"
        )
    address = _ADDRESS.search(said)
    error = _error(place, Path(environment["WANDB_DIR"]), said)
    if error is not None:
        # W&B marks a run as sent although files of it failed, and would then skip it.
        for marker in place.glob("*.wandb.sync*"):
            marker.unlink()
    return Synced(address.group(1) if address else None, error)


def _error(place: Path, work: Path, said: str) -> str | None:
    spoken = [line for line in said.splitlines() if "rror" in line]
    if spoken:
        return _first_line(spoken[0])
    # Files that were refused are only in the log: the command itself says that it finished.
    for log in sorted((work / "wandb" / "logs").glob("debug-sync*.log")):
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
            if '"level":"ERROR"' in line:
                return _first_line(str(json.loads(line).get("msg", line)))
    if any(place.glob("*.wandb.synced")):
        return None
    return _first_line((said.strip() or "wandb sync said nothing").splitlines()[-1])


def _first_line(text: str) -> str:
    first = text.strip().split("\n")[0]
    return re.sub(r"^(wandb: )?(ERROR )?(Error: )?", "", first).rstrip(".")[:300]
