"""Methods that show a layer's first principal component: one direction in the space of channels."""

from __future__ import annotations

import torch
from torch import Tensor

from exporter.maps.needs import Needs
from exporter.maps.registry import method
from exporter.maps.singular import first_eigenvector, unit
from exporter.maps.terms import Terms


@method(
    "eigencam",
    title="Eigen-CAM",
    shows="Where the layer's activations vary together most, whatever the target.",
    formula="M = (A − 1·āᵀ)·v₁, A as a matrix (H·W × C), ā its spatial mean, v₁ the first"
    " right singular vector of A − 1·āᵀ, signed so that its entries sum to ≥ 0",
    paper="Muhammad, Yeasin: Eigen-CAM: Class Activation Map using Principal Components,"
    " IJCNN 2020",
    url="https://arxiv.org/abs/2008.00299",
    cost="no backward pass; one C×C or HW×HW product per image and layer: about a tenth of a"
    " forward pass for four stages, next to nothing at the last layer",
    caveats="It does not depend on the target: it shows what stands out, not why the model"
    " decided; its sign is a convention, so the object is negative where the background excites"
    " most channels.",
    needs=Needs(),
    kind="map",
    channelwise=False,
)
def eigencam(terms: Terms) -> Tensor:
    """Return the projection of the activations on their first principal component.

    M = (A - spatial mean) v₁, with A as (H·W, C) and v₁ the first right singular vector of what
    is projected. The paper writes the singular value decomposition without centring; centred, as
    principal components are and as pytorch-grad-cam does, the map does not merely repeat the mean
    activation. The sign, which a decomposition leaves open, is the one for which the entries of v₁
    sum to a positive number, which is to say that the map correlates positively with the mean of
    the channels. No ReLU, no epsilon; a layer that is the same everywhere gives zeros. Source:
    Muhammad and Yeasin 2020.

    Args:
        terms: of A (N, C, H, W).

    Returns:
        Raw maps (N, H, W), of mean zero.
    """
    return _first_component(terms.A)


@method(
    "eigengradcam",
    title="Eigen-Grad-CAM",
    shows="The strongest common pattern in gradient × activation: the target's evidence, with"
    " what only single channels say smoothed away.",
    formula="M = (P − 1·p̄ᵀ)·v₁, P = g ⊙ A as a matrix (H·W × C), p̄ its spatial mean, v₁ the"
    " first right singular vector of P − 1·p̄ᵀ, signed so that its entries sum to ≥ 0",
    paper="Gildenblat and contributors: pytorch-grad-cam (EigenGradCAM), 2021, after Muhammad,"
    " Yeasin: Eigen-CAM, IJCNN 2020",
    url="https://github.com/jacobgil/pytorch-grad-cam",
    cost="one backward pass, shared; then as Eigen-CAM",
    caveats="The strongest pattern may speak against the target, its size is not that of the"
    " evidence, and its sign is a convention; it has no paper of its own.",
    needs=Needs(gradients=True),
    kind="map",
    channelwise=False,
    aliases=("eigen-grad-cam",),
)
def eigengradcam(terms: Terms) -> Tensor:
    """Return the projection of gradient times activation on its first principal component.

    As `eigencam`, with g ⊙ A in the place of A: the map correlates positively with Σ_c g_c A_c, the
    HiResCAM of the same layer. The scale of the gradients scales the map and changes nothing else.
    No ReLU, no epsilon. Source: EigenGradCAM of pytorch-grad-cam.

    Args:
        terms: of A and g = ∂S/∂A, (N, C, H, W).

    Returns:
        Raw maps (N, H, W), of mean zero.
    """
    return _first_component(terms.Ag)


def _first_component(values: Tensor) -> Tensor:
    """Project the channels of (N, C, H, W) on their first principal component; (N, H, W)."""
    matrix = values.flatten(2)
    centred = matrix - matrix.mean(2, keepdim=True)
    # Divided by its largest entry: the squares of small gradients would leave float32.
    scale = centred.abs().amax((1, 2), keepdim=True)
    centred /= scale.masked_fill(scale == 0, 1)
    channels, positions = centred.shape[1:]
    if positions <= channels:
        first = first_eigenvector(_gram(centred.mT))
        first = unit(torch.bmm(centred, first[..., None]).squeeze(2))
    else:
        first = first_eigenvector(_gram(centred))
    # The sign is the one for which the entries sum to no negative number.
    first = torch.where(first.sum(1, keepdim=True) < 0, -first, first)
    return (torch.bmm(first[:, None], centred) * scale).view(len(values), *values.shape[2:])


def _gram(matrix: Tensor) -> Tensor:
    """Return X Xᵀ (N, n, n) of (N, n, m), by strips of its lower triangle: 5/8 of the products."""
    size = matrix.shape[1]
    gram = matrix.new_zeros(len(matrix), size, size)
    strip = max(1, -(-size // 4))
    for start in range(0, size, strip):
        stop = min(start + strip, size)
        gram[:, start:stop, :stop] = torch.bmm(matrix[:, start:stop], matrix[:, :stop].mT)
    return gram.tril() + gram.tril(-1).mT
