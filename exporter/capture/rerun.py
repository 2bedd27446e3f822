"""Run what follows a layer, with other activations in the place of its output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from exporter.capture.hooks import hooked
from exporter.capture.names import find_layer
from exporter.capture.precision import precision_of
from exporter.containers import rebuild, tensors
from exporter.guard import FAILURES, is_shortage

_ROUNDING = 1e3
"""Units of the last place, of the largest value, that other kernels may round off."""


def follows_alone(model: nn.Module, layer: str, example: Tensor) -> bool:
    """Say whether gradients and the number of images reach the output through the layer alone.

    It is tried on one image: the layer's output is replaced by two copies of itself without a
    graph, and nothing of the input may reach the model's output around it, nor may the number of
    images. A way around it that carries no gradient is not seen here: see `agrees_alone`.

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
    except FAILURES as error:  # whatever a model raises when its images become two on the way
        if is_shortage(error):
            raise
        return False
    floating = [tensor for tensor in tensors(output).values() if tensor.is_floating_point()]
    return bool(floating) and all(
        tensor.ndim > 0 and len(tensor) == 2 and not tensor.requires_grad for tensor in floating
    )


def agrees_alone(
    model: nn.Module, layer: str, inputs: Tensor, activation: Tensor, output: Any
) -> bool:
    """Say whether a batch comes out the same when only its first image runs up to the layer.

    It does not where the rest reads the images around the layer, with a gradient or without.

    Args:
        model: a guest: eval, frozen.
        layer: a layer name.
        inputs: (N, C, H, W), the images.
        activation: (N, …), what the layer returned for them.
        output: what the model returned for them.
    """
    try:
        with torch.no_grad():
            again = run_from(model, layer, inputs, activation.detach(), alone=True)
    except FAILURES as error:  # whatever a model raises where the numbers of images differ
        if is_shortage(error):
            raise
        return False
    return all_close(tensors(output), tensors(again))


def all_close(tensors: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> bool:
    """Say whether the same paths hold tensors that are `close`."""
    return tensors.keys() == others.keys() and all(
        close(values, others[path]) for path, values in tensors.items()
    )


def close(values: Tensor, others: Tensor) -> bool:
    """Say whether two tensors are equal to rounding, measured by the largest value."""
    if values.shape != others.shape or not values.numel():
        return values.shape == others.shape
    if not values.is_floating_point():
        return torch.equal(values, others)
    first, other = (each.detach().cpu().double().nan_to_num() for each in (values, others))
    share = min(_ROUNDING * torch.finfo(values.dtype).eps, 0.05)
    return bool((first - other).abs().max() <= share * first.abs().max())


def run_from(
    model: nn.Module,
    layer: str,
    inputs: Tensor,
    activation: Tensor,
    *,
    alone: bool,
    copies: int = 1,
) -> Any:
    """Run a model with a layer's output replaced.

    Args:
        model: a guest: eval, frozen.
        layer: a layer name.
        inputs: (N, C, H, W), the images.
        activation: (k·N, …) as the layer returns it, row r for image r modulo N.
        alone: what `follows_alone` and `agrees_alone` say; if so, the layers before
            run on one image only.
        copies: k.

    Returns:
        The model's output for the k·N rows. It has a graph where ``activation`` has one.
    """
    images = inputs[:1] if alone else inputs.repeat(copies, 1, 1, 1)
    given = precision_of(model).enter(activation)
    return _substituted(model, layer, images, lambda raw: _as_given(raw, given))


def _as_given(raw: Tensor, values: Tensor) -> Tensor:
    """Return values as the numbers that the layer gave: of its type, or on its quantised levels."""
    if raw.is_quantized:
        return torch.quantize_per_tensor(values, raw.q_scale(), raw.q_zero_point(), raw.dtype)
    return values.to(raw.dtype)


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
