"""Kernels: the weights of chosen convolutions as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from exporter.errors import LayerError, choices
from exporter.layers.names import expand, is_pattern

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
    modules = {name: child for name, child in module.named_modules() if name}
    if isinstance(module, _CONVOLUTIONS):
        modules = {"weight": module}
    convolutions = [name for name, child in modules.items() if _holds_kernels(child)]
    parameters = dict(module.named_parameters())
    taken: dict[str, Kernels] = {}
    for text in wanted:
        if text == "auto":
            names: Sequence[str] = convolutions[:1]
        elif text == "all":
            names = convolutions
        elif text in parameters and text not in modules:
            taken[text] = _of_parameter(text, parameters[text], modules, module)
            continue
        else:
            names = _named(text, modules, convolutions, parameters)
        for name in names:
            child = modules[name]
            weight = child.weight
            assert isinstance(weight, Tensor)
            taken[name] = Kernels(name, type(child).__name__, _array(weight, child))
    order = {name: rank for rank, name in enumerate((*modules, *parameters))}
    return tuple(sorted(taken.values(), key=lambda kernels: order[kernels.name]))


def _holds_kernels(module: nn.Module) -> bool:
    return isinstance(module, _CONVOLUTIONS)


def _named(
    text: str,
    modules: dict[str, nn.Module],
    convolutions: Sequence[str],
    parameters: dict[str, nn.Parameter],
) -> Sequence[str]:
    if not is_pattern(text) and text not in modules:
        raise LayerError(
            f"the model has no layer or parameter {text!r}; "
            f"{choices(text, [*convolutions, *parameters])}"
        )
    names = [name for name in expand(text, modules) if name in convolutions]
    if not names and not is_pattern(text):
        # A block's own convolutions are what is meant by its name.
        names = [name for name in convolutions if name.startswith(f"{text}.")]
    if not names:
        raise LayerError(f"{text!r} holds no convolution's kernels; {choices(text, convolutions)}")
    return names


def _of_parameter(
    name: str, parameter: nn.Parameter, modules: dict[str, nn.Module], root: nn.Module
) -> Kernels:
    holder = modules.get(name.rpartition(".")[0], root)
    if parameter.dim() != 4:
        raise LayerError(
            f"the parameter {name!r} has shape {tuple(parameter.shape)}, and kernels have four "
            "dimensions (outputs, inputs, rows, columns)"
        )
    return Kernels(name, type(holder).__name__, _array(parameter, holder))


def _array(weight: Tensor, holder: nn.Module) -> NDArray[np.float32]:
    with torch.no_grad():
        values = weight.detach()
        if isinstance(holder, nn.ConvTranspose2d) and holder.groups == 1:
            values = values.transpose(0, 1)
        array: NDArray[np.float32] = values.to("cpu", torch.float32, copy=True).contiguous().numpy()
    return array
