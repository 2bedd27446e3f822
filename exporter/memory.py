"""What is done where memory runs out, on the host or a device: the same work in halves."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from exporter.guard import is_shortage

Part = TypeVar("Part")


def in_halves(compute: Callable[[slice], Part], count: int, start: int = 0) -> list[Part]:
    """Compute items together; where memory runs out, half as many at a time from there on.

    Args:
        compute: given which items, a slice of them.
        count: how many there are.
        start: number of the first.

    Returns:
        The parts in order; a single one where all items fit together.

    Raises:
        Exception: what the shortage was raised as, if not even one item fits.

    Examples:
        >>> def two_at_most(items):
        ...     if items.stop - items.start > 2:
        ...         raise torch.OutOfMemoryError
        ...     return list(range(items.start, items.stop))
        >>> in_halves(two_at_most, 5)
        [[0, 1], [2, 3], [4]]
    """
    parts: list[Part] = []
    end, size = start + count, count
    while True:
        try:
            parts.append(compute(slice(start, min(start + size, end))))
        except Exception as error:
            if size <= 1 or not is_shortage(error):
                raise
        else:
            start += size
            if start >= end:
                return parts
            continue
        # Outside of the handler: the error's traceback held on to the tensors of the failed
        # attempt. They are young, and looking at everything takes longer than a small model.
        gc.collect(1)
        torch.cuda.empty_cache()
        size //= 2
