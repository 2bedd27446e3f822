"""The list of what an offline W&B run is made of, so that it can be checked before a sync.

A sync that does not find the files which W&B's log names says that it finished, and sends no table.
The list has every file with its size and, where the log names them by the path of the folder, that
path as a digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from exporter.store.documents import read_json, validated
from exporter.store.files import RunFiles
from exporter.writers.wandb.process import HERE

LISTING = "files.json"


def write_listing(folder: Path) -> None:
    """List what is in the W&B writer's folder, ``RUN/wandb``, once all of it is there."""
    files = {
        file.relative_to(folder).as_posix(): file.stat().st_size
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not file.relative_to(folder).parts[0].startswith(".")
    }
    document = {"folder": None if HERE else _digest(folder), "files": files}
    (folder / LISTING).write_text(json.dumps(document, indent=1), encoding="utf-8")


@dataclass(frozen=True)
class _Listing:
    folder: str | None
    files: dict[str, int]


def verify_offline(run: RunFiles, folder: str = "wandb") -> Iterator[str]:
    """Yield what is wrong with an offline W&B run, so that a sync would lose something.

    Args:
        run: the run.
        folder: where it is; what an earlier exporter wrote has no list, and is not checked.

    Raises:
        RunError: if the list is damaged, or names what is no file of the run.
    """
    for settings in redirections(run, folder):
        yield f"{settings} would say where wandb sync sends, and no writer wrote it; remove it"
    again, name = "write it again with exporter render --writer wandb", f"{folder}/{LISTING}"
    if not run.exists(name):
        return
    listing = validated(run, name, _Listing, read_json(run, name, again), again)
    for file, size in listing.files.items():
        status = run.status(f"{folder}/{file}")
        if status is None:
            yield f"wandb/{file} is missing, and a sync would go without it; {again}"
        elif status.st_size != size:
            yield f"wandb/{file} has {status.st_size} bytes and not {size}; {again}"
    if listing.folder is not None and listing.folder != _digest(run.run / folder):
        yield f"wandb/ was written at another path, and a sync would go without its tables; {again}"


def redirections(run: RunFiles, folder: str = "wandb") -> Iterator[str]:
    """Yield the files from which ``wandb sync``, called there, would take a server of its own."""
    names = (f"{folder}/{own}/settings" for own in ("wandb", ".wandb"))
    return (name for name in names if run.exists(name))


def _digest(folder: Path) -> str:
    return hashlib.sha256(str(folder.resolve()).encode()).hexdigest()
