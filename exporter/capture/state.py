"""Parameters and buffers as they were found.

A forward may write to them, resize, replace, add or delete them. What it writes unseen (torch
counts no version of running statistics, nor of what is written through ``.data``) is learnt from
the values, once, and from then on put back without looking: looking would wait for the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from exporter.guard import is_shortage

_KINDS = ("_parameters", "_buffers")

_SMALL = 1 << 16
"""Values of tensors at most that are compared together: a device is then waited for once."""


@dataclass(slots=True)
class _Place:
    """Where a module holds a parameter or buffer, with a copy of its values.

    Attributes:
        owner: the module.
        kind: ``_parameters`` or ``_buffers``.
        name: key among them.
        tensor: what was there.
        values: a copy of it; on the host where the device has no room for one.
        form: its device and type.
        version: how often it had been written to when it was last as found.
        unseen: whether it has been seen to change without torch counting it.
    """

    owner: nn.Module
    kind: str
    name: str
    tensor: Tensor | None
    values: Tensor | None = None
    form: tuple[torch.device, torch.dtype] | None = None
    version: int = 0
    unseen: bool = False

    @property
    def held(self) -> dict[str, Tensor | None]:
        """The module's own mapping."""
        mapping: dict[str, Tensor | None] = getattr(self.owner, self.kind)
        return mapping

    @property
    def moved(self) -> bool:
        """Whether it is on another device or of another type now: on purpose (`model.to`)."""
        now = self.held.get(self.name)
        return now is not None and self.form is not None and _form(now) != self.form

    @property
    def rebound(self) -> bool:
        """Whether another tensor has taken its place."""
        return self.held.get(self.name) is not self.tensor

    @property
    def counted(self) -> bool:
        """Whether it is seen, without reading values, that it was written to or resized."""
        if self.tensor is None or self.values is None:
            return False
        return self.tensor._version != self.version or self.tensor.shape != self.values.shape

    def written(self) -> bool:
        """Say whether it is no longer what was found; this reads values, and so waits."""
        if self.rebound or self.counted:
            return True
        if self.tensor is None or self.values is None or self.moved:
            return False
        return not same(self.tensor, self.values.to(self.tensor.device))

    def restore(self, *, by_value: bool) -> bool:
        """Put the tensor back, with its values, and say whether that was needed."""
        if self.moved:
            return False
        rebound = self.rebound
        if rebound:
            self.held[self.name] = self.tensor
        tensor, values = self.tensor, self.values
        if tensor is None or values is None or _form(tensor) != self.form:
            return rebound
        if tensor.shape != values.shape:
            tensor.data = values.to(tensor.device, copy=True)  # `copy_` would broadcast, or fail
            return True
        if self.counted or self.unseen or (by_value and self.written()):
            self.unseen |= not self.counted
            tensor.copy_(values)
            self.version = tensor._version
            return True
        return rebound


class ModelState:
    """The parameters and buffers of modules, with copies of their values.

    Attributes:
        written_kinds: what has had to be put back: ``_parameters``, ``_buffers``.
    """

    def __init__(self, modules: Sequence[nn.Module], *, steady: bool = False) -> None:
        """Copy every value.

        Args:
            modules: whose.
            steady: whether the parameters are known not to be written to; they are not copied.
        """
        self.written_kinds: set[str] = set()
        self._names = [
            (
                module,
                {kind: tuple(getattr(module, kind)) for kind in _KINDS},
                frozenset(module._non_persistent_buffers_set),
            )
            for module in modules
        ]
        copies: dict[int, Tensor] = {}
        with torch.inference_mode(False), torch.no_grad():
            self._places = [
                _place(module, kind, name, copies, copied=kind == "_buffers" or not steady)
                for module, names, _ in self._names
                for kind in _KINDS
                for name in names[kind]
            ]

    def moved(self) -> bool:
        """Say whether the model was moved to another device or type."""
        return any(place.moved for place in self._places)

    def seen_written(self) -> bool:
        """Say whether something is no longer what was found, as far as that needs no values."""
        return any(place.rebound or place.counted for place in self._places)

    def written(self, model: nn.Module) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the names of the parameters and of the buffers that are not what was found.

        This reads values, and so waits for a device.
        """
        tensors = (*model.named_parameters(), *model.named_buffers())
        names = {id(tensor): name for name, tensor in tensors}
        same_as_found = self._same_as_found()
        changed = [
            p
            for p in self._places
            if p.rebound or p.counted or (id(p) not in same_as_found and p.written())
        ]
        parameters, buffers = (
            dict.fromkeys(names.get(id(p.tensor), p.name) for p in changed if p.kind == kind)
            for kind in _KINDS
        )
        return tuple(parameters), tuple(buffers)

    def restore(self, *, by_value: bool) -> None:
        """Put every parameter and buffer back, whatever becomes of another.

        Args:
            by_value: whether all values are compared, which waits for a device; if not, those that
                torch counts as written to, or that a comparison has shown to change, are copied.

        Raises:
            RuntimeError: the first that a tensor refused with, when all have been tried.
        """
        refused: list[RuntimeError] = []
        with torch.inference_mode(False), torch.no_grad():
            same_as_found = self._same_as_found() if by_value else frozenset()
            for place in self._places:
                try:
                    if place.restore(by_value=by_value and id(place) not in same_as_found):
                        self.written_kinds.add(place.kind)
                except RuntimeError as error:
                    refused.append(error)
        for module, names, passing in self._names:
            for kind in _KINDS:
                if tuple(held := getattr(module, kind)) != names[kind]:
                    setattr(module, kind, {name: held[name] for name in names[kind]})
            module._non_persistent_buffers_set.intersection_update(passing)
            module._non_persistent_buffers_set.update(passing)
        if refused:
            raise refused[0]

    def _same_as_found(self) -> frozenset[int]:
        """Return the ids of places whose tensors, small ones, have the values that were found.

        They are compared together: a device would be waited for once for each.
        """
        groups: dict[tuple[torch.device, torch.dtype], list[_Place]] = {}
        for place in self._places:
            tensor, values = place.tensor, place.values
            if tensor is None or values is None or type(tensor) not in (Tensor, nn.Parameter):
                continue
            alike = tensor.shape == values.shape and _form(tensor) == _form(values) == place.form
            plain = tensor.layout == torch.strided and not (tensor.is_meta or tensor.is_quantized)
            if alike and plain and tensor.numel() <= _SMALL:
                groups.setdefault(_form(tensor), []).append(place)
        known: set[int] = set()
        for places in groups.values():
            now = [p.tensor.reshape(-1) for p in places if p.tensor is not None]
            then = [p.values.reshape(-1) for p in places if p.values is not None]
            with suppress(RuntimeError, MemoryError):  # then each is compared by itself
                if torch.equal(torch.cat(now), torch.cat(then)):
                    known.update(map(id, places))
        return frozenset(known)


def _place(
    owner: nn.Module, kind: str, name: str, copies: dict[int, Tensor], *, copied: bool
) -> _Place:
    tensor: Tensor | None = getattr(owner, kind)[name]
    # Parameters of classes with operations of their own, such as distributed ones, are left alone.
    own = kind == "_parameters" and type(tensor) not in (Tensor, nn.Parameter)
    if tensor is None or own or not copied:
        form = None if tensor is None else _form(tensor)
        return _Place(owner, kind, name, tensor, form=form)
    if id(tensor) not in copies:
        copies[id(tensor)] = _copied(tensor)
    return _Place(owner, kind, name, tensor, copies[id(tensor)], _form(tensor), tensor._version)


def _copied(tensor: Tensor) -> Tensor:
    try:
        return tensor.detach().clone()
    except Exception as error:
        if not is_shortage(error):
            raise
    return tensor.detach().to("cpu", copy=True)


def same(tensor: Tensor, values: Tensor) -> bool:
    """Say whether two tensors hold the same values; what moved to another type did on purpose."""
    if tensor.is_meta or _form(tensor) != _form(values):
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


def _form(tensor: Tensor) -> tuple[torch.device, torch.dtype]:
    return tensor.device, tensor.dtype
