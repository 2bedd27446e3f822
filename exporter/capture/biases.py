"""Biases and the gradients at them, which FullGrad adds up: seen as the backward passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class BiasTerms(TorchFunctionMode):
    """A block inside which every call that adds a bias, from a module or not, is seen."""

    def __init__(self, receive: Callable[[Tensor], None]) -> None:
        """Take what is called with each bias ⊙ gradient as a backward reaches it.

        Args:
            receive: given (N, C, H, W) for convolutions and batch normalisation, and for linear
                layers (N, K), whatever they are applied to.
        """
        super().__init__()
        self._receive = receive

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given = kwargs or {}
        output = func(*args, **given)
        if func not in _NAMES or not output.requires_grad:
            return output
        call = dict(zip(_NAMES[func], args, strict=False)) | given
        bias = _implicit(call) if func is functional.batch_norm else call.get("bias")
        if bias is not None:
            receive = self._receive
            if func is functional.linear:
                output.register_hook(
                    lambda gradient: receive((gradient.detach() * bias).flatten(1))
                )
            else:
                bias = bias.view(-1, *(1 for _ in output.shape[2:]))
                output.register_hook(lambda gradient: receive(gradient.detach() * bias))
        return output


_NAMES: dict[Any, tuple[str, ...]] = {
    torch.conv2d: ("input", "weight", "bias"),
    torch.conv_transpose2d: ("input", "weight", "bias"),
    functional.linear: ("input", "weight", "bias"),
    functional.batch_norm: (
        "input",
        "running_mean",
        "running_var",
        "weight",
        "bias",
        "training",
        "momentum",
        "eps",
    ),
}
"""By function that adds a bias, the names of its arguments by position."""


def _implicit(call: Mapping[str, Any]) -> Tensor | None:
    """Return β − γ·μ/σ of a batch normalisation; None where it normalises by the batch itself."""
    mean, variance = call["running_mean"], call["running_var"]
    if call.get("training") or mean is None or variance is None:
        return None
    shift: Tensor = -mean * torch.rsqrt(variance + call.get("eps", 1e-5))
    if call.get("weight") is not None:
        shift = shift * call["weight"]
    return shift if call.get("bias") is None else shift + call["bias"]
