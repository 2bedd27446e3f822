"""A TensorBoard log: methods as runs, layers as card groups."""

from exporter.writers.tensorboard.writer import write

__all__ = ["write"]
