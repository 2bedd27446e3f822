"""Methods that weight every position of every channel by its own gradient: a sum of channels.

A and g = ∂S/∂A are (N, C, H, W).
"""

from __future__ import annotations

from torch import Tensor

from exporter.maps.needs import Needs
from exporter.maps.registry import method
from exporter.maps.terms import Terms


@method(
    "layercam",
    title="LayerCAM",
    shows="Active positions where more activation, at that very position, would raise the target;"
    " sharp at early layers too.",
    formula="M(x,y) = Σ_c max(g_c(x,y), 0) · A_c(x,y), g = ∂S/∂A; then ReLU",
    paper="Jiang, Zhang, Hou, Cheng, Wei: LayerCAM: Exploring Hierarchical Class Activation"
    " Maps for Localization, IEEE Transactions on Image Processing 2021",
    url="https://doi.org/10.1109/TIP.2021.3089943",
    caveats="Negative gradients are dropped, so what speaks against the target cannot be seen"
    " and its support looks larger than it is.",
    relu=True,
    needs=Needs(gradients=True),
    kind="map",
)
def layercam(terms: Terms) -> Tensor:
    """Return the activations weighted by their own positive gradients, (N, H, W).

    M = Σ_c max(g_c, 0) A_c, and its definition ends in a ReLU (which matters only where activations
    can be negative). No epsilon. Source: Jiang et al. 2021.
    """
    return (terms.positive * terms.A).sum(1)


@method(
    "hirescam",
    title="HiResCAM",
    shows="What each position adds to the target or takes from it, to first order; exact where"
    " only pooling and one linear layer follow.",
    formula="M(x,y) = Σ_c g_c(x,y) · A_c(x,y), g = ∂S/∂A",
    paper="Draelos, Carin: Use HiResCAM instead of Grad-CAM for faithful explanations of"
    " convolutional neural networks, arXiv 2020",
    url="https://arxiv.org/abs/2011.08891",
    caveats="Faithful only where what follows the layer is linear; elsewhere it is gradient ×"
    " activation, noisy where gradients are, and without the effect of biases. Where only a"
    " layer normalisation over the channels reads a position, as it does the patches before a"
    " ViT's last block, it is zero apart from that layer's epsilon, and shows rounding.",
    needs=Needs(gradients=True),
    kind="map",
)
def hirescam(terms: Terms) -> Tensor:
    """Return gradient times activation, summed over the channels, (N, H, W).

    M = Σ_c g_c A_c. No ReLU in the definition, no epsilon. Source: Draelos and Carin 2020.
    """
    return terms.Ag.sum(1)


@method(
    "gradcam-elementwise",
    title="Grad-CAM element-wise",
    shows="What each position adds to the target, counting only the channels that add something.",
    formula="M(x,y) = Σ_c max(g_c(x,y) · A_c(x,y), 0), g = ∂S/∂A",
    paper="Pillai, Pirsiavash: Explainable Models with Consistent Interpretations, AAAI 2021",
    url="https://hdl.handle.net/11603/21053",
    caveats="Never negative: negative contributions at a position do not offset positive"
    " ones, so a position with mixed evidence looks like support.",
    needs=Needs(gradients=True),
    kind="map",
    aliases=("elementwise",),
)
def gradcam_elementwise(terms: Terms) -> Tensor:
    """Return the positive part of gradient times activation, summed over channels, (N, H, W).

    M = Σ_c max(g_c A_c, 0): the ReLU stands inside the sum, so the map is never negative. No
    epsilon. Source: Pillai and Pirsiavash 2021.
    """
    return terms.Ag.clamp_min(0).sum(1)
