"""Buffers as they were found: a forward may write to them, resize, replace, add or delete them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class _Buffer:
    owner: nn.Module
    name: str
    tensor: Tensor | None
    version: int
    values: Tensor | None

    @property
    def moved(self) -> bool:
        """Whether one on another device or of another type is there: on purpose (`model.to`)."""
        now = self.owner._buffers.get(self.name)
        if now is None or self.tensor is None or now is self.tensor:
            return False
        return _kind(now) != _kind(self.tensor)

    @property
    def rebound(self) -> bool:
        """Whether another tensor has taken its place."""
        return self.owner._buffers.get(self.name) is not self.tensor

    @property
    def written(self) -> bool:
        """Whether its values are others; torch counts no version of running statistics."""
        if self.tensor is None or self.values is None:
            return False
        return self.counted or not same(self.tensor, self.values)

    @property
    def counted(self) -> bool:
        """Whether it is seen, without reading values, that it was written to or resized."""
        if self.tensor is None or self.values is None:
            return False
        return self.tensor._version != self.version or self.tensor.shape != self.values.shape

    def restore(self, *, by_value: bool) -> None:
        """Put the tensor back, with its values."""
        tensor = self.tensor
        if self.rebound and not self.moved:
            self.owner._buffers[self.name] = tensor
        if tensor is None or self.values is None:
            return
        if tensor.shape != self.values.shape:
            tensor.data = self.values.clone()  # `copy_` would broadcast, or fail
        elif self.counted or (by_value and not same(tensor, self.values)):
            tensor.copy_(self.values)


class Buffers:
    """The buffers of modules, with copies of their values."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        """Copy every buffer's values."""
        self._names = [
            (module, tuple(module._buffers), frozenset(module._non_persistent_buffers_set))
            for module in modules
        ]
        with torch.inference_mode(False), torch.no_grad():
            self.each = [
                _Buffer(module, name, None, 0, None)
                if tensor is None
                else _Buffer(module, name, tensor, tensor._version, tensor.clone())
                for module in modules
                for name, tensor in module._buffers.items()
            ]

    def moved(self) -> bool:
        """Say whether the model was moved to another device or type."""
        return any(buffer.moved for buffer in self.each)

    def written(self) -> bool:
        """Say whether a buffer is no longer what was found, as far as that needs no values."""
        return any(buffer.rebound or buffer.counted for buffer in self.each)

    def restore(self, *, by_value: bool) -> None:
        """Put every buffer back, whatever becomes of another.

        Args:
            by_value: whether values are compared on a device too, which waits for it.

        Raises:
            RuntimeError: the first that a buffer refused with, when all have been tried.
        """
        refused: list[RuntimeError] = []
        with torch.inference_mode(False), torch.no_grad():
            for buffer in self.each:
                on_cpu = buffer.tensor is not None and buffer.tensor.device.type == "cpu"
                try:
                    buffer.restore(by_value=by_value or on_cpu)
                except RuntimeError as error:
                    refused.append(error)
        for module, names, passing in self._names:
            if tuple(module._buffers) != names:
                module._buffers = {name: module._buffers[name] for name in names}
            module._non_persistent_buffers_set.intersection_update(passing)
            module._non_persistent_buffers_set.update(passing)
        if refused:
            raise refused[0]


def same(tensor: Tensor, values: Tensor) -> bool:
    """Say whether two tensors hold the same values; what moved to another type did on purpose."""
    if tensor.is_meta or _kind(tensor) != _kind(values):
        return True
    if tensor.shape != values.shape:
        return False
    if tensor.layout != torch.strided:
        pairs = zip(_strided(tensor), _strided(values), strict=True)
        return all(same(first, other) for first, other in pairs)
    if torch.equal(tensor, values):
        return True
    floating = tensor.is_floating_point()
    return floating and torch.allclose(tensor, values, rtol=0, atol=0, equal_nan=True)


def _strided(tensor: Tensor) -> tuple[Tensor, ...]:
    """Return what a tensor of another layout, such as a sparse one, consists of."""
    if tensor.layout in (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc):
        listed = tensor.to_sparse_coo().coalesce()  # type: ignore[no-untyped-call]
        return listed.indices(), listed.values()
    return (tensor.to_dense(),)


def _kind(tensor: Tensor) -> tuple[torch.device, torch.dtype]:
    return tensor.device, tensor.dtype
