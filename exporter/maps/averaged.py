"""Pixel methods that average the gradient over many inputs near or before the image."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from exporter.maps.context import PassContext
from exporter.maps.needs import Needs, Passes
from exporter.maps.registry import method


@method(
    "smoothgrad",
    title="SmoothGrad",
    shows="The gradient, averaged over noisy copies of the image, so that what is left is not"
    " an accident of one pixel.",
    formula="M = 1/n · Σ_k ∂S/∂I (I + ε_k), ε_k ~ N(0, σ²), σ = noise · (max I − min I), I"
    " the normalised input; stored: max_c |M_c|",
    paper="Smilkov, Thorat, Kim, Viégas, Wattenberg: SmoothGrad: removing noise by adding"
    " noise, arXiv 2017",
    url="https://arxiv.org/abs/1706.03825",
    cost="n forward and backward passes to the input (n = 16)",
    caveats="It smooths away noise of the gradient and fine evidence alike; two runs agree only"
    " because they draw the same noise, from the run's seed. The noise is drawn on the model's"
    " device: one seed gives other noise, and so another map, on a GPU than on the CPU.",
    pixel="max-abs",
    needs=Needs(
        activations=False, passes=Passes(forwards="samples", backwards=1, of="noisy images")
    ),
    kind="pass",
)
def smoothgrad(context: PassContext, samples: int = 16, noise: float = 0.15) -> Tensor:
    """Return each target's gradient, averaged over noisy copies of each image, (N, T, C, H, W).

    M = 1/n Σ_k ∂S/∂I at I + σ ε_k, with ε_k standard normal and σ = noise · (max I − min I) of each
    image by itself. All images have the same ε_k, drawn from the generator one after the other, so
    that it does not matter how images are put into batches; in float32, so that it does not matter
    which type the model has. The generator is the device's: a GPU draws other numbers than the CPU.
    No epsilon. Source: Smilkov et al. 2017, section 3.

    Args:
        context: the batch.
        samples: noisy copies of each image, at least 1.
        noise: σ as a fraction of the image's range.
    """
    inputs = context.inputs
    span = inputs.amax((1, 2, 3), keepdim=True) - inputs.amin((1, 2, 3), keepdim=True)
    sigma = span * noise
    # Drawn in float32 whatever the model's type is: each type would draw other numbers.
    draw = partial(torch.randn, inputs.shape[1:], dtype=torch.float32, device=inputs.device)
    samples = max(1, samples)
    total = _nothing(context)
    for part in context.portions(samples):
        noisy = [
            inputs + sigma * draw(generator=context.generator).to(inputs.dtype)
            for _ in range(part.start, part.stop)
        ]
        for gradient in torch.split(context.input_gradients(torch.cat(noisy)), len(inputs)):
            total += gradient
    return total.div_(samples)


def _nothing(context: PassContext) -> Tensor:
    """Return zeros (N, T, C, H, W) to add to; half precision would lose small terms."""
    inputs = context.inputs
    wide = torch.promote_types(inputs.dtype, torch.float32)
    return inputs.new_zeros((len(inputs), context.count, *inputs.shape[1:]), dtype=wide)


@method(
    "integratedgradients",
    title="Integrated gradients",
    shows="What each pixel adds to the target on the way from a blank image to this one; together"
    " the pixels account for the whole change of the target.",
    formula="M_c(x,y) = I_c(x,y) · ∫₀¹ ∂S/∂I_c (α·I)(x,y) dα, I the normalised input, so the"
    " baseline is the mean colour; Gauss–Legendre; stored: Σ_c M_c",
    paper="Sundararajan, Taly, Yan: Axiomatic Attribution for Deep Networks, ICML 2017",
    url="https://arxiv.org/abs/1703.01365",
    cost="n forward and backward passes to the input (n = 50)",
    caveats="It depends on the baseline: what has the mean colour gets nothing; the sum is the"
    " target's gain only as far as n steps resolve the path.",
    pixel="sum",
    needs=Needs(
        activations=False,
        passes=Passes(
            forwards="steps", backwards=1, of="images between the mean colour and the image"
        ),
    ),
    kind="pass",
    aliases=("ig",),
)
def integratedgradients(context: PassContext, steps: int = 50) -> Tensor:
    """Return the input times its gradient averaged on the path from zero to it, (N, T, C, H, W).

    M = I ⊙ Σ_k w_k ∂S/∂I at α_k I, with the nodes and weights of Gauss–Legendre on [0, 1]. The
    baseline is 0 in normalised space. ΣM = S(I) − S(0) but for the rule's error. No epsilon.
    Source: Sundararajan et al. 2017, equations 1 and 3.

    Args:
        context: the batch.
        steps: nodes on the path, at least 1.
    """
    inputs = context.inputs
    nodes, weights = np.polynomial.legendre.leggauss(max(1, steps))
    # Python numbers: a tensor made here would have to be carried to the device.
    path = ((nodes + 1) / 2).tolist(), (weights / 2).tolist()
    total = _nothing(context)
    for part in context.portions(len(nodes)):
        gradients = context.input_gradients(torch.cat([inputs * at for at in path[0][part]]))
        for weight, gradient in zip(
            path[1][part], torch.split(gradients, len(inputs)), strict=True
        ):
            total.add_(gradient, alpha=weight)
    return total.mul_(inputs.unsqueeze(1))
