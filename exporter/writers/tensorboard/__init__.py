"""A TensorBoard log: methods as runs, layers as card groups."""

from exporter.writers import Writer
from exporter.writers.options import TensorBoardOptions
from exporter.writers.tensorboard.writer import write

__all__ = ["WRITER", "TensorBoardOptions"]

WRITER = Writer(write, TensorBoardOptions, expects="*tfevents*")
