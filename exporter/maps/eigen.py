"""Methods that show a layer's first principal component: one direction in the space of channels."""

from __future__ import annotations

import torch
from torch import Tensor

from exporter.maps.registry import Needs, method
from exporter.maps.singular import first_eigenvector
from exporter.records import MethodRecord


@method(
    MethodRecord(
        name="eigencam",
        title="Eigen-CAM",
        shows="Where the layer's activations vary together most, whatever the target.",
        formula="M = (A − 1·āᵀ)·v₁, A as a matrix (H·W × C), ā its mean over places, v₁ the first"
        " right singular vector of A − 1·āᵀ, signed so that its entries sum to ≥ 0",
        paper="Muhammad, Yeasin: Eigen-CAM: Class Activation Map using Principal Components,"
        " IJCNN 2020",
        url="https://arxiv.org/abs/2008.00299",
        cost="no backward; one C×C or HW×HW product an image, about a tenth of a forward where four"
        " stages are taken, next to nothing at the last layer",
        caveats="It does not depend on the target: it shows what stands out, not why the model"
        " decided; its sign is a convention, so the object is negative where the background excites"
        " most channels.",
        relu=False,
    ),
    needs=Needs(),
    kind="map",
    channelwise=False,
)
def eigencam(activations: Tensor, gradients: Tensor | None = None) -> Tensor:
    """Return the projection of the activations on their first principal component.

    M = (A - mean over places) v₁, with A as (H·W, C) and v₁ the first right singular vector of what
    is projected. The paper writes the singular value decomposition without centring; centred, as
    principal components are and as pytorch-grad-cam does, the map does not merely repeat the mean
    activation. The sign, which a decomposition leaves open, is the one for which the entries of v₁
    sum to a positive number, which is to say that the map correlates positively with the mean of
    the channels. No ReLU, no epsilon; a layer that is the same everywhere gives zeros. Source:
    Muhammad and Yeasin 2020.

    Args:
        activations: A (N, C, H, W).
        gradients: not used.

    Returns:
        Raw maps (N, H, W), of mean zero.
    """
    del gradients
    return _first_component(activations, None)


@method(
    MethodRecord(
        name="eigengradcam",
        title="Eigen-Grad-CAM",
        shows="The strongest common pattern in gradient × activation: the target's evidence, with"
        " what only single channels say smoothed away.",
        formula="M = (P − 1·p̄ᵀ)·v₁, P = g ⊙ A as a matrix (H·W × C), p̄ its mean over places, v₁ the"
        " first right singular vector of P − 1·p̄ᵀ, signed so that its entries sum to ≥ 0",
        paper="Gildenblat and contributors: pytorch-grad-cam (EigenGradCAM), 2021, after Muhammad,"
        " Yeasin: Eigen-CAM, IJCNN 2020",
        url="https://github.com/jacobgil/pytorch-grad-cam",
        cost="one backward, shared; then as Eigen-CAM",
        caveats="The strongest pattern may speak against the target, its size is not that of the"
        " evidence, and its sign is a convention; it has no paper of its own.",
        relu=False,
    ),
    needs=Needs(gradients=True),
    kind="map",
    channelwise=False,
    aliases=("eigen-grad-cam",),
)
def eigengradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return the projection of gradient times activation on its first principal component.

    As `eigencam`, with g ⊙ A in the place of A: the map correlates positively with Σ_c g_c A_c, the
    HiResCAM of the same layer. The scale of the gradients scales the map and changes nothing else.
    No ReLU, no epsilon. Source: EigenGradCAM of pytorch-grad-cam.

    Args:
        activations: A (N, C, H, W).
        gradients: g = ∂S/∂A (N, C, H, W).

    Returns:
        Raw maps (N, H, W), of mean zero.
    """
    return _first_component(activations, gradients)


def _first_component(activations: Tensor, gradients: Tensor | None) -> Tensor:
    """Project each image's channels on their first principal component; (N, H, W)."""
    number, channels, height, width = activations.shape
    dtype = torch.float64 if activations.dtype == torch.float64 else torch.float32
    by_place = height * width <= channels
    size = height * width if by_place else channels
    gram = activations.new_empty((number, size, size), dtype=dtype)
    scales = activations.new_empty((number, 1), dtype=dtype)
    sums = activations.new_empty((number, size), dtype=dtype)
    for index in range(number):  # one image at a time: its centred copy stays in the cache
        centred, scales[index] = _centred(activations, gradients, index, dtype)
        if by_place:
            torch.mm(centred.T, centred, out=gram[index])
            sums[index] = centred.sum(0)
        else:
            _lower_gram(centred, gram[index])
    if not by_place:
        gram = gram.tril() + gram.tril(-1).mT
    vector = first_eigenvector(gram)
    if by_place:
        # u is the left singular vector: M = σ u with σ² = uᵀ G u, and Σ_c v = uᵀ (Σ_c X_c) / σ.
        value = (vector * torch.bmm(gram, vector[..., None])[..., 0]).sum(1, keepdim=True)
        maps = vector * value.clamp_(min=0).sqrt_() * _sign((vector * sums).sum(1, keepdim=True))
        return (maps * scales).view(number, height, width)
    vector = vector * _sign(vector.sum(1, keepdim=True))
    projected = activations.new_empty((number, height * width), dtype=dtype)
    for index in range(number):
        torch.mv(
            _matrix(activations, gradients, index, dtype).T, vector[index], out=projected[index]
        )
    return (projected - projected.mean(1, keepdim=True)).view(number, height, width)


def _matrix(
    activations: Tensor, gradients: Tensor | None, index: int, dtype: torch.dtype
) -> Tensor:
    """Return what one image's component is taken of, as (C, H·W)."""
    image = activations[index].to(dtype)
    if gradients is not None:
        image = image * gradients[index].to(dtype)
    return image.flatten(1)


def _centred(
    activations: Tensor, gradients: Tensor | None, index: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return one image's matrix (C, H·W), centred, divided by its largest entry, and that entry."""
    matrix = _matrix(activations, gradients, index, dtype)
    centred = matrix - matrix.mean(1, keepdim=True)
    # Without this the squares of small gradients leave float32.
    lowest, highest = centred.aminmax()
    scale = torch.maximum(-lowest, highest)
    return centred.div_(scale.masked_fill(scale == 0, 1)), scale


def _lower_gram(matrix: Tensor, gram: Tensor) -> None:
    """Write the lower triangle of X Xᵀ, by strips: no more than five eighths of the products."""
    size = matrix.shape[0]
    strip = -(-size // 4)
    for start in range(0, size, strip):
        stop = min(start + strip, size)
        torch.mm(matrix[start:stop], matrix[:stop].T, out=gram[start:stop, :stop])


def _sign(values: Tensor) -> Tensor:
    """Return -1 where a value is negative and 1 elsewhere, also for 0."""
    return 1 - 2 * (values < 0).to(values.dtype)
