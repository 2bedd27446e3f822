"""Be a guest in someone's model: borrow it for explaining, leave it exactly as it was."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple
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
        ModelError: if the model does not fit (see `refuse_unfit`); it is then untouched.
    """
    outer = _HELD.get(model)
    if outer is not None and not outer.changed():
        with outer.lent_again():
            yield model
        return
    refuse_unfit(model)
    modules = list(model.modules())
    modes = [(module, module.training) for module in modules]
    # Modules compiled in place run hooks added later in vain; for the visit they run as written.
    compiled = [(m, m._compiled_call_impl) for m in modules if m._compiled_call_impl is not None]
    parameters = list(model.parameters())
    free = [parameter for parameter in parameters if parameter.requires_grad]
    grads = [(parameter, parameter.grad) for parameter in parameters]
    state = _State(_snapshot(modules), _cuda_devices((*parameters, *model.buffers())))
    with ExitStack() as undo:
        undo.enter_context(state.lent_again())
        undo.callback(_restore_parameters, free, grads)
        undo.callback(_restore_modes, modes, compiled)
        for module, _ in modes:
            module.training = False
        for module, _ in compiled:
            module._compiled_call_impl = None
        for parameter in free:
            parameter.requires_grad_(False)
        if outer is None:
            _HELD[model] = state
            undo.callback(_HELD.pop, model, None)
        yield model


def refuse_unfit(model: nn.Module) -> None:
    """Refuse a model whose modules cannot be seen at work, or that is not ready.

    Raises:
        ModelError: if a module is TorchScript, compiled or a `torch.nn.DataParallel`, if a
            parameter has no shape yet or was made under ``torch.inference_mode()``, or if the
            parameters lie on several devices.
    """
    for name, module in model.named_modules():
        which = f"the layer {name!r}" if name else "the model"
        if isinstance(module, torch.jit.ScriptModule):
            raise ModelError(
                f"{which} is TorchScript (scripted or traced), which runs no hooks, so nothing in"
                " it can be seen; hand over the module it was made from"
            )
        if "_orig_mod" in dict(module.named_children()):
            raise ModelError(
                f"{which} is compiled (torch.compile), which leaves out hooks, so nothing in it "
                "can be seen; hand over the module it was made from"
            )
        if isinstance(module, nn.DataParallel):
            raise ModelError(
                f"{which} is a DataParallel, whose copies each see a part of the images; hand over "
                "its .module"
            )
        for own, tensor in (*module._parameters.items(), *module._buffers.items()):
            called = f"{name}.{own}" if name else own
            if tensor is not None and nn.parameter.is_lazy(tensor):
                raise ModelError(
                    f"{called!r} has no shape yet (a lazy layer); run the model once before"
                )
            if tensor is not None and tensor.is_inference():
                raise ModelError(
                    f"{called!r} was made under torch.inference_mode() and cannot carry gradients;"
                    " build or load the model outside of it"
                )
    devices = sorted({str(parameter.device) for parameter in model.parameters()})
    if len(devices) > 1:
        raise ModelError(
            f"the parameters lie on several devices ({', '.join(devices)}), and a model is "
            "explained on one; load it without device_map, or move it with model.to(…)"
        )


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the module inside a compiled model or a `torch.nn.DataParallel`, which hooks see."""
    wrapper = "module" if isinstance(model, nn.DataParallel) else "_orig_mod"
    inside = dict(model.named_children()).get(wrapper)
    return model if inside is None else unwrapped(inside)


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


def _restore_modes(
    modes: list[tuple[nn.Module, bool]], compiled: list[tuple[nn.Module, Any]]
) -> None:
    for module, training in modes:
        module.training = training
    for module, call in compiled:
        module._compiled_call_impl = call
