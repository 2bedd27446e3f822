"""Be a guest in someone's model: borrow it for explaining, leave it exactly as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from exporter.capture.buffers import Buffers, same
from exporter.capture.chance import differ, random_states, restore_random
from exporter.capture.hooks import hooked
from exporter.errors import ModelError


@contextmanager
def guest(model: nn.Module) -> Iterator[nn.Module]:
    """Put a model in eval mode with frozen parameters, and restore everything on the way out.

    Inside, autograd records, whatever the caller has switched off (``no_grad``,
    ``inference_mode``); with every parameter frozen a graph begins only where a tensor is made to
    require grad; and every forward is given a copy of its input, so that a model which writes into
    it spoils nobody else's. On leaving, also through an exception, these are as they were found:
    the mode of every module (set by its flag, so that no ``train`` override runs),
    ``requires_grad`` and ``.grad`` of every parameter, the shape and values of every buffer, which
    buffers there are, the random state of torch on the CPU and on the model's CUDA devices, of
    NumPy and of Python, and the grad mode.
    Guests may be nested: an inner guest of the same model only restores what a forward can change
    (buffers and the random state), at little cost.

    Args:
        model: any module; it is not copied.

    Yields:
        The same module.

    Raises:
        ModelError: if the model does not fit (see `refuse_unfit`); it is then untouched.
    """
    outer = _HELD.get(model)
    if outer is not None and not outer.buffers.moved():
        if outer.buffers.written():
            outer.buffers.restore(by_value=False)
        with outer.lent_again():
            yield model
        return
    refuse_unfit(model)
    modules = list(model.modules())
    # Modules compiled in place run hooks added later in vain; for the visit they run as written.
    flags = [(m, m.training, m._compiled_call_impl) for m in modules]
    parameters = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    # Not `parameters()` and `buffers()` again: each walks through the whole model.
    tensors: list[Tensor] = [p for p, _, _ in parameters]
    tensors += [b for m in modules for b in m._buffers.values() if b is not None]
    state = _State(Buffers(modules), sorted({t.get_device() for t in tensors if t.is_cuda}))
    with ExitStack() as undo:
        undo.enter_context(state.lent_again(for_good=True))
        undo.callback(_restore, flags, parameters)
        undo.enter_context(hooked([(model, state.looked_at)], [(model, state.copied)]))
        for module, _, compiled in flags:
            module.training = False
            if compiled is not None:
                module._compiled_call_impl = None
        for parameter, _, _ in parameters:
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
    devices: dict[torch.device, None] = {}
    for name, module in model.named_modules():
        which = f"the layer {name!r}" if name else "the model"
        if isinstance(module, torch.jit.ScriptModule):
            raise ModelError(
                f"{which} is TorchScript (scripted or traced), which runs no hooks, so nothing in"
                " it can be seen; hand over the module it was made from"
            )
        if "_orig_mod" in module._modules:
            raise ModelError(
                f"{which} is compiled (torch.compile), which leaves out hooks, so nothing in it "
                "can be seen; hand over the module it was made from"
            )
        if isinstance(module, nn.DataParallel):
            raise ModelError(
                f"{which} is a DataParallel, whose copies each see a part of the images; hand over "
                "its .module"
            )
        own = (module._parameters, module._buffers)
        for key, tensor in ((key, t) for held in own for key, t in held.items() if t is not None):
            if nn.parameter.is_lazy(tensor):
                called = f"{name}.{key}" if name else key
                raise ModelError(
                    f"{called!r} has no shape yet (a lazy layer); run the model once before"
                )
            if tensor.is_inference():
                called = f"{name}.{key}" if name else key
                raise ModelError(
                    f"{called!r} was made under torch.inference_mode() and cannot carry gradients;"
                    " build or load the model outside of it"
                )
        devices |= {p.device: None for p in module._parameters.values() if p is not None}
    if len(devices) > 1:
        named = ", ".join(sorted(map(str, devices)))
        raise ModelError(
            f"the parameters lie on several devices ({named}), and a model is "
            "explained on one; load it without device_map, or move it with model.to(…)"
        )


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the module inside a compiled model or a `torch.nn.DataParallel`, which hooks see."""
    wrapper = "module" if isinstance(model, nn.DataParallel) else "_orig_mod"
    inside = dict(model.named_children()).get(wrapper)
    return model if inside is None else unwrapped(inside)


@dataclass
class Changes:
    """What forwards of a model did besides giving an output (see `watch_changes`).

    Attributes:
        wrote_input: whether one wrote into its input.
        wrote_unseen: whether one did where autograd does not see it: gradients there are wrong.
        buffers: names of the buffers whose values changed.
        random: whose random states changed: ``torch``, ``NumPy``, ``Python``.
    """

    wrote_input: bool = False
    wrote_unseen: bool = False
    buffers: tuple[str, ...] = ()
    random: tuple[str, ...] = ()


@contextmanager
def watch_changes(model: nn.Module) -> Iterator[Changes]:
    """Watch what the forwards of a model that is held by a `guest` change; known on leaving."""
    state, changes = _HELD.get(model), Changes()
    if state is None:
        yield changes
        return
    before = random_states(state.cuda_devices)
    state.changes = changes
    try:
        yield changes
    finally:
        state.changes = None
    after = random_states(state.cuda_devices)
    changes.random = tuple(name for name in before if differ(before[name], after[name]))
    names = {id(tensor): name for name, tensor in model.named_buffers()}
    changes.buffers = tuple(
        names.get(id(b.tensor), b.name) for b in state.buffers.each if b.rebound or b.written
    )


@dataclass
class _State:
    """What a forward can change: buffers, as they were found, and the random states."""

    buffers: Buffers
    cuda_devices: list[int]
    changes: Changes | None = None
    given: tuple[Tensor, Tensor, Any] | None = None

    def copied(self, _module: nn.Module, inputs: Any) -> Any:
        """Give a forward a copy of its input; as a hook, so that no pass can forget it."""
        copies = tuple(v.clone() if isinstance(v, Tensor) else v for v in inputs)
        if self.changes is not None and copies and isinstance(copies[0], Tensor):
            self.given = inputs[0].detach(), copies[0], copies[0].grad_fn
        return copies

    def looked_at(self, _module: nn.Module, _inputs: Any, _output: Any) -> None:
        """Hold the copy against the input when the forward is done; as a hook, too."""
        given, self.given = self.given, None
        if given is None or self.changes is None or same(*given[:2]):
            return
        _, copy, began = given
        self.changes.wrote_input = True
        self.changes.wrote_unseen |= copy.requires_grad and copy.grad_fn is began

    @contextmanager
    def lent_again(self, *, for_good: bool = False) -> Iterator[None]:
        """Let autograd record, and restore buffers and the random states on the way out.

        Comparing values waits for a device, so an inner guest does it on the CPU alone.
        """
        with torch.inference_mode(False), torch.enable_grad():
            states = random_states(self.cuda_devices)
            try:
                yield
            finally:
                restore_random(states)
                self.buffers.restore(by_value=for_good)


_HELD: WeakKeyDictionary[nn.Module, _State] = WeakKeyDictionary()
"""Models that are held by a guest now."""


def _restore(
    flags: list[tuple[nn.Module, bool, Any]],
    parameters: list[tuple[nn.Parameter, bool, Tensor | None]],
) -> None:
    for module, training, compiled in flags:
        module.training = training
        if compiled is not None:
            module._compiled_call_impl = compiled
    for parameter, free, grad in parameters:
        parameter.requires_grad_(free)
        if parameter.grad is not grad:
            parameter.grad = grad
