"""What attention methods read: the weights of every block, and where the patches lie in a row."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from exporter.capture import AttentionPass

ATTENTION = "attention"
"""The layer's name under which these maps are kept: they belong to all blocks together."""


@dataclass(frozen=True)
class Attended:
    """Some images' attention, with what it takes to read a map out of it.

    Attributes:
        attention: the weights, and their gradients on demand.
        height: rows of patches.
        width: columns of patches.
        prefix: tokens before the patches: class, registers, distillation.
    """

    attention: AttentionPass
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
        """Return the patches' part (N, H, W) of one value per token (N, L)."""
        return tokens[:, self.prefix :].reshape(len(tokens), self.height, self.width)
