"""Commands that make what goes into a paper."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from exporter.cli.flags import DONE, RUN_OR_COMPARISON, RUNS_OR_COMPARISON, file_option
from exporter.console import OUT, marked
from exporter.errors import counted

_ANONYMOUS = click.option(
    "--anonymous",
    is_flag=True,
    help="Identify runs only by the hash of their plan, for double-blind review.",
)


@click.command("figure")
@RUNS_OR_COMPARISON
@click.option("--image", "images", metavar="ID|PATH", multiple=True, help="An image; repeatable.")
@click.option(
    "--show",
    metavar="RULE",
    default="",
    help="Which images to show if none is named: chosen, random=N:SEED, or a text file of ids or "
    "paths.  [default: chosen]",
)
@click.option(
    "--map",
    "--maps",
    "maps",
    metavar="M,…",
    multiple=True,
    help="Map methods, or METHOD@LAYER; repeatable.  [default: all of the first run]",
)
@click.option(
    "--layer",
    "--layers",
    "layers",
    metavar="L,…",
    multiple=True,
    help="Layers, or deepest; repeatable.  [default: deepest]",
)
@click.option(
    "--target",
    metavar="T",
    help="Target whose maps are shown, such as class:281.  [default: the first stored]",
)
@click.option(
    "--width",
    metavar="W",
    default="cvpr-column",
    show_default=True,
    help="Width, such as 3.25in, 8.5cm, neurips or icml-column.",
)
@click.option("--font", metavar="F", default="DejaVu Sans", show_default=True, help="Font family.")
@click.option(
    "--font-size",
    type=float,
    metavar="PT",
    default=7.0,
    show_default=True,
    help="Font size in points.",
)
@click.option("--colormap", metavar="C", default="viridis", show_default=True, help="Colour map.")
@click.option(
    "--opacity",
    type=float,
    metavar="A",
    help="Opacity where a map is largest, 0 to 1.  [default: 0.8]",
)
@click.option(
    "--uniform-opacity",
    is_flag=True,
    help="Maps are equally opaque everywhere.",
)
@click.option(
    "--threshold",
    type=float,
    metavar="A",
    default=0.0,
    show_default=True,
    help="Hide a map below this share of its range, 0 to 1.",
)
@file_option(
    "--original",
    metavar="FOLDER",
    help="Show whole photographs, which are read from here, with each map where the model saw it.",
)
@file_option(
    "--out", required=True, help="A .pdf, .svg or .png file; one that is there is replaced."
)
@_ANONYMOUS
def figure_command(sources: tuple[Path, ...], out: Path, **given: Any) -> int:
    """Draw images × maps of runs for a paper, and print the LaTeX that shows it."""
    from exporter.publish.choosing import grid_of, unnamed
    from exporter.publish.figures import draw, inches
    from exporter.publish.look import Look, Type
    from exporter.publish.provenance import Provenance, this_command
    from exporter.publish.saving import latex, save

    grid = grid_of(
        sources,
        images=given.pop("images"),
        show=given.pop("show"),
        maps=_listed(given.pop("maps")),
        layers=_listed(given.pop("layers")),
    )
    grid = unnamed(grid) if given["anonymous"] else grid
    look = Look.of(
        given["target"],
        given["colormap"],
        given["opacity"],
        given["original"],
        uniform=given["uniform_opacity"],
        threshold=given["threshold"],
    )
    shown = latex(grid, out, look)
    drawn = draw(grid, look, Type(given["font"], given["font_size"]), inches(given["width"]))
    save(drawn, out, Provenance.of(grid.runs, this_command(), unnamed=given["anonymous"]))
    OUT.out(shown, highlight=False)
    return DONE


def _listed(given: Iterable[str]) -> tuple[str, ...]:
    return tuple(part.strip() for text in given for part in text.split(",") if part.strip())


@click.command("table")
@RUN_OR_COMPARISON
@click.option(
    "--what",
    metavar="T",
    default="",
    help="Which table. Of a run: accuracy, methods, agreement, faithfulness or classes. Of a "
    "comparison: accuracy, flips, similarity, measures, classes or layers.  [default: accuracy]",
)
@file_option(
    "--out",
    help="A .tex, .md or .csv file; one that is there is replaced.  [default: print Markdown]",
)
@_ANONYMOUS
def table_command(source: Path, what: str, out: Path | None, *, anonymous: bool) -> int:
    """Write numbers of a run or a comparison as a table for a paper."""
    from exporter.publish import table
    from exporter.publish.provenance import this_command

    drawn = table(source, what, anonymous=anonymous, out=out, command=this_command())
    if out is None:
        # The empty line ends the table: a line below it would be a row.
        OUT.out(drawn.as_markdown(), highlight=False)
    else:
        OUT.print(f"[green]✓[/] {marked(str(out))}: {counted(len(drawn.rows), 'row')}")
    OUT.print(marked(drawn.caption))
    return DONE
