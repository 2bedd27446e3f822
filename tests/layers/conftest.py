"""Small models of this room's tests."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn


class Small(nn.Module):
    """Two stages, a ReLU used twice, global average pooling and one linear layer."""

    def __init__(self, classes: int = 5, between: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(4, 6, 3, padding=1)
        self.between = between or nn.Identity()
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(6, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.conv1(x)))
        x = self.between(self.relu(self.conv2(x)))
        return self.fc(self.drop(x.mean(dim=(2, 3))))


@pytest.fixture
def small() -> Small:
    torch.manual_seed(3)
    return Small()


@pytest.fixture
def make_small() -> type[Small]:
    return Small


@pytest.fixture
def example() -> Tensor:
    return torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
