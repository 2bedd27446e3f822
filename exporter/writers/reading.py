"""What several writers read of a run: its kept images, in threads, and the numbers of the set."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from exporter.errors import RunError
from exporter.records import Row
from exporter.store import Run

_T = TypeVar("_T")


def seed_of(run: Run) -> int:
    """Return the seed of a run's random choices; 0 where its settings hold none."""
    seed = run.settings.get("seed", 0)
    return seed if isinstance(seed, int) else 0


def templates() -> Path:
    """Return the folder of templates: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "_templates"
    return installed if installed.is_dir() else package.parent / "templates"


@cache
def _compiled(*, escape: bool) -> Any:  # noqa: ARG001 - compiled for one or the other
    """Return where Jinja2 keeps what it compiled: a process may write many reports."""
    from jinja2 import BytecodeCache
    from jinja2.bccache import Bucket

    class Compiled(BytecodeCache):
        def __init__(self) -> None:
            self.code: dict[str, bytes] = {}

        def load_bytecode(self, bucket: Bucket) -> None:
            if bucket.key in self.code:
                bucket.bytecode_from_string(self.code[bucket.key])

        def dump_bytecode(self, bucket: Bucket) -> None:
            self.code[bucket.key] = bucket.bytecode_to_string()

    return Compiled()


def seconds_of(created: str) -> float:
    """Return the plan's time as seconds since 1970, so that the same run gives the same bytes."""
    try:
        moment = datetime.fromisoformat(created)
    except ValueError:
        return 0.0
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def templating(*, escape: bool) -> Any:
    """Return a Jinja2 environment of the templates that fails on a missing value."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(templates()),
        autoescape=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        bytecode_cache=_compiled(escape=escape),
    )


def kept_rows(run: Run, kept: Iterable[str]) -> Iterator[Row]:
    """Yield the kept images whose shards are done, in plan order.

    Raises:
        RunError: if the run is complete and damaged.
    """
    chosen = tuple(kept)
    # Reading one image costs what reading eight in passing does: its row group is unpacked.
    if 8 * len(chosen) >= len(run.plan.images):
        wanted = set(chosen)
        yield from (row for row in run.rows() if row.id in wanted)
        return
    for id in chosen:
        try:
            row = run.row(id)
        except RunError:
            if run.complete:
                raise
            continue
        yield row


def in_order(
    make: Callable[[Row], _T], rows: Iterable[Row], threads: int | None = None
) -> Iterator[tuple[Row, _T]]:
    """Yield each row with what ``make`` gives for it, in order, a few at a time in threads.

    OpenCV releases the GIL while it works.

    Args:
        make: called in several threads.
        rows: read from the calling thread only.
        threads: how many; the machine's processors (at most 8) if None.
    """
    count = threads or min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(count, thread_name_prefix="writer") as pool:
        waiting: deque[tuple[Row, Future[_T]]] = deque()
        for row in rows:
            waiting.append((row, pool.submit(make, row)))
            if len(waiting) > 4 * count:
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()


@dataclass(frozen=True, slots=True)
class SetNumbers:
    """The numbers of the images so far; also of a partial run, which has no summary yet.

    Losses are in nats, of each labelled image; scores those of each first prediction, if finite.
    """

    read: int
    skipped: int
    judged: int
    correct: int
    losses: NDArray[np.float64]
    scores: NDArray[np.float64]
    flagged: int


def set_numbers(run: Run) -> SetNumbers:
    """Count and collect the numbers of a run's images."""
    table = run.table(("error", "correct", "loss", "predictions", "maps.list.element.flags"))
    skipped = len(table) - table.column("error").null_count
    correct = table.column("correct").drop_null()
    predictions, maps = (table.column(name).combine_chunks() for name in ("predictions", "maps"))
    first: Any = pc.struct_field(pc.list_flatten(pc.list_slice(predictions, 0, 1)), "score")
    scores = first.to_numpy(zero_copy_only=False).astype(np.float64)
    flags: Any = pc.struct_field(pc.list_flatten(maps), "flags")
    return SetNumbers(
        read=len(table) - skipped,
        skipped=skipped,
        judged=len(correct),
        correct=pc.sum(correct).as_py() or 0,
        losses=table.column("loss").drop_null().to_numpy().astype(np.float64),
        scores=scores[np.isfinite(scores)],
        flagged=pc.sum(pc.not_equal(flags, "")).as_py() or 0,
    )
