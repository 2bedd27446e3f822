"""What watching costs a training: epochs with a `Watcher` and without, in turns, in one process.

    python -m benchmarks.watching [--epochs N] [--images N] [--batches N] [--json]

The model is torchvision's ResNet-18 with 10 outputs, trained on random images of 64 pixels; the
watcher explains 32 of them with Grad-CAM and LayerCAM at one layer, and writes TensorBoard.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet18

from exporter import Watcher


def measure(epochs: int, images: int, batches: int) -> dict[str, float]:
    """Return medians over the epochs: seconds of an epoch and of a step, and their ratio."""
    torch.manual_seed(0)
    model = resnet18(num_classes=10)
    data = TensorDataset(torch.randn(images, 3, 64, 64), torch.randint(10, (images,)))
    optimiser = torch.optim.SGD(model.parameters(), 0.01)
    trained, watched = [], []
    with tempfile.TemporaryDirectory() as folder:
        watcher = Watcher(
            data,
            out=Path(folder) / "watched",
            maps=["gradcam", "layercam"],
            layers=["layer4"],
            budget=None,
            preprocessing={"size": 64},
        )
        for epoch in range(epochs):
            begun = time.perf_counter()
            model.train()
            for _, (x, y) in zip(range(batches), DataLoader(data, 32), strict=False):
                optimiser.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
                optimiser.step()
            trained.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            watcher.step(model, epoch)
            watched.append(time.perf_counter() - begun)
    return {
        "epochs": epochs,
        "seconds per epoch": median(trained),
        "seconds per step of the watcher": median(watched),
        "ratio": median(watched) / median(trained),
        "first step of the watcher": watched[0],
    }


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--images", type=int, default=640)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    told = parser.parse_args()
    figures = measure(told.epochs, told.images, told.batches)
    if told.json:
        print(json.dumps(figures, indent=1))
    else:
        print("\n".join(f"{name:<34}{value:.3g}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
