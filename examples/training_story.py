"""What a network looks at as it learns: a training that is watched, epoch by epoch.

    pip install scikit-learn
    python examples/training_story.py --out runs/examples

A small CNN learns scikit-learn's digits. A ``Watcher`` explains the same test images at five epochs
and compares them in the end (``OUT/training_story/run/comparison/html/index.html``); the picture
shows the images whose maps moved most. The training's own W&B run (offline) gets curves and tables.
It takes about a minute.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
import wandb
from pictures import Picture, arguments, lay_out, save
from sklearn.datasets import load_digits
from torch import nn

import exporter
from exporter import Comparison, Run

EPOCHS = (0, 1, 2, 5, 20)
SIDE = 32
ROWS = 5


def digits_cnn() -> nn.Sequential:
    """Return the network: grey (N, 1, 32, 32) to (N, 10)."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


def train(
    images: np.ndarray, labels: np.ndarray, epochs: tuple[int, ...], watcher: exporter.Watcher
) -> None:
    """Train on (N, 32, 32) uint8, and have the weights at some epochs explained."""
    torch.manual_seed(0)
    model = digits_cnn()
    inputs = torch.from_numpy(images)[:, None].float().div(255).sub(0.5).div(0.5)
    targets = torch.from_numpy(labels).long()
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    loss = nn.functional.cross_entropy(model(inputs), targets)
    for epoch in range(max(epochs) + 1):
        if epoch in epochs:
            watcher.step(model, epoch, loss=loss)
        for batch in torch.randperm(len(inputs)).split(64):
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs[batch]), targets[batch])
            loss.backward()
            optimiser.step()


def main(out: Path, *, small: bool = False) -> Path:
    """Train, explain at some epochs, and draw the images whose maps moved most."""
    place, epochs, test = out / "training_story", EPOCHS, 300
    if small:
        epochs, test = (0, 12), 24
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.images))[: 400 if small else None]
    images = [cv2.resize(np.uint8(digits.images[n] * 15), (SIDE, SIDE)) for n in order]
    labels = digits.target[order]
    for number, (image, label) in enumerate(zip(images[:test], labels, strict=False)):
        (place / "test" / str(label)).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(place / "test" / str(label) / f"{number:03d}.png"), image)
    own = wandb.init(project="digits", dir=place, mode="offline", settings={"silent": True})
    with (
        own,
        exporter.Watcher(
            place / "test",
            out=place / "run",
            wandb_run=own,
            limit=test,
            classes=list("0123456789"),
            preprocessing={"size": SIDE, "resize": SIDE, "mean": (0.5,), "std": (0.5,)},
            maps=["gradcam", "layercam", "hirescam"],
            layers=["1", "4", "7"],
            kernels=["0", "3"],
            budget=None,
        ) as watcher,
    ):
        train(np.stack(images[test:]), labels[test:], epochs, watcher)
    runs = exporter.open_run(place / "run").epochs
    comparison = exporter.open_comparison(place / "run" / "comparison")
    told = comparison.contents.runs
    for compared, run in zip(told, runs.values(), strict=True):
        assert run.summary is not None
        assert compared.accuracy == run.summary.accuracy  # counted in both
    assert [run.step for run in told] == list(epochs)
    assert (told[-1].accuracy or 0) > (told[0].accuracy or 0)
    for finding in comparison.findings:
        print(f"{finding.about}: {finding.text}")
    return save(draw(comparison, list(runs.values())), out / "training_story.jpg")


def draw(comparison: Comparison, runs: list[Run]) -> Picture:
    """Draw Grad-CAM at the deepest layer: a row per image, a column per checkpoint."""
    rows = sorted(comparison.images(), key=lambda row: row.likeness or 0)[:ROWS]
    tiles = [
        [
            (
                f"{run.name}: {said.name} {100 * (said.score or 0):.0f} %",
                cv2.resize(np.asarray(own.overlay(row.id, "gradcam")), (128, 128)),
            )
            for run, said, own in zip(comparison.contents.runs, row.verdicts, runs, strict=True)
        ]
        for row in rows
    ]
    return lay_out(tiles, "Grad-CAM of the predicted digit at layer 7, epoch by epoch")


if __name__ == "__main__":
    print(main(arguments(__doc__).out))
