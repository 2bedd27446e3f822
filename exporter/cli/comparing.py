"""The command that compares runs, and what renders a comparison again."""

from __future__ import annotations

import shlex
from collections.abc import Collection
from pathlib import Path
from typing import Any

import click

from exporter.cli.flags import DONE, file_option, several
from exporter.config import WriterConfig, flag_of
from exporter.console import OUT, Bar, marked
from exporter.errors import ConfigError, counted

_RENDERED = ("writers", "single_file", "max_size")
"""Settings of the writers that a comparison has, too."""


@click.command("compare")
@several("runs", "RUN...")
@file_option("--out", required=True, metavar="CMP", help="The comparison folder.")
@file_option(
    "--baseline",
    metavar="RUN",
    help="The run that the others are compared with.  [default: the first]",
)
@click.option(
    "--writer",
    "writers",
    multiple=True,
    type=click.Choice(("tensorboard", "wandb", "html")),
    help="What to write; repeatable.  [default: tensorboard wandb html]",
)
@click.option("--overwrite", is_flag=True, help="Replace the comparison that is already there.")
@click.option(
    "--single-file", is_flag=True, help="Also write the report as a single file, html/report.html."
)
@click.option(
    "--max-size",
    metavar="SIZE",
    default="20MB",
    show_default=True,
    help="Maximum size of that file; maps are left out to fit.",
)
@click.option(
    "--anonymous",
    is_flag=True,
    help="Leave out who made the runs, where and with which files; CMP.key.csv keeps the images' "
    "names.",
)
def compare_command(
    runs: tuple[Path, ...],
    out: Path,
    baseline: Path | None,
    writers: tuple[str, ...],
    **settings: Any,
) -> int:
    """Compare runs: what differs, which predictions flipped, how maps and layers changed.

    This needs neither the models nor torch. Runs are joined on the contents of their images.
    Checkpoints of one model are put in the order of their steps.
    """
    from exporter.comparison import WRITERS, compare

    asked = writers or WRITERS
    with Bar() as bar:
        comparison = compare(
            *runs, out=out, baseline=baseline, writers=asked, watch=bar, **settings
        )
    told = comparison.contents
    OUT.print(
        f"[green]✓[/] {counted(len(told.runs), 'run')} with {counted(told.images, 'image')} in "
        f"common; the baseline is {marked(told.runs[told.baseline].name)}"
    )
    for finding in comparison.findings:
        OUT.print(f"[bold]{marked(finding.about)}[/]: {marked(finding.text)}")
    _say_comparison(out, asked)
    if comparison.anonymous:
        key = f"{out.resolve().name}.key.csv"
        OUT.print(marked(f"{key} says which file each image is: keep it to yourself"))
    return DONE


def render_comparison(folder: Path, flags: dict[str, Any]) -> int:
    """Run the writers of a comparison again, as its flags say.

    Raises:
        ConfigError: of a flag that a comparison does not take.
    """
    from exporter.comparison import WRITERS, render

    asked = {"writers": WRITERS} | flags
    other = next((name for name in asked if name not in _RENDERED), None)
    if other is not None:
        raise ConfigError(
            f"a comparison takes no {flag_of(other, WriterConfig.model_fields[other])}; of the "
            "writers' flags it has --writer, --single-file and --max-size"
        )
    with Bar() as bar:
        render(folder, watch=bar, **asked)
    _say_comparison(folder, asked["writers"])
    return DONE


def _say_comparison(folder: Path, writers: Collection[str]) -> None:
    """Say how what was written of a comparison is opened."""
    opened = {
        "tensorboard": f"exporter tensorboard {shlex.quote(str(folder))}",
        "wandb": f"exporter sync {shlex.quote(str(folder))}",
        "html": str(folder / "html/index.html"),
    }
    for name in writers:
        OUT.print(f"{name:<12} {marked(opened[name])}")
