"""A W&B run: tables of images, kernels and channels."""

from collections.abc import Iterable

from exporter.store import Run
from exporter.writers import Writer
from exporter.writers.options import WandbOptions
from exporter.writers.wandb.listing import verify_offline
from exporter.writers.wandb.writer import write

__all__ = ["WRITER", "WandbOptions"]


def _check(run: Run) -> Iterable[str]:
    return verify_offline(run.files)


WRITER = Writer(write, WandbOptions, expects="*.wandb", check=_check, in_place=True)
