"""Names inside a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Final

PLAN: Final = "plan.json"
TOTALS: Final = "run.json"
CHANNELS: Final = "channels.parquet"
LOCK: Final = ".lock"
SHARDS: Final = "shards"
SUMMARIES: Final = "summaries"
SET: Final = "set"
SET_SUMMARY: Final = "summary.json"
KERNELS: Final = "kernels"
KERNEL_LIST: Final = "kernels.json"
MAXIMISED: Final = "maximised"
SINKS: Final = ("tensorboard", "wandb", "html")
SINK_NOTE: Final = "writers.json"

FILLED: Final = (SHARDS, SUMMARIES, SET, MAXIMISED)
"""Folders that are filled a file at a time, each under a temporary name first."""

# In the order they are removed: what says "complete" first, what says "a run" last.
OWN: Final = (TOTALS, *SINKS, SINK_NOTE, CHANNELS, *reversed(FILLED), KERNELS, PLAN)
"""Everything the exporter makes in a run folder, besides temporaries and the lock."""


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


def maximised_file(run: Path, index: int) -> Path:
    """Return where the pictures of a group of channels are: ``maximised/00000.parquet``."""
    return run / MAXIMISED / f"{index:05d}.parquet"


def temporary(path: Path) -> Path:
    """Return the name a file or folder is built under: ``x.parquet`` as ``.x.tmp``."""
    name = path.stem if path.suffix == ".parquet" else path.name
    return path.with_name(f".{name}.tmp")


def is_temporary(name: str) -> bool:
    """Say whether a file of this name is half-written."""
    return name.startswith(".") and name.endswith(".tmp")
