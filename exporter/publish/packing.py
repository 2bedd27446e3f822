"""A supplement for a paper: one zip that opens from a double click, within a venue's budget."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import exporter
from exporter.errors import ConfigError, RunError, reason
from exporter.publish.archive import PROVENANCE, contents_of
from exporter.publish.claims import Claim, read_claims, settled
from exporter.publish.fitting import Fitting, left_out_of
from exporter.publish.supplement import Contents, Supplement, shown_rows
from exporter.publish.venues import Venue, venue_of
from exporter.store import Run
from exporter.store.anonymous import key_of, release, write_key
from exporter.watch import Watch
from exporter.writers.html import text as words
from exporter.writers.options import bytes_of
from exporter.writers.reading import templating


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
    """What is said in a supplement beside its sources."""

    claims: list[Claim]
    credits: str
    markdown: bool
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
    overwrite: bool = False,
    watch: Watch | None = None,
) -> Packed:
    """Write runs and comparisons as one zip that a reviewer opens with a double click.

    It holds ``index.html`` with the paper's claims, images chosen by rule beside images drawn at
    random, each with the maps of all runs and methods; the reports; tables as Parquet; a README;
    what it was made from, and checksums. The same sources give the same bytes.

    If the size is limited, the raw maps are left out first, then the data for the map of any class,
    then the maps of images. As many images as fit stay whole: those of the first pages, then
    others in random order. Numbers always cover every image.

    Args:
        *sources: run folders and comparison folders.
        out: the zip, whose name ends in ``.zip``.
        anonymous: leave out who made it, where and with which files, for double-blind review; the
            names of the images are kept in ``OUT.key.csv`` beside it.
        venue: such as ``neurips``, whose limit of size it keeps to.
        max_size: bytes it may have, or text such as ``50MB``; the venue's if None.
        claims: a Markdown list of claims with links to pages of the reports.
        credits: a file with the licence and the credits of images, models and data, as text or,
            if its name ends in ``.md``, as Markdown.
        command: the command that makes it again, which it contains unless it is anonymous.
        overwrite: replace a supplement that is there, with its key.
        watch: is told about progress.

    Raises:
        ConfigError: if the venue is not known, nothing fits, a claim leads nowhere, or the file
            would have another suffix.
        RunError: if a source is neither a run nor a comparison, they share no image, or something
            is there already.

    Examples:
        >>> from exporter.demo import example_run
        >>> pack(example_run(), out=example_run().path.with_suffix(".zip")).left_out
        ()
    """
    place, watch = Path(out), watch or Watch()
    key = _take(place, overwrite=overwrite)
    known = venue_of(venue) if venue else None
    limit = _limit(max_size, known)
    told = Told(
        claims=read_claims(Path(claims)) if claims is not None else [],
        credits="" if credits is None else _text(Path(credits)),
        markdown=credits is not None and Path(credits).suffix.lower() in {".md", ".markdown"},
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
            front = partial(_write_front, supplement, told)
            fitted = Fitting(supplement, limit, front, work, watch=watch)
            left_out = fitted.fit()
            names = work / key.name
            if anonymous:
                write_key((named.run for named in supplement.runs), names)
            # At no moment is a key beside a supplement of other images.
            place.unlink(missing_ok=True)
            key.unlink(missing_ok=True)
            if anonymous:
                names.replace(key)
            fitted.zip.replace(place)
    except OSError as error:
        raise ConfigError(f"{str(place)!r} cannot be written: {reason(error)}") from error
    written = place.stat().st_size
    return Packed(place, written, left_out, tuple(_notes(told, place, written)))


def _take(place: Path, *, overwrite: bool) -> Path:
    """Refuse a file that is there or is called as something else; return where its key belongs."""
    if place.suffix.lower() != ".zip":
        raise ConfigError(f"a supplement cannot be called {place.name!r}; its name ends in .zip")
    if place.is_dir():
        raise RunError(f"{str(place)!r} is a folder; give another --out")
    if place.exists() and not overwrite:
        raise RunError(
            f"{str(place)!r} is there already; give --overwrite to replace it, or another --out"
        )
    return key_of(place, overwrite=overwrite)


def _write_front(supplement: Supplement, told: Told, contents: Contents, folder: Path) -> None:
    """Write the first page, the README, and what the supplement was made from."""
    from tensorboard.plugin_util import markdown_to_safe_html

    grids = (supplement.chosen, supplement.random)
    ids = supplement.ids()
    reports = [source.folder for source in supplement.sources]
    version = exporter.__version__
    # Its headings stand below that of the section.
    own = re.sub(r"^(?=#{1,4} )", "##", told.credits, flags=re.M) if told.markdown else told.credits
    context: dict[str, Any] = {
        "csp": words.POLICY,
        "sources": supplement.sources,
        "claims": settled(told.claims, folder, reports, set(ids)),
        "shown": [(grid, shown_rows(grid)) for grid in grids],
        "left_out": left_out_of(contents, len(ids)),
        "limit": told.limit,
        "credits": own,
        "credits_page": markdown_to_safe_html(own) if told.markdown else "",
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
    origin = {"plan": run.files.sha256("plan.json"), "contents": contents_of(run)}
    if told.unnamed:
        return origin
    return {"run": run.name, "model": run.plan.model.title, **origin,
            "versions": dict(run.plan.versions)}  # fmt: skip


def _limit(size: int | str | None, venue: Venue | None) -> int | None:
    """Return the bytes that a supplement may have, those of its venue where no size is given."""
    if size is None and venue is not None:
        if venue.bytes is None:
            raise ConfigError(
                f"the size limit of a supplement for {venue.title} is not known: {venue.source} "
                "does not give it; give --max-size"
            )
        return venue.bytes
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


def _notes(told: Told, place: Path, size: int) -> Iterator[str]:
    if told.venue is not None:
        yield (
            f"{told.venue.title}: {told.venue.rule} ({told.venue.source}, read {told.venue.read})"
        )
        if told.venue.anonymous and not told.unnamed:
            yield f"{told.venue.title} reviews double-blind: for review give --anonymous"
        if told.venue.bytes is not None and (told.limit or 0) > told.venue.bytes:
            yield (
                f"--max-size allows more than the {told.venue.bytes:,} bytes that "
                f"{told.venue.title} takes; this supplement has {size:,}"
            )
    if not told.credits:
        yield "no licence and no credits are given: name those of the images with --credits FILE"
    if told.unnamed:
        yield f"{place.name}.key.csv says which file each image is: keep it to yourself"
        yield f"prove it: exporter check --anonymous {place.name} --also 'Name,Lab'"
