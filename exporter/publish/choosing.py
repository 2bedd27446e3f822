"""Which runs, images and maps a figure shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from exporter.comparison import Comparison, is_comparison, open_comparison
from exporter.comparison.html import strips
from exporter.errors import ConfigError, RunError, choices, reason
from exporter.records import Row, StoredMap
from exporter.store import Run, anonymous, open_run

_LISTED = "those of the list "
MOST_ROWS = 40
MOST_COLUMNS = 24
_CHOSEN = 4
_STRIPS = {
    "lost": "right to wrong",
    "won": "wrong to right",
    "changed": "another prediction",
    "moved": "maps that changed most",
}
"""What the strips of a comparison show."""


@dataclass(frozen=True)
class Named:
    """A run and what a figure calls it."""

    run: Run
    name: str


@dataclass(frozen=True)
class Column:
    """One column of maps, of the run at a place; its layer may be ``deepest``."""

    of: int
    method: str
    title: str
    layer: str
    relu: bool


@dataclass(frozen=True)
class Grid:
    """Images × maps of one run or several: by image its row of each run, and all columns."""

    runs: tuple[Named, ...]
    rows: tuple[tuple[Row, ...], ...]
    columns: tuple[Column, ...]
    rule: str

    def map(self, images: Sequence[Row], column: Column, target: str | None) -> StoredMap:
        """Return the map of an image in a column.

        Raises:
            RunError: if the run has no such map.
        """
        run = self.runs[column.of].run
        return run.stored(images[column.of], column.method, column.layer, target)


def grid_of(given: Sequence[str | Path | Run], **asked: Any) -> Grid:
    """Choose what a figure shows of run folders, or of one comparison folder; as `lay_out`."""
    return lay_out(*opened(given), **asked)


def lay_out(
    runs: Sequence[Named],
    comparison: Comparison | None,
    *,
    images: Sequence[str | PathLike[str]] = (),
    show: str = "",
    maps: Sequence[str] = (),
    layers: Sequence[str] = (),
) -> Grid:
    """Choose what is shown of runs, and of their comparison.

    ``images``, ``show``, ``maps`` and ``layers`` are those of `exporter.figure`.

    Raises:
        RunError: if a run has no such image, method or layer, or the runs share no image.
        ConfigError: if both ``images`` and ``show`` are given, or ``show`` says nothing.
    """
    images = (images,) if isinstance(images, str) else images
    maps, layers = ((given,) if isinstance(given, str) else given for given in (maps, layers))
    first = runs[0].run
    if images and show:
        raise ConfigError("give images by name or a rule that shows some, not both")
    flips = None if comparison is None or show not in ("", "chosen") else _flips(comparison)
    ids, rule = (images, "") if images else flips or _shown(runs, show or "chosen")
    if len(ids) > MOST_ROWS:
        raise ConfigError(f"a figure of {len(ids)} images has no room; show at most {MOST_ROWS}")
    rows = []
    for id in ids:
        row = first.row(id)
        rows.append((row, *(named.run.row(row.id) for named in runs[1:])))
        for named, other in zip(runs, rows[-1], strict=True):
            if other.image is None:
                raise RunError(f"the image {other.path!r} of {named.name} has no picture")
    columns = tuple(_columns(runs, rows[0], maps, layers))
    if not 0 < len(columns) <= MOST_COLUMNS:
        raise ConfigError(
            f"the figure would have {len(columns)} columns of maps; name 1 to {MOST_COLUMNS} by "
            "maps and layers"
        )
    return Grid(tuple(runs), tuple(rows), columns, rule)


def opened(given: Sequence[str | Path | Run]) -> tuple[list[Named], Comparison | None]:
    """Open run folders, or the one comparison that is given with its runs, as it names them.

    Raises:
        RunError: if one is neither, or a run is not where it was compared.
    """
    if len(given) != 1 or isinstance(given[0], Run) or not is_comparison(given[0]):
        return runs_of(given), None
    comparison = open_comparison(given[0])
    told = comparison.contents.runs
    return [Named(comparison.open(run), run.name) for run in told], comparison


def runs_of(given: Sequence[str | Path | Run]) -> list[Named]:
    """Open runs and name them, by their models or their folders.

    Raises:
        RunError: if one is no run.
    """
    runs = [each if isinstance(each, Run) else open_run(each) for each in given]
    if not runs:
        raise ConfigError("no run is given; give a run folder, or a comparison")
    names = [run.plan.model.title for run in runs]
    if len(set(names)) < len(names):
        names = [run.name for run in runs]
    if len(set(names)) < len(names):
        names = [f"{number}: {name}" for number, name in enumerate(names, 1)]
    return [Named(run, name) for run, name in zip(runs, names, strict=True)]


def unnamed(grid: Grid) -> Grid:
    """Return a grid whose runs do not say who made them, nor their names and the rule."""
    runs = []
    for named in grid.runs:
        run = anonymous(named.run)
        folder = named.run.path.resolve().name
        name = run.name if folder in named.name else named.name
        if name == named.run.plan.model.title:
            name = run.plan.model.title
        runs.append(Named(run, name))
    rule = "those of a list" if grid.rule.startswith(_LISTED) else grid.rule
    return replace(grid, runs=tuple(runs), rule=rule)


def _columns(
    runs: Sequence[Named], rows: Sequence[Row], maps: Sequence[str], layers: Sequence[str]
) -> Iterator[Column]:
    for place, (named, row) in enumerate(zip(runs, rows, strict=True)):
        records = {record.name: record for record in named.run.plan.methods}
        for text in maps or [record.name for record in runs[0].run.plan.methods]:
            method, _, at = text.partition("@")
            if method not in records:
                raise RunError(
                    f"{named.name} has no maps of {method!r}; {choices(method, records)}"
                )
            record = records[method]
            # A method that has one map of all layers, or none of any, stands once.
            alone = record.pixel or record.attended
            for layer in ("deepest",) if alone else (at,) if at else layers or ("deepest",):
                stored = named.run.stored(row, method, layer)
                # The deepest layers of several models have different names.
                name = layer if len(runs) > 1 else stored.layer
                yield Column(place, method, record.title, name, record.relu)


def _shared(runs: Sequence[Named]) -> list[str]:
    """Return the images that every run has read, in the first run's order."""
    read = [[row.id for row in named.run.index if row.error is None] for named in runs]
    every = set(read[0]).intersection(*read[1:])
    if not every:
        raise RunError("no image is read in all of the runs; show one of them, or other runs")
    return [id for id in read[0] if id in every]


def _flips(comparison: Comparison) -> tuple[Sequence[str], str] | None:
    """Return the first image of each strip of a comparison, and the rule in words."""
    first: dict[str, str] = {}
    for name, rows in strips(comparison).items():
        fresh = next((row.id for row in rows if row.id not in first), None)
        if fresh is not None:
            first[fresh] = f"{_STRIPS[name]}”"
    if not first:
        return None
    return list(first), "chosen by rule: the first of “" + ", “".join(first.values())


def _shown(runs: Sequence[Named], show: str) -> tuple[Sequence[str | PathLike[str]], str]:
    """Return ids, and the rule that chose them in words."""
    kind, _, rest = show.partition("=")
    run = runs[0].run
    if show == "chosen":
        strips, shared = run.summary.strips if run.summary else (), _shared(runs)
        # Of a strip, the first image that every run has.
        every = set(shared)
        own = [([id for id in s.ids if id in every], s.name) for s in reversed(strips)]
        first = {ids[0]: name for ids, name in own if ids}
        ids = list(reversed(first))[:_CHOSEN]
        if ids:
            return ids, "chosen by rule: " + ", ".join(f"the first of “{first[id]}”" for id in ids)
        return shared[:_CHOSEN], "the first of the set"
    if kind == "random":
        number, _, seed = rest.partition(":")
        if not (number.isdecimal() and int(number) > 0 and (seed or "0").isdecimal()):
            raise ConfigError(f"{show!r} is not a rule; give random=N:SEED, such as random=8:0")
        ids = _shared(runs)
        order = np.random.default_rng(int(seed or 0)).permutation(len(ids))[: int(number)]
        said = f"{len(order)} of {len(ids):,} drawn at random, seed {int(seed or 0)}"
        return [ids[place] for place in order], said
    try:
        lines = Path(show).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{show!r} is neither chosen, nor random=N:SEED, nor a text file of images: "
            f"{reason(error)}"
        ) from error
    ids = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not ids:
        raise ConfigError(f"the list {show!r} names no image; give an id or a path per line")
    return ids, f"{_LISTED}{Path(show).name}"
