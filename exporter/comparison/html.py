"""The report of a comparison: pages of the run's report's look, maps of all runs side by side.

Layout: ``index.html``, ``images.html``, ``classes.html``, ``layers.html``, ``runs.html``,
``assets/``, ``data/index.js`` and ``data/columns.js`` (what each run predicts of each image),
``data/NNNNN.js`` (the maps of 64 images in every run), ``photos/NN/ID.jpg`` and ``kernels/``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Final

from exporter.comparison.findings import unmoved
from exporter.comparison.folder import Comparison
from exporter.comparison.images import blocks
from exporter.comparison.index import PER_SHARD, write_index
from exporter.comparison.joining import Joined
from exporter.comparison.pages import PAGES, Figures
from exporter.comparison.predictions import Predictions
from exporter.comparison.records import ImageComparison
from exporter.comparison.shown import CELLS, heats, maps_shown, record_of
from exporter.records import Row
from exporter.store.replacing import new_folder
from exporter.watch import Watch
from exporter.writers.html.images import as_pictured
from exporter.writers.html.index import photograph_file
from exporter.writers.html.shards import finite, pack_shard
from exporter.writers.html.single import SINGLE, Section
from exporter.writers.html.site import InFolder, Site
from exporter.writers.options import ReportWords
from exporter.writers.reading import templates

ASSETS: Final = (
    "report.css", "compare.css", "theme.js", "tables.js", "paint.js", "data.js", "compare.js",
)  # fmt: skip

SHOWN: Final = 4
"""Images of each strip."""


@dataclass
class Report:
    """What a page's function is given."""

    comparison: Comparison
    joined: Joined
    figures: Figures
    strips: Mapping[str, Sequence[ImageComparison]]
    folder: Path
    pictured: Collection[str] | None = None

    def write(self, file: str, content: str | bytes) -> None:
        """Write a file of the report, with its folder."""
        path = self.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


@dataclass(frozen=True)
class Written:
    """A report that was written, and what its pages are made of."""

    report: Report
    predicted: Sequence[Predictions]
    site: Site
    sections: Sequence[Section]


def write_report(
    comparison: Comparison,
    joined: Joined,
    predicted: Sequence[Predictions],
    watch: Watch,
    max_size: int | None = None,
) -> None:
    """Write ``html/`` of a comparison folder, whole or not at all."""
    from exporter.comparison.single import write_single

    with new_folder(comparison.files, "html") as (place, building):
        folder = place.place(building)

        def written(folder: Path, pictured: Collection[str] | None) -> Written:
            return write_pages(
                comparison, joined, predicted, folder, watch=watch, pictured=pictured
            )

        whole = written(folder, None)
        if max_size is not None:
            watch.say(f"html/{SINGLE}: {write_single(whole, written, max_size)}")


def write_pages(
    comparison: Comparison,
    joined: Joined,
    predicted: Sequence[Predictions],
    folder: Path,
    *,
    watch: Watch,
    pictured: Collection[str] | None = None,
) -> Written:
    """Write the report of a comparison into a folder, and return what its pages are made of."""
    report = Report(comparison, joined, {}, strips(comparison), folder, pictured)
    for name in ASSETS:
        report.write(f"assets/{name}", (templates() / name).read_bytes())
    drawn = {row.id for rows in report.strips.values() for row in rows}
    _write_maps(report, drawn, watch)
    write_index(report, predicted)
    plan = replace(joined.runs[joined.baseline].plan, versions=comparison.contents.versions)
    pages = [page for page in PAGES if page.exists(report)]
    site = Site(
        plan,
        [(page.name, page.title) for page in pages],
        ReportWords(title=title(comparison)),
        brand="Comparison",
    )
    sections = []
    for page in pages:
        file = f"{page.name}.html"
        context = {"told": comparison.contents, "report": report} | page.contents(report)
        report.write(file, site.render(page.template, page.name, InFolder(file), context))
        sections.append(Section(file, page.template, page.name, context))
    return Written(report, predicted, site, sections)


def title(comparison: Comparison) -> str:
    """Return what the report is called."""
    told = comparison.contents
    models = dict.fromkeys(run.model for run in told.runs)
    names = [run.name for run in told.runs]
    if told.axis == "model" and len(models) == len(names):
        return " and ".join(names) if len(names) == 2 else f"{len(names)} models compared"
    if len(models) > 1:
        return f"{len(names)} runs of {len(models)} models"
    model = next(iter(models))
    if len(names) == 2 or told.runs[0].step is not None:
        return f"{model}, {names[0]} to {names[-1]}"
    return f"{len(names)} runs of {model}"


def strips(comparison: Comparison) -> dict[str, list[ImageComparison]]:
    """Choose the images that the first page shows, in one pass: flips, and the maps that moved."""
    lost: list[ImageComparison] = []
    won: list[ImageComparison] = []
    changed: list[ImageComparison] = []
    moved: list[ImageComparison] = []
    base = comparison.contents.baseline

    def sure(row: ImageComparison) -> float:
        # How sure the runs are of it, the least of the baseline and the last.
        return min(verdict.score or 0 for verdict in (row.verdicts[base], row.verdicts[-1]))

    for row in comparison.images():
        last = row.verdicts[-1] if base == 0 else None
        turns = {verdict.flip for verdict in row.verdicts}
        turns = {last.flip} if last is not None and last.flip else turns
        for name, list_ in (("lost", lost), ("won", won), ("changed", changed)):
            if name in turns:
                list_.append(row)
                list_.sort(key=sure, reverse=True)
                del list_[SHOWN:]
        if row.likeness is not None and not unmoved(row.likeness):
            moved.append(row)
            moved.sort(key=lambda row: row.likeness or 0)
            del moved[SHOWN:]
    return {"lost": lost, "won": won, "changed": changed, "moved": moved}


def _write_maps(report: Report, drawn: set[str], watch: Watch) -> None:
    """Write the photographs and maps of every image, and draw those of the strips."""
    joined = report.joined
    methods = {
        f"{run} {method.name}": (
            run * len(joined.methods) + at,
            record_of(joined.runs[run].plan.methods, method, run),
        )
        for run in range(len(joined.runs))
        for at, method in enumerate(joined.methods)
    }
    stages = [stage.name for stage in report.comparison.contents.stages]
    layers = {name: at for at, name in enumerate(stages)}
    names = [method.name for method in joined.methods]
    images = _images(report, drawn, stages, watch)
    number = 0
    while batch := list(islice(images, PER_SHARD)):
        alike = [
            [
                (
                    change.run,
                    names.index(change.method),
                    layers[change.stage],
                    *(finite(value, 3) for value in (change.spearman, change.ssim, change.iou)),
                )
                for change in compared.maps
            ]
            for _, compared in batch
        ]
        rows = [row for row, _ in batch]
        most = dict.fromkeys((False, True), CELLS)
        script = pack_shard(number, rows, methods, layers, (), most=most, more={"alike": alike})
        report.write(f"data/{number:05d}.js", script)
        number += 1


def _images(
    report: Report, drawn: set[str], stages: Sequence[str], watch: Watch
) -> Iterator[tuple[Row, ImageComparison]]:
    """Yield each image with the maps of all runs, its photograph written."""
    joined = report.joined
    compared = report.comparison.images()
    for start, images in blocks(joined, ("image", "crop", "maps")):
        for at, rows in enumerate(images, start):
            photograph = as_pictured(rows[joined.baseline], report.pictured)
            file = photograph_file(at, photograph.id)
            if photograph.image is not None:
                report.write(file, photograph.image)
            whole = report.pictured is None or photograph.id in report.pictured
            shown = tuple(maps_shown(rows, joined)) if whole else ()
            if photograph.id in drawn:
                report.figures[photograph.id] = (file, heats(shown, joined, stages))
            yield replace(photograph, maps=shown, image=None), next(compared)
        watch.advance(len(images))
