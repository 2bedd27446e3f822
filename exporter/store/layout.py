"""Names inside a run folder."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Final

from exporter.doors import writer_names

PLAN: Final = "plan.json"
TOTALS: Final = "run.json"
CHANNELS: Final = "channels.parquet"
RECIPE: Final = "recipe.json"
LOCK: Final = ".lock"
SHARDS: Final = "shards"
SUMMARIES: Final = "summaries"
CHECKSUMS: Final = "checksums"
SET: Final = "set"
SET_SUMMARY: Final = "summary.json"
KERNELS: Final = "kernels"
KERNEL_LIST: Final = "kernels.json"
MAXIMISED: Final = "maximised"
WRITER_NOTE: Final = "writers.json"

FILLED: Final = (SHARDS, SUMMARIES, CHECKSUMS, SET, MAXIMISED)
"""Folders that are filled a file at a time, each under a temporary name first."""


def own_names() -> tuple[str, ...]:
    """Return everything the exporter makes in a run folder, besides temporaries and the lock.

    In the order they are removed: what says "complete" first, what says "a run" last.
    """
    return (
        TOTALS,
        *writer_names(),
        WRITER_NOTE,
        CHANNELS,
        *reversed(FILLED),
        KERNELS,
        RECIPE,
        PLAN,
    )


def shard_file(run: Path, index: int) -> Path:
    """Return where the shard's rows are: ``shards/00000.parquet``."""
    return run / SHARDS / f"{index:05d}.parquet"


def summary_file(run: Path, index: int, part: str = "") -> Path:
    """Return where the shard's part of the statistics is: ``summaries/00000.parquet``.

    A named part, such as ``set``, is in ``summaries/00000-set.parquet``.
    """
    return run / SUMMARIES / f"{index:05d}{'-' if part else ''}{part}.parquet"


def set_table(run: Path, name: str) -> Path:
    """Return where a table of the whole set is: ``set/classes.parquet``."""
    return run / SET / f"{name}.parquet"


def maximised_files(run: Path) -> list[Path]:
    """Return the files of pictures that are there, in the order they were asked for."""
    return sorted((run / MAXIMISED).glob("[0-9]*.parquet"))


def as_written(file: Path) -> Path:
    """Return the file, or where it is not there the name that earlier versions gave it."""
    earlier = file.with_name(file.name.replace("faithfulness", "quality"))
    return earlier if not file.exists() and earlier.exists() else file


def maximised_file(run: Path, index: int) -> Path:
    """Return where the pictures of a group of channels are: ``maximised/00000.parquet``."""
    return run / MAXIMISED / f"{index:05d}.parquet"


def checksum_file(run: Path, file: Path) -> Path:
    """Return where the checksums of a shard's files are: ``checksums/shards-00000.sha256``."""
    return run / CHECKSUMS / f"{file.parent.name}-{file.stem}.sha256"


def temporary(path: Path) -> Path:
    """Return a new name to build a file or folder under: ``x.parquet`` as ``.x.4f1d….tmp``.

    It is another each time, so that two workers never write into one file.
    """
    name = path.stem if path.suffix == ".parquet" else path.name
    return path.with_name(f".{name}.{secrets.token_hex(6)}.tmp")


def is_temporary(name: str) -> bool:
    """Say whether an interrupted command has left a file or folder of this name."""
    return name.startswith(".") and name.endswith((".tmp", ".old"))
