"""What a map method reads: the terms of one layer, each computed once, when it is first read."""

from __future__ import annotations

from functools import cached_property
from typing import TypeVar

import torch
from torch import Tensor

from exporter.errors import MapError

T = TypeVar("T")

WITH_FLOAT64 = ("cpu", "cuda", "meta")
"""Devices that are known to compute in float64; MPS does not."""


class Terms:
    """One layer of some images, or a slice of its channels.

    Terms are shared by all methods of the layer, so that a method must not write to them.

    Attributes:
        A: the layer's activations, (N, C, H, W).

    Examples:
        >>> terms = Terms(torch.full((1, 2, 3, 3), 2.0), torch.ones(1, 2, 3, 3))
        >>> terms.total.tolist()
        [[18.0, 18.0]]
        >>> terms.weigh(terms.g.mean((2, 3)))[0, 0].tolist()
        [4.0, 4.0, 4.0]
    """

    def __init__(
        self, activations: Tensor, gradient: Tensor | None = None, classifier: Tensor | None = None
    ) -> None:
        """Take what was captured.

        Args:
            activations: A, (N, C, H, W).
            gradient: g = ∂S/∂A of the target's score S, of the same shape.
            classifier: the target's rows of the linear layer that follows, (N, C).
        """
        self.A = activations
        self._gradient = gradient
        self._classifier = classifier

    @property
    def g(self) -> Tensor:
        """The gradient ∂S/∂A of the target's score, (N, C, H, W)."""
        return needed(self._gradient, "the gradient", "gradients")

    @property
    def classifier(self) -> Tensor:
        """The target's rows of the linear layer that global average pooling feeds, (N, C)."""
        return needed(self._classifier, "the classifier's rows", "classifier")

    @cached_property
    def Ag(self) -> Tensor:  # noqa: N802 - as the papers write it
        """A · g, element by element, (N, C, H, W)."""
        return self.A * self.g

    @cached_property
    def positive(self) -> Tensor:
        """max(g, 0), (N, C, H, W)."""
        return torch.relu(self.g)

    @cached_property
    def total(self) -> Tensor:
        """Σ A over the spatial positions, (N, C)."""
        return over_positions(self.A)

    def weigh(self, weights: Tensor) -> Tensor:
        """Return the sum of the channels Σ_c w_c A_c.

        Args:
            weights: (N, C), or (N, T, C) for T sums.

        Returns:
            (N, H, W), or (N, T, H, W).
        """
        rows = weights if weights.ndim == 3 else weights.unsqueeze(1)
        sums = torch.bmm(rows, self.A.flatten(2))
        return sums.view(*weights.shape[:-1], *self.A.shape[2:])


def over_positions(values: Tensor) -> Tensor:
    """Return the sum of (N, C, H, W) over the spatial positions, (N, C), where it cancels too.

    Rows are added up in the values' own type and their sums in float64, where the device has it:
    all of it in float64 would take ten times as long. So would the sum of the last axis where the
    channels lie side by side.
    """
    wide = torch.float64 if values.device.type in WITH_FLOAT64 else values.dtype
    rows = values.movedim(1, 3).sum(2).mT if values.stride(1) == 1 else values.sum(3)
    return rows.sum(2, dtype=wide).to(values.dtype)


def needed(term: T | None, what: str, need: str) -> T:
    """Return what a map reads.

    Raises:
        MapError: if it was not captured, with the need that the map has to declare.
    """
    if term is None:
        raise MapError(
            f"a map reads {what} of a layer, which was not captured; "
            f"declare it in the map's decorator: needs=Needs({need}=True)"
        )
    return term
