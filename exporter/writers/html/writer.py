"""The HTML report: a folder that opens from a double click, with no server and no network.

Layout: ``index.html``, ``images.html``, ``layers.html``, ``layers/N.html``, ``kernels.html``,
``methods.html``, ``list/NNNNN.html`` (every row, for readers without JavaScript), ``assets/``,
``data/index.js`` (columns of the whole set), ``data/NNNNN.js`` (maps of 256 images, loaded as they
come into sight) and ``photos/NN/ID.jpg`` (the JPEG bytes of the store).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.records import Written
from exporter.writers.html import classes as html_classes
from exporter.writers.html import layers, maximised, pages
from exporter.writers.html import set as html_set
from exporter.writers.html.images import write_images
from exporter.writers.html.index import IMAGES_A_SHARD, index_script, parts
from exporter.writers.html.options import HtmlOptions
from exporter.writers.html.single import SINGLE, write_single
from exporter.writers.html.site import Site

if TYPE_CHECKING:
    from exporter.store import Run


def write(run: Run, folder: Path, options: HtmlOptions) -> Written:
    """Write the report of a run, complete or partial.

    Args:
        run: the run folder.
        folder: an empty folder to write in.
        options: what only the writers read; ``kept`` images get a link to TensorBoard and the
            sheets of their strongest channels.

    Returns:
        What was made: all images that are there.

    Raises:
        WriterError: if an image's id could not be a file's name.
    """
    report = _Report(run, folder, options)
    report.write_pages()
    planned, present = len(run.plan.images), len(report.index.ids)
    notes = (
        [] if present == planned else [f"the run is not complete: {present} of {planned} images"]
    )
    if options.single_file:
        _, said = write_single(run, folder, options, report.site.text, report.channel_pages)
        notes.append(f"{SINGLE}: {said}")
    return Written("html", "html", "html/index.html", present, planned, tuple(notes))


class _Report:
    """One report while it is written: its images are there, its other pages are made of them."""

    def __init__(self, run: Run, folder: Path, options: HtmlOptions) -> None:
        self.run = run
        self.plan = run.plan
        self.folder = folder
        self.options = options
        self.kernels = run.kernels()
        self.set = html_set.gather(run)
        self.made = maximised.write_pictures(run, folder)
        self.channel_pages: dict[str, tuple[int, int]] = {}
        self.site = Site(
            folder, self.plan, classes=self._class_contents, kernels=bool(self.kernels)
        )
        self.site.copy_assets()
        drawn = html_set.strip_ids(self.set) or set(pages.strip_choice(options))
        self.images = write_images(run, self.site, options, drawn)
        self.index = self.images.index

    def write_pages(self) -> None:
        """Write every page that is not a list of images."""
        recorded = self._recorded()
        shown = [*recorded, *(name for name in self.made if name != maximised.OF_CLASSES)]
        numbers = layers.layer_numbers(self.plan, shown, self.kernels)
        links = {name: f"layers/{layers.layer_file(number)}" for name, number in numbers.items()}
        sheets = layers.kernel_sheets(self.run, self.kernels, links)
        strips = html_set.strips(self.set, self.images.figures)
        chosen = [self.images.figures[id] for id in self.options.kept if id in self.images.figures]
        contents = pages.overview(self.run, self.index, self.options)
        self.site.page(
            "index.html",
            "index.html",
            "index",
            contents
            | {
                "strips": strips,
                "kept": [] if strips else chosen,
                "layer_links": links,
                "calibration": html_set.calibration(self.set),
                "top5": self.set.summary.top5_accuracy if self.set.summary else None,
                "pairs": html_set.pairs(self.set, self.plan, html_set.PAIRS_ON_OVERVIEW, ""),
            },
        )
        self._images_page()
        channel_pages = {name: (numbers[name], len(rows)) for name, rows in recorded.items()}
        self.channel_pages = channel_pages
        script = index_script(
            self.index,
            self.plan,
            self.options,
            channel_pages=channel_pages,
            class_pages=[one.index for one in self.set.classes],
        )
        self.site.write("data/index.js", script)
        types = {record.name: record.type for record in self.kernels}
        table = layers.layers_table(self.plan, links, types, list(self.made))
        self.site.page("layers.html", "layers.html", "layers", table)
        self._layer_pages(numbers, recorded, sheets)
        self._class_pages()
        if sheets:
            (self.folder / "kernels").mkdir()
            for place, record in enumerate(self.kernels):
                picture = self.folder / f"kernels/{place}.png"
                picture.write_bytes(self.run.kernel_sheet(record))
            self.site.page("kernels.html", "kernels.html", "kernels", {"sheets": sheets})
        if self.plan.methods:
            contents = pages.methods_page(self.plan, self.index)
            for one in contents["methods"]:
                one["concentration"] = html_set.concentration(self.set, one["record"].name)
            contents["agreement"] = html_set.agreement(self.set, self.plan)
            contents["faithfulness"] = html_set.faithfulness(self.run)
            self.site.page("methods.html", "methods.html", "methods", contents)

    def _images_page(self) -> None:
        height, width = self.plan.model.preprocessing.size
        cuts = parts(len(self.index.ids), IMAGES_A_SHARD)
        self.site.page(
            "images.html",
            "images.html",
            "images",
            {
                "first": self.images.first,
                "total": len(self.index.ids),
                "per_list": IMAGES_A_SHARD,
                "still": round(160 * height / width),
                "lists": [
                    (f"list/{at:05d}.html", f"{start + 1}–{stop}")
                    for at, (start, stop) in enumerate(cuts)
                ],
            },
        )

    @property
    def _class_contents(self) -> bool:
        """Whether there is something to say of classes."""
        return bool(self.set.classes or self.made.get(maximised.OF_CLASSES))

    def _class_pages(self) -> None:
        if not self._class_contents:
            return
        summary, made = self.set.summary, self.made.get(maximised.OF_CLASSES, [])
        (self.folder / "classes").mkdir()
        self.site.page(
            "classes.html",
            "classes.html",
            "classes",
            {
                "classes": self.set.classes,
                "summary": summary,
                "method_titles": {one.name: one.title for one in self.plan.methods},
                "pairs": html_set.pairs(self.set, self.plan, html_set.PAIRS_ON_CLASSES, ""),
                "galleries": maximised.class_gallery(made, {one.index for one in self.set.classes}),
            },
        )
        for file, contents in html_classes.class_pages(self.run, self.set.classes, self.index):
            index = contents["row"].index
            contents["made"] = [one for one in made if one.channel == index]
            self.site.page(file, "class.html", "classes", contents)

    def _recorded(self) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for row in self.run.channels():
            found.setdefault(row.layer, []).append(row)
        return found

    def _layer_pages(
        self, numbers: dict[str, int], recorded: dict[str, list[Any]], sheets: list[layers.Sheet]
    ) -> None:
        if numbers:
            (self.folder / "layers").mkdir()
        records = {layer.name: layer for layer in self.plan.layers}
        redundant: dict[str, list[Any]] = {}
        for pair in self.set.redundant:
            redundant.setdefault(pair.layer, []).append(pair)
        order = list(numbers)
        for at, (name, number) in enumerate(numbers.items()):
            beside = [("prev", at - 1), ("next", at + 1)]
            neighbours = [
                (rel, layers.layer_file(numbers[order[other]]), order[other])
                for rel, other in beside
                if 0 <= other < len(order)
            ]
            shared = {
                "layer": {"name": name, "explained": name in self.plan.explained},
                "record": records.get(name),
                "neighbours": neighbours,
                "sheets": [sheet for sheet in sheets if sheet.name == name],
            }
            channels = recorded.get(name, [])
            made = self.made.get(name, [])
            by_channel = {row.channel: row for row in channels}
            galleries = maximised.gallery(made, by_channel, number)
            for part in layers.channel_pages(channels, self.index, number, redundant.get(name, [])):
                if part["script"]:
                    self.site.write(f"layers/{part['script']}", part["tops"])
                part["made"] = {one.channel: one for one in reversed(made)}
                # All of them on the first page of a layer; each beside its channel on every one.
                part["galleries"] = galleries if part["is_first"] else []
                self.site.page(f"layers/{part['file']}", "layer.html", "layers", shared | part)
