"""What is done where memory runs out, on the host or a device: the same work in halves."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from exporter.guard import is_shortage

Part = TypeVar("Part")


def in_halves(compute: Callable[[slice], Part], count: int, start: int = 0) -> list[Part]:
    """Compute items together; where memory runs out, in halves, one after the other.

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
        [[0, 1], [2], [3, 4]]
    """
    try:
        return [compute(slice(start, start + count))]
    except Exception as error:
        if count <= 1 or not is_shortage(error):
            raise
    # Outside of the handler: the error's traceback held on to the tensors of the failed attempt.
    gc.collect()
    torch.cuda.empty_cache()
    half = count // 2
    return in_halves(compute, half, start) + in_halves(compute, count - half, start + half)
