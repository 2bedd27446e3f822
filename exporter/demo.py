"""The demo: bundled photographs and a real ImageNet model, offline; and small runs for examples."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import exporter
from exporter.config import RunConfig, build_config
from exporter.errors import ConfigError, RunError
from exporter.store import Run, open_run

if TYPE_CHECKING:
    from torch import nn

    from exporter.engines import Recipe

_SPEC = "demo"


def photographs() -> Path:
    """Return the folder of the bundled photographs.

    Raises:
        ConfigError: if the installation lacks them.
    """
    here = Path(__file__).resolve().parent
    for folder in (here / "_photos", here.parent / "examples" / "photos"):
        if folder.is_dir():
            return folder
    raise ConfigError("the demo's photographs are not installed; reinstall the exporter package")


def demo_config(out: Path) -> RunConfig:
    """Return the demo's settings."""
    return build_config(
        model=_SPEC,
        images=str(photographs() / "*.jpg"),
        out=out,
        maps=("gradcam", "gradcam++", "layercam", "hirescam", "eigencam"),
    )


def is_demo(out: Path) -> bool:
    """Return whether a folder holds a demo that a new one may replace."""
    try:
        return open_run(out).plan.model.spec == _SPEC
    except RunError:
        return False


def example_model(seed: int = 0) -> nn.Module:
    """Return a tiny classifier of two classes with random weights, for examples."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = nn.Conv2d(3, 4, 3, stride=8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        return nn.Sequential(*layers, nn.Linear(4, 2))


def example_recipe() -> Recipe:
    """Return how to run `example_model` over two photographs, in a folder of its own."""
    from exporter.engines import Recipe

    out = Path(tempfile.mkdtemp(prefix="exporter-example-")) / "run"
    config = build_config(
        model="exporter.demo:example_model", images=str(photographs()), limit=2,
        maps=["gradcam"], out=out,
    )  # fmt: skip
    return Recipe(config)


@cache
def example_run(seed: int = 0) -> Run:
    """Run `example_model` over two photographs, in a temporary folder; once for each seed.

    >>> example_run().totals.images
    2
    """
    out = Path(tempfile.mkdtemp(prefix="exporter-example-")) / f"run-{seed}"
    return exporter.export(
        example_model(seed), photographs(), out=out, maps=["gradcam"], limit=2, writers=()
    )
