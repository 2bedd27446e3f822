"""What the writer of the report is told."""

from __future__ import annotations

from exporter.writers.options import HtmlSettings, WandbSettings, WriterOptions


class HtmlOptions(WriterOptions, HtmlSettings, WandbSettings):
    """The single file, the kept images and the links, to W&B too; see what it is made of."""
