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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from exporter.errors import WriterError
from exporter.writers.html import text as words
from exporter.writers.html.binding import IMAGE, PHOTOGRAPH, SOURCE, Binder, anchor, resolve
from exporter.writers.html.chosen import Chosen, Page, choose_images, count_present, with_tops
from exporter.writers.html.index import index_script
from exporter.writers.html.options import HtmlOptions

if TYPE_CHECKING:
    from exporter.store import Run

SINGLE = "report.html"
"""Name of the file, in the report's folder."""

_FIRST = ("index.html", "images.html")
_SHARE_OF_PAGES = 0.5
"""Pages about layers are left out, the largest first, until what is no image fits in this share."""

_SCRIPT = re.compile(r'<script src="([^"]+)"')


def write_single(
    run: Run,
    folder: Path,
    options: HtmlOptions,
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
    present = count_present(run)
    omitted = _omit(folder, texts, int(options.max_size * _SHARE_OF_PAGES))
    number = _guess(folder, texts, options.max_size, present)
    while True:
        chosen = choose_images(run, options, render, number)
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
    sources = [found[1] for tag in IMAGE.findall(text) if (found := SOURCE.search(tag))]
    # A picture that a page shows twice is in the file twice.
    files = [resolve(name, one) for one in sources if one and not one.startswith("data:")]
    drawn = [folder / file for file in files if not PHOTOGRAPH.search(file)]
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


def _what_is_left_out(
    images: int, present: int, options: HtmlOptions, omitted: Sequence[str]
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


def _bind(folder: Path, texts: Mapping[str, str], chosen: Chosen, said: str, render: Page) -> str:
    names = [*texts, *chosen.lists]
    binder = Binder(folder, names, chosen.photographs, taken={"main", "theme"})
    sheets = []
    for name, text in (*texts.items(), *chosen.lists.items()):
        # What pages offer to readers without JavaScript, the lists are here.
        plain = re.sub(r"<noscript>.*?</noscript>", "", text, flags=re.DOTALL)
        filled = with_tops(plain, chosen.tops) if name.startswith("layers/") else plain
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
            "header": words.markup(binder.link(header[0], "index.html") if header else ""),
            "sheets": words.markup("".join(sheets)),
            "lists": [(f"#{anchor(name)}", name) for name in chosen.lists],
        },
    )


def _scripts(folder: Path, texts: Mapping[str, str], chosen: Chosen) -> tuple[str, list[str]]:
    """Return the script of the theme, and all others in the order their pages load them."""
    # The scripts of one layer's page know of no other; what they fill in is in the page here.
    only_there = "assets/channels.js"
    files: dict[str, None] = {}
    for name, text in texts.items():
        for source in _SCRIPT.findall(text):
            file = resolve(name, source)
            if file != only_there and not file.startswith("layers/"):
                files.setdefault(file)
    own = [name for name in files if not name.startswith("data/") and name != "assets/theme.js"]
    bound = (words.templates() / "single.js").read_text("utf-8")
    shards = [name for name in chosen.scripts if name != "data/index.js"]
    scripts = [
        *((folder / name).read_text("utf-8") for name in own),
        bound,
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
