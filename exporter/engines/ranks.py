"""Several processes that were started together, by torchrun or SLURM, and share a run.

Each computes the shards k with k mod count = its number; what goes between them goes through the
run folder. Rank 0 is the one that waits for the others, and computes what they do not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from exporter.engines import local
from exporter.engines.job import Job, Store
from exporter.errors import BusyError, RunError
from exporter.launchers import Rank
from exporter.store import RunFiles, is_planned, shards_there, written_at
from exporter.store.stored import run_files
from exporter.watch import Watch

PATIENCE = 3600.0
"""Seconds that a process waits for another at most."""

HINT = 30.0
"""Seconds after which a process that waits for a plan says what it is waiting for."""

QUIET = 60.0
"""Seconds without a new shard after which rank 0 takes the others' shards, at least."""

_SHARDS = 3
"""The same, as a multiple of what one of its own shards took."""

_V = TypeVar("_V")


@dataclass(frozen=True)
class Ranks:
    """What rank 0 computes with: its part, and then whatever the others leave."""

    rank: Rank

    def run(self, job: Job, missing: Sequence[int], store: Store, watch: Watch) -> None:
        """Return when every missing shard is in the run folder, whoever computed it."""
        own = [shard for shard in missing if shard % self.rank.count == self.rank.number]
        folder = run_files(job.recipe.config.out)
        # A shard that is missing may have a file: a damaged one, or one that is to be added to.
        stale = written_at(folder, missing)
        begun = time.monotonic()
        if own:
            local.run(job, own, store, watch)
        quiet = max(QUIET, _SHARDS * (time.monotonic() - begun) / max(1, len(own)))
        left = [shard for shard in missing if shard not in set(own)]
        changed, said = time.monotonic(), False
        while left:
            there = shards_there(folder)
            there -= {n for n, at in written_at(folder, stale).items() if at == stale[n]}
            for start, stop in (job.plan.shards[shard] for shard in left if shard in there):
                watch.advance(stop - start)
                changed = time.monotonic()
            left = [shard for shard in left if shard not in there]
            if left and time.monotonic() - changed > quiet:
                if not said:
                    watch.say(
                        f"no other process has stored a shard for {quiet:.0f} s: the {len(left)} "
                        "that are missing are computed here"
                    )
                said = True
                # Whoever comes late begins with the first ones.
                local.run(job, [left.pop()], store, watch)
            elif left:
                time.sleep(folder.look)


def await_plan(folder: RunFiles, launch: str, changed: bool, watch: Watch) -> bool:
    """Wait until rank 0 has planned the run.

    Args:
        folder: the run's.
        launch: tells the plan of this launch from that of an earlier one.
        changed: whether a run that is complete is one to be replaced, or added to.
        watch: told what is waited for.

    Returns:
        Whether there is anything to compute.

    Raises:
        RunError: if there is no plan after `PATIENCE`.
    """
    watch.begin("waiting for the plan of rank 0")
    until, hint = time.monotonic() + PATIENCE, time.monotonic() + HINT
    while True:
        planned = is_planned(folder, launch, complete=not changed)
        if planned is not None:
            return planned
        if time.monotonic() > until:
            raise RunError(
                f"rank 0 has not planned the run {str(folder.run)!r} within "
                f"{PATIENCE / 60:.0f} minutes; plan it before with exporter plan, and start "
                "exporter work in each process"
            )
        if time.monotonic() > hint:
            hint = until
            watch.say(
                f"rank 0 has not planned the run {str(folder.run)!r} yet: processes that are "
                "started together share one --out; where each job of an array has a run of its "
                "own, unset SLURM_ARRAY_TASK_ID for it"
            )
        time.sleep(folder.look)


def patiently(take: Callable[[], _V], what: str, watch: Watch) -> _V:
    """Take the run folder, which another process of the launch may be about to leave.

    Raises:
        RunError: if another process is in the way after `PATIENCE`.
    """
    until, waiting = time.monotonic() + PATIENCE, False
    while True:
        try:
            return take()
        except BusyError:
            if time.monotonic() > until:
                raise
            if not waiting:
                watch.begin(f"waiting for {what}")
            waiting = True
            time.sleep(RunFiles.look)
