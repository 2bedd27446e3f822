"""Compute every missing shard in this process.

Small models run as several replicas of one thread each, large ones as one with every thread. The
first batches of the run are the trial: they are real work, done both ways and timed, so that
choosing costs nothing. One thread and several give the same bits (measured), so the choice leaves
no trace in the run.
"""

from __future__ import annotations

import copy
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from exporter.capture import guest, hooked
from exporter.engines.job import Job
from exporter.errors import ExporterError
from exporter.explain import Computed, Explainer, Loaded, Pending, compute, launch, load, rows
from exporter.records import ImageEntry
from exporter.watch import Watch

_TRIAL = 3
"""Batches each way of running is timed on, after one that warms up."""

_PATIENCE = 10.0
"""Seconds after which two replicas do not do the same."""

_SMALL = 40_000_000
"""Parameters above which replicas are not tried: memory traffic would decide against them."""


@dataclass(frozen=True)
class _Batch:
    shard: int
    last: bool
    entries: tuple[ImageEntry, ...]


def run(
    job: Job, missing: Sequence[int], store: Callable[[int, list[Computed]], None], watch: Watch
) -> None:
    """Compute shards in order and hand each, whole, to ``store``.

    Args:
        job: the work.
        missing: numbers of the shards to compute.
        store: writes one shard from its batches; called in shard order, on one thread of its own.
        watch: told of every image done.
    """
    batches = [batch for shard in missing for batch in _cut(job, shard)]
    with _Storing(store, watch) as storing:
        if job.device.type == "cpu":
            _on_cpu(job, batches, storing)
        else:
            _overlapped(job, batches, storing, job.explainer(job.module))


def compute_shard(job: Job, shard: int) -> list[Computed]:
    """Compute one shard, batch after batch.

    Args:
        job: a recipe and a plan, bound in this process.
        shard: number of the shard.

    Returns:
        Its batches in plan order, as ``Store`` takes them.

    Raises:
        ModelError: if the model fails on a batch.
    """
    explainer = job.explainer(job.module)
    return [compute(job, explainer, load(job, batch.entries)) for batch in _cut(job, shard)]


def _cut(job: Job, shard: int) -> Iterator[_Batch]:
    start, stop = job.plan.shards[shard]
    for first in range(start, stop, job.batch_size):
        end = min(first + job.batch_size, stop)
        yield _Batch(shard, end == stop, job.plan.images[first:end])


class _Storing:
    """Store shards on one thread, beside the model; the first failure stops the run."""

    def __init__(self, store: Callable[[int, list[Computed]], None], watch: Watch) -> None:
        self._store = store
        self._watch = watch
        self._failed = False
        self._parts: list[Computed] = []
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._pending: deque[Future[None]] = deque()

    def __enter__(self) -> _Storing:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # Shards that are computed are stored, also when the user interrupts or the model fails.
        self._pool.shutdown(wait=True)
        if kind is None:
            for future in self._pending:
                future.result()

    def take(self, batch: _Batch, computed: Computed) -> None:
        """Take the next batch, in order; a shard whose last batch this is gets stored."""
        self._parts.append(computed)
        self._watch.advance(len(batch.entries))
        if batch.last:
            self._pending.append(self._pool.submit(self._write, batch.shard, self._parts))
            self._parts = []
        # Two shards in memory are enough to keep the thread busy.
        while self._pending and (self._pending[0].done() or len(self._pending) > 2):
            self._pending.popleft().result()

    def _write(self, shard: int, parts: list[Computed]) -> None:
        if self._failed:
            return
        try:
            self._store(shard, parts)
        except BaseException:
            self._failed = True
            raise


def _on_cpu(job: Job, batches: Sequence[_Batch], storing: _Storing) -> None:
    """Run on the CPU, first both ways, then the faster one."""
    threads = torch.get_num_threads()
    whole = job.explainer(job.module)
    trial = 1 + _TRIAL
    parameters = sum(parameter.numel() for parameter in job.module.parameters())
    if threads < 2 or parameters > _SMALL or len(batches) < trial + 2 * trial * threads:
        _in_turn(job, batches, storing, whole)
        return
    _in_turn(job, batches[:1], storing, whole)
    examples = _examples(job, batches)
    copies = _copies(job.module, threads) if len(examples) == 2 else []
    stop = 1
    if copies:
        with _Replicas(job, copies) as replicas:
            if replicas.agree(whole, examples):
                in_turn = _timed(lambda: _in_turn(job, batches[1:trial], storing, whole))
                # The first round of a replica warms it up (thread pools, primitive caches).
                replicas.run(batches[trial : trial + threads], storing)
                start = trial + threads
                stop = start + _TRIAL * threads
                several = _timed(lambda: replicas.run(batches[start:stop], storing))
                if several / threads < in_turn:
                    replicas.run(batches[stop:], storing)
                    return
    _in_turn(job, batches[stop:], storing, whole)


def _timed(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _in_turn(job: Job, batches: Sequence[_Batch], storing: _Storing, explainer: Explainer) -> None:
    """Run batches one after the other, the next ones being decoded meanwhile."""
    for batch, loaded in _loaded(job, batches):
        storing.take(batch, compute(job, explainer, loaded))


def _overlapped(
    job: Job, batches: Sequence[_Batch], storing: _Storing, explainer: Explainer
) -> None:
    """Launch a batch while a thread makes the rows of the one before: the device stays busy."""
    if job.metrics:  # they run the model themselves
        _in_turn(job, batches, storing, explainer)
        return
    ahead: deque[tuple[_Batch, Future[Computed]]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="rows") as pool:
        try:
            for batch, loaded in _loaded(job, batches):
                ahead.append((batch, pool.submit(rows, job, launch(job, explainer, loaded))))
                if len(ahead) > 1:
                    first, future = ahead.popleft()
                    storing.take(first, future.result())
        finally:
            # Also when the model fails on the batch after it: this one may complete a shard.
            for first, future in ahead:
                storing.take(first, future.result())


def _loaded(job: Job, batches: Sequence[_Batch]) -> Iterator[tuple[_Batch, Loaded]]:
    """Yield batches with their images; with workers, at most four batches ahead of the model."""
    if job.workers == 0:
        for batch in batches:
            yield batch, load(job, batch.entries)
        return
    with ThreadPoolExecutor(job.workers, thread_name_prefix="decode") as pool:
        ahead: deque[tuple[_Batch, Future[Loaded]]] = deque()
        rest = iter(batches)
        try:
            for batch in rest:
                ahead.append((batch, pool.submit(load, job, batch.entries)))
                if len(ahead) > max(4, job.workers):
                    first, future = ahead.popleft()
                    yield first, future.result()
            while ahead:
                first, future = ahead.popleft()
                yield first, future.result()
        finally:
            for _, future in ahead:
                future.cancel()


class _Replicas:
    """Several replicas of the model, one torch thread each, that take batches in turn.

    Replicas share parameters and buffers; only the modules are copied, for their hooks.
    """

    def __init__(self, job: Job, copies: Sequence[nn.Module]) -> None:
        self._job = job
        self._copies = copies
        self._held = ExitStack()
        self._threads = torch.get_num_threads()
        self._explainers = [job.explainer(module) for module in copies]
        self._free = deque(self._explainers)
        self._pool = ThreadPoolExecutor(
            len(copies),
            thread_name_prefix="replica",
            initializer=torch.set_num_threads,
            initargs=(1,),
        )

    def __enter__(self) -> _Replicas:
        for module in self._copies:
            self._held.enter_context(guest(module))
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._held.close()
        torch.set_num_threads(self._threads)

    def run(self, batches: Sequence[_Batch], storing: _Storing) -> None:
        """Compute batches on all replicas and hand them on in their order."""
        ahead: deque[tuple[_Batch, Future[Computed]]] = deque()
        for batch in batches:
            ahead.append((batch, self._pool.submit(self._compute, batch)))
            if len(ahead) > 2 * len(self._explainers):
                first, future = ahead.popleft()
                storing.take(first, future.result())
        while ahead:
            first, future = ahead.popleft()
            storing.take(first, future.result())

    def agree(self, whole: Explainer, examples: Sequence[Loaded]) -> bool:
        """Say whether replicas that work at the same time give the bits that the model gives alone.

        Two replicas explain an image each and wait for one another at every module. Whatever a
        copy still shares with the model (a closure, a dictionary that a hook writes into, a global,
        a buffer, the random state) is then overwritten by the other before it is read.

        Args:
            whole: the explainer of the model itself.
            examples: two images, one in each.
        """
        alone = [
            self._pool.submit(launch, self._job, whole, example).result() for example in examples
        ]
        together = threading.Barrier(2, timeout=_PATIENCE)

        def wait(*_: object) -> None:
            together.wait()

        modules = [(module, wait) for copied in self._copies for module in copied.modules()]
        with hooked(modules, modules):
            futures = [self._pool.submit(self._launch, example) for example in examples]
            try:
                beside = [future.result() for future in futures]
            except (ExporterError, RuntimeError):  # what one of them does, the other does not
                return False
        return all(batch.equals(other) for batch, other in zip(alone, beside, strict=True))

    def _launch(self, loaded: Loaded) -> Pending:
        with self._explainer() as explainer:
            return launch(self._job, explainer, loaded)

    def _compute(self, batch: _Batch) -> Computed:
        with self._explainer() as explainer:
            return compute(self._job, explainer, load(self._job, batch.entries))

    @contextmanager
    def _explainer(self) -> Iterator[Explainer]:
        explainer = self._free.popleft()  # a deque's own operations need no lock
        try:
            yield explainer
        finally:
            self._free.append(explainer)


def _copies(module: nn.Module, count: int) -> list[nn.Module]:
    """Copy the modules around the same tensors, ``count`` times; none if they cannot be copied."""
    tensors = (*module.parameters(), *module.buffers())
    try:
        return [copy.deepcopy(module, {id(own): own for own in tensors}) for _ in range(count)]
    except Exception:
        # A model may hold anything: a lock, an open file, an activation with its graph.
        return []


def _examples(job: Job, batches: Sequence[_Batch]) -> list[Loaded]:
    """Load the first two images that can be read and are not the same one; fewer if there are."""
    examples: dict[str, Loaded] = {}
    for entry in (entry for batch in batches for entry in batch.entries):
        if entry.key not in examples and (loaded := load(job, (entry,))).seen:
            examples[entry.key] = loaded
        if len(examples) == 2:
            break
    return list(examples.values())


def default_workers(device: torch.device) -> int:
    """Choose the decoding threads: none where they would only take the model's own cores."""
    cores = os.cpu_count() or 1
    if device.type != "cpu":
        return min(8, cores)
    return 0 if cores <= 2 else min(4, cores // 4)
