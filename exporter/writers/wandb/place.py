"""Where an offline W&B run was written and where a sync would send it; `check` knows its files.

A sync that does not find the files which W&B's log names says that it finished, and sends no table.
Where the log names them by the path of the folder, that path is kept as a digest.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from exporter.store.documents import read_json
from exporter.store.files import RunFiles
from exporter.store.seals import bears, seal
from exporter.stores import Place
from exporter.writers.wandb.process import HERE

NOTE = "wandb/folder.json"
SEAL = "seal.txt"
_MOST = 1000
"""Bytes of a seal that are read."""


def note_place(folder: Path) -> None:
    """Note where ``RUN/wandb`` is, if the log depends on it."""
    if HERE is None:
        (folder.parent / NOTE).write_text(json.dumps(_digest(folder)), encoding="utf-8")


def seal_log(folder: Path) -> None:
    """Put the user's seal on the log, which says where it is sent to."""
    if sealed := seal(_logs(folder)):
        RunFiles(folder.parent).write(f"{folder.name}/{SEAL}", sealed.encode())


def is_own(folder: Path) -> bool:
    """Say whether the log in ``RUN/wandb`` is as this user wrote it."""
    run, name = RunFiles(folder.parent), f"{folder.name}/{SEAL}"
    sealed = run.read(name, _MOST) if run.exists(name) else b""
    return bears(_logs(folder), sealed.decode("utf-8", "replace"))


def _logs(folder: Path) -> bytes:
    run, start = RunFiles(folder.parent), len(folder.name) + 1
    logs = sorted(name for name in run.below(folder.name) if name.endswith(".wandb"))
    return "".join(f"{run.sha256(log)}  {log[start:]}\n" for log in logs).encode()


def verify_offline(run: RunFiles) -> Iterator[str]:
    """Yield why a sync of the offline run in ``wandb/`` would lose something or send it elsewhere.

    Raises:
        RunError: if the note of its place is damaged.
    """
    for settings in redirections(run):
        yield f"{settings} would say where wandb sync sends, and no writer wrote it; remove it"
    again = "write it again with exporter render --writer wandb"
    if run.exists(NOTE) and read_json(run, NOTE, again) != _digest(run.run / "wandb"):
        yield f"wandb/ was written at another path, and a sync would go without its tables; {again}"


def offline_runs(run: RunFiles) -> list[str]:
    """Return the folders of the W&B runs that are in ``wandb/``, of safe names only."""
    if not run.is_folder("wandb"):
        return []
    names = [name for name in run.names("wandb") if re.fullmatch(r"offline-run-[\w-]+", name)]
    return [name for name in names if run.is_folder(f"wandb/{name}")]


def wandb_ids(run: RunFiles) -> list[str]:
    """Return the ids of the W&B runs in the ``wandb/`` of a run or a comparison."""
    # offline-run-DATE_TIME-ID, and an id may have hyphens.
    return [name.split("-", 3)[-1] for name in offline_runs(run)]


def redirections(run: RunFiles) -> Iterator[str]:
    """Yield the files from which ``wandb sync``, called there, would take a server of its own."""
    names = (f"wandb/{own}/settings" for own in ("wandb", ".wandb"))
    return (name for name in names if run.exists(name))


def _digest(folder: Place) -> str:
    return hashlib.sha256(str(folder.resolve()).encode()).hexdigest()
