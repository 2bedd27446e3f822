"""CAM: the classifier's own weights as the weights of the channels."""

from __future__ import annotations

from torch import Tensor

from exporter.maps.needs import Needs
from exporter.maps.registry import method
from exporter.maps.terms import Terms


@method(
    "cam",
    title="CAM",
    shows="Where the last convolution found what the class's row of the linear layer rewards.",
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
    """Return the classifier's row of each image's target as channel weights.

    M = Σ_c w_c A_c; the mean of M over (H, W) is the target's logit less its bias. No ReLU, no
    epsilon. Source: Zhou et al. 2016, equation 2.

    Args:
        terms: of A (N, C, H, W), what global average pooling is given, and the classifier.

    Returns:
        Channel weights (N, C).
    """
    return terms.classifier
