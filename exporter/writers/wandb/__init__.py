"""A W&B run: tables of images, kernels and channels."""

from exporter.writers import Writer
from exporter.writers.options import WandbOptions
from exporter.writers.wandb.place import verify_offline
from exporter.writers.wandb.writer import write

__all__ = ["WRITER", "WandbOptions"]


WRITER = Writer(
    write,
    WandbOptions,
    expects="*.wandb",
    check=lambda run: verify_offline(run.files),
    in_place=True,
)
