"""Is a comparison whole: its tables, its report, and the runs that it is of."""

from __future__ import annotations

from collections.abc import Iterator

from exporter.comparison.folder import IMAGES, TABLES, Comparison
from exporter.errors import ExporterError
from exporter.store.links import broken_links
from exporter.writers import altered_files


def check(comparison: Comparison) -> Iterator[str]:
    """Yield a sentence for everything that is wrong with a comparison."""
    for name in (IMAGES.removesuffix(".parquet"), *TABLES):
        try:
            rows = comparison.table(name).num_rows
        except ExporterError as error:
            yield str(error)
            continue
        if name == "images" and rows != comparison.contents.images:
            yield f"{IMAGES} has {rows} images, and {comparison.contents.images} were compared"
    for run in () if comparison.anonymous else comparison.contents.runs:
        try:
            comparison.open(run)
        except ExporterError as error:
            yield f"the run {run.name} is not where it was compared: {error}"
    if comparison.files.exists("wandb"):
        yield from altered_files(comparison.files, "wandb")
    if comparison.files.exists("html"):
        yield from broken_links(comparison.files, "html")
    else:
        yield "html/ is missing; compare the runs again with --overwrite"
