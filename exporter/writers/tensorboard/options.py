"""What the TensorBoard writer is told."""

from __future__ import annotations

from exporter.writers.options import TensorBoardSettings, WriterOptions


class TensorBoardOptions(WriterOptions, TensorBoardSettings):
    """The step, the kept images and the links; see the classes it is made of."""
