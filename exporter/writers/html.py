"""The HTML report: a folder that opens from a double click, with no server and no network.

Layout: ``index.html``, ``images.html``, ``layers.html``, ``layers/N.html``, ``kernels.html``,
``methods.html``, ``list/NNNNN.html`` (every row, for readers without JavaScript), ``assets/``,
``data/index.js`` (columns of the whole set), ``data/NNNNN.js`` (maps of 256 images, loaded as they
come into sight) and ``photos/NN/ID.jpg`` (the JPEG bytes of the store).
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.errors import WriterError
from exporter.records import Row, Written
from exporter.writers import html_classes, html_set
from exporter.writers import html_layers as layers
from exporter.writers import html_maximised as maximised
from exporter.writers import html_pages as pages
from exporter.writers import html_text as words
from exporter.writers.html_figures import draw_figure
from exporter.writers.html_index import (
    IMAGES_A_SHARD,
    SetIndex,
    explained_layers,
    index_script,
    parts,
    photograph,
    shows_probability,
)
from exporter.writers.html_shards import pack_shard
from exporter.writers.html_single import SINGLE, write_single
from exporter.writers.options import WriterOptions

if TYPE_CHECKING:
    from exporter.store import Run

FIRST_PHOTOGRAPHS = 200
_ID = re.compile(r"[0-9A-Za-z_-]{1,120}")


def write(run: Run, folder: Path, options: WriterOptions) -> Written:
    """Write the report of a run, complete or partial.

    Args:
        run: the run folder.
        folder: an empty folder to write in.
        options: what only the writers read; ``kept`` images get a link to TensorBoard.

    Returns:
        What was made: all images that are there.

    Raises:
        WriterError: if an image's id could not be a file's name.
    """
    report = _Report(run, folder, options)
    report.copy_assets()
    report.write_images()
    report.write_pages()
    planned, present = len(run.plan.images), len(report.index.ids)
    notes = (
        [] if present == planned else [f"the run is not complete: {present} of {planned} images"]
    )
    if options.single_file:
        _, said = write_single(run, folder, options, report.text, report.channel_pages)
        notes.append(f"{SINGLE}: {said}")
    return Written("html", "html", "html/index.html", present, planned, tuple(notes))


class _Report:
    """The state of one report while it is written: its templates and what the set adds up to."""

    def __init__(self, run: Run, folder: Path, options: WriterOptions) -> None:
        self.run = run
        self.plan = run.plan
        self.folder = folder
        self.options = options
        self.probability = shows_probability(self.plan)
        self.index = SetIndex(probability=self.probability)
        self.first: list[dict[str, Any]] = []
        self.strip: dict[str, dict[str, Any]] = {}
        self.kernels = run.kernels()
        self.set = html_set.gather(run)
        self.made = maximised.write_pictures(run, folder)
        self.channel_pages: dict[str, tuple[int, int]] = {}
        self.environment = words.environment()
        links = [("index", "index.html", "Overview"), ("images", "images.html", "Images")]
        links.append(("layers", "layers.html", "Layers"))
        if self._class_contents:
            links.append(("classes", "classes.html", "Classes"))
        if self.kernels:
            links.append(("kernels", "kernels.html", "Kernels"))
        if self.plan.methods:
            links.append(("methods", "methods.html", "Methods"))
        self.common: dict[str, Any] = {
            "plan": self.plan,
            "pages": links,
            "csp": words.POLICY,
            "icon": words.icon(),
            "colorbars": words.colour_bars(),
            "labelled": any(entry.label is not None for entry in self.plan.images),
            "judged": bool(self.plan.label_index),
            "version": self.plan.versions.get("exporter", ""),
        }

    def copy_assets(self) -> None:
        """Copy the style sheet and the scripts."""
        source, target = words.templates(), self.folder / "assets"
        target.mkdir()
        for name in words.ASSETS:
            shutil.copyfile(source / name, target / name)

    def page(self, file: str, template: str, name: str, contents: dict[str, Any]) -> None:
        """Render one template into one file."""
        _write(self.folder / file, self.text(file, template, name, contents))

    def text(self, file: str, template: str, name: str, contents: dict[str, Any]) -> str:
        """Render one template as the text of a file."""
        values = self.common | contents
        root = "../" * file.count("/")
        text: str = self.environment.get_template(template).render(**values, root=root, page=name)
        return text

    # ------------------------------------------------------------ images

    def write_images(self) -> None:
        """Write photographs, shards and lists in one pass over the rows, then the index."""
        for name in ("data", "photos", "list", "figures"):
            (self.folder / name).mkdir()
        methods = {one.name: (place, one) for place, one in enumerate(self.plan.methods)}
        names = {name: place for place, name in enumerate(explained_layers(self.plan))}
        strip = html_set.strip_ids(self.set) or set(pages.strip_choice(self.options))
        kept = set(self.options.kept)
        folders: set[str] = set()
        for number, rows in enumerate(_batches(self.run.rows(), IMAGES_A_SHARD)):
            lines = []
            for row in rows:
                position = len(self.index.ids)
                if not _ID.fullmatch(row.id):
                    raise WriterError(f"the id {row.id!r} cannot name a file; ids are hexadecimal")
                self.index.add(row, kept=row.id in kept)
                line = pages.list_row(row, position, probability=self.probability)
                lines.append(line)
                if row.image is not None:
                    self._photograph(photograph(position, row.id), row.image, folders)
                    if len(self.first) < FIRST_PHOTOGRAPHS:
                        self.first.append(line)
                    if row.id in strip:
                        drawn, picture = draw_figure(row, row.image, line, self.plan)
                        drawn["reason"] = self.options.kept_reason.get(row.id, "")
                        if picture:
                            (self.folder / drawn["src"]).write_bytes(picture)
                        self.strip[row.id] = drawn
            _write(self.folder / f"data/{number:05d}.js", pack_shard(number, rows, methods, names))
            self._list(number, lines)

    def _photograph(self, name: str, encoded: bytes, folders: set[str]) -> None:
        parent = name.rpartition("/")[0]
        if parent not in folders:
            (self.folder / parent).mkdir(exist_ok=True)
            folders.add(parent)
        with open(f"{self.folder}/{name}", "wb", buffering=0) as file:  # noqa: PTH123
            file.write(encoded)

    def _list(self, number: int, lines: list[dict[str, Any]]) -> None:
        height, width = self.plan.model.preprocessing.size
        start, total = number * IMAGES_A_SHARD, sum(b - a for a, b in self._present())
        self.page(
            f"list/{number:05d}.html",
            "list.html",
            "list",
            {
                "rows": lines,
                "first": start + 1,
                "last": start + len(lines),
                "of": total,
                "before": f"{number - 1:05d}.html" if number else None,
                "after": f"{number + 1:05d}.html" if start + len(lines) < total else None,
                "thumb": round(96 * height / width),
                "score_unit": "probability" if self.probability else "raw output",
            },
        )

    def _present(self) -> list[tuple[int, int]]:
        return [self.plan.shards[index] for index in self.run.shards]

    # ------------------------------------------------------------ pages

    def write_pages(self) -> None:
        """Write every page that is not a list of images."""
        recorded = self._recorded()
        shown = [*recorded, *(name for name in self.made if name != maximised.CLASSES)]
        numbers = layers.layer_numbers(self.plan, shown, self.kernels)
        links = {name: f"layers/{layers.layer_file(number)}" for name, number in numbers.items()}
        sheets = layers.kernel_sheets(self.run, self.kernels, links)
        strips = html_set.strips(self.set, self.strip)
        chosen = [self.strip[id] for id in self.options.kept if id in self.strip]
        contents = pages.overview(self.run, self.index, self.options)
        self.page(
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
        _write(self.folder / "data/index.js", script)
        types = {record.name: record.type for record in self.kernels}
        table = layers.layers_table(self.plan, links, types, list(self.made))
        self.page("layers.html", "layers.html", "layers", table)
        self._layer_pages(numbers, recorded, sheets)
        self._class_pages()
        if sheets:
            (self.folder / "kernels").mkdir()
            for place, record in enumerate(self.kernels):
                picture = self.folder / f"kernels/{place}.png"
                picture.write_bytes(self.run.kernel_sheet(record))
            self.page("kernels.html", "kernels.html", "kernels", {"sheets": sheets})
        if self.plan.methods:
            contents = pages.methods_page(self.plan, self.index)
            for one in contents["methods"]:
                one["concentration"] = html_set.concentration(self.set, one["record"].name)
            contents["agreement"] = html_set.agreement(self.set, self.plan)
            contents["faithfulness"] = html_set.faithfulness(self.run)
            self.page("methods.html", "methods.html", "methods", contents)

    def _images_page(self) -> None:
        height, width = self.plan.model.preprocessing.size
        cuts = parts(len(self.index.ids), IMAGES_A_SHARD)
        self.page(
            "images.html",
            "images.html",
            "images",
            {
                "first": self.first,
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
        return bool(self.set.classes or self.made.get(maximised.CLASSES))

    def _class_pages(self) -> None:
        if not self._class_contents:
            return
        summary, made = self.set.summary, self.made.get(maximised.CLASSES, [])
        (self.folder / "classes").mkdir()
        self.page(
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
            self.page(file, "class.html", "classes", contents)

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
                    _write(self.folder / f"layers/{part['script']}", part["tops"])
                part["made"] = {one.channel: one for one in reversed(made)}
                # All of them on the first page of a layer; each beside its channel on every one.
                part["galleries"] = galleries if part["is_first"] else []
                self.page(f"layers/{part['file']}", "layer.html", "layers", shared | part)


def _batches(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    while batch := list(islice(rows, size)):
        yield batch


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
