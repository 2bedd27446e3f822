"""Commands that share what a run or a comparison shows: in W&B, and as a site."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from exporter.cli.flags import DONE, RUN_OR_COMPARISON, RUNS_OR_COMPARISON, file_option
from exporter.console import OUT, Bar, marked
from exporter.errors import counted


@click.group("report")
def report_command() -> None:
    """Write a report where a team reads it."""


@report_command.command("wandb")
@RUNS_OR_COMPARISON
@click.option("--entity", required=True, metavar="E", help="The W&B user or team.")
@click.option("--project", required=True, metavar="P", help="Its project, which has the runs.")
@click.option("--title", metavar="TEXT", help="Title.  [default: What MODEL looks at]")
@file_option(
    "--draft", help="Write the report's specification (JSON) into a file, and send nothing."
)
@click.option(
    "--share", is_flag=True, help="Also make a link for those without an account, if W&B lets you."
)
@click.option("--report-url", metavar="U", help="Where the HTML report is published.")
@click.option("--tensorboard-url", metavar="U", help="Where TensorBoard is served.")
@click.option("--wandb-run", metavar="ID", help="The W&B run that the runs continued, if they did.")
def wandb_report_command(sources: tuple[Path, ...], **given: Any) -> int:
    """Write a report in W&B about runs or a comparison: findings, tables, maps, numbers.

    The runs have to be in the project (exporter sync). The same runs give the same report, which is
    replaced, even if it was renamed.
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


@click.command("publish")
@RUN_OR_COMPARISON
@click.option(
    "--to",
    required=True,
    metavar="PLACE",
    help="A folder, s3://BUCKET/PATH or another address of fsspec, or hf://spaces/USER/NAME.",
)
@click.option("--robots", is_flag=True, help="Let search engines list it.")
def publish_command(source: Path, to: str, robots: bool) -> int:
    """Publish the HTML report of a run or a comparison as a static site.

    A site that was published there before is replaced. The run folder itself is not published.
    """
    from exporter.publish import publish_site

    with Bar() as bar:
        site = publish_site(source, to, robots=robots, watch=bar)
    OUT.print(
        f"[green]✓[/] {marked(site.place)}: {counted(site.files, 'file')}, "
        f"{site.size / 1e6:.3g} MB; begin with index.html"
    )
    OUT.print("not published: the run folder, with TensorBoard's log and W&B's")
    return DONE
