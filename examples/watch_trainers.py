"""Two train loops that people copy, watched: timm's ``train.py`` and torchvision's references.

    pip install 'exporter[demo]' scikit-learn
    python examples/watch_trainers.py runs/trainers

Both learn scikit-learn's digits, in the parts that those scripts are made of; each takes one line
for the watcher, marked below, and a ``with`` around the loop. Neither script is in its package, so
that their loops are written out here.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import timm.data
import timm.optim
import timm.scheduler
import timm.utils
import torch
import torchvision
from sklearn.datasets import load_digits
from torch import nn
from torchvision.transforms import v2

import exporter

SIDE = 64
STEPS = {"mean": (0.5,) * 3, "std": (0.5,) * 3}


def digits(folder: Path, each: int) -> Path:
    """Write so many pictures of each digit, in a folder each, and return where they are."""
    known = load_digits()
    for label in range(10):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        for number, picture in enumerate(known.images[known.target == label][:each]):
            large = cv2.resize(picture * 15.9, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(folder / str(label) / f"{number:03}.png"), large.clip(0, 255))
    return folder


def settings() -> dict[str, object]:
    """Return how a watcher prepares the pictures: as both trainings do."""
    return {"preprocessing": {"size": SIDE, "resize": SIDE, **STEPS}, "limit": 8, "budget": None}


def validate(model: nn.Module, loader: object, loss_fn: nn.Module) -> dict[str, float]:
    """Return the loss and the accuracy in percent, as both scripts do after an epoch."""
    model.eval()
    losses, top1 = timm.utils.AverageMeter(), timm.utils.AverageMeter()
    with torch.inference_mode():
        for inputs, target in loader:
            output = model(inputs)
            losses.update(loss_fn(output, target).item(), len(inputs))
            top1.update(timm.utils.accuracy(output, target)[0].item(), len(inputs))
    return {"loss": losses.avg, "top1": top1.avg}


def with_timm(images: Path, out: Path, epochs: int) -> nn.Module:
    """Train as timm's ``train.py`` does, with a moving average of the weights."""
    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=10)
    model_ema = timm.utils.ModelEmaV3(model, decay=0.9)
    data = timm.data.create_dataset("", root=str(images))
    parts = {"input_size": (3, SIDE, SIDE), "batch_size": 32, "use_prefetcher": False, **STEPS}
    loader_train = timm.data.create_loader(data, is_training=True, num_workers=0, **parts)
    data = timm.data.create_dataset("", root=str(images))
    loader_eval = timm.data.create_loader(data, num_workers=0, crop_pct=1.0, **parts)
    optimizer = timm.optim.create_optimizer_v2(model, opt="adamw", lr=3e-3)
    scheduler, _ = timm.scheduler.create_scheduler_v2(optimizer, num_epochs=epochs)
    loss_fn = nn.CrossEntropyLoss()
    with exporter.Watcher(images, out=out, maps=["gradcam"], **settings()) as watcher:
        for epoch in range(epochs):
            model.train()
            for inputs, target in loader_train:
                optimizer.zero_grad()
                loss_fn(model(inputs), target).backward()
                optimizer.step()
                model_ema.update(model)
            eval_metrics = validate(model_ema.module, loader_eval, loss_fn)
            watcher.step(model_ema, epoch, **eval_metrics)  # the line that is added
            scheduler.step(epoch + 1, eval_metrics["top1"])
    return model


def with_references(images: Path, out: Path, epochs: int) -> nn.Module:
    """Train as torchvision's ``references/classification/train.py`` does."""
    torch.manual_seed(0)
    steps = [v2.ToImage(), v2.Resize(SIDE), v2.ToDtype(torch.float32, scale=True)]
    transform = v2.Compose([*steps, v2.Normalize(**STEPS)])
    dataset = torchvision.datasets.ImageFolder(str(images), transform)
    data_loader = torch.utils.data.DataLoader(dataset, batch_size=32, shuffle=True)
    model = torchvision.models.resnet18(num_classes=10)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    lr_scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=30)
    with exporter.Watcher(images, out=out, maps=["gradcam"], **settings()) as watcher:
        for epoch in range(epochs):
            model.train()
            for image, target in data_loader:
                loss = criterion(model(image), target)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            lr_scheduler.step()
            metrics = validate(model, data_loader, criterion)
            watcher.step(model, epoch, **metrics)  # the line that is added
    return model


if __name__ == "__main__":
    place = Path(sys.argv[1])
    with_timm(digits(place / "digits", 20), place / "timm", 5)
    with_references(place / "digits", place / "references", 5)
