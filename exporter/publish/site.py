"""A report as a static site: a folder, a bucket, or a Space of Hugging Face.

The site is what stands in ``html/`` of a run or a comparison: pages, photographs, maps. What those
pages say of the run folder beside them is left out, as that is not published. ``site.json`` says
what the site was made of, and names its files, so that the next publication replaces them.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from exporter.comparison import Comparison
from exporter.errors import ConfigError, RunError
from exporter.paths import without_folders
from exporter.publish.choosing import Named, opened
from exporter.publish.places import SITE, SPACE, place_of
from exporter.publish.provenance import Provenance
from exporter.publish.subject import Subject
from exporter.store import Run, anonymous
from exporter.store.files import RunFiles
from exporter.watch import Watch
from exporter.writers import check_writer
from exporter.writers.writing import remembered

INDEX = "index.html"
ROBOTS = "robots.txt"
README = "README.md"

_BESIDE = re.compile(rb"<!--beside-->.*?<!--/beside-->", re.DOTALL)
"""What a page says of the run folder; nothing that comes from outside holds such a comment."""

_HEAD = b'<meta charset="utf-8">\n'
_NO_ROBOTS = b'<meta name="robots" content="noindex, nofollow">\n'


@dataclass(frozen=True)
class Site:
    """What was published.

    Attributes:
        place: where.
        files: how many files.
        size: their bytes.

    Examples:
        >>> Site("s3://bucket/maps", files=12, size=345_678).files
        12
    """

    place: str
    files: int
    size: int


def publish_site(
    source: str | Path | Run, to: str | Path, *, robots: bool = False, watch: Watch | None = None
) -> Site:
    """Publish the HTML report of a run or a comparison as a static site.

    A site that was published there before is replaced; anything else that is there is left alone.

    Args:
        source: a run folder or a comparison folder, with its report in ``html/``.
        to: a folder; an address that fsspec writes to, such as ``s3://bucket/maps``; or
            ``hf://spaces/USER/NAME``, a Space of Hugging Face, which is made where it is missing.
        robots: whether search engines may list it; else ``robots.txt`` and every page say no.
        watch: is told about progress.

    Raises:
        RunError: if there is no report, or it is not complete.
        ConfigError: if the place is part of the run, or a library for it is missing.
        WriterError: if something else is there, or it cannot be written.

    Examples:
        >>> import tempfile, exporter
        >>> from exporter.demo import example_model, photographs
        >>> folder = tempfile.mkdtemp()
        >>> run = exporter.export(example_model(), photographs(), out=f"{folder}/run", limit=2,
        ...     maps=["gradcam"], writers=["html"])
        >>> publish_site(run, f"{folder}/site").place == f"{folder}/site"
        True
    """
    watch = watch or Watch()
    runs, comparison = opened([source])
    files = runs[0].run.files if comparison is None else comparison.files
    _refuse_inside(files, to)
    _refuse_damaged(runs[0].run, comparison, watch)
    names = [name.removeprefix("html/") for name in files.below("html")]
    command = _command(source, to, robots)
    unnamed = _anonymous(runs)
    provenance = Provenance.of(runs, command, unnamed=unnamed)
    shown = [replace(named, run=anonymous(named.run)) for named in runs] if unnamed else runs
    title = Subject(tuple(shown), comparison).title
    told = {
        "title": title,
        "program": provenance.program,
        "made from": provenance.lines,
    }
    added = {} if robots else {ROBOTS: b"User-agent: *\nDisallow: /\n"}
    if str(to).startswith(SPACE):
        added[README] = _readme(title)
    whole, size = [*names, *added, SITE], 0
    with place_of(str(to)) as place:
        former = place.former()
        watch.begin("publishing", len(names))
        # One that is interrupted leaves the names of all that it may have written.
        place.put({SITE: _document({**told, "files": list(dict.fromkeys([*whole, *former]))})})
        for batch in _batches(files, names, robots=robots):
            size += sum(map(len, batch.values()))
            place.put(batch)
            watch.advance(len(batch))
        place.put({**added, SITE: _document({**told, "files": whole})})
        place.finish([name for name in former if name not in set(whole)])
    return Site(str(to), len(whole), size)


def _refuse_inside(files: RunFiles, to: str | Path) -> None:
    kind, _, place = str(to).rpartition("://")
    if kind not in ("", "file", "local"):
        return
    run, folder = files.run.resolve(), Path(place).resolve()
    if folder == run or run in folder.parents or folder in run.parents:
        raise ConfigError(
            f"{str(to)!r} holds the run or is part of it; give --to a folder of its own"
        )


def _refuse_damaged(run: Run, comparison: Comparison | None, watch: Watch) -> None:
    """Raise if there is no report, or it was changed, or cannot stand alone."""
    files = run.files if comparison is None else comparison.files
    where = repr(str(files.run))
    again = "exporter render --writer html" if comparison is None else "exporter compare"
    if not files.exists(f"html/{INDEX}"):
        raise RunError(f"{where} has no report to publish; write it with {again}")
    if comparison is None:
        problem = next(check_writer(run, "html", watch), None)
    else:
        from exporter.store.links import broken_links

        problem = next(broken_links(files, "html"), None)
    if problem is not None:
        raise RunError(f"the report of {where} is not complete: {problem}")
    if b'href="../' in _BESIDE.sub(b"", files.read(f"html/{INDEX}")):
        raise RunError(
            f"the report of {where} leads to the folders beside it, as an older exporter wrote it; "
            f"write it again with {again}"
        )


def _anonymous(runs: Sequence[Named]) -> bool:
    """Say whether a report was written for double-blind review."""
    return any(remembered(named.run.files).get("anonymous") for named in runs)


def _command(source: str | Path | Run, to: str | Path, robots: bool) -> str:
    folder = str(source.path if isinstance(source, Run) else source)
    words = ["exporter", "publish", without_folders(folder), "--to", without_folders(str(to))]
    return shlex.join(words + ["--robots"] * robots)


def _document(told: Mapping[str, Any]) -> bytes:
    return json.dumps(told, indent=1, ensure_ascii=False).encode()


def _readme(title: str) -> bytes:
    """Return what makes a static Space of a folder."""
    return f"---\ntitle: {json.dumps(title)}\nsdk: static\napp_file: {INDEX}\n---\n".encode()


def _batches(
    files: RunFiles, names: Sequence[str], *, robots: bool, most: int = 1 << 26
) -> Iterator[dict[str, bytes]]:
    """Yield the files of the report as they are published, a few at a time, the first page last."""
    batch: dict[str, bytes] = {}
    for name in sorted(names, key=lambda name: name == INDEX):
        content = files.read(f"html/{name}")
        if name.endswith(".html"):
            content = _page(content, robots=robots)
        batch[name] = content
        if sum(map(len, batch.values())) > most:
            yield batch
            batch = {}
    yield batch


def _page(content: bytes, *, robots: bool) -> bytes:
    content = _BESIDE.sub(b"", content)
    return content if robots else content.replace(_HEAD, _HEAD + _NO_ROBOTS, 1)
