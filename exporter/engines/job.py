"""What an engine is handed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from exporter.engines.recipe import Recipe
from exporter.explain import BatchWork, Computed, Explainer
from exporter.layers import Kernels, Reshape
from exporter.maps import Method
from exporter.maximise import TOGETHER, Wanted, make_pictures
from exporter.records import ImageEntry, MaximisedPicture

Store = Callable[[int, list[Computed]], None]
"""Writes one shard, whole, from its batches in plan order."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class Batch:
    """Images of one shard that go through the model together."""

    shard: int
    last: bool
    entries: tuple[ImageEntry, ...]


@dataclass(frozen=True, kw_only=True)
class Job(BatchWork):
    """A recipe bound in this process: everything a shard is computed from.

    It stays in its process. ``recipe`` and ``plan`` are what another one needs to bind the same.

    Attributes:
        recipe: how the model and the images were built.
        module: the model, on ``device``, in eval, its parameters frozen for the whole run.
        explainer: gives the explainer of the model or of a replica of it, the same each time.
        build_explainer: builds one more of a model, with other ``methods`` where they are given.
        methods: the map methods, as ``explainer`` runs them.
        kernels: the kernels to draw.
        workers: decoding threads; 0 decodes where the model runs.
        maximised: channels that pictures are made for, after the pass.
        reshape: the user's function from a layer's output to (N, C, H, W), or None.
        head: float32 (K, C + 1), the rows of the linear head and their biases, or None.

    Examples:
        >>> from exporter.demo import example_recipe
        >>> from exporter.planning import bind
        >>> with bind(example_recipe()) as job:
        ...     [len(batch.entries) for batch in job.cut(0)]
        [2]
    """

    recipe: Recipe
    module: nn.Module
    explainer: Callable[[nn.Module], Explainer]
    build_explainer: Callable[..., Explainer]
    methods: tuple[Method, ...]
    kernels: tuple[Kernels, ...]
    workers: int
    maximised: tuple[Wanted, ...] = ()
    reshape: Reshape | None = None
    head: NDArray[np.float32] | None = None

    @property
    def batch_size(self) -> int:
        """Images per forward pass."""
        size = self.recipe.config.batch_size
        assert size != "auto", "planning has settled it"
        return size

    @property
    def output(self) -> str | None:
        """Path of the explained tensor inside the model's output, or None for the guess."""
        return self.recipe.config.output

    def make_pictures(self, group: Wanted) -> list[MaximisedPicture]:
        """Make the pictures of one group of maximised channels."""
        return make_pictures(
            self.module,
            self.plan.model,
            group,
            together=min(self.batch_size, TOGETHER),
            output=self.output,
            reshape=self.reshape,
        )

    def cut(self, shard: int) -> Iterator[Batch]:
        """Cut a shard into batches."""
        start, stop = self.plan.shards[shard]
        for first in range(start, stop, self.batch_size):
            end = min(first + self.batch_size, stop)
            yield Batch(shard, end == stop, self.plan.images[first:end])


def in_order(
    submitted: Iterable[tuple[Batch, Future[Value]]], ahead: int
) -> Iterator[tuple[Batch, Value]]:
    """Yield what futures come to, in their order, at most so many of them being ahead.

    Where submitting the next one fails, those before it are yielded first: they may complete a
    shard.
    """
    waiting: deque[tuple[Batch, Future[Value]]] = deque()
    iterator = iter(submitted)
    failure: BaseException | None = None
    try:
        while True:
            try:
                waiting.append(next(iterator))
            except StopIteration:
                break
            except BaseException as error:
                failure = error
                break
            if len(waiting) > ahead:
                batch, future = waiting.popleft()
                yield batch, future.result()
        while waiting:
            batch, future = waiting.popleft()
            yield batch, future.result()
    finally:
        for _, future in waiting:
            future.cancel()
    if failure is not None:
        raise failure
