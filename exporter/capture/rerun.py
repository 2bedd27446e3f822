"""Run what follows a layer, with other activations in the place of its output."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from exporter.capture.hooks import hooked
from exporter.capture.names import find_layer
from exporter.containers import rebuild, tensors
from exporter.guard import FAILURES


def follows_alone(model: nn.Module, layer: str, example: Tensor) -> bool:
    """Say whether the rest of the model reads nothing but the layer's output.

    It is tried on one image: the layer's output is replaced by two copies of itself without a
    graph, and nothing of the input may reach the model's output around it, nor may the number of
    images. Numbers are not compared, so nothing waits for the device.

    Args:
        model: a guest: eval, frozen.
        layer: a layer name (see `exporter.capture.capture`).
        example: (1, C, H, W) or more images, of which the first is taken.
    """
    image = example[:1].detach().clone().requires_grad_()

    def twice(raw: Tensor) -> Tensor:
        return raw.detach().repeat(2, *(1 for _ in raw.shape[1:]))

    try:
        with torch.enable_grad():
            output = _substituted(model, layer, image, twice)
    except FAILURES:  # whatever a model raises when its images become two on the way
        return False
    floating = [tensor for tensor in tensors(output).values() if tensor.is_floating_point()]
    return bool(floating) and all(
        tensor.ndim > 0 and len(tensor) == 2 and not tensor.requires_grad for tensor in floating
    )


def run_from(
    model: nn.Module, layer: str, inputs: Tensor, activation: Tensor, *, alone: bool
) -> Any:
    """Run a model with a layer's output replaced.

    Args:
        model: a guest: eval, frozen.
        layer: a layer name.
        inputs: (N, C, H, W), the images.
        activation: (k·N, …) as the layer returns it, row r for image r modulo N.
        alone: what `follows_alone` says; if so, the layers before run on one image only.

    Returns:
        The model's output for the k·N rows. It has a graph where ``activation`` has one.
    """
    copies = 1 if alone else len(activation) // len(inputs)
    images = inputs[:1] if alone else inputs.repeat(copies, 1, 1, 1)
    return _substituted(model, layer, images, lambda _raw: activation)


def _substituted(model: nn.Module, layer: str, images: Tensor, change: Any) -> Any:
    name = find_layer(model, layer)
    calls = 0

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls != name.call:
            return None
        # A copy: what follows may write to it in place.
        return rebuild(output, lambda path, raw: change(raw).clone() if path == name.path else raw)

    with hooked([(model.get_submodule(name.module), hook)]):
        return model(images)
