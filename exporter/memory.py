"""What is done where memory runs out, on the host or a device: the same work in halves.

And how much of it the host has, where the system tells.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
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


def free_memory(root: Path = Path("/")) -> int | None:
    """Return how many bytes of memory this process may still take; None where nothing tells.

    The machine's, or the control group's (a container, a batch job) where that is less.

    Args:
        root: where the system's files are.
    """
    amounts: list[int] = []
    with suppress(OSError, ValueError, StopIteration):
        lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
        amounts.append(next(int(t.split()[1]) << 10 for t in lines if t.startswith("MemAvailable")))
    with suppress(OSError, ValueError):  # of no limit the file says "max"
        group = root / "sys/fs/cgroup"
        limit, taken = ((group / name).read_text() for name in ("memory.max", "memory.current"))
        amounts.append(max(0, int(limit) - int(taken)))
    return min(amounts, default=None)


def peak_memory() -> int | None:
    """Return the most bytes of memory this process has had; None where nothing tells."""
    try:
        from resource import RUSAGE_SELF, getrusage
    except ImportError:  # Windows
        return None
    most = getrusage(RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most << 10
