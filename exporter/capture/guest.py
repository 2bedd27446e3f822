"""Be a guest in someone's model: borrow it for explaining, leave it exactly as it was."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from exporter.errors import ModelError


@contextmanager
def guest(model: nn.Module) -> Iterator[nn.Module]:
    """Put a model in eval mode with frozen parameters, and restore everything on the way out.

    Inside, autograd records, whatever the caller has switched off (``no_grad``,
    ``inference_mode``); with every parameter frozen a graph begins only where a tensor is made to
    require grad. On leaving, also through an exception, these are as they were found: the mode of
    every module (set by its flag, so that no ``train`` override runs), ``requires_grad`` and
    ``.grad`` of every parameter, the values of every buffer, torch's random state on the CPU and on
    the model's CUDA devices, and the grad mode. Guests may be nested: an inner guest of the same
    model only restores what a forward can change (buffers and the random state), at little cost.

    Args:
        model: any module; it is not copied.

    Yields:
        The same module.

    Raises:
        ModelError: if a parameter or buffer was made under ``torch.inference_mode()`` or is not yet
            initialised (lazy), or the model is TorchScript; the model is then untouched.
    """
    outer = _HELD.get(model)
    if outer is not None and not outer.changed():
        with outer.lent_again():
            yield model
        return
    refuse_scripted(model)
    modules = dict(model.named_modules())
    held = _held(modules)
    modes = [(module, module.training) for module in modules.values()]
    parameters = [tensor for tensor in held if isinstance(tensor, nn.Parameter)]
    free = [parameter for parameter in parameters if parameter.requires_grad]
    grads = [(parameter, parameter.grad) for parameter in parameters]
    state = _State(_snapshot(modules.values()), _cuda_devices(held))
    with ExitStack() as undo:
        undo.enter_context(state.lent_again())
        undo.callback(_restore_parameters, free, grads)
        undo.callback(_restore_modes, modes)
        for module, _ in modes:
            module.training = False
        for parameter in free:
            parameter.requires_grad_(False)
        if outer is None:
            _HELD[model] = state
            undo.callback(_HELD.pop, model, None)
        yield model


def refuse_scripted(model: nn.Module) -> None:
    """Refuse TorchScript, scripted or traced, which runs no hooks.

    Raises:
        ModelError: if the model, or a module in it, is TorchScript.
    """
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            which = f"the layer {name!r}" if name else "the model"
            raise ModelError(
                f"{which} is TorchScript (scripted or traced), which runs no hooks, so nothing in"
                " it can be seen; hand over the module it was made from"
            )


class _Buffer(NamedTuple):
    owner: nn.Module
    name: str
    tensor: Tensor | None
    version: int
    values: Tensor | None


@dataclass(frozen=True)
class _State:
    """What a forward can change: buffers, as they were found, and the random state."""

    buffers: list[_Buffer]
    cuda_devices: list[int]

    def changed(self) -> bool:
        """Say whether a buffer is no longer what was found."""
        return any(
            owner._buffers.get(name) is not tensor
            or (tensor is not None and tensor._version != version)
            for owner, name, tensor, version, _ in self.buffers
        )

    @contextmanager
    def lent_again(self) -> Iterator[None]:
        """Let autograd record, and restore buffers and the random state on the way out."""
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.random.fork_rng(self.cuda_devices),
        ):
            try:
                yield
            finally:
                _restore_buffers(self.buffers)


_HELD: WeakKeyDictionary[nn.Module, _State] = WeakKeyDictionary()
"""Models that are held by a guest now."""


def _held(modules: Mapping[str, nn.Module]) -> list[Tensor]:
    """List every parameter and buffer once; refuse those that cannot be explained."""
    held: dict[int, Tensor] = {}
    for owner, module in modules.items():
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is None or id(tensor) in held:
                continue
            held[id(tensor)] = tensor
            called = f"{owner}.{name}" if owner else name
            if nn.parameter.is_lazy(tensor):
                raise ModelError(f"{called!r} has no shape yet; run the model once before")
            if tensor.is_inference():
                raise ModelError(
                    f"{called!r} was made under torch.inference_mode() and cannot carry gradients;"
                    " build or load the model outside of it"
                )
    return list(held.values())


def _snapshot(modules: Iterable[nn.Module]) -> list[_Buffer]:
    with torch.inference_mode(False), torch.no_grad():
        return [
            _Buffer(module, name, None, 0, None)
            if tensor is None
            else _Buffer(module, name, tensor, tensor._version, tensor.clone())
            for module in modules
            for name, tensor in module._buffers.items()
        ]


def _cuda_devices(tensors: Iterable[Tensor]) -> list[int]:
    return sorted({tensor.get_device() for tensor in tensors if tensor.is_cuda})


def _restore_buffers(buffers: list[_Buffer]) -> None:
    with torch.no_grad():
        for owner, name, tensor, version, values in buffers:
            now = owner._buffers.get(name)
            # A buffer that moved to another device or type was moved on purpose (`model.to`).
            moved = now is not None and tensor is not None and _kind(now) != _kind(tensor)
            if now is not tensor and not moved:
                owner._buffers[name] = tensor
            if tensor is not None and values is not None and tensor._version != version:
                tensor.copy_(values)


def _kind(tensor: Tensor) -> tuple[torch.device, torch.dtype]:
    return tensor.device, tensor.dtype


def _restore_parameters(
    free: list[nn.Parameter], grads: list[tuple[nn.Parameter, Tensor | None]]
) -> None:
    for parameter in free:
        parameter.requires_grad_(True)
    for parameter, grad in grads:
        if parameter.grad is not grad:
            parameter.grad = grad


def _restore_modes(modes: list[tuple[nn.Module, bool]]) -> None:
    for module, training in modes:
        module.training = training
