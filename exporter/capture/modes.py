"""Seeing torch's functions called: other derivatives for some, and what biases add up to.

Backward hooks on modules fail on in-place ReLUs and see nothing functional. A `TorchFunctionMode`
sees every call, whoever makes it, so neither the model nor its hooks change.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from exporter.capture.hooks import on_gradient
from exporter.errors import MapError, choices

RULES = ("guided", "deconvnet")
"""``guided``: g · (x > 0) · (g > 0); ``deconvnet``: g · (g > 0)."""

_RELUS: Mapping[Any, Mapping[str, Any]] = {
    torch.relu: {},
    functional.relu: {},
    Tensor.relu: {},
    torch.relu_: {"inplace": True},
    functional.relu_: {"inplace": True},
    Tensor.relu_: {"inplace": True},
    functional.relu6: {"max_val": 6.0},
    # What `nn.ReLU6` calls: a ReLU where it begins at 0.
    functional.hardtanh: {"min_val": -1.0, "max_val": 1.0},
    functional.hardtanh_: {"min_val": -1.0, "max_val": 1.0, "inplace": True},
}
"""By function, its arguments where they are left out."""

_BIASED: Mapping[Any, tuple[str, ...]] = {
    torch.conv2d: ("input", "weight", "bias"),
    torch.conv_transpose2d: ("input", "weight", "bias"),
    functional.linear: ("input", "weight", "bias"),
    functional.batch_norm: (
        *("input", "running_mean", "running_var", "weight", "bias"),
        *("training", "momentum", "eps"),
    ),
}
"""By function that adds a bias, the names of its arguments by position."""


@contextmanager
def relu_rule(name: str) -> Iterator[None]:
    """Give every ReLU and ReLU6 called inside the block another backward rule.

    Module, functional, in-place and reused ReLUs alike; values stay what they are, and so does the
    derivative of everything else. Forward and backward have to run inside the block.

    Raises:
        MapError: if there is no such rule.
    """
    if name not in RULES:
        raise MapError(f"no ReLU rule is called {name!r}; {choices(name, RULES)}")
    with _ReluRule(guided=name == "guided"):
        yield


class _Mode(TorchFunctionMode):
    """A block inside which `call` stands between a function and whoever calls it."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return self.call(func, args, kwargs or {})

    def call(self, func: Any, args: tuple[Any, ...], given: Mapping[str, Any]) -> Any:
        raise NotImplementedError


class _ReluRule(_Mode):
    def __init__(self, *, guided: bool) -> None:
        super().__init__()
        self._guided = guided

    def call(self, func: Any, args: tuple[Any, ...], given: Mapping[str, Any]) -> Any:
        if func not in _RELUS:
            return func(*args, **given)
        usual = _RELUS[func]
        limits = ("min_val", "max_val") if "min_val" in usual else ()
        asked = {**usual, **dict(zip(("input", *limits, "inplace"), args, strict=False)), **given}
        before = asked.get("input")
        if not isinstance(before, Tensor) or asked.get("min_val", 0):
            return func(*args, **given)
        _refuse_transformed(before)
        if not before.requires_grad:
            return func(*args, **given)
        after = _Relu.apply(before, float(asked.get("max_val", torch.inf)), self._guided)
        # Whoever holds the tensor finds the new values in it.
        return before.copy_(after) if asked.get("inplace") else after


class _Relu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, cap: float, guided: bool) -> Tensor:
        ctx.save_for_backward((value > 0) & (value < cap) if guided else None)
        ctx.set_materialize_grads(False)
        return value.clamp(0, cap)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, None, None]:
        (passed,) = ctx.saved_tensors
        if gradients[0] is None:  # what follows gives none
            return None, None, None
        positive = gradients[0].clamp_min(0)
        return positive if passed is None else positive * passed, None, None


def _refuse_transformed(tensor: Tensor) -> None:
    """Raise inside `torch.vmap` and the like: there, a tensor does not show that it has a graph.

    Raises:
        MapError: that derivatives can be neither changed nor seen.
    """
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        raise MapError(
            "the model runs layers inside torch.vmap or another transform of torch.func, where "
            "derivatives of single layers can be neither changed nor seen; use methods of plain "
            "gradients, such as saliency"
        )


def multi_head_with(attend: Callable[..., Tensor]) -> Callable[..., Any]:
    """Return ``F.multi_head_attention_forward``, line by line, with another attention inside.

    A mode is off inside its own handler, so the fused attention could not be caught there.
    """
    plain = functional.multi_head_attention_forward
    own = {"has_torch_function": lambda _tensors: False, "scaled_dot_product_attention": attend}
    return types.FunctionType(
        plain.__code__,
        {**plain.__globals__, **own},
        plain.__name__,
        plain.__defaults__,
        plain.__closure__,
    )


def _plain_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    *args: Any,
    **given: Any,
) -> Tensor:
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        barred = torch.zeros_like(attn_mask, dtype=query.dtype)
        attn_mask = barred.masked_fill(~attn_mask, -torch.inf)
    attend = torch.ops.aten._scaled_dot_product_attention_math
    attended: Tensor = attend(query, key, value, attn_mask, *args, **given)[0]
    return attended


_multi_head = multi_head_with(_plain_attention)


class TwiceDifferentiable(_Mode):
    """A block inside which attention and hardsigmoid have second derivatives.

    Torch gives fused attention none, so it is computed step by step: in this thread alone, where
    `torch.nn.attention.sdpa_kernel` would switch the process. Hardsigmoid is computed as
    min(max(x + 3, 0), 6) / 6; MobileNetV3's squeeze-and-excitation blocks end in one.
    """

    def call(self, func: Any, args: tuple[Any, ...], given: Mapping[str, Any]) -> Any:
        """Compute the two by other functions; call every other one as it is."""
        if func is functional.scaled_dot_product_attention:
            return _plain_attention(*args, **given)
        if func is functional.multi_head_attention_forward:
            return _multi_head(*args, **given)
        if func is not functional.hardsigmoid:
            return func(*args, **given)
        asked = {**dict(zip(("input", "inplace"), args, strict=False)), **given}
        before: Tensor = asked["input"]
        after = functional.hardtanh(before + 3, 0.0, 6.0) / 6
        return before.copy_(after) if asked.get("inplace") else after


class Stepping(_Mode):
    """A block inside which a function is called ahead of every one of torch's."""

    def __init__(self, step: Callable[[], None]) -> None:
        """Take what is called."""
        super().__init__()
        self._step = step

    def call(self, func: Any, args: tuple[Any, ...], given: Mapping[str, Any]) -> Any:
        """Call both."""
        self._step()
        return func(*args, **given)


class BiasTerms(_Mode):
    """A block inside which every call that adds a bias, from a module or not, is seen."""

    def __init__(self, receive: Callable[[Tensor], None]) -> None:
        """Take what is called with each bias ⊙ gradient as a backward reaches it.

        Args:
            receive: given (N, C, H, W) for convolutions and batch normalisation, and for linear
                layers (N, K), whatever they are applied to.
        """
        super().__init__()
        self._receive = receive

    def call(self, func: Any, args: tuple[Any, ...], given: Mapping[str, Any]) -> Any:
        """Call a function, and watch the gradient of what it returns where it added a bias."""
        output = func(*args, **given)
        if func not in _BIASED:
            return output
        _refuse_transformed(output)
        if not output.requires_grad:
            return output
        asked = {**dict(zip(_BIASED[func], args, strict=False)), **given}
        bias = _implicit(asked) if func is functional.batch_norm else asked.get("bias")
        if bias is not None:
            linear = func is functional.linear
            laid = bias if linear else bias.view(-1, *(1 for _ in output.shape[2:]))

            def receive(gradient: Tensor) -> None:
                terms = gradient.detach() * laid
                self._receive(terms.flatten(1) if linear else terms)

            on_gradient(output, receive)
        return output


def _implicit(call: Mapping[str, Any]) -> Tensor | None:
    """Return β − γ·μ/σ of a batch normalisation; None where it normalises by the batch itself."""
    mean, variance = call["running_mean"], call["running_var"]
    if call.get("training") or mean is None or variance is None:
        return None
    shift: Tensor = -mean * torch.rsqrt(variance + call.get("eps", 1e-5))
    if call.get("weight") is not None:
        shift = shift * call["weight"]
    return shift if call.get("bias") is None else shift + call["bias"]
