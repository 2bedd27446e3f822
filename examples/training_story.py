"""What a network looks at as it learns: five checkpoints of one training, compared.

A small CNN learns scikit-learn's digits; the test images are exported with the weights of five
epochs, and the five runs become one comparison. It takes about a minute.

    pip install scikit-learn
    python examples/training_story.py STORY
    open STORY/comparison/html/index.html
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

import exporter

EPOCHS = (0, 1, 2, 5, 20)
TEST = 300
SIDE = 32


def digits_cnn() -> nn.Sequential:
    """Return the network: grey (N, 1, 32, 32) to (N, 10)."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


def pictures() -> tuple[np.ndarray, np.ndarray]:
    """Return the digits as uint8 (N, 32, 32), and their classes (N,), in a random order."""
    digits = load_digits()
    large = [cv2.resize(np.uint8(image * 15), (SIDE, SIDE)) for image in digits.images]
    order = np.random.default_rng(0).permutation(len(large))
    return np.stack(large)[order], digits.target[order]


def write_test_images(folder: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Write each image into the folder of its class."""
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / str(label) / f"{number:03d}.png"), image)


def train(images: np.ndarray, labels: np.ndarray, folder: Path) -> None:
    """Train, and keep the weights after some of the epochs."""
    torch.manual_seed(0)
    model = digits_cnn()
    inputs = torch.from_numpy(images)[:, None].float().div(255).sub(0.5).div(0.5)
    targets = torch.from_numpy(labels).long()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    folder.mkdir(parents=True, exist_ok=True)
    for epoch in range(max(EPOCHS) + 1):
        if epoch in EPOCHS:
            torch.save(model.state_dict(), folder / f"epoch-{epoch:02d}.pt")
        for batch in torch.randperm(len(inputs)).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(inputs[batch]), targets[batch]).backward()
            optimiser.step()


def main(out: Path) -> None:
    """Train, export each checkpoint and compare them."""
    images, labels = pictures()
    write_test_images(out / "test", images[:TEST], labels[:TEST])
    train(images[TEST:], labels[TEST:], out / "checkpoints")
    (out / "classes.txt").write_text("\n".join("0123456789"), encoding="utf-8")
    runs = []
    for epoch in EPOCHS:
        runs.append(out / f"run-{epoch:02d}")
        exporter.export(
            f"{Path(__file__).resolve()}:digits_cnn",
            out / "test",
            out=runs[-1],
            overwrite=(out / f"run-{epoch:02d}").exists(),
            checkpoint=out / "checkpoints" / f"epoch-{epoch:02d}.pt",
            classes=out / "classes.txt",
            preprocessing={"size": SIDE, "mean": (0.5,), "std": (0.5,)},
            maps=["gradcam", "layercam", "hirescam"],
            layers=["1", "4", "7"],
            kernels=["0", "3"],
            step=epoch,
            writers=["html"],
        )
    comparison = exporter.compare(*runs, out=out / "comparison")
    for sentence in comparison.findings:
        print(f"{sentence.about}: {sentence.text}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "story"))
