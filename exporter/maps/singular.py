"""The first principal component of a batch of matrices, without waiting for the device.

`torch.linalg.svd` and `eigh` make CUDA wait for the host; this needs matrix products only, so it
runs on every device alike. A symmetric matrix squared again and again tends to the projection on
its first eigenvector: the ratio of the other eigenvalues to the first falls as a square each time.
It is as exact as the gap between the first two lets any method be. On the CPU and in float32 large
matrices, whose squares would be too dear there, are first narrowed to a Krylov space.
"""

from __future__ import annotations

import torch
from torch import Tensor

SQUARINGS = {torch.float32: 26, torch.float64: 40}
"""Squares taken: relative gaps between eigenvalues down to 1e-6 and 1e-10 are told apart."""

KRYLOV_SIZE = 32
"""Dimension of the Krylov space a large matrix is narrowed to."""

DIRECT_SIZE = 100
"""Matrices up to this size are squared as they are: that is faster than narrowing them."""

KRYLOV_CYCLES = 2
"""How often that space is built, each time from the vector found before."""


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
