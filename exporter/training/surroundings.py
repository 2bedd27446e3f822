"""What a training does around a model, and how explaining stays out of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import distributed

from exporter.capture import random_states, restore_random
from exporter.watch import Watch


class Fitting(Watch):
    """Hears how many images fit into memory together, if a batch did not.

    Attributes:
        images: how many; None where all batches fit.
    """

    images: int | None = None

    def memory_short(self, images: int) -> None:
        """Keep the number."""
        self.images = images


def finite(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics that are finite numbers."""
    numbers = {}
    for name, value in metrics.items():
        # Text, an array, a tensor of several, a whole number beyond floats.
        with suppress(TypeError, ValueError, RuntimeError, OverflowError):
            number = float(value.detach() if isinstance(value, torch.Tensor) else value)
            if math.isfinite(number):
                numbers[name] = number
    return numbers


def rank() -> int:
    """Return which of the processes of a training this is."""
    there = distributed.is_available() and distributed.is_initialized()
    return distributed.get_rank() if there else 0


@contextmanager
def as_outside() -> Iterator[None]:
    """Explain as where there is no training: without its autocast, and with its random numbers."""
    with ExitStack() as stack:
        stack.enter_context(randomness_kept())
        for kind in ("cpu", "cuda", "mps", "xpu"):
            if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


@contextmanager
def randomness_kept() -> Iterator[None]:
    """Put the random states of torch, NumPy and Python back."""
    begun = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    on_cuda = range(torch.cuda.device_count() if begun else 0)
    states = random_states(on_cuda)
    try:
        yield
    finally:
        restore_random(states)
