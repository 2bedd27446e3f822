"""What a finished run says of itself: ``run.json``, and what writers made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from exporter.records.columns import Count, FilePath


def ratio(part: float, count: int) -> float | None:
    """Return part / count, or None where there is nothing to divide by.

    >>> ratio(3, 4), ratio(0, 0)
    (0.75, None)
    """
    return part / count if count else None


@dataclass(frozen=True, slots=True)
class Totals:
    """What ``run.json`` says: its presence means the run is complete.

    Attributes:
        images: planned images.
        read: images that were read.
        skipped: (path, reason) of each that was not.
        labelled: images whose label is a class of the model.
        correct: of those, how many the first prediction got right.
        flagged: maps that show nothing, by ``method layer flag`` (see ``FLAG_REASONS``).
        checksums: SHA-256 of every shard and summary, by path relative to the run.
        finished: ISO 8601 time in UTC.
        seconds: wall-clock seconds of this session's computing.
    """

    images: Count
    read: Count
    skipped: tuple[tuple[str, str], ...]
    labelled: Count
    correct: Count
    flagged: Mapping[str, Count]
    checksums: Mapping[FilePath, str]
    finished: str
    seconds: float

    @property
    def accuracy(self) -> float | None:
        """Share of the labelled images that were predicted right; None where there are none."""
        return ratio(self.correct, self.labelled)


@dataclass(frozen=True, slots=True)
class StageTime:
    """What a stage of a run took, a row of ``profile.json``.

    Attributes:
        stage: its name.
        calls: how often it ran.
        threads: how many threads it ran in.
        seconds: wall-clock seconds, those of threads that ran beside one another added up.
        share: these as a share of the time that the run took; more than 1 in several threads.

    Examples:
        >>> StageTime("read and decode", calls=4, threads=2, seconds=3.0, share=1.5).share
        1.5
    """

    stage: str
    calls: Count
    threads: Count
    seconds: float
    share: float


@dataclass(frozen=True, slots=True)
class Written:
    """What a writer made.

    Attributes:
        writer: its name.
        path: the folder, relative to the run.
        open: the file or command a person opens it with.
        shown: images shown, without those that could not be read.
        total: images in the run.
        notes: what was left out and why, one line each.

    Examples:
        >>> Written("paths", "paths", "paths/paths.txt", shown=2, total=2).open
        'paths/paths.txt'
    """

    writer: str
    path: str
    open: str
    shown: int
    total: int
    notes: tuple[str, ...] = ()
