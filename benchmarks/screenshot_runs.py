"""Runs beside the demo whose reports are drawn: a detector's, a segmentation's, a ViT's.

Boxes and regions are made up, and laid over the bundled photographs through the tests' sample run;
the ViT has random weights. They show where things stand on a page, and nothing of a model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from exporter.demo import photographs

NAMES = ("chelsea", "coffee", "astronaut", "rocket", "camera", "clock")


def detection(path: Path) -> None:
    """Make the run of a detector: a given and two predicted boxes per photograph."""
    from tests.conftest import CLASSES, SampleImage, build_run

    images = [
        SampleImage(
            f"{name}.jpg",
            CLASSES[n % len(CLASSES)],
            name,
            boxes=((50.0 + 9 * n, 30.0, 190.0 + 9 * n, 190.0),),
            predicted_boxes=(
                (60.0 + 9 * n, 25.0, 205.0 + 9 * n, 180.0),
                (20.0, 120.0 + 5 * n, 130.0, 230.0),
            ),
        )
        for n, name in enumerate(NAMES)
    ]
    build_run(path, images=images)


def segmentation(path: Path) -> None:
    """Make the run of a segmentation: a given mask and a predicted region per photograph."""
    from tests.conftest import CLASSES, SampleImage, build_run

    across, down = np.meshgrid(np.linspace(-1, 1, 28), np.linspace(-1, 1, 28))
    images = [
        SampleImage(
            f"{name}.jpg",
            CLASSES[n % len(CLASSES)],
            name,
            region=(across - 0.1 * n + 0.2) ** 2 + (down - 0.1) ** 2 < 0.3,
        )
        for n, name in enumerate(NAMES)
    ]
    build_run(path, images=images)


def transformer(path: Path) -> None:
    """Make the run of a vision transformer with pixel, attention and perturbation methods."""
    import timm

    from benchmarks.fixtures import prepared
    from exporter import export

    model = prepared(timm.create_model("vit_tiny_patch16_224", pretrained=False))
    export(
        model,
        photographs(),
        out=path,
        maps=[
            "gradcam",
            "saliency",
            "inputxgradient",
            "rollout",
            "occlusion:window=0.25,stride=0.25",
        ],
        limit=8,
        sanity=True,
        faithfulness=True,
        preprocessing={"size": 224, "mean": (0.5,) * 3, "std": (0.5,) * 3},
        writers=(),
    )


RUNS: Mapping[str, Callable[[Path], None]] = {
    "detection": detection,
    "segmentation": segmentation,
    "transformer": transformer,
}
