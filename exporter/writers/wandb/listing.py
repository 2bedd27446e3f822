"""The list of what an offline W&B run is made of, so that it can be checked before a sync.

A sync that does not find the files which W&B's log names says that it finished, and sends no table.
The list has every file with its size and, where the log names them by the path of the folder, that
path as a digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

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


def verify_offline(folder: Path) -> Iterator[str]:
    """Yield what is wrong with an offline W&B run, so that a sync would lose something.

    Args:
        folder: ``RUN/wandb``; one that an earlier exporter wrote has no list, and is not checked.
    """
    again = "write it again with exporter render --writer wandb"
    listing = folder / LISTING
    if not listing.is_file():
        return
    try:
        document = json.loads(listing.read_text(encoding="utf-8"))
        files, digest = document["files"].items(), document["folder"]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        yield f"wandb/{LISTING} cannot be read ({error}); {again}"
        return
    for name, size in files:
        file = folder / name
        if not file.is_file():
            yield f"wandb/{name} is missing, and a sync would go without it; {again}"
        elif file.stat().st_size != size:
            yield f"wandb/{name} has {file.stat().st_size} bytes and not {size}; {again}"
    if digest is not None and digest != _digest(folder):
        yield f"wandb/ was written at another path, and a sync would go without its tables; {again}"


def _digest(folder: Path) -> str:
    return hashlib.sha256(str(folder.resolve()).encode()).hexdigest()
