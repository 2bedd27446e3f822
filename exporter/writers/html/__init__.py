"""The static HTML report."""

from collections.abc import Iterator

from exporter.store import Run
from exporter.store.links import broken_links
from exporter.writers import Writer
from exporter.writers.html.writer import write
from exporter.writers.options import HtmlOptions

__all__ = ["WRITER", "HtmlOptions"]


def _check(run: Run) -> Iterator[str]:
    return broken_links(run.files, "html")


WRITER = Writer(write, HtmlOptions, expects="index.html", check=_check)
