"""Commands that share what a run or a comparison shows: in W&B, and as a site."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from exporter.cli.flags import DONE
from exporter.console import OUT, Bar, marked

SOURCES = click.argument(
    "sources", metavar="RUN…|CMP", nargs=-1, required=True, type=click.Path(path_type=Path)
)


@click.group("report")
def report_command() -> None:
    """Write a report where a team reads it."""


@report_command.command("wandb")
@SOURCES
@click.option("--entity", required=True, metavar="E", help="The W&B user or team.")
@click.option("--project", required=True, metavar="P", help="Its project, which has the runs.")
@click.option("--title", metavar="TEXT", help="Title.  [default: What MODEL looks at]")
@click.option(
    "--draft",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write the report's specification (JSON) into a file, and send nothing.",
)
@click.option(
    "--share", is_flag=True, help="Also make a link for those without an account, if W&B lets you."
)
@click.option("--report-url", metavar="U", help="Where the HTML report is published.")
@click.option("--tensorboard-url", metavar="U", help="Where TensorBoard is served.")
@click.option(
    "--wandb-run", metavar="ID", help="The W&B run that the runs went on with, if they did."
)
def wandb_report_command(sources: tuple[Path, ...], **given: Any) -> int:
    """Write a report in W&B about runs or a comparison: findings, tables, maps, numbers.

    The runs have to be in the project (exporter sync). The same runs give the same report: it is
    replaced, wherever it was renamed to.
    """
    from exporter.publish import wandb_report

    with Bar() as bar:
        bar.begin("writing the report")
        report = wandb_report(*sources, **given)
    if report.draft is not None:
        OUT.print(f"[green]✓[/] {marked(str(report.draft))} has the report's specification")
        return DONE
    verb = "replaced" if report.updated else "written"
    OUT.print(f"[green]✓[/] {verb}: {marked(report.url or '')}")
    if report.share_url is not None:
        OUT.print(f"for all  {marked(report.share_url)}")
    elif report.unshared:
        OUT.print(f"W&B makes no link for those without an account: {marked(report.unshared)}")
    return DONE
