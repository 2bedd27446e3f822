"""Many tensors in one buffer of bytes, so that one copy carries them all to the host."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from exporter.containers import rebuild

_READ_AS: dict[torch.dtype, np.dtype[Any]] = {
    torch.float32: np.dtype("<f4"),
    torch.int32: np.dtype("<i4"),
    # Levels of maps: 16 bits without a sign, which torch computes with as int32 only.
    torch.int16: np.dtype("<u2"),
    torch.uint8: np.dtype("u1"),
    torch.bool: np.dtype("?"),
}


@dataclass(frozen=True)
class Slot:
    """Where one tensor lies in the buffer."""

    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


def pack(contents: Any) -> tuple[dict[str, Slot], Tensor]:
    """Lay every tensor inside a value into one uint8 buffer on their device.

    Args:
        contents: containers of tensors of float32, int32, int16 (read back as uint16), uint8, bool.

    Returns:
        The slots by path, and the buffer. The widest types come first, so that every array is
        aligned.
    """
    tensors: dict[str, Tensor] = {}
    rebuild(contents, tensors.setdefault)
    order = sorted(tensors, key=lambda path: -tensors[path].element_size())
    slots: dict[str, Slot] = {}
    offset = 0
    for path in order:
        tensor = tensors[path]
        slots[path] = Slot(offset, _READ_AS[tensor.dtype], tuple(tensor.shape))
        offset += tensor.numel() * tensor.element_size()
    parts = [_bytes_of(tensors[path]) for path in order]
    return slots, torch.cat(parts)


def _bytes_of(tensor: Tensor) -> Tensor:
    flat = tensor.reshape(-1)
    # One value keeps the stride of what it was cut out of, and still counts as contiguous.
    if flat.stride(0) != 1:
        flat = flat.clone(memory_format=torch.contiguous_format)
    return flat.view(torch.uint8)


def unpack(contents: Any, slots: dict[str, Slot], buffer: NDArray[np.uint8]) -> Any:
    """Return the packed value with an array, a view of the buffer, in the place of every tensor.

    Args:
        contents: what `pack` was given.
        slots: what it returned.
        buffer: its buffer, on the host.
    """

    def array(path: str, _tensor: Tensor) -> NDArray[Any]:
        slot = slots[path]
        count = math.prod(slot.shape)
        return np.frombuffer(buffer, slot.dtype, count, slot.offset).reshape(slot.shape)

    return rebuild(contents, array)
