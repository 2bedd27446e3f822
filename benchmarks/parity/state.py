"""The model and the random states before a call and after it, also after one that fails."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.parity.counts import Count, Tally
from benchmarks.parity.ours import maps_of, shown_to
from benchmarks.parity.references import layers_of
from benchmarks.parity.subjects import SUBJECTS
from exporter.errors import LayerError, ModelError

HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
)


class Interrupted(Exception):  # noqa: N818 - what a user's model raises is no error of ours
    """Raised by a model that is made to fail."""


def snapshot(model: nn.Module) -> dict[str, Any]:
    """Return all that must be as found: of the model, the random states and torch's own state."""
    attention: Any = torch.backends.cuda
    found: dict[str, Any] = {
        "python random state": random.getstate(),
        "numpy random state": np.random.get_state(),
        "torch random state": torch.get_rng_state(),
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "default type": torch.get_default_dtype(),
        "fused attention": (
            attention.flash_sdp_enabled(),
            attention.mem_efficient_sdp_enabled(),
            attention.math_sdp_enabled(),
        ),
        "functions of torch": (functional.relu, functional.scaled_dot_product_attention),
    }
    for name, module in model.named_modules():
        found[f"mode of {name!r}"] = module.training
        for kind in HOOKS:
            found[f"{kind} of {name!r}"] = list(getattr(module, kind).items())
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        gradient = tensor.grad
        found[f"{name}"] = tensor.detach().clone()
        found[f"{name}: identity"] = id(tensor)
        found[f"{name}: requires_grad"] = tensor.requires_grad
        found[f"{name}: type, device and layout"] = (tensor.dtype, tensor.device, tensor.stride())
        found[f"{name}: gradient"] = None if gradient is None else gradient.clone()
        found[f"{name}: identity of the gradient"] = None if gradient is None else id(gradient)
    return found


def changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return the names of what is not as it was."""
    names = [name for name in before if name not in after or not _same(before[name], after[name])]
    return [*names, *(name for name in after if name not in before)]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, np.ndarray):
        return bool(np.array_equal(one, other))
    return bool(one == other)


def lived_in(model: nn.Module) -> nn.Module:
    """Return a copy as a user may hold it: training, some weights frozen, gradients, own hooks."""
    model = copy.deepcopy(model).train()
    for number, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(number % 3 > 0)
        if number % 2:
            parameter.grad = torch.full_like(parameter, 0.5)
    for module in model.children():
        module.register_forward_hook(lambda _module, _inputs, _output: None)
    return model


class _Counted:
    """Counts the calls of a module, and fails in one of them."""

    def __init__(self, module: nn.Module) -> None:
        self.calls, self.fails = 0, 0
        self._forward = module.forward
        module.forward = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        if self.calls == self.fails:
            raise Interrupted
        return self._forward(*args, **kwargs)


def compare(architecture: str, methods: Sequence[str], tally: Tally) -> None:
    """Call every method on its own, and let the model fail in its first and in its last forward.

    Args:
        architecture: name of one of `SUBJECTS`, with a linear head.
        methods: registry names.
        tally: a case is a call; ``largest`` is 1 where anything was changed.
    """
    subject = SUBJECTS[architecture]
    shown = shown_to(subject, 2)
    model = lived_in(subject.model())
    counted = _Counted(model.get_submodule(subject.head[0]))
    for method in methods:
        if not layers_of(method, subject):
            continue
        before = snapshot(model)
        maps_of(subject, model, shown, [method], narrow=1)  # what is measured once is not counted
        counted.calls, counted.fails = 0, 0
        maps_of(subject, model, shown, [method], narrow=1)
        _note(tally, architecture, method, changed(before, snapshot(model)), "")
        for fails in sorted({1, counted.calls}):
            counted.calls, counted.fails = 0, fails
            before = snapshot(model)
            try:
                maps_of(subject, model, shown, [method], narrow=1)
            except (Interrupted, LayerError, ModelError) as error:  # or it is the reason given
                assert isinstance(error, Interrupted) or "Interrupted" in str(error), error
                off = changed(before, snapshot(model))
                _note(tally, architecture, method, off, f" after forward {fails} failed")
            else:
                tally.miss(method, (architecture, ""), f"hid that forward {fails} failed")


def _note(tally: Tally, architecture: str, method: str, off: list[str], when: str) -> None:
    tally.counts.setdefault(method, Count()).add(float(bool(off)), architecture)
    if off:
        why = f"changed{when}: {', '.join(off[:5])}"
        tally.miss(method, (architecture, ""), why)
