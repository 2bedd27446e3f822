"""Commands that compute: ``run`` and ``demo``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from exporter.cli.exit_codes import BAD_REQUEST, DONE, INTERRUPTED, SOME_SKIPPED
from exporter.cli.flags import begin_flags, given, run_flags
from exporter.config import RunConfig, build_config
from exporter.console import ERR, OUT, Bar, duration, marked, say_outcome, size


@click.command("run")
@run_flags
@click.option(
    "--dry-run",
    is_flag=True,
    help="Say what would run, and an estimate of time and disk; write nothing.",
)
@begin_flags
def run_command(
    file: Path | None, dry_run: bool, resume: bool, overwrite: bool, **flags: Any
) -> int:
    """Run a model over an image set, and write the run folder and its reports."""
    if resume and overwrite:
        raise click.UsageError("--resume and --overwrite contradict each other; give one of them")
    config = build_config(file, given(flags))
    if dry_run:
        return _dry_run(config, resume=resume, overwrite=overwrite)
    try:
        return _run(config, resume=resume, overwrite=overwrite)
    except KeyboardInterrupt:
        ERR.print(
            "interrupted; what is done is kept: the same command with --resume goes on from it"
        )
        return INTERRUPTED


@click.command("demo")
@click.option(
    "--out",
    metavar="RUN",
    type=click.Path(path_type=Path),
    default=Path("runs/demo"),
    show_default=True,
    help="The run folder; a demo that is there is replaced.",
)
def demo_command(out: Path) -> int:
    """Do the whole job on bundled photographs with a real ImageNet model, offline."""
    from exporter.demo import demo_config, is_demo

    overwrite = is_demo(out)
    return _run(demo_config(out), resume=False, overwrite=overwrite)


def _run(config: RunConfig, *, resume: bool, overwrite: bool) -> int:
    with Bar() as bar:
        bar.begin("starting")
        from exporter.run import run

        outcome = run(
            config,
            resume=resume,
            overwrite=overwrite,
            watch=bar,
            command=shlex.join(["exporter", *sys.argv[1:]]),
        )
    say_outcome(config, outcome)
    if outcome.failed:
        return BAD_REQUEST
    return SOME_SKIPPED if outcome.skipped else DONE


def _dry_run(config: RunConfig, *, resume: bool, overwrite: bool) -> int:
    with Bar() as bar:
        bar.begin("starting")
        from exporter.maximise import describe_wanted
        from exporter.planning import plan_job
        from exporter.run import estimate
        from exporter.store import refuse_taken

        refuse_taken(config.out, overwrite=overwrite, resume=resume)
        with plan_job(config, watch=bar) as job:
            bar.begin("timing one batch")
            cost = estimate(job)
            passes = job.explainer(job.module).passes
    plan = job.plan
    broken = sum(entry.error is not None for entry in plan.images)
    OUT.print(
        f"images   {len(plan.images)} of {marked(plan.image_set)} ({marked(job.image_set.kind)})"
        + (f", {broken} cannot be read" if broken else "")
    )
    OUT.print(
        f"shards   {len(plan.shards)} of up to {config.shard_size}, batches of {config.batch_size}"
    )
    OUT.print(
        f"model    {marked(plan.model.name)}, {plan.model.parameters:,} parameters, on {job.device}"
    )
    OUT.print(f"layers   {marked(', '.join(plan.explained))} ({marked(plan.layer_reason)})")
    for index, step in enumerate(passes, 1):
        OUT.print(f"pass {index}   {marked(step.sentence)}")
    for wanted in job.maximised:
        OUT.print(f"maximise {marked(describe_wanted(wanted))}")
    OUT.print(f"time     about {duration(cost.seconds)} to compute, from a batch of {cost.batch}")
    if job.maximised:
        OUT.print(
            f"         and about {duration(cost.maximise_seconds)} to maximise, from a few steps"
        )
    OUT.print(f"disk     about {size(cost.store_bytes)} for the shards")
    if plan.label_match:
        OUT.print(f"labels   {marked(plan.label_match)}")
    for note in plan.notes:
        OUT.print(f"note     {marked(note)}")
    return DONE
