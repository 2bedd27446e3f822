"""The images that are in the report's single file: their columns, maps, lists and photographs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exporter.writers.html import text as words
from exporter.writers.html.images import list_contents, places
from exporter.writers.html.index import IMAGES_A_SHARD, SetIndex, parts, shows_probability
from exporter.writers.html.options import HtmlOptions
from exporter.writers.html.pages import list_row
from exporter.writers.html.shards import pack_shard

if TYPE_CHECKING:
    from exporter.store import Run

Page = Callable[[str, str, str, dict[str, Any]], str]
"""Renders (file, template, name, contents) and returns the page's text."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The images that are in the file: their columns, scripts, lists and photographs."""

    index: SetIndex
    tops: dict[str, str]
    scripts: dict[str, str]
    lists: dict[str, str]
    photographs: dict[str, bytes]


def choose_images(run: Run, options: HtmlOptions, render: Page, number: int) -> Chosen:
    """Make columns, scripts and lists of so many images.

    Args:
        run: the run.
        options: ``choose`` ranks the images; the first of ``kept`` where it is None.
        render: renders a list's template.
        number: how many.
    """
    ids: Sequence[str] = options.kept[:number]
    if number >= count_present(run):
        ids = [row.id for row in run.index]
    elif options.choose is not None:
        ids = options.choose(number)
    kept = set(options.kept)
    methods, layers = places(run.plan)
    probability = shows_probability(run.plan)
    index = SetIndex(probability=probability)
    chosen = Chosen(index, {}, {}, {}, {})
    for part, (start, stop) in enumerate(parts(len(ids), IMAGES_A_SHARD)):
        rows = [run.row(id) for id in ids[start:stop]]
        lines = []
        for at, row in enumerate(rows):
            index.add(row, kept=row.id in kept)
            lines.append(list_row(row, start + at, probability=probability))
            if row.image is not None:
                chosen.photographs[row.id] = row.image
        chosen.scripts[f"data/{part:05d}.js"] = pack_shard(part, rows, methods, layers, kept)
        name = f"list/{part:05d}.html"
        contents = list_contents(run.plan, lines, part, len(ids))
        chosen.lists[name] = render(name, "list.html", "list", contents)
    chosen.tops.update(_tops(run, chosen))
    return chosen


def count_present(run: Run) -> int:
    """Return how many images of a run are there."""
    return sum(stop - start for start, stop in (run.plan.shards[index] for index in run.shards))


def _tops(run: Run, chosen: Chosen) -> dict[str, str]:
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


def with_tops(text: str, tops: Mapping[str, str]) -> str:
    """Put the strongest images into the rows of a layer's page, which a script fills elsewhere."""
    layer = re.search(r"<h1><code>(.*?)</code></h1>", text, re.DOTALL)
    if layer is None:
        return text

    def change(found: re.Match[str]) -> str:
        return f"{found[1]}<td>{tops.get(f'{layer[1]} {found[2]}', '')}</td></tr>"

    return re.sub(r'(<tr id="c(\d+)">.*?)<td></td></tr>', change, text)
