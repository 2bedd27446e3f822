"""The HTML report: a folder that opens from a double click, with no server and no network.

Layout: the pages of `PAGES`, ``list/NNNNN.html`` (every image, for readers without JavaScript),
``assets/``, ``data/index.js`` (the set, with the columns of the first images), ``data/columns.js``
(those of all images), ``data/NNNNN.js`` (maps of 256 images, loaded as they come into sight),
``live/`` (what paints the map of any class), ``photos/NN/ID.jpg`` (the JPEG bytes of the store),
``kernels/`` and ``maximised/``; with ``--single-file`` also ``report.html``.
"""

from __future__ import annotations

from pathlib import Path

from exporter.records import Written
from exporter.store import Run
from exporter.writers.html import text as words
from exporter.writers.html.classes import mapped_images
from exporter.writers.html.images import write_images
from exporter.writers.html.overview import drawn_images
from exporter.writers.html.pages import PAGES
from exporter.writers.html.report import Report
from exporter.writers.html.single import SINGLE, Section, write_single
from exporter.writers.html.site import InFolder, Site
from exporter.writers.html.strategies import NONE_CLUSTERED, shown_images
from exporter.writers.options import HtmlOptions
from exporter.writers.reading import templates


def write(run: Run, folder: Path, options: HtmlOptions) -> Written:
    """Write the report of a run, complete or partial.

    Returns:
        What was written: all images that are there.

    Raises:
        WriterError: if the single file does not fit.
    """
    if options.anonymous:  # names of the logs beside it say when they were made
        options = options.model_copy(update={"alone": True})
    report = Report(run, folder, options)
    pages = [page for page in PAGES if page.exists(report)]
    links = [(page.name, page.title) for page in pages if page.title]
    title = options.title or options.report.title
    site = Site(run.plan, links, options.report.model_copy(update={"title": title}))
    for name in words.ASSETS:
        report.write(f"assets/{name}", (templates() / name).read_bytes())
    drawn = drawn_images(report) | mapped_images(report) | set(shown_images(report))
    for file, context in write_images(report, drawn):
        report.write(file, site.render("list.html", "list", InFolder(file), context))
    sections = []
    for page in pages:
        for file, context in page.contents(report):
            report.write(file, site.render(page.template, page.name, InFolder(file), context))
            if options.single_file:
                sections.append(Section(file, page.template, page.name, context))
    planned, present = len(run.plan.images), len(report.index.images)
    notes = (
        [] if present == planned else [f"the run is not complete: {present} of {planned} images"]
    )
    known = {name for entry in report.index.images for name in (entry.id, entry.path)}
    notes += [
        f"the note for {name!r} is not in the report, which has no such image"
        for name in options.report.images
        if name not in known
    ]
    if report.concepts_or_why[1]:
        notes.append(report.concepts_or_why[1])
    if report.options.strategies and not report.strategies:
        notes.append(NONE_CLUSTERED)
    if options.single_file:
        notes.append(f"{SINGLE}: {write_single(report, site, sections)}")
    read = present - len(report.index.skipped)
    return Written("html", "html", "html/index.html", read, planned, tuple(notes))
