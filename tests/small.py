"""The model that tests run where any will do: two convolutions and a classifier of four classes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )


class Ending(nn.Module):
    """The small model with something behind its logits."""

    def __init__(self, end: Callable[[Tensor], object], outputs: int = 4) -> None:
        super().__init__()
        self.net, self.end = small(), end
        self.net[6] = nn.Linear(8, outputs)
        with torch.no_grad():
            self.net[6].weight.mul_(60)

    def forward(self, x: Tensor) -> object:
        return self.end(self.net(x))
