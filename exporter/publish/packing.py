"""A supplement for a paper: one zip that opens from a double click, within a venue's budget."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import exporter
from exporter.errors import ConfigError, reason
from exporter.publish.archive import PROVENANCE, contents_of, write_zip
from exporter.publish.claims import Claim, read_claims, settled
from exporter.publish.supplement import SEED, Contents, Supplement, shown_rows
from exporter.publish.venues import Venue, venue_of
from exporter.store import Run, open_run
from exporter.store.anonymous import release
from exporter.watch import Watch
from exporter.writers.html import text as words
from exporter.writers.options import bytes_of
from exporter.writers.reading import templating

_TRIES = 8
_MAPS, _LIVE = "data/*/maps.parquet", "*/live/*.js"
_PICTURED = ("*/photos/*/*.jpg", "*/data/0*.js")
"""Files that go: the raw maps, the maps of any class, and what an image has in the reports."""
_SMALL = 1500
"""Bytes that a small photograph takes, with its entry."""


@dataclass(frozen=True)
class Packed:
    """A supplement that was written.

    Attributes:
        path: the zip.
        size: its bytes.
        left_out: what did not fit, a sentence each.
        notes: what its author should know, a sentence each.
    """

    path: Path
    size: int
    left_out: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Told:
    """What is said in a supplement beside its sources.

    Attributes:
        claims: of the paper.
        credits: licence and credits, as text.
        venue: for which it is, if any.
        limit: bytes it may have; None for any number.
        command: that makes it again; empty where it is anonymous.
        unnamed: whether it is anonymous.
    """

    claims: list[Claim]
    credits: str
    venue: Venue | None
    limit: int | None
    command: str
    unnamed: bool


def pack(
    *sources: str | Path | Run,
    out: str | Path,
    anonymous: bool = False,
    venue: str = "",
    max_size: int | str | None = None,
    claims: str | Path | None = None,
    credits: str | Path | None = None,
    command: str = "",
    watch: Watch | None = None,
) -> Packed:
    """Write runs and comparisons as one zip that a reviewer opens with a double click.

    It holds ``index.html`` with the paper's claims, images chosen by rule beside images drawn at
    random, each with the maps of all runs and methods; the reports; tables as Parquet; a README;
    what it was made from, and checksums. The same sources give the same bytes.

    Where a size is set, first the raw maps are left out, then what paints the map of any class,
    then the maps of images. Of these as many as fit stay whole: those of the first pages, then
    others in random order. Numbers are of every image in any case.

    Args:
        *sources: run folders and comparison folders.
        out: the zip.
        anonymous: leave out who made it, where and with which files, for double-blind review; the
            names of the images are kept in ``OUT.key.csv`` beside it.
        venue: such as ``neurips``, whose limit of size it keeps to.
        max_size: bytes it may have, or text such as ``50MB``; the venue's where None.
        claims: a Markdown list of claims with links to pages of the reports.
        credits: a text file with the licence and the credits of images, models and data.
        command: what makes it again, which it tells unless it is anonymous.
        watch: told how the work goes on.

    Raises:
        ConfigError: if the venue is not known, nothing fits, or a claim leads nowhere.
        RunError: if a source is neither a run nor a comparison, or they share no image.

    Examples:
        >>> from exporter.demo import example_run
        >>> pack(example_run(), out=example_run().path.with_suffix(".zip")).left_out
        ()
    """
    place, watch = Path(out), watch or Watch()
    known = venue_of(venue) if venue else None
    limit = _limit(max_size) if max_size is not None or known is None else known.bytes
    told = Told(
        claims=read_claims(Path(claims)) if claims is not None else [],
        credits="" if credits is None else _text(Path(credits)),
        venue=known,
        limit=limit,
        command="" if anonymous else command,
        unnamed=anonymous,
    )
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{place.name}.", dir=place.parent) as folder:
            work = Path(folder)
            supplement = Supplement(sources, work / "compared", unnamed=anonymous, watch=watch)
            fitted = _Fitting(supplement, told, work, watch)
            left_out = fitted.fit()
            if anonymous:
                _write_key(supplement, place.with_name(f"{place.name}.key.csv"))
            fitted.zip.replace(place)
    except OSError as error:
        raise ConfigError(f"{str(place)!r} cannot be written: {reason(error)}") from error
    return Packed(place, place.stat().st_size, left_out, tuple(_notes(told, place)))


class _Fitting:
    """Writes a supplement as often as it takes to fit."""

    def __init__(self, supplement: Supplement, told: Told, work: Path, watch: Watch) -> None:
        self._supplement, self._told, self._watch = supplement, told, watch
        self._folder, self.zip = work / "supplement", work / "supplement.zip"
        self._sizes: dict[str, int] = {}

    def fit(self) -> tuple[str, ...]:
        """Write it, and return what is left out so that it fits."""
        limit = self._told.limit
        contents = Contents()
        size = self._write(contents)
        if limit is None or size <= limit:
            return _left_out(contents, 0)
        whole = self._sizes
        for contents, gone in (
            (Contents(maps=False), (_MAPS,)),
            (Contents(maps=False, live=False), (_MAPS, _LIVE)),
        ):
            # What cannot fit is not written.
            if size - _taken(whole, *gone) <= limit and self._write(contents) <= limit:
                return _left_out(contents, 0)
        return self._fit_images(contents, whole, limit)

    def _fit_images(
        self, contents: Contents, sizes: Mapping[str, int], limit: int
    ) -> tuple[str, ...]:
        """Leave out the maps of as many images as it takes.

        Args:
            contents: what else is in it.
            sizes: what each file takes where nothing is left out.
            limit: bytes it may have.
        """
        ids = self._supplement.ids()
        whole = _taken(sizes, *_PICTURED) / max(1, len(ids))
        rest = sum(sizes.values()) - _taken(sizes, _MAPS, _LIVE) - len(ids) * (whole - _SMALL)
        number = int((limit - rest) / max(1.0, whole - _SMALL))
        for _ in range(_TRIES):
            number = min(max(number, 0), len(ids) - 1)
            fewer = replace(contents, pictured=frozenset(ids[:number]))
            size = self._write(fewer)
            if size <= limit:
                return _left_out(fewer, len(ids))
            if number == 0:
                break
            number = int(number * 0.9 * limit / size)
        raise ConfigError(
            f"the smallest supplement, with {words.count(number, 'image')} shown whole, takes "
            f"{size:,} bytes, and {limit:,} are allowed; pack fewer runs, or give it more with "
            "--max-size"
        )

    def _write(self, contents: Contents) -> int:
        """Write the supplement and its zip, and return how many bytes this has."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        self._watch.begin("writing the supplement")
        self._supplement.write(self._folder, contents)
        _write_front(self._supplement, self._told, contents, self._folder)
        self._sizes = write_zip(self._folder, self.zip)
        return self.zip.stat().st_size


def _taken(sizes: Mapping[str, int], *patterns: str) -> int:
    matching = (n for n in sizes if any(Path(n).match(pattern) for pattern in patterns))
    return sum(sizes[name] for name in matching)


def _left_out(contents: Contents, every: int) -> tuple[str, ...]:
    """Say what does not fit, in the order in which it goes."""
    sentences = []
    if not contents.maps:
        sentences.append("The raw maps (data/*/maps.parquet) are left out.")
    if not contents.live:
        sentences.append("The reports do not paint the map of any class.")
    if contents.pictured is not None:
        whole = len(contents.pictured)
        sentences.append(
            f"{words.count(whole, 'image')} of {every:,} are shown whole, with their maps: those "
            "that rules choose, those drawn at random, those of the reports' first pages, then "
            f"others in random order (seed {SEED}). The rest are small photographs without maps."
        )
    return tuple(sentences)


def _write_front(supplement: Supplement, told: Told, contents: Contents, folder: Path) -> None:
    """Write the first page, the README, and what the supplement was made from."""
    grids = (supplement.chosen, supplement.random)
    ids = supplement.ids()
    reports = [source.folder for source in supplement.sources]
    version = exporter.__version__
    context: dict[str, Any] = {
        "csp": words.POLICY,
        "sources": supplement.sources,
        "claims": settled(told.claims, folder, reports, set(ids)),
        "shown": [(grid, shown_rows(grid)) for grid in grids],
        "left_out": _left_out(contents, len(ids)),
        "limit": told.limit,
        "credits": told.credits,
        "methods": {m.name: m for named in supplement.runs for m in named.run.plan.methods},
        "version": release(version) if told.unnamed else version,
        "runs": supplement.runs,
        "command": told.command,
        "maps": contents.maps,
    }
    page = templating(escape=True)
    readme = templating(escape=False)
    for environment in (page, readme):
        environment.filters |= {write.__name__: write for write in words.FILTERS}
    (folder / "index.html").write_text(page.get_template("pack.html").render(context), "utf-8")
    (folder / "README.md").write_text(readme.get_template("pack.md").render(context), "utf-8")
    provenance = {
        "exporter": context["version"],
        "runs": [_made_from(named.run, told) for named in supplement.runs],
        **({} if told.unnamed else {"command": told.command}),
    }
    (folder / PROVENANCE).write_text(json.dumps(provenance, indent=1) + "\n", "utf-8")


def _made_from(run: Run, told: Told) -> dict[str, Any]:
    made = {"plan": run.files.sha256("plan.json"), "contents": contents_of(run)}
    if told.unnamed:
        return made
    return {"run": run.name, "model": run.plan.model.title, **made,
            "versions": dict(run.plan.versions)}  # fmt: skip


def _write_key(supplement: Supplement, file: Path) -> None:
    """Write which file each image was; only its author sees this."""
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow(("run", "shown as", "path"))
        for named in supplement.runs:
            for image in open_run(named.run.path).plan.images:
                writer.writerow((named.run.path.resolve().name, image.id, image.path))


def _limit(size: int | str | None) -> int | None:
    if not isinstance(size, str):
        return size
    try:
        return bytes_of(size)
    except ValueError as error:
        raise ConfigError(f"the largest size {error}") from None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig").strip()
    except (OSError, ValueError) as error:
        raise ConfigError(f"the credits {str(file)!r} cannot be read: {reason(error)}") from error


def _notes(told: Told, place: Path) -> Iterator[str]:
    if told.venue is not None:
        yield (
            f"{told.venue.title}: {told.venue.rule} ({told.venue.source}, read {told.venue.read})"
        )
        if told.venue.anonymous and not told.unnamed:
            yield f"{told.venue.title} reviews double-blind: for review give --anonymous"
        if told.venue.bytes is None and told.limit is None:
            yield "its limit of size is not known here: set it with --max-size"
    if not told.credits:
        yield "no licence and no credits are given: name those of the images with --credits FILE"
    if told.unnamed:
        yield f"{place.name}.key.csv says which file each image is: keep it to yourself"
        yield f"prove it: exporter check --anonymous {place.name} --also 'Name,Lab'"
