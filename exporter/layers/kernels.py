"""Kernels: the weights of chosen convolutions as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from exporter.capture import expand, is_pattern, named_layers, quoted, unquoted
from exporter.errors import LayerError, choices

_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


@dataclass(frozen=True, slots=True)
class Kernels:
    """The kernels of one layer or parameter.

    Attributes:
        name: layer or parameter name.
        type: class name of the module that holds them.
        values: float32 (O, I, kh, kw): output channels, input channels of a group, rows, columns.
    """

    name: str
    type: str
    values: NDArray[np.float32]


def collect_kernels(module: nn.Module, wanted: Sequence[str]) -> tuple[Kernels, ...]:
    """Copy the kernels of the convolutions asked for.

    Args:
        module: the model.
        wanted: ``auto`` (the first convolution, nothing where there is none), ``all`` (every
            convolution), layer names, globs, ``@Conv2d``, or the name of a parameter with four
            dimensions, such as ``conv1.weight``.

    Returns:
        Each once, in the order in which the model holds them.

    Raises:
        LayerError: if a name is unknown, or what it means holds no kernels.
    """
    modules = named_layers(module)
    if isinstance(module, _CONVOLUTIONS):
        modules = {"weight": module}
    convolutions = [name for name, child in modules.items() if isinstance(child, _CONVOLUTIONS)]
    parameters = dict(module.named_parameters())
    taken: dict[str, Kernels] = {}
    for text in wanted:
        plain = text if text in parameters else unquoted(text)
        if plain in parameters and plain not in modules:
            holder = modules.get(plain.rpartition(".")[0], module)
            taken[plain] = _kernels(plain, holder, parameters[plain])
            continue
        head, _, leaf = plain.rpartition(".")
        if leaf == "weight" and head in convolutions:
            # Under weight norm the weight is made of other parameters.
            taken[plain] = _kernels(plain, modules[head], modules[head].weight)
            continue
        if text == "auto":
            names = convolutions[:1]
        elif text == "all":
            names = convolutions
        else:
            names = _named(text, modules, convolutions, parameters)
        taken |= {name: _kernels(name, modules[name], modules[name].weight) for name in names}
    order = dict.fromkeys((*modules, *parameters, *taken))
    return tuple(taken[name] for name in order if name in taken)


def _named(
    text: str,
    modules: Mapping[str, nn.Module],
    convolutions: Sequence[str],
    parameters: Mapping[str, nn.Parameter],
) -> list[str]:
    plain = text if text in modules else unquoted(text)
    exact = plain in modules and (plain == text or not is_pattern(text))
    if not exact and not is_pattern(text):
        raise LayerError(
            f"the model has no layer or parameter {text!r}; "
            f"{choices(text, map(quoted, [*convolutions, *parameters]))}"
        )
    names = [name for name in expand(text, modules) if name in convolutions]
    if not names and exact:
        # A block's own convolutions are what is meant by its name.
        names = [name for name in convolutions if name.startswith(f"{plain}.")]
    if not names:
        there = choices(text, map(quoted, convolutions))
        raise LayerError(f"{text!r} holds no convolution's kernels; {there}")
    return names


def _kernels(name: str, holder: nn.Module, weight: Any) -> Kernels:
    if weight.dim() != 4:
        raise LayerError(
            f"the parameter {name!r} has shape {tuple(weight.shape)}, and kernels have four "
            "dimensions (outputs, inputs, rows, columns)"
        )
    values = weight.detach()
    if isinstance(holder, nn.ConvTranspose2d) and holder.groups == 1:
        values = values.transpose(0, 1)
    array = values.to("cpu", torch.float32, copy=True).contiguous().numpy()
    return Kernels(quoted(name), type(holder).__name__, array)
