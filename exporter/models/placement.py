"""Where a model runs, and in which type and memory format."""

from __future__ import annotations

import torch
from torch import nn

from exporter.errors import ConfigError


def choose_device(wanted: str, module: nn.Module, *, handed_over: bool) -> torch.device:
    """Return the device that a model runs on.

    Args:
        wanted: ``auto`` or a device's name.
        module: the model.
        handed_over: whether it belongs to the caller, and so stays where it is.

    Raises:
        ConfigError: if there is no such device, or the model is on another.
    """
    here = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    if handed_over:
        if wanted not in ("auto", here.type, str(here)):
            raise ConfigError(
                f"the model is on {str(here)!r} and the device asked for is {wanted!r}; "
                "move the model there first, or leave the device at 'auto'"
            )
        return here
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.zeros(1, device=device).cpu()  # a device without memory (meta) refuses
    except (RuntimeError, AssertionError, NotImplementedError):
        there = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        raise ConfigError(
            f"there is no device {wanted!r} here; choose auto or one of {', '.join(there)}"
        ) from None
    return device


def has_convolutions(module: nn.Module) -> bool:
    """Say whether a model has 2-D convolutions, which run faster channels last."""
    return any(isinstance(part, nn.Conv2d) for part in module.modules())


def float_type(module: nn.Module) -> torch.dtype:
    """Return the type of a model's numbers: its first floating parameter's, or float32."""
    types = (parameter.dtype for parameter in module.parameters())
    return next((kind for kind in types if kind.is_floating_point), torch.float32)
