"""What is in a supplement: reports, tables, the same images for all, and how they were chosen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from exporter.comparison import Comparison, compare, is_comparison, open_comparison
from exporter.comparison.folder import TABLES
from exporter.comparison.html import strips, title, write_pages
from exporter.comparison.joining import join
from exporter.comparison.predictions import predictions_of
from exporter.config import build_writer_config
from exporter.errors import ConfigError, RunError
from exporter.publish.choosing import MOST_COLUMNS, Grid, Named, lay_out, runs_of
from exporter.publish.look import Look
from exporter.publish.texts import captions_of
from exporter.render import decode_image, encode_jpeg, overlay_map
from exporter.store import ROW_SCHEMA, Run, anonymous, open_run, records_table, refuse_damaged
from exporter.store.layout import set_table
from exporter.stores import Place
from exporter.watch import Watch
from exporter.writers import find_writer
from exporter.writers.links import safe_name
from exporter.writers.writing import remembered, without_names, writer_options

RANDOM = 8
"""Images drawn at random, beside as many as the rules choose."""
SEED = 0
_AT_ONCE = 64


@dataclass(frozen=True)
class Contents:
    """What of the sources is in a supplement.

    Attributes:
        maps: whether the raw maps are, as Parquet.
        live: whether the reports paint the map of any class.
        pictured: images that are shown whole, with their maps; all if None.
    """

    maps: bool = True
    live: bool = True
    pictured: frozenset[str] | None = None


@dataclass(frozen=True)
class Source:
    """A run or a comparison that a supplement shows."""

    folder: str
    name: str
    title: str
    runs: tuple[Named, ...]
    comparison: Comparison | None = None

    def strips(self) -> Iterator[str]:
        """Yield the images that the first page of its report shows, in their order."""
        if self.comparison is not None:
            yield from (row.id for rows in strips(self.comparison).values() for row in rows)
            return
        summary = self.runs[0].run.summary
        yield from (id for strip in (summary.strips if summary else ()) for id in strip.ids)


class Supplement:
    """The sources of a supplement, open for reading."""

    def __init__(
        self,
        given: Sequence[str | Path | Run],
        work: Path,
        *,
        unnamed: bool,
        watch: Watch,
    ) -> None:
        """Open what is given."""
        self._watch = watch
        self._opened: dict[Place, Run] = {}
        self._unnamed = unnamed
        compared = [
            None if isinstance(each, Run) or not is_comparison(each) else open_comparison(each)
            for each in given
        ]
        alone = [each for each, told in zip(given, compared, strict=True) if told is None]
        named = iter(runs_of([self._open(each) for each in alone]) if alone else ())
        sources = []
        for at, told in enumerate(compared):
            if told is None:
                each = next(named)
                title = remembered(each.run.files).get("title") or each.name
                sources.append(Source("", each.name, title, (each,)))
            else:
                sources.append(self._comparison(told, work / str(at)))
        if not sources:
            raise ConfigError("nothing is given; give run folders or comparisons")
        titles = [source.title for source in sources]
        self.sources = tuple(
            replace(source, folder=folder, title=f"{title} ({source.name})")
            if source.name and titles.count(title) > 1
            else replace(source, folder=folder)
            for source, folder, title in zip(sources, _folders(sources), titles, strict=True)
        )
        runs = {named.run.path.resolve(): named for source in sources for named in source.runs}
        self.runs = tuple(runs.values())

    def _open(self, run: str | Place | Run) -> Run:
        opened = run if isinstance(run, Run) else open_run(run)
        place = opened.path.resolve()
        if place not in self._opened:
            refuse_damaged(opened, self._watch)
            self._opened[place] = opened
        opened = self._opened[place]
        return anonymous(opened) if self._unnamed else opened

    def _comparison(self, told: Comparison, work: Path) -> Source:
        contents = told.contents
        runs = [self._open(told.open(run)) for run in contents.runs]
        if self._unnamed:
            # Its tables name files and folders: it is made again without them.
            given, base = [run.path for run in runs], runs[contents.baseline].path
            told = compare(
                *given, out=work, baseline=base, writers=(), anonymous=True, watch=self._watch
            )
            runs = list(join(given, base, unnamed=True).runs)
        shown = tuple(replace(run, path="") for run in told.contents.runs)
        told = Comparison(told.files, replace(told.contents, runs=shown))
        named = tuple(map(Named, runs, (run.name for run in shown)))
        return Source("", "", f"Comparison: {title(told)}", named, told)

    @cached_property
    def chosen(self) -> Grid:
        """Images that rules choose, with every method of all runs."""
        return self._grid("chosen")

    @cached_property
    def random(self) -> Grid:
        """Images that are drawn at random, with the same maps."""
        return self._grid(f"random={RANDOM}:{SEED}")

    def _grid(self, show: str) -> Grid:
        plans = [named.run.plan for named in self.runs]
        common = [
            method.name
            for method in plans[0].methods
            if all(method.name in {own.name for own in plan.methods} for plan in plans)
        ]
        if not common:
            raise RunError("the runs have no map method in common; pack them apart")
        compared = next((s.comparison for s in self.sources if s.comparison is not None), None)
        most = max(1, MOST_COLUMNS // len(plans))
        return lay_out(self.runs, compared, show=show, maps=common[:most])

    def ids(self) -> list[str]:
        """Return all images: chosen, drawn, those of the reports' first pages, then at random."""
        first = [rows[0].id for grid in (self.chosen, self.random) for rows in grid.rows]
        first += chain.from_iterable(source.strips() for source in self.sources)
        every = dict.fromkeys(row.id for named in self.runs for row in named.run.index)
        told = dict.fromkeys(first)
        others = [id for id in every if id not in told]
        order = np.random.default_rng(SEED).permutation(len(others))
        return [*told, *(others[place] for place in order)]

    def write(self, folder: Path, contents: Contents) -> None:
        """Write reports, tables and pictures into an empty folder."""
        for source in self.sources:
            report = folder / source.folder
            report.mkdir(parents=True)
            if source.comparison is None:
                self._write_run(source.runs[0].run, report, contents)
                _write_tables(source.runs[0].run, folder / "data" / source.folder, contents)
            else:
                self._write_comparison(source, report, contents)
                _write_compared(source.comparison, folder / "data" / source.folder)
        for grid in (self.chosen, self.random):
            _write_pictures(grid, folder / "shown")

    def _write_run(self, run: Run, folder: Path, contents: Contents) -> None:
        asked = {"writers": ["html"], "single_file": False, "anonymous": self._unnamed}
        live = {} if contents.live else {"live": False}
        config = build_writer_config(asked | live, remembered(run.files))
        options = writer_options(run, without_names(config) if self._unnamed else config)["html"]
        told = options.model_copy(update={"alone": True, "pictured": contents.pictured})
        find_writer("html").write(run, folder, told)

    def _write_comparison(self, source: Source, folder: Path, contents: Contents) -> None:
        assert source.comparison is not None
        base = source.runs[source.comparison.contents.baseline].run
        joined = join([named.run for named in source.runs], base.path)
        write_pages(
            source.comparison,
            joined,
            predictions_of(joined),
            folder,
            watch=self._watch,
            pictured=contents.pictured,
        )


def _folders(sources: Sequence[Source]) -> list[str]:
    """Return a name for the report of each source, its own."""
    if len(sources) == 1:
        return ["report"]
    names = [
        "comparison" if each.comparison else f"report-{safe_name(each.name)}" for each in sources
    ]
    return [name if names.count(name) == 1 else f"{name}-{at}" for at, name in enumerate(names, 1)]


def _write_tables(run: Run, folder: Path, contents: Contents) -> None:
    """Write what the run's tables hold: all images without their pictures, the set, the maps."""
    folder.mkdir(parents=True)
    pq.write_table(run.table(), folder / "images.parquet")
    for name in ("classes", "confusion", "methods", "agreement", "faithfulness"):
        if run.complete and run.files.exists(set_table(name)):
            (folder / f"{name}.parquet").write_bytes(run.files.read(set_table(name)))
    if contents.maps:
        schema = pa.schema([ROW_SCHEMA.field(name) for name in ("id", "path", "maps")])
        with pq.ParquetWriter(folder / "maps.parquet", schema, compression="ZSTD") as file:
            rows = run.rows(["maps"])
            while part := list(islice(rows, _AT_ONCE)):
                file.write_table(records_table(part, schema))


def _write_compared(comparison: Comparison, folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in ("images", *TABLES):
        pq.write_table(comparison.table(name), folder / f"{name}.parquet")


def picture_of(grid: Grid, at: int, column: int | None = None) -> str:
    """Return the file of a photograph, or of a map over it."""
    return f"shown/{grid.rows[at][0].id}{'' if column is None else f'-{column}'}.jpg"


def _write_pictures(grid: Grid, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for at, images in enumerate(grid.rows):
        views = [decode_image(row.image or b"") for row in images]
        (folder.parent / picture_of(grid, at)).write_bytes(images[0].image or b"")
        for number, column in enumerate(grid.columns):
            stored = grid.map(images, column, None)
            over = overlay_map(views[column.of], stored, rectify=column.relu)
            (folder.parent / picture_of(grid, at, number)).write_bytes(encode_jpeg(over))


def shown_rows(grid: Grid) -> list[dict[str, Any]]:
    """Return what a page says of each image of a grid: its files and captions."""
    rows = []
    for at, images in enumerate(grid.rows):
        captions = captions_of(grid, images, Look())
        photograph, *under = ([f"{text.said}{text.tail}" for text in said] for said in captions)
        maps = [
            {"src": picture_of(grid, at, number), "lines": lines}
            for number, lines in enumerate(under)
        ]
        rows.append(
            {
                "id": images[0].id,
                "src": picture_of(grid, at),
                "label": images[0].label,
                "lines": photograph,
                "maps": maps,
            }
        )
    return rows
