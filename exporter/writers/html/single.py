"""The report as one HTML file under a budget: its pages are sections, from the same templates.

The pages that speak of the whole set (overview, layers, methods …) are those of the folder; the
lists and the images page hold as many images as fit, chosen by the rules that choose the images of
TensorBoard and W&B. Style sheet, scripts, maps and photographs are in the file; its
Content-Security-Policy allows exactly these scripts and this style sheet by their SHA-256.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from exporter.errors import WriterError
from exporter.writers.html import text as words
from exporter.writers.html.images import batches, set_script
from exporter.writers.html.index import SetIndex
from exporter.writers.html.report import Report
from exporter.writers.html.site import InOneFile, Site
from exporter.writers.reading import templates

SINGLE = "report.html"
"""Name of the file, in the report's folder."""

SIZE = "\ue000size\ue000"
"""Stands in the note of a single file until its size is known."""

_SHARE_OF_PAGES = 0.5
"""Pages about layers are left out, the largest first, until what is no image fits in this share."""

_SAMPLE = 64
"""Images from which the first guess of how many fit is made."""

_FULL = 0.95
"""The search for the number of images ends where they take this share of the budget."""


class Section(NamedTuple):
    """A page of the folder that can be a section of the file."""

    file: str
    template: str
    name: str
    context: Mapping[str, Any]


def write_single(report: Report, site: Site, sections: Sequence[Section]) -> str:
    """Write ``report.html`` beside the pages that are already in the folder.

    Returns:
        A sentence that says how many images are in the file, and what is not.

    Raises:
        WriterError: if not even the pages without an image fit.
    """
    limit = report.options.max_size
    fitting = _within(report, site, sections, limit * _SHARE_OF_PAGES)
    omitted = len(sections) - len(fitting)
    best, note = _bind(report, site, fitting, 0, omitted)
    empty = len(best)
    if empty > limit:
        raise WriterError(
            f"even without images the report takes {empty:,} bytes, and --max-size allows "
            f"{limit:,}; raise it, or leave out --single-file"
        )
    fits, too_many = 0, report.present + 1
    number = min(_SAMPLE, report.present)
    while fits < number < too_many:
        text, said = _bind(report, site, fitting, number, omitted)
        per_image = max(1.0, (len(text) - empty) / number)
        if len(text) <= limit:
            fits, best, note = number, text, said
            if len(text) >= _FULL * limit:
                break
        else:
            too_many = number
        wanted = number + int((limit * (1 + _FULL) / 2 - len(text)) / per_image)
        number = min(max(wanted, fits + 1), too_many - 1)
    if report.live and fits == report.present:
        text, said = _bind(report, site, fitting, fits, omitted, live=True)
        best, note = (text, said) if len(text) <= limit else (best, note)
    report.write(SINGLE, best)
    return note


def _within(report: Report, site: Site, sections: Sequence[Section], most: float) -> list[Section]:
    """Leave out the largest pages of a folder (layers, classes) until the rest fits."""
    files = {section.file for section in sections}
    sizes = {each.file: len(_render(site, report.folder, each, files, {})) for each in sections}
    for file in sorted(sizes, key=lambda file: -sizes[file]):
        if sum(sizes.values()) > most and "/" in file:
            del sizes[file]
    return [section for section in sections if section.file in sizes]


def _render(
    site: Site,
    folder: Path,
    section: Section,
    files: Collection[str],
    photographs: Mapping[str, bytes],
) -> str:
    place = InOneFile(section.file, folder, files, photographs)
    return site.render(section.template, section.name, place, section.context)


def _bind(
    report: Report,
    site: Site,
    sections: Sequence[Section],
    number: int,
    omitted: int,
    *,
    live: bool = False,
) -> tuple[bytes, str]:
    """Return the file with so many images, and what it says of what is not in it."""
    options = report.options
    ids: Sequence[str] = [entry.id for entry in report.index.images]
    if number < len(ids):
        ids = options.kept[:number] if options.choose is None else options.choose(number)
    index = SetIndex(report.plan, report.measures, report.options.report.images)
    lists, texts = [], []
    photographs: dict[str, bytes] = {}
    for batch in batches(report, map(report.run.row, ids), len(ids), index):
        lists.append(Section(batch.list_file, "list.html", "list", batch.page))
        texts.append(batch.script)
        photographs |= {row.id: row.image for row in batch.rows if row.image is not None}
    bound = [*sections, *lists]
    files = {section.file for section in bound}
    # Nothing in the strings of data ends the element that it stands in.
    texts = [
        text.replace("<", "\\u003c")
        for text in (*texts, set_script(report, index, files, live=live))
    ]
    if live and report.live:
        texts += (report.live.head, *report.live.images.values())
    note = _note(len(ids), report.present, options.max_size, omitted)
    if report.live and not live:
        note += " Maps of any class are left out, as they do not fit: the folder's report has them."
    return bind_sections(
        site,
        report.folder,
        bound,
        photographs,
        scripts=[*map(asset_text, words.SINGLE_SCRIPTS), *texts],
        style=asset_text("report.css") + asset_text("single.css"),
        note=note,
        shared={"lists": [section.file for section in lists]},
    )


def bind_sections(
    site: Site,
    folder: Path,
    sections: Sequence[Section],
    photographs: Mapping[str, bytes],
    *,
    scripts: Sequence[str],
    style: str,
    note: str,
    shared: Mapping[str, Any],
) -> tuple[bytes, str]:
    """Return pages as one file, and its note with the size in the place of `SIZE`."""
    files = {section.file for section in sections}

    def render(section: Section) -> str:
        return _render(site, folder, section, files, photographs)

    told = {"csp": _policy(style, scripts), "note": note, "style": style, "scripts": scripts}
    told |= {"sections": list(map(render, sections)), "lists": (), **shared}
    text = render(Section(SINGLE, "single.html", "single", told))
    content = text.encode("utf-8", "backslashreplace")
    size = f"{len(content) / 1e6:.3g} MB"
    return content.replace(SIZE.encode(), size.encode(), 1), note.replace(SIZE, size)


def asset_text(name: str) -> str:
    """Return the text of a style sheet or a script."""
    return (templates() / name).read_text("utf-8")


def _note(images: int, present: int, budget: int, omitted: int) -> str:
    held = f"all {words.count(present, 'image')}"
    if images < present:
        held = (
            f"{words.number(images)} of {words.count(present, 'image')}, chosen by the rules that "
            "also choose the images in TensorBoard and W&B"
        )
    said = (
        f"This file of {SIZE} holds {held}, within {budget / 1e6:.3g} MB. Numbers and pages about "
        "the whole set count every image."
    )
    if omitted:
        said += f" Left out: {words.count(omitted, 'page')} about layers or classes."
    if images < present or omitted:
        said += " The rest is in the folder of the report."
    return said


def _policy(style: str, scripts: Sequence[str]) -> str:
    def source(text: str) -> str:
        return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    allowed = " ".join(dict.fromkeys(map(source, scripts)))
    return (
        f"default-src 'none'; img-src data:; style-src {source(style)}; script-src {allowed}; "
        "base-uri 'none'; form-action 'none'"
    )
