"""The static HTML report."""

from exporter.store.links import broken_links
from exporter.writers import Writer
from exporter.writers.html.writer import write
from exporter.writers.options import HtmlOptions

__all__ = ["WRITER", "HtmlOptions"]


WRITER = Writer(
    write, HtmlOptions, expects="index.html", check=lambda run: broken_links(run.files, "html")
)
