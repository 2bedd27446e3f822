"""The report of a comparison as one HTML file under a budget.

Its pages are those of the folder, as sections. All images are listed, with what each run predicts;
maps and photographs come with as many as fit, the others with a small photograph.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from exporter.comparison.index import index_script
from exporter.errors import WriterError
from exporter.writers.html import text as words
from exporter.writers.html.index import photograph_file
from exporter.writers.html.single import SINGLE, SIZE, asset_text, bind_sections

if TYPE_CHECKING:
    from exporter.comparison.html import Written

SCRIPTS: Final = ("theme.js", "tables.js", "paint.js", "data.js", "compare.js")


def write_single(
    whole: Written, written: Callable[[Path, Collection[str] | None], Written], limit: int
) -> str:
    """Write ``report.html`` beside the pages of a comparison.

    Returns:
        What is in the file and what is not.

    Raises:
        WriterError: if not even the pages fit.
    """
    order, total = _order(whole), len(whole.report.joined.ids)
    largest = _least(whole.report.folder)

    def bind(number: int) -> tuple[bytes, str]:
        with TemporaryDirectory(prefix="exporter-") as name:
            return _bind(written(Path(name), set(order[:number])), number)

    # One whose photographs and maps alone are too large is not put together to see that.
    content, note = _bind(whole, total) if largest <= limit else (b"", "")
    if not content or len(content) > limit:
        largest, (content, note) = max(largest, len(content)), bind(0)
        if len(content) > limit:
            raise WriterError(
                f"the comparison as one file takes {len(content):,} bytes without any map, and "
                f"--max-size allows {limit:,}; give it more, or leave --single-file out"
            )
        each = (largest - len(content)) / total
        number = int((limit - len(content)) / each)
        while number > 0:
            more = bind(number)
            if len(more[0]) <= limit:
                content, note = more
                break
            number -= 1 + int((len(more[0]) - limit) / each)
    whole.report.write(SINGLE, content)
    return note


def _least(folder: Path) -> int:
    """Return the bytes that the photographs, as Base64, and the maps of a report take alone."""
    photographs = sum(file.stat().st_size for file in (folder / "photos").rglob("*.jpg"))
    shards = sum(file.stat().st_size for file in (folder / "data").glob("[0-9]*.js"))
    return photographs * 4 // 3 + shards


def _order(whole: Written) -> list[str]:
    """Return the images that the first page shows, then those whose maps moved most."""
    report = whole.report
    shown = [row.id for rows in report.strips.values() for row in rows]
    moved = [
        (2.0 if row.likeness is None else row.likeness, row.id)
        for row in report.comparison.images()
    ]
    moved.sort(key=itemgetter(0))
    return list(dict.fromkeys([*shown, *(id for _, id in moved)]))


def _bind(written: Written, number: int) -> tuple[bytes, str]:
    report, total = written.report, len(written.report.joined.ids)
    photographs = {
        id: (report.folder / file).read_bytes()
        for at, id in enumerate(report.joined.ids)
        if (report.folder / (file := photograph_file(at, id))).is_file()
    }
    addresses = {id: words.data_address(jpeg, "jpeg") for id, jpeg in photographs.items()}
    shards = sorted((report.folder / "data").glob("[0-9]*.js"))
    maps = [shard.read_text("utf-8") for shard in shards]
    scripts = [
        *map(asset_text, SCRIPTS),
        f"window.exporterPhotographs = {json.dumps(addresses)};",
        asset_text("single.js"),
        # Nothing in the strings of data ends the element that it stands in.
        *(text.replace("<", "\\u003c") for text in maps),
        index_script(report, written.predicted).replace("<", "\\u003c"),
    ]
    return bind_sections(
        written.site,
        report.folder,
        written.sections,
        dict.fromkeys(report.joined.ids, b"") | photographs,
        scripts=scripts,
        style="".join(map(asset_text, ("report.css", "compare.css", "single.css"))),
        note=_note(number, total),
        shared={"told": report.comparison.contents},
    )


def _note(number: int, total: int) -> str:
    if number == total:
        return f"This file of {SIZE} holds all {words.count(total, 'image')}, with their maps."
    return (
        f"This file of {SIZE} holds the maps of {words.number(number)} of "
        f"{words.count(total, 'image')}: those of the first page, then those whose maps changed "
        "most. The others have a small photograph and what each run predicts; their maps are in "
        "the folder of the comparison."
    )
