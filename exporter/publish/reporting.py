"""A report in W&B, made from runs or a comparison: written by the program beside this module."""

from __future__ import annotations

import json
import shlex
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import Any

import exporter
from exporter.errors import ConfigError, WriterError, reason
from exporter.paths import without_folders
from exporter.publish.choosing import opened
from exporter.publish.subject import Subject
from exporter.publish.wandb_blocks import blocks
from exporter.store import Run
from exporter.writers.options import LinkSettings, WandbSettings
from exporter.writers.wandb.process import NO_KEY, WORK, environment, run_python, work_folder

SECONDS = 180.0
"""The most seconds that W&B may take to take a report."""

_LONGEST_TITLE = 128


@dataclass(frozen=True)
class WandbReport:
    """Where a report is.

    Attributes:
        url: its address in W&B; None for a draft.
        updated: whether it replaced one of the same runs.
        share_url: the address at which those without an account can read it, where one was asked
            for and the server gave one.
        unshared: why it gave none.
        draft: the file of its specification, where that is what was asked for.

    Examples:
        >>> WandbReport("https://wandb.ai/team/vision/reports/What-resnet50-looks-at").updated
        False
    """

    url: str | None = None
    updated: bool = False
    share_url: str | None = None
    unshared: str = ""
    draft: Path | None = None


def wandb_report(
    *sources: str | Path | Run,
    entity: str,
    project: str,
    title: str | None = None,
    draft: str | PathLike[str] | None = None,
    share: bool = False,
    report_url: str | None = None,
    tensorboard_url: str | None = None,
    wandb_run: str | None = None,
) -> WandbReport:
    """Write a report in W&B about runs, or about a comparison: findings, tables, maps, numbers.

    It shows the W&B runs that the run folders were written as, so these have to be in the project
    (``exporter sync``). A second call with the same runs replaces the report: it is found on the
    server by the mark in its description. Nothing is written into a run folder.

    Args:
        *sources: run folders, or one comparison folder.
        entity: the W&B user or team.
        project: its project, which has to exist.
        title: of the report; ``What MODEL looks at`` if None.
        draft: a file that takes the report's specification (JSON) instead of W&B; this needs no
            network.
        share: also make a link for those without an account, where the server allows it.
        report_url: where the HTML report is published.
        tensorboard_url: where TensorBoard is served.
        wandb_run: id of the W&B run that the runs continued (``--wandb-run``).

    Raises:
        RunError: if a run folder cannot be read, or has no W&B run.
        ConfigError: if wandb-workspaces is missing, or a name or an address is invalid.
        WriterError: if there is no key or no such project, or W&B does not take the report.

    Examples:
        >>> report = wandb_report("runs/a", entity="team", project="vision")  # doctest: +SKIP
        >>> report.url  # doctest: +SKIP
        'https://wandb.ai/team/vision/reports/What-resnet50-looks-at--Vmlldzo'
    """
    if find_spec("wandb_workspaces") is None:
        raise ConfigError(
            "a report in W&B needs wandb-workspaces, which is not installed: "
            "pip install 'exporter[reports]'"
        )
    told = _checked(entity, project, wandb_run, report_url, tensorboard_url)
    runs, comparison = opened(sources)
    if told.report_url is not None and comparison is None and len(runs) > 1:
        raise ConfigError(
            "several runs have no report of their own to link to; give report_url with one run, "
            "or with a comparison"
        )
    command = _command(sources, entity, project, title, told)
    subject = Subject(
        tuple(runs), comparison, wandb_run, told.report_url, told.tensorboard_url, command
    )
    job = {
        "entity": entity,
        "project": project,
        "title": (title or subject.title)[:_LONGEST_TITLE],
        "titled": title is not None,
        "description": f"Written by exporter {exporter.__version__}, mark {subject.mark}.",
        "mark": subject.mark,
        "blocks": blocks(subject),
        "share": share,
        "draft": draft is not None,
    }
    answer = _answer(job)
    if draft is not None:
        _write(Path(draft), answer["specification"])
        return WandbReport(draft=Path(draft))
    return WandbReport(
        answer["url"], answer["updated"], answer.get("share"), answer.get("unshared", "")
    )


def _checked(
    entity: str,
    project: str,
    run: str | None,
    report_url: str | None,
    tensorboard_url: str | None,
) -> LinkSettings:
    """Check what names W&B's places and the addresses.

    Raises:
        ConfigError: if one is malformed.
    """
    for what, name in (("entity", entity), ("project", project)):
        if not name or "/" in name or not name.isprintable():
            raise ConfigError(
                f"{name!r} is not a valid {what}; give its name as it appears in W&B's address"
            )
    from pydantic import ValidationError

    try:
        WandbSettings(wandb_run=run)
        return LinkSettings(report_url=report_url, tensorboard_url=tensorboard_url)
    except ValidationError as error:
        raise ConfigError(str(error.errors()[0]["ctx"]["error"])) from None


def _command(sources: Any, entity: str, project: str, title: str | None, told: LinkSettings) -> str:
    """Return the command that makes the report again, without the folders of this machine."""
    folders = [str(each.path if isinstance(each, Run) else each) for each in sources]
    flags = {"--entity": entity, "--project": project, "--title": title}
    flags |= {"--report-url": told.report_url, "--tensorboard-url": told.tensorboard_url}
    words = ["exporter", "report", "wandb", *map(without_folders, folders)]
    for flag, value in flags.items():
        words += [flag, value] if value is not None else []
    return shlex.join(words)


def _answer(job: dict[str, Any]) -> dict[str, Any]:
    """Run the program, and return what it answers.

    Raises:
        WriterError: if W&B does not take the report.
    """
    program = Path(__file__).resolve().with_name("wandb_program.py")
    with tempfile.TemporaryDirectory(prefix="exporter-") as name, work_folder(Path(name)):
        folder = Path(name)
        file = folder / WORK / "job.json"
        file.write_text(json.dumps(job), encoding="utf-8")
        status, answered, errors = run_python(
            (str(program), str(file)),
            folder,
            environment(folder, online=not job["draft"]),
            SECONDS,
        )
    if status != 0 or not answered:
        said = errors.strip().splitlines()
        raise WriterError(f"W&B's process ended early: {said[-1] if said else 'no reason given'}")
    answer: dict[str, Any] = json.loads(answered)
    place = f"{job['entity']}/{job['project']}"
    if "no key" in answer:
        raise WriterError(f"{NO_KEY}, or write a draft: --draft FILE")
    if "no project" in answer:
        raise WriterError(
            f"W&B has no project {place!r} that you can see; send its runs there first: exporter "
            f"sync RUN --wandb-entity {job['entity']} --wandb-project {job['project']}"
        )
    if "refused" in answer:
        raise WriterError(f"{answer['refused']}; --draft FILE writes the report without a network")
    return answer


def _write(file: Path, specification: dict[str, Any]) -> None:
    try:
        file.write_text(json.dumps(specification, indent=1, ensure_ascii=False), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{str(file)!r} cannot be written: {reason(error)}") from error
