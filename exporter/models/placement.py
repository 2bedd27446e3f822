"""Where a model runs, and in which type and memory format."""

from __future__ import annotations

import torch
from torch import nn

from exporter.capture import TYPES
from exporter.errors import ConfigError


def choose_device(wanted: str, module: nn.Module, *, handed_over: bool) -> torch.device:
    """Return the device that a model runs on; one that was handed over stays where it is.

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


def refuse_precision(name: str, module: nn.Module, device: torch.device) -> None:
    """Refuse a number format that a model or a device does not carry.

    Raises:
        ConfigError: if there is no such format, the model is of another one already, or the device
            computes in this one only by detours.
    """
    if name == "float32":
        return
    if name not in TYPES:
        raise ConfigError(f"no precision is called {name!r}; choose float32, bf16 or fp16")
    own = float_type(module)
    if own != torch.float32:
        raise ConfigError(
            f"the model's parameters are {str(own).removeprefix('torch.')} and precision {name!r} "
            "is for a float32 model; leave it out"
        )
    if not has_format(name, device):
        raise ConfigError(
            f"the device {str(device)!r} has no instructions for {name}, which would be slower "
            f"than float32; give {'bf16 or ' if name == 'fp16' else ''}float32"
        )


def has_format(name: str, device: torch.device) -> bool:
    """Say whether a device computes in ``bf16`` or ``fp16`` by instructions of its own."""
    if not torch.amp.is_autocast_available(device.type):
        return False
    if device.type == "cuda":
        return name == "fp16" or torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        # The only place where torch tells: its CPU library, on processors that it is built for.
        told = getattr(torch.ops.mkldnn, f"_is_mkldnn_{name}_supported", None)
        return told is not None and bool(told())
    return True
