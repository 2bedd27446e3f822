"""Commands that make a run: all of it, or plan, work and finish apart."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click

from exporter.cli.flags import (
    BAD_REQUEST,
    DONE,
    RUN,
    SOME_SKIPPED,
    begin_flags,
    file_option,
    given,
    part,
    run_flags,
)
from exporter.config import RunConfig, build_config
from exporter.console import OUT, Bar, explained, marked, say_outcome
from exporter.doors import importing
from exporter.errors import ConfigError, counted
from exporter.launchers import Rank, read_rank, take_card

if TYPE_CHECKING:
    from exporter.engines import Recipe
    from exporter.run import Outcome
    from exporter.store import Run


@click.command("run")
@run_flags
@click.option(
    "--dry-run",
    is_flag=True,
    help="Show what would run, with an estimate of time and disk space; write nothing.",
)
@begin_flags
@click.option(
    "--add",
    is_flag=True,
    help="Add methods, layers or --faithfulness to the finished run that is there, and compute "
    "only what it lacks.",
)
def run_command(
    file: Path | None, dry_run: bool, resume: bool, overwrite: bool, add: bool, **flags: Any
) -> int:
    """Run a model over an image set, and write the run folder and its reports.

    This is plan, work and finish in one process; or in several, which torchrun or SLURM starts.
    """
    config = build_config(file, given(flags))
    if dry_run:
        return _dry_run(config, resume=resume or add, overwrite=overwrite)
    return _run(config, read_rank(), resume=resume, overwrite=overwrite, add=add)


@click.command("plan")
@run_flags
@begin_flags
def plan_command(file: Path | None, resume: bool, overwrite: bool, **flags: Any) -> int:
    """Decide what a run does and write its plan; compute nothing.

    'exporter work' then computes the shards, in as many processes as you start, and 'exporter
    finish' completes the run.
    """
    config = build_config(file, given(flags))
    with Bar() as bar:
        run: Run = _chain(bar).plan_run(
            _recipe(config), resume=resume, overwrite=overwrite, watch=bar
        )
    shards = len(run.plan.shards)
    folder = shlex.quote(str(run.path))
    OUT.print(
        f"[green]✓[/] planned {counted(len(run.plan.images), 'image')} in "
        f"{counted(shards, 'shard')}, {explained(run.plan)}"
    )
    OUT.print(f"compute  exporter work {marked(folder)} --shards i/n, with i from 0 to n - 1")
    OUT.print(f"then     exporter finish {marked(folder)}")
    return DONE


_TRUST = click.option(
    "--trust-recipe",
    is_flag=True,
    help="Run the code named in the run's recipe even if another user planned the run, or you did "
    "on a machine with another home folder.",
)


@click.command("work")
@RUN
@click.option(
    "--shards",
    "share",
    callback=part,
    metavar="i/n|-",
    help="Compute the shards k with k mod n = i, the share of worker i (from 0) of n workers; or, "
    "with -, the shards whose numbers are read from standard input, one per line: 'ready' is "
    "printed once the model is built, and each number once its shard is stored.  "
    "[default: as torchrun or SLURM says, else all of them]",
)
@click.option(
    "--workers",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="Decoding threads.  [default: as the run was planned]",
)
@_TRUST
def work_command(
    run_folder: Path, share: tuple[int, int] | str | None, workers: int, trust_recipe: bool
) -> int:
    """Compute the missing shards of a planned run; several workers may do so at once.

    The model is built again from the run's recipe, which runs the code that the recipe names.
    """
    if share == "-":
        return _work_as_told(run_folder, workers=workers, trust_recipe=trust_recipe)
    if share is None:
        rank = read_rank()
        take_card(rank)
        share = (0, 1) if rank is None else (rank.number, rank.count)
    with Bar() as bar:
        run: Run = _chain(bar).work_run(
            run_folder, part=share, workers=workers, trust_recipe=trust_recipe, watch=bar
        )
    there, shards = len(run.shards), len(run.plan.shards)
    OUT.print(f"[green]✓[/] {there} of {shards} shards are done")
    if there == shards and not run.complete:
        OUT.print(f"then     exporter finish {marked(shlex.quote(str(run_folder)))}")
    return DONE


def _work_as_told(run_folder: Path, **settings: Any) -> int:
    from exporter.engines.beside import READY

    # What the user's code prints is kept apart from what whoever hands out the shards reads.
    with os.fdopen(os.dup(1), "w") as told:
        os.dup2(2, 1)

        def stored(shard: int) -> None:
            print(shard, file=told, flush=True)

        def asked() -> Iterator[int]:
            print(READY, file=told, flush=True)
            yield from map(_number, sys.stdin)

        with Bar() as bar:
            _chain(bar).work_run(run_folder, asked(), stored=stored, watch=bar, **settings)
    return DONE


def _number(line: str) -> int:
    try:
        return int(line)
    except ValueError:
        raise ConfigError(f"{line.strip()!r} is not a shard number") from None


@click.command("finish")
@RUN
@_TRUST
def finish_command(run_folder: Path, trust_recipe: bool) -> int:
    """Merge the shards of a planned run and run its writers."""
    with Bar() as bar:
        outcome: Outcome = _chain(bar).finish_run(run_folder, trust_recipe=trust_recipe, watch=bar)
    return _say(outcome)


@click.command("demo")
@file_option(
    "--out",
    metavar="RUN",
    default=Path("runs/demo"),
    show_default=True,
    help="The run folder; an earlier demo there is replaced.",
)
def demo_command(out: Path) -> int:
    """Try everything offline, on bundled photographs with a real ImageNet model."""
    from exporter.demo import demo_config, is_demo

    overwrite = is_demo(out)
    return _run(demo_config(out), resume=False, overwrite=overwrite)


def _run(config: RunConfig, rank: Rank | None = None, **how: bool) -> int:
    with Bar() as bar:
        chain = _chain(bar)
        if config.device in ("auto", "cuda"):
            take_card(rank)
        if rank is not None and rank.number:
            run: Run = chain.join_run(_recipe(config), rank, watch=bar, **how)
        else:
            outcome: Outcome = chain.run(_recipe(config), rank=rank, watch=bar, **how)
            return _say(outcome)
    OUT.print(
        f"[green]✓[/] process {rank.number} of {rank.count}: {len(run.shards)} of "
        f"{len(run.plan.shards)} shards are done"
    )
    return DONE


def _chain(bar: Bar) -> ModuleType:
    """Import what needs torch, once a bar is there to be looked at."""
    bar.begin("starting")
    with importing():
        return import_module("exporter.run")


def _say(outcome: Outcome) -> int:
    say_outcome(outcome)
    if outcome.failed:
        return BAD_REQUEST
    return SOME_SKIPPED if outcome.skipped else DONE


def _recipe(config: RunConfig) -> Recipe:
    from exporter.engines import Recipe

    return Recipe(config, shlex.join(["exporter", *sys.argv[1:]]))


def _dry_run(config: RunConfig, *, resume: bool, overwrite: bool) -> int:
    with Bar() as bar:
        bar.begin("starting")
        from exporter.describe import describe_run
        from exporter.planning import bind
        from exporter.store import refuse_taken

        refuse_taken(config.out, overwrite=overwrite, resume=resume)
        with bind(_recipe(config), watch=bar) as job:
            bar.begin("timing one batch")
            described = list(describe_run(job))
    for what, text in described:
        OUT.print(f"{what:<9}{marked(text)}")
    return DONE
