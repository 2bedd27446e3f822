"""Run what follows a layer, with other activations in the place of its output."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from exporter.capture.hooks import Wanted, find_layers
from exporter.containers import rebuild


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
    (wanted,) = find_layers(model, (layer,))
    image = example[:1].detach().clone().requires_grad_()

    def twice(raw: Tensor) -> Tensor:
        return raw.detach().repeat(2, *(1 for _ in raw.shape[1:]))

    try:
        with torch.enable_grad():
            output = _substituted(model, wanted, image * 1, twice)
    except Exception:  # whatever a model raises when its images become two on the way
        return False
    tensors: dict[str, Tensor] = {}
    rebuild(output, tensors.setdefault)
    floating = [tensor for tensor in tensors.values() if tensor.is_floating_point()]
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
    (wanted,) = find_layers(model, (layer,))
    copies = 1 if alone else len(activation) // len(inputs)
    images = inputs[:1].clone() if alone else inputs.repeat(copies, 1, 1, 1)
    return _substituted(model, wanted, images, lambda _raw: activation)


def _substituted(model: nn.Module, wanted: Wanted, images: Tensor, change: Any) -> Any:
    calls = 0

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls != wanted.call:
            return None
        # A copy: what follows may write to it in place.
        return rebuild(
            output,
            lambda path, raw: change(raw).clone() if path == wanted.path else raw,
        )

    handle = dict(model.named_modules())[wanted.module].register_forward_hook(hook)
    try:
        return model(images)
    finally:
        handle.remove()
