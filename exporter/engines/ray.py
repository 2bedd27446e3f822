"""The engine ``ray``: a worker per device of a Ray cluster takes one shard after another.

A worker that is lost, with its node or alone, gives its shard to another. Ray is not asked to start
it again in its place: on a cluster without room for it, whatever it was to do would wait for ever.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from exporter.engines.job import Job, Store
from exporter.engines.recipe import Recipe
from exporter.errors import ConfigError, RunError
from exporter.run import computing
from exporter.stores import place_of
from exporter.watch import Watch

PATIENCE = 900.0
"""Seconds in which some worker has to begin where none is at work."""

LOSSES = 3
"""Workers that may be lost over one shard, or before they begin, until the run is given up."""


def run(job: Job, missing: Sequence[int], store: Store, watch: Watch) -> None:  # noqa: ARG001
    """Have every missing shard computed by the workers of a cluster."""
    ray = _library()
    recipe = replace(job.recipe, folder=job.recipe.folder or str(Path.cwd()))
    recipe.require_portable("the engine 'ray'")
    begun = not ray.is_initialized()
    if begun:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(log_to_driver=False)
    try:
        device = "GPU" if job.device.type == "cuda" else "CPU"
        there = int(ray.cluster_resources().get(device, 0))
        if not there:
            raise ConfigError(f"the Ray cluster has no {device}, which this run is planned for")
        asked = job.recipe.config.processes
        count = min(there if asked == "auto" else asked, len(missing))
        kind = ray.remote(num_cpus=1, num_gpus=int(device == "GPU"))(Worker)
        with _Crew(ray, lambda: kind.remote(str(job.recipe.config.out.absolute()), recipe)) as crew:
            for shard in crew.compute(missing, count, watch):
                start, stop = job.plan.shards[shard]
                watch.advance(stop - start)
    finally:
        if begun:
            ray.shutdown()


def _library() -> Any:
    try:
        return import_module("ray")
    except ImportError:
        raise ConfigError(
            "the engine 'ray' needs Ray; install it with: pip install 'exporter[ray]'"
        ) from None


class Worker:
    """What computes shards on one device, in a process of Ray's."""

    def __init__(self, run: str, recipe: Recipe) -> None:
        self._run, self._recipe = place_of(run), recipe
        self._held = ExitStack()

    def begin(self) -> None:
        """Build the model and the images; what fails is told to who asks."""
        self._compute = self._held.enter_context(computing(self._run, self._recipe))

    def compute(self, shard: int) -> None:
        """Compute one shard and write it."""
        self._compute(shard)


class _Crew:
    """The workers that are there, as a context manager that ends them."""

    def __init__(self, ray: Any, start: Any) -> None:
        self._ray, self._start = ray, start
        self._all: list[Any] = []
        self._at_work: dict[Any, tuple[Any, int | None]] = {}
        self._lost: Counter[int | None] = Counter()

    def __enter__(self) -> _Crew:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._all:
            self._ray.kill(worker)

    def compute(self, shards: Sequence[int], count: int, watch: Watch) -> Any:
        """Have shards computed by so many workers and yield each when it is stored."""
        left, idle = deque(shards), []
        for _ in range(count):
            self._add()
        while left or any(shard is not None for _, shard in self._at_work.values()):
            worker, shard, lost = self._next()
            if lost:
                self._lost[shard] += 1
                if self._lost[shard] >= LOSSES + (count if shard is None else 0):
                    over = "before it began" if shard is None else f"over shard {shard}"
                    raise RunError(
                        f"Ray has lost {self._lost[shard]} workers {over}, the last one so: {lost}"
                    )
                watch.say(f"a Ray worker was lost; others compute its shards ({lost})")
                left.extendleft([] if shard is None else [shard])
                self._add()
            else:
                idle.append(worker)
                if shard is not None:
                    yield shard
            while left and idle:
                self._ask(idle.pop(), left.popleft())

    def _add(self) -> None:
        worker = self._start()
        self._all.append(worker)
        self._at_work[worker.begin.remote()] = (worker, None)

    def _ask(self, worker: Any, shard: int) -> None:
        self._at_work[worker.compute.remote(shard)] = (worker, shard)

    def _next(self) -> tuple[Any, int | None, str]:
        """Wait for a worker; return it, its shard, and how it was lost if it was."""
        done: list[Any] = []
        while not done:
            busy = any(shard is not None for _, shard in self._at_work.values())
            done, _ = self._ray.wait(list(self._at_work), timeout=PATIENCE)
            if not (done or busy):
                raise RunError(
                    f"Ray has started no worker within {PATIENCE / 60:.0f} minutes; its free "
                    f"resources are {self._ray.available_resources()}"
                )
        worker, shard = self._at_work.pop(done[0])
        try:
            self._ray.get(done[0])
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayError as error:
            return worker, shard, str(error).strip().partition("\n")[0]
        return worker, shard, ""
