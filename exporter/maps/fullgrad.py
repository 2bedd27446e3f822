"""FullGrad: the gradient of the input and of every bias, in one backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from exporter.capture import BiasTerms, precision_of
from exporter.errors import MapError
from exporter.maps import terms
from exporter.maps.context import PassContext, gradient_of
from exporter.maps.needs import Needs, Passes
from exporter.maps.registry import method

Receive = Callable[[int, Tensor], None]
"""Called with the number of a target and bias ⊙ gradient (N, C, …) of one call of one layer."""


@method(
    "fullgrad",
    title="FullGrad",
    shows="Where the input and the biases of every convolution make up the target, whatever"
    " their sign.",
    formula="M = Σ_c ψ(I_c ⊙ ∂S/∂I_c) + Σ_l Σ_c ψ(b_lc · ∂S/∂z_lc), ψ(v) = up(minmax(|v|)), z"
    " the output and b the bias of a convolution or batch normalisation (β − γ·μ/σ)",
    paper="Srinivas, Fleuret: Full-Gradient Representation for Neural Network Visualization,"
    " NeurIPS 2019",
    url="https://arxiv.org/abs/1905.00780",
    cost="one forward pass and one backward pass per target, to the input",
    caveats="Absolute values say where, not for or against; each channel counts the same after"
    " its rescaling, so a wide layer outweighs the input. The parts make up the target exactly"
    " only in networks of ReLUs; biases of linear layers have no position and are left out.",
    pixel="sum",
    needs=Needs(activations=False, passes=Passes(backwards=1)),
    kind="pass",
)
def fullgrad(context: PassContext, rescale: Literal["channel", "none"] = "channel") -> Tensor:
    """Return the full gradients of each target, one map, (N, T, 1, H, W).

    M = Σ_c ψ(I_c ⊙ ∂S/∂I_c) + Σ_l Σ_c ψ(b_lc · ∂S/∂z_lc). ψ takes the absolute value, rescales it
    to [0, 1] between its smallest and largest value in each image and channel (the paper's; 0 where
    they are equal), and up-samples it bilinearly with align_corners=False. With the setting
    ``rescale=none`` ψ only up-samples, signed, and divides by the number of pixels per position, so
    that a layer's sum stays what it is (exactly at whole factors). No epsilon. Source: Srinivas and
    Fleuret 2019, equations 4 and 6; batch normalisation's implicit bias: section 3.1.

    Args:
        context: the batch.
        rescale: ``channel`` for the paper's ψ, or ``none``.
    """
    inputs = context.inputs
    rescaled = rescale != "none"
    wide = torch.promote_types(inputs.dtype, torch.float32)
    # Thousands of terms in [0, 1] add up to far more than what they differ by.
    widest = torch.float64 if inputs.device.type in terms.WITH_FLOAT64 else wide
    shape = (len(inputs), context.count, 1, *inputs.shape[-2:])
    total = inputs.new_zeros(shape, dtype=widest)

    def receive(target: int, term: Tensor) -> None:
        if term.ndim != 4:
            return
        if len(term) != len(inputs):
            raise MapError(
                f"fullgrad adds up the layers' terms image by image, and a layer ran on {len(term)}"
                f" where there are {len(inputs)} images: the model splits them up, or makes "
                "several of one; leave it out"
            )
        total[:, target] += _shown(term.to(wide), inputs, rescaled, widest)

    gradients = full_gradients(context, receive)
    for target, gradient in enumerate(gradients.unbind(1)):
        receive(target, inputs * gradient)
    return total.to(wide)


def full_gradients(context: PassContext, receive: Receive) -> Tensor:
    """Run the model, hand over each bias times its gradient as the backward reaches it.

    Nothing of them is kept, so memory is that of a plain backward.

    Args:
        context: the batch.
        receive: given (N, C, H, W) for convolutions and batch normalisation, and for linear layers
            (N, K), whatever they are applied to: channels last would read as a plane.

    Returns:
        The gradients at the input, (N, T, C, H, W).
    """
    current = 0
    start = context.inputs.detach().requires_grad_()
    unscaled = precision_of(context.module).unscaled
    with BiasTerms(lambda term: receive(current, unscaled(term))):
        scores = context.summed_scores(start)
    rows = []
    for current, score in enumerate(scores):  # noqa: B007 - read by what BiasTerms calls
        rows.append(gradient_of(score, start, keep=score is not scores[-1]))
    return torch.stack(rows, 1)


def _shown(term: Tensor, inputs: Tensor, rescaled: bool, dtype: torch.dtype) -> Tensor:
    """Return Σ_c ψ of (N, C, h, w) at the size of the inputs, (N, 1, H, W), added up in a type."""
    size = inputs.shape[-2:]
    if rescaled:
        term = term.abs()
        lowest = term.amin((2, 3), keepdim=True)
        span = term.amax((2, 3), keepdim=True) - lowest
        term = (term - lowest) / span.masked_fill(span == 0, 1)
    # Up-sampling is linear: the channels can be added before it.
    small = term.sum(1, keepdim=True, dtype=dtype)
    large = (
        small if small.shape[-2:] == size else functional.interpolate(small, size, mode="bilinear")
    )
    if rescaled:
        return large
    return large * (small.shape[-1] * small.shape[-2] / (size[0] * size[1]))
