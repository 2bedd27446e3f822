"""Methods that are the maps of several layers in one: what each layer alone makes of the target."""

from __future__ import annotations

from torch import Tensor

from exporter.maps.gradient_weighted import gradcampp
from exporter.maps.needs import Needs
from exporter.maps.registry import method
from exporter.maps.terms import Terms


@method(
    "refinecam",
    title="RefineCAM",
    shows="What every explained layer lights up at once: the fine detail of early layers, where"
    " late ones confirm it.",
    formula="M(x,y) = Π_l up-sampled min-max(max(M_l, 0)), M_l the Grad-CAM++ of layer l",
    paper="Domeniconi, Stramiglio, Lombardi, Salti: How to Evaluate and Refine your CAM, arXiv"
    " 2026; product and base method as in pytorch-grad-cam (RefineCAM)",
    url="https://arxiv.org/abs/2605.14641",
    cost="one backward pass, shared; then next to nothing",
    caveats="One layer that is wrong, or zero, puts the map out; with one explained layer it is"
    " Grad-CAM++. It has Grad-CAM++'s dependence on the scale of the logits.",
    needs=Needs(gradients=True),
    kind="weights",
    fuse="product",
)
def refinecam(terms: Terms) -> Tensor:
    """Return the channel weights of Grad-CAM++, whose maps are then multiplied over the layers.

    Each layer's map Σ_c w_c A_c passes a ReLU, is scaled to [0, 1] per image (min-max) and then
    up-sampled bilinearly to the largest layer's size; the product over the layers is the map, kept
    under the layer ``fused``. No epsilon beyond Grad-CAM++'s definition. Source: Domeniconi et al.
    2026, and RefineCAM of pytorch-grad-cam, which up-samples to the image's size.

    Args:
        terms: of A and g = ∂S/∂A, (N, C, H, W).

    Returns:
        Channel weights (N, C) of one layer.
    """
    return gradcampp(terms)
