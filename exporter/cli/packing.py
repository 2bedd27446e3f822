"""The command that makes a supplement."""

from __future__ import annotations

from pathlib import Path

import click

from exporter.cli.flags import DONE, file_option, several
from exporter.console import OUT, Bar, marked, size


@click.command("pack")
@several("sources", "RUN|CMP…")
@file_option("--out", required=True, help="The .zip file.")
@click.option(
    "--anonymous",
    is_flag=True,
    help="Leave out who made it, where and with which files; FILE.key.csv keeps the images' names.",
)
@click.option(
    "--for", "venue", metavar="V", default="", help="Keep to a venue's rules, such as neurips."
)
@click.option("--max-size", metavar="SIZE", help="Largest size, such as 50MB.  [default: V's]")
@file_option(
    "--index",
    "claims",
    help="The paper's claims: a Markdown list with links to pages of the reports.",
)
@file_option(
    "--credits",
    "credits_file",
    help="Licence and credits of images, models and data, as text or Markdown (.md).",
)
@click.option("--overwrite", is_flag=True, help="Replace the supplement that is already there.")
def pack_command(
    sources: tuple[Path, ...],
    out: Path,
    *,
    anonymous: bool,
    venue: str,
    max_size: str | None,
    claims: Path | None,
    credits_file: Path | None,
    overwrite: bool,
) -> int:
    """Write runs and comparisons as a supplement: one zip that opens from a double click."""
    from exporter.publish import pack
    from exporter.publish.provenance import this_command

    with Bar() as bar:
        packed = pack(
            *sources,
            out=out,
            anonymous=anonymous,
            venue=venue,
            max_size=max_size,
            claims=claims,
            credits=credits_file,
            command=this_command(),
            overwrite=overwrite,
            watch=bar,
        )
    OUT.print(f"[green]✓[/] {marked(str(packed.path))}: {size(packed.size)}, opens at index.html")
    for sentence in (*packed.left_out, *packed.notes):
        OUT.print(marked(sentence))
    return DONE
