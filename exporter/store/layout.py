"""Names inside a run folder, relative to it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from exporter.doors import writer_names
from exporter.store.files import RunFiles
from exporter.stores import Place, is_address

PLAN: Final = "plan.json"
TOTALS: Final = "run.json"
PROFILE: Final = "profile.json"
TRACE: Final = "trace.json"
CHANNELS: Final = "channels.parquet"
RECIPE: Final = "recipe.json"
LOCK: Final = ".lock"
SHARDS: Final = "shards"
SUMMARIES: Final = "summaries"
CHECKSUMS: Final = "checksums"
SET: Final = "set"
SET_SUMMARY: Final = "set/summary.json"
KERNELS: Final = "kernels"
KERNEL_LIST: Final = "kernels/kernels.json"
HEAD: Final = "kernels/head.npy"
MAXIMISED: Final = "maximised"
WRITER_NOTE: Final = "writers.json"
COMPARISON: Final = "comparison.json"
"""What is in the folder of a comparison, in the place of a plan."""

NEXT: Final = ".next"

FILLED: Final = (SHARDS, SUMMARIES, CHECKSUMS, SET, MAXIMISED)
"""Folders that are filled a file at a time, each under a temporary name first."""


def own_names() -> tuple[str, ...]:
    """Return everything the exporter makes in a run folder, besides temporaries and the lock.

    In the order they are removed: what says "complete" first, what says "a run" last.
    """
    writers = writer_names()
    return (
        TOTALS,
        *writers,
        PROFILE,
        TRACE,
        WRITER_NOTE,
        CHANNELS,
        *reversed(FILLED),
        KERNELS,
        RECIPE,
        PLAN,
    )


def replaced() -> tuple[str, ...]:
    """Return the folders that are swapped in as a whole."""
    return (KERNELS, *writer_names())


def is_comparison(path: Place | str) -> bool:
    """Say whether a folder holds a comparison, whole or damaged."""
    return not is_address(path) and (Path(path) / COMPARISON).exists()


def shard_file(index: int) -> str:
    """Return where a shard's rows are: ``shards/00000.parquet``."""
    return f"{SHARDS}/{index:05d}.parquet"


def shards_there(run: RunFiles) -> set[int]:
    """Return the numbers of the shards that have a file."""
    names = (re.fullmatch(r"(\d{5,})\.parquet", name) for name in run.names(SHARDS))
    return {int(name[1]) for name in names if name}


def written_at(run: RunFiles, shards: Iterable[int]) -> dict[int, int]:
    """Return when the files of some shards were written, in ns, of those that have one."""
    times = {}
    for shard in shards:
        at = run.modified(shard_file(shard))
        if at is not None:
            times[shard] = at
    return times


def summary_file(index: int, part: str = "") -> str:
    """Return where a shard's part of the statistics is: ``summaries/00000.parquet``.

    A named part, such as ``set``, is in ``summaries/00000-set.parquet``.
    """
    return f"{SUMMARIES}/{index:05d}{'-' if part else ''}{part}.parquet"


def set_table(name: str) -> str:
    """Return where a table of the whole set is: ``set/classes.parquet``."""
    return f"{SET}/{name}.parquet"


def former(file: str) -> str:
    """Return the name that earlier versions gave a file."""
    return file.replace("faithfulness", "quality")


def maximised_file(index: int) -> str:
    """Return where the pictures of a group of channels are: ``maximised/00000.parquet``."""
    return f"{MAXIMISED}/{index:05d}.parquet"


def maximised_files(run: RunFiles) -> list[str]:
    """Return the files of pictures that are there, in the order they were asked for."""
    names = run.names(MAXIMISED)
    return [f"{MAXIMISED}/{name}" for name in names if re.fullmatch(r"\d{5,}\.parquet", name)]


def checksum_file(file: str) -> str:
    """Return where checksums are: those of a shard's files in ``checksums/shards-00000.sha256``."""
    return f"{CHECKSUMS}/{file.removesuffix('.parquet').replace('/', '-')}.sha256"


def next_checksum_file(file: str) -> str:
    """Return where checksums are while what they are of is being written again."""
    folder, _, name = checksum_file(file).rpartition("/")
    return f"{folder}/.{name}{NEXT}"


def writer_folder(name: str) -> str:
    """Return what the checksums of a writer's folder are kept for."""
    return f"writers/{name}"


def is_temporary(name: str) -> bool:
    """Say whether an interrupted command has left a file or folder of this name."""
    return name.startswith(".") and name.endswith((".tmp", ".old"))


def temporaries(run: RunFiles) -> list[str]:
    """Return what interrupted commands have left in a run folder."""
    folders = ((folder, run.names(folder)) for folder in ("", *FILLED))
    return [
        f"{folder}/{name}".lstrip("/")
        for folder, names in folders
        for name in names
        if is_temporary(name)
    ]
