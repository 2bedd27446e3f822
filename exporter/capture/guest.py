"""Be a guest in someone's model: borrow it for explaining, leave it exactly as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from threading import RLock
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn

from exporter.capture.chance import differ, random_states, restore_random
from exporter.capture.hooks import hooked
from exporter.capture.state import ModelState, same
from exporter.capture.unfit import refuse_unfit
from exporter.guard import AGAIN, user_code

_TURN = RLock()
"""Held by the thread whose turn it is to be a guest."""


@contextmanager
def guest(model: nn.Module) -> Iterator[nn.Module]:
    """Put a model in eval mode with frozen parameters, and restore everything on the way out.

    Inside, autograd records, whatever the caller has switched off (``no_grad``,
    ``inference_mode``); with every parameter frozen a graph begins only where a tensor is made to
    require grad. No pass spoils another: every forward is given a copy of its input, and a model
    that writes into its parameters or buffers has them put back before each. Whether it writes into
    parameters is found out when it is first run by a guest; if not, they are not copied again.

    On leaving, also through an exception, these are as they were found: the mode of every module
    (set by its flag, so that no ``train`` override runs), ``requires_grad`` and ``.grad`` of every
    parameter, the shape and values of every parameter and buffer, which of them there are, the
    random state of torch on the CPU and on the model's CUDA devices, of NumPy and of Python, and
    the grad mode.

    Random states are the process's, and modes and hooks the model's, so threads take turns: a
    second one waits here until the first has left. Guests may be nested: an inner guest of the same
    model only restores what a forward can change (values and the random state), at little cost.

    Yields:
        The same module.

    Raises:
        ModelError: if the model does not fit (see `refuse_unfit`); it is then untouched.
    """
    visit = _HELD.get(model)
    apart = visit is not None and visit.apart
    with nullcontext() if apart else _TURN, lent(model):
        yield model


@contextmanager
def lent(model: nn.Module, *, apart: bool = False) -> Iterator[nn.Module]:
    """Hold a model as `guest` does, for several guests in turn, of whatever threads.

    With ``apart`` its guests run beside those of other models, with which it shares nothing.

    Yields:
        The same module.

    Raises:
        ModelError: as `guest`.
    """
    with torch.inference_mode(False), torch.enable_grad():
        with _TURN:
            visit = _HELD.get(model)
            if visit is None or visit.state.moved():
                visit = _begun(model, apart=apart, known=visit is None)
            visit.hosts += 1
            if visit.state.seen_written():
                visit.state.restore(by_value=False)
            states = random_states(visit.cuda_devices)
        try:
            yield model
        finally:
            with _TURN:
                visit.hosts -= 1
                restore_random(states)
                if visit.hosts:
                    visit.leave_as_found()
                else:
                    # Its class may do anything when it is set back.
                    with user_code("the model", advice=AGAIN):
                        visit.end.close()
                    if visit.ran and "_parameters" not in visit.state.written_kinds:
                        _STEADY.add(model)


def _begun(model: nn.Module, *, apart: bool, known: bool) -> _Visit:
    """Put a model in eval mode, frozen and hooked; what was found is kept, to be restored."""
    refuse_unfit(model)
    modules = list(model.modules())
    # Modules compiled in place run hooks added later in vain; for the visit they run as written.
    flags = [(m, m.training, m._compiled_call_impl) for m in modules]
    parameters = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    # Not `parameters()` and `buffers()` again: each walks through the whole model.
    tensors: list[Tensor] = [p for p, _, _ in parameters]
    tensors += [b for m in modules for b in m._buffers.values() if b is not None]
    devices = sorted({t.get_device() for t in tensors if t.is_cuda})
    steady = apart or model in _STEADY
    visit = _Visit(ModelState(modules, steady=steady), devices, apart)
    with ExitStack() as undo:
        undo.callback(visit.state.restore, by_value=True)
        undo.callback(_restore, flags, parameters)
        undo.enter_context(hooked([(model, visit.looked_at)], [(model, visit.copied)]))
        for module, _, compiled in flags:
            module.training = False
            if compiled is not None:
                module._compiled_call_impl = None
        for parameter, _, _ in parameters:
            parameter.requires_grad_(False)
        if known:
            _HELD[model] = visit
            undo.callback(_HELD.pop, model, None)
        visit.end = undo.pop_all()
    return visit


@dataclass
class Changes:
    """What forwards of a model did besides giving an output (see `watch_changes`).

    Attributes:
        wrote_input: whether one wrote into its input.
        wrote_unseen: whether one did where autograd does not see it: gradients there are wrong.
        parameters: names of the parameters whose values changed.
        buffers: names of the buffers whose values changed.
        random: whose random states changed: ``torch``, ``NumPy``, ``Python``.
    """

    wrote_input: bool = False
    wrote_unseen: bool = False
    parameters: tuple[str, ...] = ()
    buffers: tuple[str, ...] = ()
    random: tuple[str, ...] = ()


@contextmanager
def watch_changes(model: nn.Module, *, input_only: bool = False) -> Iterator[Changes]:
    """Watch what forwards of a `guest` change, or only of its input; known on leaving."""
    visit, changes = _HELD.get(model), Changes()
    if visit is None:
        yield changes
        return
    before = random_states(visit.cuda_devices)
    outer, visit.changes = visit.changes, changes
    try:
        yield changes
    finally:
        visit.changes = outer
    if input_only:
        return
    after = random_states(visit.cuda_devices)
    changes.random = tuple(name for name in before if differ(before[name], after[name]))
    changes.parameters, changes.buffers = visit.state.written(model)


@dataclass
class _Visit:
    """A model that is held.

    Attributes:
        state: parameters and buffers, as they were found.
        cuda_devices: whose random states a forward can change.
        apart: whether its guests take no turns with those of other models.
        hosts: how many guests hold it; the last one to leave restores it.
        ran: whether a forward has run.
        learnt: whether values have been compared after one.
        changes: where what a forward changes is noted.
        given: the input of the forward that runs, the copy of it that the model has, and where
            that copy's graph began.
        end: what restores the model.
    """

    state: ModelState
    cuda_devices: list[int]
    apart: bool
    hosts: int = 0
    ran: bool = False
    learnt: bool = False
    changes: Changes | None = None
    given: tuple[Tensor, Tensor, Any] | None = None
    end: ExitStack = field(default_factory=ExitStack)

    def __deepcopy__(self, _memo: object) -> _Visit:
        """Return itself: a copy of a model that is held carries its hooks."""
        return self

    def leave_as_found(self) -> None:
        """Put values back for the next guest.

        Comparing them waits for a device: one visit in which the model ran has to show what is
        written unseen.
        """
        learning = self.ran and not self.learnt
        self.learnt |= learning
        self.state.restore(by_value=learning)

    def copied(self, _module: nn.Module, inputs: Any) -> Any:
        """Give a forward a copy of its input, and values as found; as a hook, so for every pass."""
        self.ran = True
        if self.state.written_kinds:
            self.state.restore(by_value=False)
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


_HELD: WeakKeyDictionary[nn.Module, _Visit] = WeakKeyDictionary()
"""Models that are held by a guest now."""

_STEADY: WeakSet[nn.Module] = WeakSet()
"""Models that wrote to no parameter in the first visit that ran them: copying takes its time."""


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
