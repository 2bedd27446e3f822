"""W&B tables, online or offline."""

from exporter.writers.wandb.writer import write

__all__ = ["write"]
