"""What the pages of one report are filled with: the run, and what one pass over its images told."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from exporter.records import ChannelRow, ClassRow, KernelRecord
from exporter.render import decode_image, encode_png, kernel_places
from exporter.render.sheets import GAP, INPUT_LIMIT
from exporter.store import Run
from exporter.summaries import Concepts
from exporter.writers.html.index import CHANNELS_PER_PAGE, SetIndex
from exporter.writers.html.live import Live, live_scripts
from exporter.writers.html.maximised import OF_CLASSES, Picture, write_pictures
from exporter.writers.html.shards import finite
from exporter.writers.options import HtmlOptions

if TYPE_CHECKING:
    from exporter.writers.html.neighbours import Neighbours
    from exporter.writers.html.strategies import OfClass


class Report:
    """What a page's function is given."""

    def __init__(self, run: Run, folder: Path, options: HtmlOptions) -> None:
        """Read what is small; the images are still to be passed over."""
        self.run = run
        self.plan = run.plan
        self.folder = folder
        self._folders: set[Path] = set()
        self.options = options
        self.index = SetIndex(run.plan, self.measures, options.report.images)
        self.first: list[dict[str, Any]] = []
        self.figures: dict[str, dict[str, Any]] = {}
        self.channels: Mapping[str, list[ChannelRow]] = defaultdict(list)
        for row in run.channels():
            self.channels[row.layer].append(row)
        self.pictures: Mapping[str, list[Picture]] = write_pictures(run, self.write)

    @cached_property
    def measures(self) -> Mapping[str, tuple[float | None, ...]]:
        """By image, the numbers of `MEASURES`; of those of one method, the first's."""
        first = self.plan.methods[0].name if self.plan.methods else ""
        faithful = {
            row.id: row.insertion for row in self.run.image_faithfulness() if row.method == first
        }
        return {
            row.id: tuple(
                finite(value, 3)
                for value in (
                    row.agreement,
                    row.top_share,
                    faithful.get(row.id),
                    row.pointing,
                    row.region_overlap,
                )
            )
            for row in self.run.measures()
        }

    @cached_property
    def live_or_why(self) -> tuple[Live | None, str]:
        """What paints the map of any class, or None and, where it is wanted, a sentence why."""
        if not self.options.live:
            return None, ""
        return live_scripts(self.run, set(self.options.kept))

    @property
    def live(self) -> Live | None:
        """What paints the map of any class, if there is anything."""
        return self.live_or_why[0]

    @cached_property
    def concepts_or_why(self) -> tuple[Concepts | None, str]:
        """The concepts of the layer that the head reads, or None and a sentence why."""
        from exporter.writers.html.concepts import factorised

        return factorised(self)

    @cached_property
    def strategies(self) -> Mapping[int, OfClass]:
        """By class, the clusters of its maps; empty without ``--strategies``."""
        from exporter.writers.html.strategies import of_classes

        return of_classes(self)

    @cached_property
    def neighbours(self) -> Neighbours:
        """Which of the kept images are alike to the model."""
        from exporter.writers.html.neighbours import neighbours

        return neighbours(self)

    @cached_property
    def head(self) -> NDArray[np.float32] | None:
        """The rows of the linear head, and last their biases; None with ``--no-live``."""
        return self.run.head() if self.options.live else None

    @cached_property
    def classes(self) -> tuple[ClassRow, ...]:
        """A row per class that is a label or a prediction; empty where there are none."""
        return self.run.classes()

    @cached_property
    def titles(self) -> dict[str, str]:
        """The title of each method by its name."""
        return {method.name: method.title for method in self.plan.methods}

    @cached_property
    def present(self) -> int:
        """How many images of the run are there."""
        shards = (self.plan.shards[number] for number in self.run.shards)
        return sum(stop - start for start, stop in shards)

    @cached_property
    def layer_numbers(self) -> dict[str, int]:
        """The page number of every layer that has a page, in the model's order."""
        names = [*self.channels, *(name for name in self.pictures if name != OF_CLASSES)]
        names += [record.name for record in self.run.kernels()]
        positions = {layer.name: position for position, layer in enumerate(self.plan.layers)}
        # Elements of an output (``layer[0]``), later calls and parameters are no modules.
        for name in names:
            positions.setdefault(name, len(positions))
        return dict(sorted(((name, positions[name]) for name in set(names)), key=lambda of: of[1]))

    @property
    def layer_files(self) -> dict[str, str]:
        """The page of every layer that has one."""
        return {name: layer_file(number) for name, number in self.layer_numbers.items()}

    @cached_property
    def kernel_sheets(self) -> list[dict[str, Any]]:
        """Each drawn layer's kernels: record, file, size in pixels and the layer's page."""
        sheets = []
        for number, record in enumerate(self.run.kernels()):
            sheet = decode_image(self.run.kernel_sheet(record))
            cells = self._cells(record, (sheet.shape[1], sheet.shape[0]))
            if cells:
                # Without the line above the kernels, which the page says in letters.
                top, right = cells[0][1] - GAP, max(x + wide for x, _, wide, *_ in cells) + GAP
                sheet = np.ascontiguousarray(sheet[top:, :right])
                cells = [(x, y - top, *rest) for x, y, *rest in cells]
            src, page = f"kernels/{number}.png", self.layer_files.get(record.name)
            self.write(src, encode_png(sheet))
            inputs = record.shape[1] if cells else 3
            shown = {"record": record, "src": src, "page": page, "cells": cells}
            # Several inputs, unless they are a colour, are drawn side by side.
            shown |= {"inputs": min(inputs, INPUT_LIMIT) if inputs not in (1, 3) else None}
            sheets.append(shown | {"width": sheet.shape[1], "height": sheet.shape[0]})
        return sheets

    def _cells(self, record: KernelRecord, size: tuple[int, int]) -> list[tuple[Any, ...]]:
        """Return each kernel on a sheet: left, top, width, height, its channel's page, channel."""
        drawn, places = kernel_places(record.shape, record.shown)
        if drawn != size:  # a sheet of another version
            return []
        number = self.layer_numbers[record.name]
        return [
            (*place, layer_file(number, kernel // CHANNELS_PER_PAGE), kernel)
            for kernel, place in enumerate(places)
        ]

    def write(self, file: str, content: str | bytes) -> None:
        """Write a file of the report, with its folder."""
        path = self.folder / file
        # Of 100,000 photographs each call counts.
        if path.parent not in self._folders:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._folders.add(path.parent)
        if isinstance(content, str):
            content = content.encode("utf-8", "backslashreplace")
        path.write_bytes(content)


def neighbours(pages: Sequence[tuple[str, str]], at: int) -> list[tuple[str, str, str]]:
    """Return (``rel``, file, name) of the page before and of the page after one, if any.

    >>> neighbours([("a.html", "a"), ("b.html", "b")], 0)
    [('next', 'b.html', 'b')]
    """
    neighbouring = (("prev", at - 1), ("next", at + 1))
    return [(rel, *pages[place]) for rel, place in neighbouring if 0 <= place < len(pages)]


def layer_file(number: int, part: int = 0) -> str:
    """Return the page of a layer, or of a later part of its channels.

    >>> layer_file(7), layer_file(7, 1)
    ('layers/7.html', 'layers/7-2.html')
    """
    return f"layers/{number}.html" if part == 0 else f"layers/{number}-{part + 1}.html"
