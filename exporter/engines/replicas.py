"""Replicas of a small model, one torch thread each (docs/decisions/003-replicas.md)."""

from __future__ import annotations

import copy
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import torch
from torch import nn

from exporter.capture import Stepping, hooked, lent
from exporter.engines.job import Batch, Job, in_order
from exporter.explain import Computed, Explainer, Loaded, Pending, compute, launch, load
from exporter.guard import FAILURES

TRIAL = 3
"""Batches each way of running is timed on, after one that warms up."""

_SMALL = 40_000_000
"""Parameters above which replicas are not tried: memory traffic would decide against them."""

_PATIENCE = 10.0
"""Seconds after which two replicas do not do the same."""


class Replicas:
    """Several replicas of the model, one torch thread each, that take batches in turn.

    Replicas share parameters and buffers; only the modules are copied, for their hooks.
    """

    def __init__(self, job: Job, copies: Sequence[nn.Module]) -> None:
        self._job = job
        self._copies = copies
        self._held = ExitStack()
        self._threads = torch.get_num_threads()
        self._explainers = [job.build_explainer(module) for module in copies]
        self._free = deque(self._explainers)
        self._pool = ThreadPoolExecutor(
            len(copies),
            thread_name_prefix="replica",
            initializer=torch.set_num_threads,
            initargs=(1,),
        )

    def __enter__(self) -> Replicas:
        for module in self._copies:
            self._held.enter_context(lent(module, apart=True))
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._held.close()
        torch.set_num_threads(self._threads)

    def run(self, batches: Sequence[Batch], take: Callable[[Batch, Computed], None]) -> None:
        """Compute batches on all replicas and hand them on in their order."""
        computing = ((batch, self._pool.submit(self._compute, batch)) for batch in batches)
        for batch, computed in in_order(computing, 2 * len(self._explainers)):
            take(batch, computed)

    def agree(self, whole: Explainer, examples: Sequence[Loaded]) -> bool:
        """Say whether replicas that work at the same time give the bits that the model gives alone.

        Two replicas explain an image each and wait for one another at every module, and inside the
        model at every function of torch. Whatever a copy still shares with the model (a closure, a
        dictionary that a hook writes into, a global, a buffer, the random state) is then
        overwritten by the other before it is read.
        """
        together = threading.Barrier(2, timeout=_PATIENCE)

        inside: set[int] = set()

        def wait(*_: object) -> None:
            together.wait()

        def enter(*_: object) -> None:
            inside.add(threading.get_ident())

        def leave(*_: object) -> None:
            inside.discard(threading.get_ident())

        def step() -> None:
            if threading.get_ident() in inside:
                together.wait()

        def explain(example: Loaded) -> Pending:
            with Stepping(step):
                return self._launch(example)

        modules = [(module, wait) for copied in self._copies for module in copied.modules()]
        try:
            alone = [
                self._pool.submit(launch, self._job, whole, each).result() for each in examples
            ]
            with (
                hooked(modules, modules),
                hooked(
                    [(copied, leave) for copied in self._copies],
                    [(copied, enter) for copied in self._copies],
                ),
            ):
                futures = [self._pool.submit(explain, example) for example in examples]
                beside = [future.result() for future in futures]
        except FAILURES:  # a copy may fail in any way, or take another way through the model
            together.abort()
            return False
        return all(batch.equals(other) for batch, other in zip(alone, beside, strict=True))

    def _launch(self, loaded: Loaded) -> Pending:
        with self._explainer() as explainer:
            return launch(self._job, explainer, loaded)

    def _compute(self, batch: Batch) -> Computed:
        with self._explainer() as explainer:
            return compute(self._job, explainer, load(self._job, batch.entries))

    @contextmanager
    def _explainer(self) -> Iterator[Explainer]:
        explainer = self._free.popleft()  # a deque's own operations need no lock
        try:
            yield explainer
        finally:
            self._free.append(explainer)


def are_enough(batches: int, threads: int = 2) -> bool:
    """Say whether so many batches are worth timing both ways on some of them."""
    trial = 1 + TRIAL
    return batches >= trial + 2 * trial * threads


def with_replicas(job: Job) -> Job:
    """Find out whether replicas give the model's bits, where the run is long enough to use some.

    It is part of the plan: what replicas share is the model's doing, not the machine's.
    """
    plan, findings = job.plan, job.plan.findings
    batches = [batch for shard in range(len(plan.shards)) for batch in job.cut(shard)]
    # A copy would compute in float32, and would have to be compiled, too.
    as_it_is = plan.precision is None and not job.recipe.config.compile
    as_it_is &= job.sanity is None  # it writes to the parameters, which replicas share
    small = sum(parameter.numel() for parameter in job.module.parameters()) <= _SMALL
    if not (
        findings is not None
        and findings.steady
        and not (findings.writes_buffers or findings.writes_parameters)
        and (job.device.type == "cpu" and as_it_is and small and are_enough(len(batches)))
    ):
        return job
    examples = _two_images(job, batches)
    copies = copies_of(job.module, 2) if len(examples) == 2 else []
    if not copies:
        return job
    with Replicas(job, copies) as replicas:
        agreeing = replicas.agree(job.explainer(job.module), examples)
    findings = replace(findings, replicas=agreeing)
    added = [note for note in findings.notes if note not in plan.notes]
    return replace(job, plan=replace(plan, findings=findings, notes=(*plan.notes, *added)))


def copies_of(module: nn.Module, count: int) -> list[nn.Module]:
    """Copy the modules around the same tensors, ``count`` times; none if they cannot be copied."""
    tensors = (*module.parameters(), *module.buffers())
    try:
        return [copy.deepcopy(module, {id(own): own for own in tensors}) for _ in range(count)]
    except FAILURES:
        # A model may hold anything: a lock, an open file, an activation with its graph.
        return []


def _two_images(job: Job, batches: Sequence[Batch]) -> list[Loaded]:
    """Load the first two images that can be read and are not the same one; fewer if there are."""
    examples: dict[str, Loaded] = {}
    for entry in (entry for batch in batches for entry in batch.entries):
        if entry.key not in examples and (loaded := load(job, (entry,))).seen:
            examples[entry.key] = loaded
        if len(examples) == 2:
            break
    return list(examples.values())
