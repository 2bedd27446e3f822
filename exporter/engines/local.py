"""Compute every missing shard in this process.

Small models run as several replicas of one thread each, large ones as one with every thread. The
first batches of the run are the trial: they are real work, done both ways and timed, so that
choosing costs nothing. One thread and several give the same bits (measured), so the choice leaves
no trace in the run.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import torch

from exporter.engines.beside import Beside, processes_of
from exporter.engines.job import Batch, Job, Store, Value, in_order
from exporter.engines.replicas import TRIAL, Replicas, are_enough, copies_of
from exporter.explain import (
    Computed,
    Explainer,
    Loaded,
    Staged,
    compute,
    launch,
    load,
    rows,
    stage,
)
from exporter.records import ImageEntry
from exporter.watch import Watch

_IN_FLIGHT = 3
"""Batches that are launched beyond the one whose rows are waited for: the device never idles."""

_SWITCH = 5e-4
"""Seconds that a thread runs Python while others wait for the interpreter; Python's own is 5e-3.

Every call into a library gives the interpreter away, and a thread that reads images does so a dozen
times per image: each time it would wait until those that make rows and tables are told to pause.
"""

_ROWS = 2
"""Threads that make rows for a device: encoding pictures lets other threads run."""

_STORING = 3
"""Threads that store shards for a device; measuring maps lets other threads run, too."""


def run(job: Job, missing: Iterable[int], store: Store, watch: Watch) -> None:
    """Compute shards in order and hand each, whole, to ``store``, on threads of its own.

    Shards that are not a sequence are asked for as they are needed.
    """
    with _Storing(store, watch, 1 if job.device.type == "cpu" else _STORING) as storing:
        if isinstance(missing, Sequence):
            _listed(job, missing, storing, watch)
        else:
            _one_after_the_other(job, missing, storing)
    if storing.fits:
        watch.memory_short(storing.fits[max(storing.fits)])
    if job.explainer(job.module).compiling_given_up:
        watch.say("memory ran out, so from some batch on the model ran without being compiled")


def _listed(job: Job, missing: Sequence[int], storing: _Storing, watch: Watch) -> None:
    count = processes_of(job, missing)
    if count > 1:
        if not job.recipe.config.workers:
            cores = max(1, (os.cpu_count() or 1) // count)
            job = replace(job, workers=min(job.workers, cores))
        with Beside(job, missing, count, watch) as others:
            for shards in others.rounds():
                _one_after_the_other(job, shards, storing)
    elif job.device.type == "cpu":
        _on_cpu(job, list(_batches(job, missing)), storing)
    else:
        _one_after_the_other(job, missing, storing)


def _one_after_the_other(job: Job, shards: Iterable[int], storing: _Storing) -> None:
    compute_all = _in_turn if job.device.type == "cpu" else _overlapped
    compute_all(job, _batches(job, shards), storing, job.explainer(job.module))


def _batches(job: Job, shards: Iterable[int]) -> Iterator[Batch]:
    return (batch for shard in shards for batch in job.cut(shard))


def compute_shard(job: Job, shard: int) -> list[Computed]:
    """Compute one shard, batch after batch.

    Args:
        job: a recipe and a plan, bound in this process.
        shard: number of the shard.

    Returns:
        Its batches in plan order, as ``Store`` takes them.

    Raises:
        ModelError: if the model fails on a batch.

    Examples:
        >>> from exporter.demo import example_recipe
        >>> from exporter.planning import bind
        >>> with bind(example_recipe()) as job:
        ...     [len(batch.rows) for batch in compute_shard(job, 0)]
        [2]
    """
    explainer = job.explainer(job.module)
    return [compute(job, explainer, load(job, batch.entries)) for batch in job.cut(shard)]


class _Storing:
    """Store shards on threads beside the model; the first failure stops the run.

    Attributes:
        fits: for each size of batch that was cut because memory was short, the fewest images that
            then went through the model together.
    """

    def __init__(self, store: Store, watch: Watch, threads: int = 1) -> None:
        self.fits: dict[int, int] = {}
        self._store = store
        self._watch = watch
        self._failed = False
        self._parts: list[Computed] = []
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="store")
        self._pending: deque[Future[None]] = deque()

    def __enter__(self) -> _Storing:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # Shards that are computed are stored, also when the user interrupts or the model fails.
        self._pool.shutdown(wait=True)
        if kind is None:
            for future in self._pending:
                future.result()

    def take(self, batch: Batch, computed: Computed) -> None:
        """Take the next batch, in order; a shard whose last batch this is gets stored."""
        self._parts.append(computed)
        if computed.fit:
            size = len(batch.entries)
            self.fits[size] = min(computed.fit, self.fits.get(size, size))
        self._watch.advance(len(batch.entries))
        if batch.last:
            self._pending.append(self._pool.submit(self._write, batch.shard, self._parts))
            self._parts = []
        # One shard more than there are threads keeps them busy.
        most = self._threads + 1
        while self._pending and (self._pending[0].done() or len(self._pending) > most):
            self._pending.popleft().result()

    def _write(self, shard: int, parts: list[Computed]) -> None:
        if self._failed:
            return
        try:
            self._store(shard, parts)
        except BaseException:
            self._failed = True
            raise


def _on_cpu(job: Job, batches: Sequence[Batch], storing: _Storing) -> None:
    """Run on the CPU, first both ways, then the faster one."""
    threads = torch.get_num_threads()
    whole = job.explainer(job.module)
    findings = job.plan.findings
    apart = findings is not None and findings.replicas and threads > 1
    copies = copies_of(job.module, threads) if apart and are_enough(len(batches), threads) else []
    stop = 0
    if copies:
        trial = 1 + TRIAL
        _in_turn(job, batches[:1], storing, whole)
        with Replicas(job, copies) as replicas:
            in_turn = _timed(lambda: _in_turn(job, batches[1:trial], storing, whole))
            # The first round of a replica warms it up (thread pools, primitive caches).
            replicas.run(batches[trial : trial + threads], storing.take)
            start = trial + threads
            stop = start + TRIAL * threads
            several = _timed(lambda: replicas.run(batches[start:stop], storing.take))
            if several / threads < in_turn:
                replicas.run(batches[stop:], storing.take)
                return
    _in_turn(job, batches[stop:], storing, whole)


def _timed(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _in_turn(job: Job, batches: Iterable[Batch], storing: _Storing, explainer: Explainer) -> None:
    """Run batches one after the other, the next ones being decoded meanwhile."""
    for batch, loaded in _ahead(job, batches, load):
        storing.take(batch, compute(job, explainer, loaded))


def _overlapped(
    job: Job, batches: Iterable[Batch], storing: _Storing, explainer: Explainer
) -> None:
    """Launch a batch while threads make the rows of those before: the device stays busy."""
    if job.measures:  # that runs the model, too
        _in_turn(job, batches, storing, explainer)
        return
    with _switching(_SWITCH), ThreadPoolExecutor(_ROWS, thread_name_prefix="rows") as pool:
        launched = (
            (batch, pool.submit(rows, job, launch(job, explainer, *loaded)))
            for batch, loaded in _ahead(job, batches, _staged)
        )
        for batch, computed in in_order(launched, _IN_FLIGHT):
            storing.take(batch, computed)


@contextmanager
def _switching(seconds: float) -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(seconds, before))
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _staged(job: Job, entries: Sequence[ImageEntry]) -> tuple[Loaded, Staged | None]:
    loaded = load(job, entries)
    return loaded, stage(job, loaded)


def _ahead(
    job: Job, batches: Iterable[Batch], prepare: Callable[[Job, Sequence[ImageEntry]], Value]
) -> Iterator[tuple[Batch, Value]]:
    """Yield batches with their images; with workers, some batches ahead of the model."""
    if job.workers == 0:
        yield from ((batch, prepare(job, batch.entries)) for batch in batches)
        return
    with ThreadPoolExecutor(job.workers, thread_name_prefix="decode") as pool:
        loading = ((batch, pool.submit(prepare, job, batch.entries)) for batch in batches)
        yield from in_order(loading, max(4, job.workers))


def default_workers(device: torch.device) -> int:
    """Choose the decoding threads: none where they would only take the model's own cores."""
    cores = os.cpu_count() or 1
    if device.type != "cpu":
        return min(8, cores)
    return 0 if cores <= 2 else min(4, cores // 4)
