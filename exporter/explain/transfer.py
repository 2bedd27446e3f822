"""Copies between the host and the device: at once, or on CUDA beside the model's own work."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Read = Callable[[], NDArray[np.uint8]]
"""Waits for one copy to the host, and for nothing else, and returns its bytes; called once."""


class Transfer:
    """Copies at once, as the CPU and MPS do."""

    def stage(self, arrays: Sequence[NDArray[Any]]) -> Tensor:
        """Lay arrays of one shape side by side on the host, (N, …), ready for `to_device`."""
        return torch.from_numpy(np.stack(arrays))

    def to_device(self, staged: Tensor, device: torch.device) -> Tensor:
        """Return what was staged, or a part of it, on the device."""
        return staged.to(device)

    def release(self, staged: Tensor) -> None:
        """Say that nothing more of what was staged will be copied."""

    def begin(self, packed: Tensor) -> Read:
        """Begin the copy of a buffer of bytes to the host."""
        return lambda: np.asarray(packed.cpu().numpy())


class Cuda:
    """The calls of CUDA that `Lanes` makes, for one device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def stream(self) -> Any:
        """Return a new stream."""
        return torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]

    def current(self) -> Any:
        """Return the stream that kernels are launched on now."""
        return torch.cuda.current_stream(self._device)

    def on(self, stream: Any) -> AbstractContextManager[Any]:
        """Return the context in which a stream is the current one."""
        return torch.cuda.stream(stream)

    def event(self, stream: Any) -> Any:
        """Return an event that happens when a stream has come to here."""
        # Who waits for it sleeps: by default a thread would keep a core busy meanwhile.
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record(stream)
        return event

    def hold(self, tensor: Tensor, stream: Any) -> None:
        """Keep a tensor's memory from being used anew before a stream has come to here."""
        tensor.record_stream(stream)

    def pinned(self, size: int) -> Tensor:
        """Return a buffer of so many bytes whose copies need no wait."""
        return torch.empty(size, dtype=torch.uint8, pin_memory=True)


class Lanes(Transfer):
    """Copies each way on a stream of its own, through pinned buffers that are used again.

    The copy in of a batch so runs beside the kernels of the one before, and the copy out beside
    those of the one after it. Threads may share it.
    """

    def __init__(self, cuda: Any) -> None:
        """Take the calls of the device (`Cuda`)."""
        self._cuda = cuda
        self._inward, self._outward = cuda.stream(), cuda.stream()
        self._lock = threading.Lock()
        self._lent: dict[int, Tensor] = {}
        self._free: list[tuple[Tensor, Any]] = []

    def stage(self, arrays: Sequence[NDArray[Any]]) -> Tensor:
        """See `Transfer`; the place is pinned memory, and belongs to the caller until `release`."""
        first = np.asarray(arrays[0])
        buffer = self._take(len(arrays) * first.nbytes)
        kind = torch.from_numpy(np.empty(0, first.dtype)).dtype
        laid = buffer[: len(arrays) * first.nbytes].view(kind).view(len(arrays), *first.shape)
        np.stack(arrays, out=laid.numpy())
        with self._lock:
            self._lent[laid.data_ptr()] = buffer
        return laid

    def to_device(self, staged: Tensor, device: torch.device) -> Tensor:
        """See `Transfer`; kernels that are launched from now on wait for it, the host does not."""
        with self._cuda.on(self._inward):
            there = staged.to(device, non_blocking=True, copy=True)
        current = self._cuda.current()
        current.wait_stream(self._inward)
        self._cuda.hold(there, current)
        return there

    def release(self, staged: Tensor) -> None:
        """See `Transfer`; the place is used again when the copies from it are done."""
        with self._lock:
            buffer = self._lent.pop(staged.data_ptr())
        self._give(buffer, self._cuda.event(self._inward))

    def begin(self, packed: Tensor) -> Read:
        """See `Transfer`."""
        buffer = self._take(packed.numel())
        self._outward.wait_stream(self._cuda.current())
        with self._cuda.on(self._outward):
            buffer[: packed.numel()].copy_(packed, non_blocking=True)
        self._cuda.hold(packed, self._outward)
        done = self._cuda.event(self._outward)

        def read() -> NDArray[np.uint8]:
            done.synchronize()
            # A copy: the rows of the batch outlive the buffer's next use.
            own = buffer[: packed.numel()].numpy().copy()
            self._give(buffer, done)
            return own

        return read

    def _take(self, size: int) -> Tensor:
        with self._lock:
            for place, (buffer, done) in enumerate(self._free):
                if buffer.numel() >= size and done.query():
                    del self._free[place]
                    return buffer
        fresh: Tensor = self._cuda.pinned(size)
        return fresh

    def _give(self, buffer: Tensor, done: Any) -> None:
        with self._lock:
            self._free.append((buffer, done))


def transfer_for(device: torch.device) -> Transfer:
    """Return how a device's copies are made."""
    return Lanes(Cuda(device)) if device.type == "cuda" else Transfer()
