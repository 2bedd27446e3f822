"""Be a guest in someone's model: borrow it for explaining, leave it exactly as it was."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

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
    the model's CUDA devices, and the grad mode. Guests may be nested.

    Args:
        model: any module; it is not copied.

    Yields:
        The same module.

    Raises:
        ModelError: if a parameter or buffer was made under ``torch.inference_mode()`` or is not yet
            initialised (lazy), or the model is TorchScript; the model is then untouched.
    """
    refuse_scripted(model)
    modules = dict(model.named_modules())
    held = _held(modules)
    modes = [(module, module.training) for module in modules.values()]
    parameters = [tensor for tensor in held if isinstance(tensor, nn.Parameter)]
    free = [parameter for parameter in parameters if parameter.requires_grad]
    grads = [(parameter, parameter.grad) for parameter in parameters]
    buffers = _snapshot(modules.values())
    with ExitStack() as undo:
        undo.enter_context(torch.inference_mode(False))
        undo.enter_context(torch.enable_grad())
        undo.enter_context(torch.random.fork_rng(_cuda_devices(held)))
        undo.callback(_restore_buffers, buffers)
        undo.callback(_restore_parameters, free, grads)
        undo.callback(_restore_modes, modes)
        for module, _ in modes:
            module.training = False
        for parameter in free:
            parameter.requires_grad_(False)
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
