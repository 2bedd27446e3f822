"""Methods that weight each channel by one number, the classifier's or one drawn from its gradient.

M = Σ_c w_c A_c; the functions give the weights. A and g = ∂S/∂A are (N, C, H, W).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from exporter.maps.needs import Needs
from exporter.maps.registry import method
from exporter.maps.terms import Terms, over_positions


@method(
    "cam",
    title="CAM",
    shows="Where the last convolution finds what the class's row of the linear layer rewards.",
    formula="M(x,y) = Σ_c w_c · A_c(x,y), with w the target's row of the linear classifier",
    paper="Zhou, Khosla, Lapedriza, Oliva, Torralba: Learning Deep Features for Discriminative"
    " Localization, CVPR 2016",
    url="https://arxiv.org/abs/1512.04150",
    cost="no backward pass; the map is one product",
    caveats="It exists only at a layer that global average pooling and one linear layer follow;"
    " the classifier's bias is not in it.",
    needs=Needs(classifier=True),
    kind="weights",
)
def cam(terms: Terms) -> Tensor:
    """Return the classifier's row of each image's target as channel weights, (N, C).

    M = Σ_c w_c A_c; the mean of M over (H, W) is the target's logit less its bias. No ReLU, no
    epsilon. A is what global average pooling is given. Source: Zhou et al. 2016, equation 2.
    """
    return terms.classifier


@method(
    "gradcam",
    title="Grad-CAM",
    shows="Where those channels are active that raise the target on average over the layer.",
    formula="M(x,y) = Σ_c w_c · A_c(x,y), w_c = 1/(H·W) · Σ_xy g_c(x,y), g = ∂S/∂A; then ReLU",
    paper="Selvaraju, Cogswell, Das, Vedantam, Parikh, Batra: Grad-CAM: Visual Explanations"
    " from Deep Networks via Gradient-based Localization, ICCV 2017",
    url="https://arxiv.org/abs/1610.02391",
    caveats="Averaging the gradient can light up positions that the model did not use; at early"
    " layers, where gradients change sign from one position to the next, little is left of them.",
    relu=True,
    needs=Needs(gradients=True),
    kind="weights",
    aliases=("grad-cam",),
)
def gradcam(terms: Terms) -> Tensor:
    """Return the spatial mean of each channel's gradient, (N, C).

    w_c = mean over (x, y) of ∂S/∂A_c; M = Σ_c w_c A_c, and its definition ends in a ReLU. No
    epsilon. Source: Selvaraju et al. 2017, equations 1 and 2.
    """
    return terms.g.mean((2, 3))


@method(
    "gradcam++",
    title="Grad-CAM++",
    shows="Like Grad-CAM, from positive gradients only; a gradient counts less the larger it is"
    " and the more active its channel is. Meant to show several objects of a class.",
    formula="M(x,y) = Σ_c w_c · A_c(x,y), w_c = Σ_xy α_c(x,y) · max(g_c(x,y), 0),"
    " α_c = g_c² / (2·g_c² + g_c³·Σ_ab A_c(a,b)) = 1 / (2 + g_c·Σ_ab A_c(a,b)); then ReLU",
    paper="Chattopadhay, Sarkar, Howlader, Balasubramanian: Grad-CAM++: Generalized"
    " Gradient-Based Visual Explanations for Deep Convolutional Networks, WACV 2018",
    url="https://arxiv.org/abs/1710.11063",
    caveats="The score is taken to be the exponential of the logit, so the map depends on the"
    " scale of the logits: at a small enough one α is 1/2 everywhere; where activations can be"
    " negative, α can be negative or grow without bound.",
    relu=True,
    needs=Needs(gradients=True),
    kind="weights",
    homogeneous=False,
    aliases=("gradcamplusplus",),
)
def gradcampp(terms: Terms) -> Tensor:
    """Return the positive gradients of each channel, summed with Grad-CAM++'s coefficients, (N, C).

    w_c = Σ_xy α_c max(g_c, 0), α_c = g_c² / (2 g_c² + g_c³ Σ_ab A_c(a, b)), computed as
    1 / (2 + g_c Σ_ab A_c(a, b)), which is the same where g_c ≠ 0 and neither under- nor overflows;
    positions where g_c ≤ 0 add nothing. No epsilon: α is 0 where its denominator is exactly 0. The
    paper's factor exp(S), the same for the whole map, is left out. M = Σ_c w_c A_c, and its
    definition ends in a ReLU. With Y = exp(S), α compares g_c Σ A_c with 2, so the map is not
    independent of the scale of the logits; that is the method. Source: Chattopadhay et al. 2018,
    equations 7 and 19.
    """
    denominator = (terms.g * terms.total[..., None, None]).add_(2)
    return finite_reciprocal(denominator).mul_(terms.positive).sum((2, 3))


@method(
    "xgradcam",
    title="XGrad-CAM",
    shows="Like Grad-CAM, but each channel's gradient is averaged with its activations as weights.",
    formula="M(x,y) = Σ_c w_c · A_c(x,y), w_c = Σ_xy g_c(x,y)·A_c(x,y) / Σ_xy A_c(x,y); then ReLU",
    paper="Fu, Hu, Dong, Guo, Gao, Li: Axiom-based Grad-CAM: Towards Accurate Visualization and"
    " Explanation of CNNs, BMVC 2020",
    url="https://arxiv.org/abs/2008.02312",
    caveats="Made for activations that are not negative: where a channel's positive and"
    " negative activations nearly cancel, the division makes its weight huge.",
    relu=True,
    needs=Needs(gradients=True),
    kind="weights",
)
def xgradcam(terms: Terms) -> Tensor:
    """Return each channel's gradient averaged with the activation as the weight, (N, C).

    w_c = Σ_xy g_c A_c / Σ_xy A_c. No epsilon: w_c is 0 where Σ_xy A_c is exactly 0, as it is for a
    channel that a ReLU silenced. M = Σ_c w_c A_c; the sum of M over (x, y) is Σ g A. The ReLU at
    the end is in the authors' code (github.com/Fu0511/XGrad-CAM). Source: Fu et al. 2020.
    """
    silent = terms.total == 0
    weights = over_positions(terms.Ag) / terms.total.masked_fill(silent, 1)
    return weights.masked_fill_(silent, 0)


def gradcam_maps(activations: Tensor, gradients: Iterable[Tensor]) -> Tensor:
    """Return the Grad-CAM of one layer for several gradients, (N, T, H, W).

    Args:
        activations: A (N, C, H, W).
        gradients: T gradients (N, C, H, W), of whatever scores.
    """
    layers = [Terms(activations, gradient) for gradient in gradients]
    return torch.stack([terms.weigh(gradcam(terms)) for terms in layers], 1)


def finite_reciprocal(divisor: Tensor) -> Tensor:
    """Replace each value by 1 / value in place, and 0 by 0; NaN stays NaN.

    A mask of the zeros would cost five times as much on the CPU.
    """
    return divisor.reciprocal_().nan_to_num_(nan=torch.nan, posinf=0, neginf=0)
