"""The model that tests run where any will do: two convolutions and a classifier of four classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from exporter import export
from exporter.demo import example_model, photographs
from exporter.render import decode_image
from exporter.store import Run


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


class DayOrNight:
    """Photographs of two classes."""

    classes = ("day", "night")

    def __init__(self) -> None:
        self.files = sorted(photographs().glob("*.jpg"))[:8]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int) -> tuple[NDArray[np.uint8], int]:
        return decode_image(self.files[place].read_bytes()), place % 2


def two_classes(folder: Path, writer: str) -> Run:
    """Make a run of a model of two classes over labelled photographs; its scores differ."""
    model = example_model()
    with torch.no_grad():
        model[-1].weight.mul_(40)
    names = folder / "names.txt"
    names.write_text("day\nnight\n")
    run = export(
        model, DayOrNight(), classes=names, maps=["gradcam"], out=folder / "run", writers=[writer]
    )
    assert isinstance(run, Run)
    return run
