"""Other derivatives of a function: ReLUs' in guided backpropagation and the deconvnet, and second.

Backward hooks on modules fail on in-place ReLUs and see none of the functional ones. A
`TorchFunctionMode` sees every call, whoever makes it, so neither the model nor its hooks change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from exporter.errors import MapError, choices

RULES = ("guided", "deconvnet")
"""``guided``: g · (x > 0) · (g > 0); ``deconvnet``: g · (g > 0)."""

_PLAIN: frozenset[Any] = frozenset({torch.relu, functional.relu, Tensor.relu})
_IN_PLACE: frozenset[Any] = frozenset({torch.relu_, functional.relu_, Tensor.relu_})
_CAPPED: frozenset[Any] = frozenset({functional.relu6})
_HARDTANH: frozenset[Any] = frozenset({functional.hardtanh, functional.hardtanh_})
"""What ``nn.ReLU6`` calls: a ReLU where it begins at 0, ``hardtanh(x, 0, 6, inplace)``."""
_EITHER: frozenset[Any] = frozenset({functional.relu, functional.relu6})
"""Those with an argument ``inplace``."""


@contextmanager
def relu_rule(name: str) -> Iterator[None]:
    """Give every ReLU and ReLU6 called inside the block another backward rule.

    Module, functional, in-place and reused ReLUs alike; values stay what they are, and so does the
    derivative of everything else. Forward and backward have to run inside the block.

    Args:
        name: ``guided`` or ``deconvnet``.

    Raises:
        MapError: if there is no such rule.
    """
    if name not in RULES:
        raise MapError(f"no ReLU rule is called {name!r}; {choices(name, RULES)}")
    with _Rule(_Guided.apply if name == "guided" else _Deconvnet.apply):
        yield


class _Rule(TorchFunctionMode):
    def __init__(self, apply: Callable[[Tensor, float], Any]) -> None:
        super().__init__()
        self._apply = apply

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given = kwargs or {}
        called = _relu_call(func, args, given)
        before = args[0] if args else given.get("input")
        if called is None or not (isinstance(before, Tensor) and before.requires_grad):
            return func(*args, **given)
        cap, in_place = called
        after = self._apply(before, cap)
        # Whoever holds the tensor finds the new values in it.
        return before.copy_(after) if in_place else after


def _relu_call(
    func: Any, args: tuple[Any, ...], given: Mapping[str, Any]
) -> tuple[float, bool] | None:
    """Return the cap of a ReLU and whether it works in place; None where this is no ReLU."""

    def argument(place: int, name: str, default: Any) -> Any:
        return args[place] if len(args) > place else given.get(name, default)

    if func in _HARDTANH:
        if argument(1, "min_val", -1.0) != 0:
            return None
        in_place = func is functional.hardtanh_ or argument(3, "inplace", False)
        return float(argument(2, "max_val", 1.0)), bool(in_place)
    if func not in _PLAIN and func not in _IN_PLACE and func not in _CAPPED:
        return None
    asked = func in _EITHER and argument(1, "inplace", False)
    return (6.0 if func in _CAPPED else torch.inf), bool(func in _IN_PLACE or asked)


class _Guided(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, cap: float) -> Tensor:
        ctx.save_for_backward((value > 0) & (value < cap))
        return value.clamp(0, cap)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (passed,) = ctx.saved_tensors
        return gradients[0].clamp_min(0) * passed, None


class _Deconvnet(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, value: Tensor, cap: float) -> Tensor:
        return value.clamp(0, cap)

    @staticmethod
    def backward(_ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0].clamp_min(0), None


class TwiceDifferentiable(TorchFunctionMode):
    """A block inside which hardsigmoid has a second derivative, which torch does not give it.

    It is computed as min(max(x + 3, 0), 6) / 6. MobileNetV3's squeeze-and-excitation blocks end in
    one.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given = kwargs or {}
        if func is not functional.hardsigmoid:
            return func(*args, **given)
        call = dict(zip(("input", "inplace"), args, strict=False)) | given
        before: Tensor = call["input"]
        after = functional.hardtanh(before + 3, 0.0, 6.0) / 6
        return before.copy_(after) if call.get("inplace") else after
