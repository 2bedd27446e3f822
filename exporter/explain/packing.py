"""Many tensors in one buffer of bytes, so that one copy carries them all to the host."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from exporter.containers import rebuild, tensors

_READ_AS: dict[torch.dtype, np.dtype[Any]] = {
    torch.float32: np.dtype("<f4"),
    torch.int32: np.dtype("<i4"),
    # Levels of maps: 16 bits without a sign, which torch computes with as int32 only.
    torch.int16: np.dtype("<u2"),
    torch.uint8: np.dtype("u1"),
    torch.bool: np.dtype("?"),
}


def pack(contents: Any) -> tuple[Any, Tensor]:
    """Lay every tensor inside a value into one uint8 buffer on their device.

    Args:
        contents: containers of tensors of float32, int32, int16 (read back as uint16), uint8, bool.

    Returns:
        The value with tensors of the same shapes and types that hold nothing, and the buffer.
    """
    held = tensors(contents)
    parts = [_bytes_of(held[path]) for path in _order(held)]
    return rebuild(contents, lambda _path, tensor: _outline(tensor)), torch.cat(parts)


def _order(held: dict[str, Tensor]) -> list[str]:
    """Return the paths, the widest types first, so that every array is aligned."""
    return sorted(held, key=lambda path: -held[path].element_size())


def _outline(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")


def _bytes_of(tensor: Tensor) -> Tensor:
    flat = tensor.reshape(-1)
    # One value keeps the stride of what it was cut out of, and still counts as contiguous.
    if flat.stride(0) != 1:
        flat = flat.clone(memory_format=torch.contiguous_format)
    return flat.view(torch.uint8)


def unpack(outline: Any, buffer: NDArray[np.uint8]) -> Any:
    """Return a packed value with an array, a view of the buffer, in the place of every tensor.

    Args:
        outline: what `pack` returned.
        buffer: its buffer, on the host.
    """
    held = tensors(outline)
    arrays: dict[str, NDArray[Any]] = {}
    offset = 0
    for path in _order(held):
        tensor = held[path]
        flat = np.frombuffer(buffer, _READ_AS[tensor.dtype], tensor.numel(), offset)
        arrays[path] = flat.reshape(tensor.shape)
        offset += flat.nbytes
    return rebuild(outline, lambda path, _tensor: arrays[path])
