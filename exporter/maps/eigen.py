"""Methods that show a layer's first principal component: one direction in the space of channels.

A and g = ∂S/∂A are (N, C, H, W). `torch.linalg.svd` and `eigh` make CUDA wait for the host, so the
direction is found by matrix products alone, which run on every device alike. A symmetric matrix
squared again and again tends to the projection on its first eigenvector: the ratio of the other
eigenvalues to the first falls as a square each time. It is as exact as the gap between the first
two lets any method be. On the CPU and in float32 large matrices, whose squares would be too dear
there, are first narrowed to a Krylov space (docs/decisions/011-first-eigenvector.md).
"""

from __future__ import annotations

import torch
from torch import Tensor

from exporter.maps.needs import Needs
from exporter.maps.registry import method
from exporter.maps.terms import Terms

SQUARINGS = {torch.float32: 26, torch.float64: 40}
"""Squares taken: relative gaps between eigenvalues down to 1e-6 and 1e-10 are told apart."""

KRYLOV_SIZE = 32
"""Dimension of the Krylov space a large matrix is narrowed to."""

DIRECT_SIZE = 100
"""Matrices up to this size are squared as they are: that is faster than narrowing them."""

KRYLOV_CYCLES = 2
"""How often that space is built, each time from the vector found before."""


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
    """Return the activations projected on their first principal component, (N, H, W).

    M = (A - spatial mean) v₁, with A as (H·W, C) and v₁ the first right singular vector of what
    is projected. The paper writes the singular value decomposition without centring; centred, as
    principal components are and as pytorch-grad-cam does, the map does not merely repeat the mean
    activation. The sign, which a decomposition leaves open, is the one for which the entries of v₁
    sum to a positive number, which is to say that the map correlates positively with the mean of
    the channels. No ReLU, no epsilon; a layer that is the same everywhere gives zeros. Source:
    Muhammad and Yeasin 2020.
    """
    return _first_component(terms.A)


@method(
    "eigengradcam",
    title="Eigen-Grad-CAM",
    shows="The strongest common pattern in gradient × activation: the evidence for the target,"
    " without what only single channels show.",
    formula="M = (P − 1·p̄ᵀ)·v₁, P = g ⊙ A as a matrix (H·W × C), p̄ its spatial mean, v₁ the"
    " first right singular vector of P − 1·p̄ᵀ, signed so that its entries sum to ≥ 0",
    paper="Gildenblat and contributors: pytorch-grad-cam (EigenGradCAM), 2021, after Muhammad,"
    " Yeasin: Eigen-CAM, IJCNN 2020",
    url="https://github.com/jacobgil/pytorch-grad-cam",
    cost="one backward pass, shared; then the same as Eigen-CAM",
    caveats="The strongest pattern may be evidence against the target; its size is not that of the"
    " evidence, and its sign is a convention. It has no paper of its own.",
    needs=Needs(gradients=True),
    kind="map",
    channelwise=False,
    aliases=("eigen-grad-cam",),
)
def eigengradcam(terms: Terms) -> Tensor:
    """Return gradient times activation projected on its first principal component, (N, H, W).

    As `eigencam`, with g ⊙ A in the place of A: the map correlates positively with Σ_c g_c A_c, the
    HiResCAM of the same layer. The scale of the gradients scales the map and changes nothing else.
    No ReLU, no epsilon. Source: EigenGradCAM of pytorch-grad-cam.
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


def first_eigenvector(gram: Tensor, *, krylov: bool | None = None) -> Tensor:
    """Return the eigenvector of the largest eigenvalue of each matrix, up to sign.

    Args:
        gram: (N, n, n), symmetric and positive semidefinite, float32 or float64, of a scale at
            which its entries can be multiplied without leaving the number format.
        krylov: whether to narrow matrices beyond `DIRECT_SIZE` first; None does so for float32 on
            the CPU, where it is faster and loses nothing that float32 could hold.

    Returns:
        (N, n) of length 1; zeros where the matrix is zero. Where the first two eigenvalues are
        equal to rounding it is some vector of their common space.
    """
    if krylov is None:
        krylov = gram.device.type == "cpu" and gram.dtype == torch.float32
    if not krylov or gram.shape[-1] <= DIRECT_SIZE:
        return _by_squaring(gram)
    positions = torch.arange(1, gram.shape[-1] + 1, device=gram.device, dtype=gram.dtype)
    # No pattern of a real layer is orthogonal to this one, and it is the same on every machine.
    vectors = unit(gram @ torch.cos(positions * positions))
    for _ in range(KRYLOV_CYCLES):
        # One matrix at a time: it stays in the cache for all the products with it.
        spaces = [_krylov_space(*pair) for pair in zip(gram, vectors, strict=True)]
        basis, images = (torch.stack(parts) for parts in zip(*spaces, strict=True))
        ritz = _by_squaring(torch.bmm(basis, images.mT))
        vectors = unit(torch.bmm(ritz[:, None], basis).squeeze(1))
    return vectors


def _by_squaring(matrix: Tensor) -> Tensor:
    matrix = matrix / _nonzero(matrix.abs().amax((1, 2), keepdim=True))
    spare = torch.empty_like(matrix)
    for _ in range(SQUARINGS[matrix.dtype]):
        torch.bmm(matrix, matrix, out=spare)
        # The largest entry of a positive semidefinite matrix lies on its diagonal.
        spare.div_(_nonzero(spare.diagonal(dim1=1, dim2=2).amax(1))[:, None, None])
        matrix, spare = spare, matrix
    # Every column is now the eigenvector times one of its entries: the largest keeps most digits.
    column = matrix.diagonal(dim1=1, dim2=2).argmax(1)[:, None, None]
    return unit(matrix.gather(1, column.expand(-1, 1, matrix.shape[1])).squeeze(1))


def _krylov_space(gram: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
    """Return an orthonormal basis (k, n) of the Krylov space of a vector (n,), and its images."""
    basis = gram.new_zeros(KRYLOV_SIZE, gram.shape[-1])
    images = torch.zeros_like(basis)
    for index in range(KRYLOV_SIZE):
        basis[index] = vector
        image = torch.mv(gram, vector, out=images[index])
        known = basis[: index + 1]
        new = torch.addmv(image, known.T, known.mv(image), alpha=-1)
        new.div_(torch.linalg.vector_norm(new))
        new.addmv_(known.T, known.mv(new), alpha=-1)
        # Of a spent space rounding is left, or 0/0: mostly inside the space, and no new direction.
        length = torch.linalg.vector_norm(new)
        vector = torch.where(length > 0.5, new.div_(length), 0)
    return basis, images


def unit(vector: Tensor) -> Tensor:
    """Return vectors (…, n) of length 1, zeros of zeros."""
    return vector / _nonzero(torch.linalg.vector_norm(vector, dim=-1, keepdim=True))


def _nonzero(divisor: Tensor) -> Tensor:
    return divisor.masked_fill(divisor == 0, 1)
