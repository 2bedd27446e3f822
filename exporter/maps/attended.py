"""What attention methods read: the weights of every block, and where the patches lie in a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

ATTENTION = "attention"
"""The layer's name under which these maps are kept: they belong to all blocks together."""


class Attending(Protocol):
    """One forward with the attention weights kept (see `exporter.capture.AttentionPass`)."""

    @property
    def weights(self) -> Sequence[Tensor]:
        """By block, (N, heads, L, L): row i says what token i takes from every token."""

    @property
    def scores(self) -> Sequence[Tensor]:
        """Each target's score, T tensors (N,)."""

    def gradients(self, target: int) -> Sequence[Tensor]:
        """Return ∂S/∂A of one target, by block, (N, heads, L, L)."""

    def step_gradient(self, target: int, step: int) -> Tensor:
        """Return ∂S_l/∂A_l of one block's own score, (N, heads, L, L)."""


@dataclass(frozen=True)
class Attended:
    """Some images' attention, with what it takes to read a map out of it.

    Attributes:
        attention: the weights, and their gradients on demand.
        height: rows of patches.
        width: columns of patches.
        prefix: tokens before the patches: class, registers, distillation.
    """

    attention: Attending
    height: int
    width: int
    prefix: int

    def read_out(self, relevance: Tensor) -> Tensor:
        """Return the patches' part (N, H, W) of a matrix (N, L, L) of what tokens owe to tokens.

        The row of the class token; where there is none (no token before the patches), the mean of
        the patches' rows, which is what average pooling reads.
        """
        row = relevance[:, 0] if self.prefix else relevance.mean(1)
        return self.patches(row)

    def patches(self, tokens: Tensor) -> Tensor:
        """Return the patches' part (N, H, W) of a value a token (N, L)."""
        return tokens[:, self.prefix :].reshape(len(tokens), self.height, self.width)
