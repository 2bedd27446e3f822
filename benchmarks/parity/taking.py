"""What one image leaves behind in a model: activations and gradients, by hooks and autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.parity.subjects import Subject

Array = NDArray[np.float64]


def take(
    model: nn.Module, inputs: Tensor, layers: Sequence[str], targets: Sequence[int]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return each layer's output and the gradient of every image's class with respect to it.

    Args:
        model: gives logits (N, K).
        inputs: (N, C, H, W).
        layers: names of modules that run once and return a tensor.
        targets: a class an image.
    """
    taken: dict[str, Tensor] = {}

    def keeps(layer: str) -> Callable[[nn.Module, object, Tensor], Tensor]:
        def keep(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
            taken[layer] = output if output.requires_grad else output.requires_grad_(True)
            return output.clone()  # What follows may work in place.

        return keep

    handles = [model.get_submodule(one).register_forward_hook(keeps(one)) for one in layers]
    try:
        logits = model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    score = torch.stack([logits[row, target] for row, target in enumerate(targets)]).sum()
    gradients = torch.autograd.grad(score, [taken[layer] for layer in layers])
    return {
        layer: (taken[layer].detach(), gradient)
        for layer, gradient in zip(layers, gradients, strict=True)
    }


def activation_of(model: nn.Module, image: Tensor, layer: str) -> Tensor:
    """Return what a layer gives for one image (1, C, H, W), without a graph."""
    kept: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(
        lambda _module, _inputs, output: kept.append(output.detach().clone())
    )
    try:
        with torch.no_grad():
            model(image)
    finally:
        handle.remove()
    return kept[0]


def replaced(model: nn.Module, image: Tensor, layer: str, output: Tensor) -> Tensor:
    """Return the logits (K,) of one image (1, C, H, W) with another output of one layer."""
    handle = model.get_submodule(layer).register_forward_hook(
        lambda _module, _inputs, _output: output.clone()
    )
    try:
        logits: Tensor = model(image)[0]
    finally:
        handle.remove()
    return logits


def array(tensor: Tensor) -> Array:
    """Return a tensor of any floating-point type as float64 numbers."""
    return np.asarray(tensor.detach().double().numpy())


@dataclass(frozen=True)
class Shown:
    """One image shown to a model, and the class that is explained.

    Attributes:
        subject: what is known of the model.
        model: the model, in the number format that is looked at.
        image: (1, C, H, W), in that format.
        target: the class.
        layers: that are explained, in the order in which they run.
    """

    subject: Subject
    model: nn.Module
    image: Tensor
    target: int
    layers: tuple[str, ...]
    _raw: dict[str, Tensor] = field(default_factory=dict)

    @cached_property
    def taken(self) -> dict[str, tuple[Array, Array]]:
        """Activations and gradients (C, h, w) of every layer."""
        found = take(self.model, self.image, self.layers, [self.target])
        return {
            layer: (
                array(self.subject.grid(pair[0], layer)[0]),
                array(self.subject.grid(pair[1], layer)[0]),
            )
            for layer, pair in found.items()
        }

    def raw(self, layer: str) -> Tensor:
        """Return the layer's output as the model gives it, without a graph."""
        if layer not in self._raw:
            self._raw[layer] = activation_of(self.model, self.image, layer)
        return self._raw[layer]

    def activation(self, layer: str) -> Tensor:
        """Return A (C, h, w), without a graph."""
        return self.subject.grid(self.raw(layer), layer)[0]

    def rest(self, layer: str) -> Callable[[Tensor], Tensor]:
        """Return the function from A (C, h, w) to the logits (K,), the image being this one."""
        raw = self.raw(layer)

        def run(activation: Tensor) -> Tensor:
            laid = self.subject.laid(activation[None], raw, layer)
            return replaced(self.model, self.image, layer, laid)

        return run
