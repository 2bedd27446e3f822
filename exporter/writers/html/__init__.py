"""The static HTML report."""

from exporter.writers.html.writer import write

__all__ = ["write"]
