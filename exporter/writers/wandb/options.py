"""What the W&B writer is told."""

from __future__ import annotations

from exporter.writers.options import TensorBoardSettings, WandbSettings, WriterOptions


class WandbOptions(WriterOptions, WandbSettings, TensorBoardSettings):
    """Where the W&B run belongs, the step it notes, the kept images and the links."""
