"""The report as one HTML file under a budget: the pages of the folder bound together.

The pages that speak of the whole set (overview, layers, methods …) are taken as they are; the
images page and the lists are made again for as many images as fit, chosen by the rules that choose
the images of TensorBoard and W&B. Style sheet, scripts, maps and photographs are in the file; its
Content-Security-Policy allows exactly these scripts and this style sheet by their SHA-256.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from posixpath import normpath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from exporter.errors import WriterError
from exporter.writers import html_pages as pages
from exporter.writers import html_text as words
from exporter.writers.html_index import (
    IMAGES_A_SHARD,
    SetIndex,
    explained_layers,
    index_script,
    parts,
    shows_probability,
)
from exporter.writers.html_shards import pack_shard
from exporter.writers.options import WriterOptions

if TYPE_CHECKING:
    from exporter.store import Run

SINGLE = "report.html"
"""Name of the file, in the report's folder."""

_FIRST = ("index.html", "images.html")
_SHARE_OF_PAGES = 0.5
"""Pages about layers are left out, the largest first, until what is no image fits in this share."""

_ID_LISTS = r"id|for|aria-labelledby|aria-describedby|aria-controls|list|headers|popovertarget"
_MAIN = re.compile(r'<main id="main"[^>]*>(.*)</main>', re.DOTALL)
_SCRIPT = re.compile(r'<script src="([^"]+)"')
_IMAGE = re.compile(r"<img\b[^>]*>")
_SOURCE = re.compile(r'\ssrc="([^"]*)"')
_ALT = re.compile(r'\salt="([^"]*)"')
_PHOTOGRAPH = re.compile(r"(?:^|/)photos/\d+/([0-9A-Za-z_-]+)\.jpg$")
_LINK = re.compile(r'<a\b([^>]*?)\shref="([^"]*)"([^>]*)>(.*?)</a>', re.DOTALL)

Page = Callable[[str, str, str, dict[str, Any]], str]
"""Renders (file, template, name, contents) and returns the page's text."""


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The images that are in the file: their columns, scripts, lists and photographs."""

    index: SetIndex
    tops: dict[str, str]
    scripts: dict[str, str]
    lists: dict[str, str]
    photographs: dict[str, bytes]


@dataclass(slots=True)
class _Binder:
    """Turns pages that link to one another into sections of one page."""

    folder: Path
    names: list[str]
    photographs: Mapping[str, bytes]
    taken: set[str] = field(default_factory=set)
    renamed: dict[str, dict[str, str]] = field(default_factory=dict)

    def section(self, name: str, text: str) -> str:
        """Return the main part of a page as a section."""
        found = _MAIN.search(text)
        if found is None:
            raise WriterError(f"the page {name} has no <main>; it cannot be put into {SINGLE}")
        title = re.search(r"<title>(.*?)</title>", text, re.DOTALL)
        body = self._link(self._pictures(self._rename(name, found[1]), name), name)
        said = title[1].strip() if title else name
        return (
            f'<section class="leaf" id="{_anchor(name)}" data-page="{_kind(text)}" '
            f'data-title="{said}" tabindex="-1">{body}</section>\n'
        )

    def _rename(self, name: str, text: str) -> str:
        """Give ids that an earlier page has already taken the page's name in front."""
        own: dict[str, str] = {}
        for id in re.findall(r'\sid="([^"]*)"', text):
            own[id] = f"{_anchor(name)}-{id}" if id in self.taken else id
            self.taken.add(own[id])
        self.renamed[name] = own

        def change(found: re.Match[str]) -> str:
            ids = " ".join(own.get(id, id) for id in found[2].split())
            return f' {found[1]}="{ids}"'

        return re.sub(rf'\s({_ID_LISTS})="([^"]*)"', change, text)

    def _pictures(self, text: str, name: str) -> str:
        def change(found: re.Match[str]) -> str:
            tag = found[0]
            source = _SOURCE.search(tag)
            if source is None or source[1].startswith("data:") or not source[1]:
                return tag
            photograph = _PHOTOGRAPH.search(source[1])
            if photograph is None:
                file = self.folder / _resolve(name, source[1])
                return tag.replace(source[0], f' src="{_address(file.read_bytes(), file.suffix)}"')
            id = photograph[1]
            if id not in self.photographs:
                return _absent(tag)
            # Each photograph is once in the file: in the list, from where scripts take it.
            address = (
                f' src="{_address(self.photographs[id], ".jpg")}"'
                if name.startswith("list/")
                else ""
            )
            return tag.replace(source[0], f'{address} data-photo="{id}"')

        return _IMAGE.sub(change, text)

    def _link(self, text: str, name: str) -> str:
        def change(found: re.Match[str]) -> str:
            before, address, after, inside = found.groups()
            target = self.target(name, address)
            return inside if target is None else f'<a{before} href="{target}"{after}>{inside}</a>'

        return _LINK.sub(change, text)

    def target(self, name: str, address: str) -> str | None:
        """Return where a link of a page leads inside the file, or None where that is not in it."""
        if address.startswith(("http://", "https://", "data:")):
            return address
        page, _, fragment = address.partition("#")
        file = _resolve(name, page) if page else name
        if file not in self.names:
            return None
        image = re.search(r"(?:^|&amp;|&)image=([^&]+)", fragment)
        if image and unquote(image[1]) not in self.photographs:
            return None
        if "=" in fragment:
            return f"#{fragment}"
        if fragment:
            return "#" + self.renamed.get(file, {}).get(fragment, fragment)
        return f"#{_anchor(file)}"


def write_single(
    run: Run,
    folder: Path,
    options: WriterOptions,
    render: Page,
    channel_pages: Mapping[str, tuple[int, int]],
) -> tuple[int, str]:
    """Write ``report.html`` beside the pages that are already in the folder.

    Args:
        run: the run folder.
        folder: the report that was just written.
        options: ``max_size`` in bytes, and ``choose`` to rank the images.
        render: renders a template as the report's other pages are.
        channel_pages: (number of its page, channels) of each layer that has a page.

    Returns:
        How many images are in the file, and a sentence that says what is not.

    Raises:
        WriterError: if not even the pages without an image fit.
    """
    texts = _pages(folder)
    present = _present(run)
    omitted = _omit(folder, texts, int(options.max_size * _SHARE_OF_PAGES))
    number = _guess(folder, texts, options.max_size, present)
    while True:
        chosen = _choose(run, options, render, number)
        chosen.scripts["data/index.js"] = index_script(
            chosen.index,
            run.plan,
            options,
            channel_pages={
                name: page
                for name, page in channel_pages.items()
                if f"layers/{page[0]}.html" in texts
            },
            class_pages=[int(PurePosixPath(n).stem) for n in texts if n.startswith("classes/")],
        )
        said = _what_is_left_out(len(chosen.index.ids), present, options, omitted)
        text = _bind(folder, texts, chosen, said, render)
        size = len(text.encode("utf-8", "backslashreplace"))
        if size <= options.max_size:
            break
        if number == 0:
            raise WriterError(
                f"the report without any image takes {size:,} bytes and --max-size allows "
                f"{options.max_size:,}; give it more, or leave --single-file out"
            )
        over = (size - options.max_size) / max(1, size) + 0.02
        number = min(number - 1, int(number * (1 - over)))
    (folder / SINGLE).write_text(text, "utf-8", errors="backslashreplace", newline="\n")
    return len(chosen.index.ids), said


def _present(run: Run) -> int:
    return sum(stop - start for start, stop in (run.plan.shards[index] for index in run.shards))


def _pages(folder: Path) -> dict[str, str]:
    """Return every page but the lists, the overview and the images first."""
    found = [page.relative_to(folder).as_posix() for page in folder.rglob("*.html")]
    names = [name for name in found if not name.startswith("list/") and name != SINGLE]
    names.sort(key=lambda name: (name not in _FIRST, name.count("/"), _natural(name)))
    names.sort(key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))
    return {name: (folder / name).read_text("utf-8") for name in names}


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def _omit(folder: Path, texts: dict[str, str], most: int) -> list[str]:
    """Take out the largest pages of a folder (layers, classes) until the rest fits."""
    sizes = {name: len(text) + _drawn(folder, name, text) for name, text in texts.items()}
    omitted = []
    while sum(sizes[name] for name in texts) > most:
        deeper = [name for name in texts if "/" in name]
        if not deeper:
            break
        largest = max(deeper, key=lambda name: sizes[name])
        del texts[largest]
        omitted.append(largest)
    return omitted


def _drawn(folder: Path, name: str, text: str) -> int:
    """Return the bytes of the pictures that a page brings, as they will be in the file."""
    sources = [found[1] for tag in _IMAGE.findall(text) if (found := _SOURCE.search(tag))]
    # A picture that a page shows twice is in the file twice.
    files = [_resolve(name, one) for one in sources if one and not one.startswith("data:")]
    drawn = [folder / file for file in files if not _PHOTOGRAPH.search(file)]
    return sum(file.stat().st_size for file in drawn) * 4 // 3


def _guess(folder: Path, texts: Mapping[str, str], most: int, present: int) -> int:
    """Estimate how many images fit, from what an image takes on average."""
    fixed = sum(len(text) + _drawn(folder, name, text) for name, text in texts.items())
    fixed += sum(file.stat().st_size for file in (folder / "assets").iterdir())
    data = sum(file.stat().st_size for file in (folder / "data").glob("*.js"))
    rows = sum(file.stat().st_size for file in (folder / "list").glob("*.html"))
    sample = [file.stat().st_size for file, _ in zip(_photographs(folder), range(1000))]  # noqa: B905
    photograph = sum(sample) / max(1, len(sample)) * 4 / 3
    each = (data + rows) / max(1, present) + photograph
    return max(0, min(present, int((most - fixed) / max(1.0, each))))


def _photographs(folder: Path) -> Iterator[Path]:
    for part in sorted((folder / "photos").iterdir()):
        yield from part.iterdir()


def _choose(run: Run, options: WriterOptions, render: Page, number: int) -> _Chosen:
    """Make columns, scripts and lists of so many images."""
    ids: Sequence[str] = options.kept[:number]
    if number >= _present(run):
        ids = [row.id for row in run.index]
    elif options.choose is not None:
        ids = options.choose(number)
    kept = set(options.kept)
    methods = {one.name: (place, one) for place, one in enumerate(run.plan.methods)}
    layers = {name: place for place, name in enumerate(explained_layers(run.plan))}
    probability = shows_probability(run.plan)
    index = SetIndex(probability=probability)
    chosen = _Chosen(index, {}, {}, {}, {})
    for part, (start, stop) in enumerate(parts(len(ids), IMAGES_A_SHARD)):
        rows = [run.row(id) for id in ids[start:stop]]
        lines = []
        for at, row in enumerate(rows):
            index.add(row, kept=row.id in kept)
            lines.append(pages.list_row(row, start + at, probability=probability))
            if row.image is not None:
                chosen.photographs[row.id] = row.image
        chosen.scripts[f"data/{part:05d}.js"] = pack_shard(part, rows, methods, layers)
        height, width = run.plan.model.preprocessing.size
        chosen.lists[f"list/{part:05d}.html"] = render(
            f"list/{part:05d}.html",
            "list.html",
            "list",
            {
                "rows": lines,
                "first": start + 1,
                "last": stop,
                "of": len(ids),
                "before": f"{part - 1:05d}.html" if part else None,
                "after": f"{part + 1:05d}.html" if stop < len(ids) else None,
                "thumb": round(96 * height / width),
                "score_unit": "probability" if probability else "raw output",
            },
        )
    chosen.tops.update(_tops(run, chosen))
    return chosen


def _tops(run: Run, chosen: _Chosen) -> dict[str, str]:
    """Return, for each layer's channel that has some, those of its strongest images that are in."""
    from markupsafe import escape

    found = {}
    for row in run.channels():
        tops = zip(row.top, row.top_values, row.top_places, strict=True)
        items = [
            f'<li><figure><a href="../images.html#image={id}" data-control="top-image">'
            f'<span class="spot"><img src="../photos/00/{id}.jpg" width="80" height="80" '
            f'alt="Photograph {id}; channel {row.channel} reaches {words.figure(value)}">'
            '<svg viewBox="0 0 100 100" aria-hidden="true">'
            f'<circle cx="{100 * x:.1f}" cy="{100 * y:.1f}" r="13"/></svg></span></a>'
            f"<figcaption>{words.figure(value)}</figcaption></figure></li>"
            for id, value, (x, y) in tops
            if id in chosen.photographs and not row.dead
        ]
        if items:
            found[f"{escape(row.layer)} {row.channel}"] = f'<ul class="tops">{"".join(items)}</ul>'
    return found


def _with_tops(text: str, tops: Mapping[str, str]) -> str:
    """Put the strongest images into the rows of a layer's page, which a script fills elsewhere."""
    layer = re.search(r"<h1><code>(.*?)</code></h1>", text, re.DOTALL)
    if layer is None:
        return text

    def change(found: re.Match[str]) -> str:
        return f"{found[1]}<td>{tops.get(f'{layer[1]} {found[2]}', '')}</td></tr>"

    return re.sub(r'(<tr id="c(\d+)">.*?)<td></td></tr>', change, text)


def _what_is_left_out(
    images: int, present: int, options: WriterOptions, omitted: Sequence[str]
) -> str:
    budget = f"{options.max_size / 1e6:.3g} MB"
    if images >= present:
        said = f"This file holds all {words.count(present, 'image')}"
    else:
        said = (
            f"This file holds {words.number(images)} of {words.count(present, 'image')}, chosen by "
            "the rules that choose the images of TensorBoard and W&B"
        )
    said += f", within {budget}. Numbers and pages about the whole set count every image."
    if omitted:
        said += f" Left out: {words.count(len(omitted), 'page')} about layers or classes."
    if images < present or omitted:
        said += " The rest is in the folder of the report."
    return said


def _bind(folder: Path, texts: Mapping[str, str], chosen: _Chosen, said: str, render: Page) -> str:
    names = [*texts, *chosen.lists]
    binder = _Binder(folder, names, chosen.photographs, taken={"main", "theme"})
    sheets = []
    for name, text in (*texts.items(), *chosen.lists.items()):
        # What pages offer to readers without JavaScript, the lists are here.
        plain = re.sub(r"<noscript>.*?</noscript>", "", text, flags=re.DOTALL)
        filled = _with_tops(plain, chosen.tops) if name.startswith("layers/") else plain
        sheets.append(binder.section(name, filled))
    header = re.search(r"<header class=\"top\">.*?</header>", texts["index.html"], re.DOTALL)
    assets = [words.templates() / name for name in ("report.css", "single.css")]
    # What the style sheet says of the parts of <main> holds for the parts of a leaf.
    style = "\n".join(file.read_text("utf-8") for file in assets).replace("main >", ".leaf >")
    scripts = _scripts(folder, texts, chosen)
    return render(
        SINGLE,
        "single.html",
        "single",
        {
            "csp": _policy(style, [scripts[0], *scripts[1]]),
            "said": said,
            "style": words.markup(style),
            "first_script": words.markup(scripts[0]),
            "scripts": [words.markup(script) for script in scripts[1]],
            "header": words.markup(binder._link(header[0], "index.html") if header else ""),
            "sheets": words.markup("".join(sheets)),
            "lists": [(f"#{_anchor(name)}", name) for name in chosen.lists],
        },
    )


def _scripts(folder: Path, texts: Mapping[str, str], chosen: _Chosen) -> tuple[str, list[str]]:
    """Return the script of the theme, and all others in the order their pages load them."""
    # The scripts of one layer's page know of no other; what they fill in is in the page here.
    only_there = "assets/channels.js"
    files: dict[str, None] = {}
    for name, text in texts.items():
        for source in _SCRIPT.findall(text):
            file = _resolve(name, source)
            if file != only_there and not file.startswith("layers/"):
                files.setdefault(file)
    own = [name for name in files if not name.startswith("data/") and name != "assets/theme.js"]
    data = [name for name in files if name.startswith("data/") and name not in chosen.scripts]
    read: dict[str, str] = {name: (folder / name).read_text("utf-8") for name in (*own, *data)}
    bound = (words.templates() / "single.js").read_text("utf-8")
    shards = [name for name in chosen.scripts if name != "data/index.js"]
    scripts = [
        *(read[name] for name in own),
        bound,
        *(_inline(read[name]) for name in data),
        *(_inline(chosen.scripts[name]) for name in shards),
        _inline(chosen.scripts["data/index.js"]),
    ]
    return (folder / "assets/theme.js").read_text("utf-8"), scripts


def _inline(script: str) -> str:
    """Return a script of data so that nothing in its strings ends the element it stands in."""
    return script.replace("<", "\\u003c")


def _policy(style: str, scripts: Sequence[str]) -> str:
    def source(text: str) -> str:
        return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    allowed = " ".join(dict.fromkeys(source(script) for script in scripts))
    return (
        f"default-src 'none'; img-src data:; style-src {source(style)}; script-src {allowed}; "
        "base-uri 'none'; form-action 'none'"
    )


def _anchor(name: str) -> str:
    """Return the id of a page's section.

    >>> _anchor("layers/5-2.html")
    'page-layers-5-2'
    """
    return "page-" + re.sub(r"[^0-9A-Za-z_-]+", "-", name.removesuffix(".html"))


def _kind(text: str) -> str:
    found = re.search(r'<body class="page-([a-z]+)"', text)
    return found[1] if found else ""


def _resolve(page: str, address: str) -> str:
    """Return a file that a page names, relative to the report.

    >>> _resolve("layers/5.html", "../photos/00/a.jpg")
    'photos/00/a.jpg'
    """
    return normpath(str(PurePosixPath(page).parent / unquote(address.partition("#")[0])))


def _absent(tag: str) -> str:
    alt = _ALT.search(tag)
    return f'<span class="absent">{alt[1] if alt else ""} (not in this file)</span>'


def _address(content: bytes, suffix: str) -> str:
    kind = {".jpg": "image/jpeg", ".png": "image/png", ".svg": "image/svg+xml"}[suffix]
    return f"data:{kind};base64,{b64encode(content).decode('ascii')}"
