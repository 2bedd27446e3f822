"""Pixel methods written out: gradients at the input, one image at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.parity.formulas import gradcam
from benchmarks.parity.perturbation import occlusion, rise
from benchmarks.parity.taking import Array, Shown, array

NOISE, SAMPLES, STEPS = 0.15, 3, 4
"""Settings at which SmoothGrad and integrated gradients are compared."""


def gradient(shown: Shown, images: Tensor | None = None, model: nn.Module | None = None) -> Tensor:
    """Return ∂S/∂I (C, H, W) at the image, or (k, C, H, W) at k others."""
    start = (shown.image if images is None else images).detach().clone().requires_grad_()
    scores = (model or shown.model)(start.clone())[:, shown.target]
    found = torch.autograd.grad(scores.sum(), start)[0]
    return found[0] if images is None else found


def saliency(shown: Shown) -> Array:
    """Simonyan et al. 2014, section 3, signed."""
    return array(gradient(shown))


def inputxgradient(shown: Shown) -> Array:
    """Shrikumar et al. 2016."""
    return array(shown.image[0]) * array(gradient(shown))


def smoothgrad(shown: Shown) -> Array:
    """Smilkov et al. 2017, section 3; the noise is drawn in float32 from seed 0."""
    generator = torch.Generator().manual_seed(0)
    image = shown.image
    sigma = NOISE * (image.max() - image.min())
    noisy = [
        image + sigma * torch.randn(image.shape[1:], generator=generator).to(image.dtype)
        for _ in range(SAMPLES)
    ]
    return np.asarray(array(gradient(shown, torch.cat(noisy))).mean(0))


def integratedgradients(shown: Shown) -> Array:
    """Sundararajan et al. 2017, equation 1, from zero, by Gauss–Legendre quadrature."""
    nodes, weights = np.polynomial.legendre.leggauss(STEPS)
    path = torch.cat([shown.image * (float(node + 1) / 2) for node in nodes])
    total = sum(
        weight / 2 * one for weight, one in zip(weights, array(gradient(shown, path)), strict=True)
    )
    return np.asarray(array(shown.image[0]) * total)


def guidedbackprop(shown: Shown) -> Array:
    """Springenberg et al. 2015, section 3.4: a ReLU's backward is g · (x > 0) · (g > 0)."""
    return _ruled(shown, lambda x, g, top: g * (x > 0) * (x < top) * (g > 0))


def deconvnet(shown: Shown) -> Array:
    """Zeiler and Fergus 2014, section 2.1: a ReLU's backward is g · (g > 0)."""
    return _ruled(shown, lambda _x, g, _top: g * (g > 0))


def guidedgradcam(shown: Shown) -> Array:
    """Selvaraju et al. 2017, section 3.2, with the Grad-CAM of the last layer, bilinear."""
    activations, gradients = shown.taken[shown.layers[-1]]
    coarse = torch.from_numpy(np.maximum(gradcam(activations, gradients, activations), 0))
    fine = functional.interpolate(coarse[None, None], shown.image.shape[2:], mode="bilinear")
    return array(fine[0]) * guidedbackprop(shown)


def fullgrad(shown: Shown) -> Array:
    """Srinivas and Fleuret 2019, equation 4, each channel rescaled to [0, 1]."""
    outputs: list[tuple[nn.Module, Tensor]] = []
    handles = []
    for layer in shown.model.modules():
        if isinstance(layer, (nn.Conv2d, nn.modules.batchnorm._BatchNorm)):
            # timm's batch normalisation also activates; an identity, `drop`, stands between.
            after = getattr(layer, "drop", None)
            seen = after if isinstance(after, nn.Module) else layer
            handles.append(seen.register_forward_hook(_keeps(layer, outputs)))
    start = shown.image.detach().clone().requires_grad_()
    try:
        score = shown.model(start.clone())[0, shown.target]
    finally:
        for handle in handles:
            handle.remove()
    gradients = torch.autograd.grad(score, [start, *(output for _, output in outputs)])
    total = _rescaled(array(shown.image[0]) * array(gradients[0][0]), shown.image.shape[2:])
    for (layer, _), steep in zip(outputs, gradients[1:], strict=True):
        bias = _bias(layer)
        if bias is not None:
            terms = bias[:, None, None] * array(steep[0])
            total += _rescaled(terms, shown.image.shape[2:])
    return total


def _keeps(layer: nn.Module, outputs: list[tuple[nn.Module, Tensor]]) -> Callable[..., Tensor]:
    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        outputs.append((layer, output))
        return output.clone()  # A ReLU in place may follow.

    return keep


def _bias(layer: Any) -> Array | None:
    """Return b (C,): a convolution's own, or β − γ·μ/σ of a batch normalisation."""
    if isinstance(layer, nn.Conv2d):
        return None if layer.bias is None else array(layer.bias)
    deviation = np.sqrt(array(layer.running_var) + layer.eps)
    return np.asarray(
        array(layer.bias) - array(layer.weight) * array(layer.running_mean) / deviation
    )


def _rescaled(terms: Array, size: torch.Size) -> Array:
    """Return Σ_c up(minmax(|term_c|)) as (1, H, W); a flat channel is 0."""
    total = np.zeros((1, *size))
    for channel in np.abs(terms):
        low, high = channel.min(), channel.max()
        if high > low:
            share = torch.from_numpy((channel - low) / (high - low))[None, None]
            grown = (
                share
                if share.shape[2:] == size
                else functional.interpolate(share, size, mode="bilinear")
            )
            total += array(grown[0])
    return total


Backward = Callable[[Tensor, Tensor, float], Tensor]
"""From what a ReLU was given, the gradient at its output and its upper bend to the gradient."""


class _Ruled(torch.autograd.Function):
    """A ReLU, or a ReLU6, with another backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, top: float, backward: Backward) -> Tensor:
        ctx.save_for_backward(x)
        ctx.top, ctx.rule = top, backward
        return x.clamp(0, top)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        return ctx.rule(x, gradients[0], ctx.top), None, None


class _RuledModule(nn.Module):
    def __init__(self, top: float, backward: Backward) -> None:
        super().__init__()
        self.top, self.backward = top, backward

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = _Ruled.apply(x, self.top, self.backward)
        return made


def _ruled(shown: Shown, backward: Backward) -> Array:
    """Return ∂S/∂I of a copy whose ReLUs are other modules, `functional.relu` another function."""
    model = copy.deepcopy(shown.model)
    for owner in list(model.modules()):
        for name, child in owner.named_children():
            if isinstance(child, (nn.ReLU, nn.ReLU6)):
                top = 6.0 if isinstance(child, nn.ReLU6) else float("inf")
                setattr(owner, name, _RuledModule(top, backward))
    with _relu_function(backward):
        return array(gradient(shown, model=model))


@contextmanager
def _relu_function(backward: Backward) -> Iterator[None]:
    functions: Any = functional
    kept = functional.relu

    def relu(x: Tensor, **_inplace: bool) -> Tensor:
        made: Tensor = _Ruled.apply(x, float("inf"), backward)
        return made

    functions.relu = relu
    try:
        yield
    finally:
        functions.relu = kept


PIXELS: Mapping[str, Callable[[Shown], Array]] = {
    "saliency": saliency,
    "inputxgradient": inputxgradient,
    "guidedbackprop": guidedbackprop,
    "deconvnet": deconvnet,
    "guidedgradcam": guidedgradcam,
    "smoothgrad": smoothgrad,
    "integratedgradients": integratedgradients,
    "fullgrad": fullgrad,
    "occlusion": occlusion,
    "rise": rise,
}
"""By method, its map (C, H, W) or (1, H, W)."""
