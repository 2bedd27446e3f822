"""What a network looks at as it learns: runs of the same images, epoch by epoch."""

from exporter.training.budget import Budget
from exporter.training.watcher import Watcher

__all__ = ["Budget", "Watcher"]
