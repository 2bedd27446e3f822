"""The ``exporter`` command: flags to a ``RunConfig``, progress, exit codes.

Exit codes: 0 done; 2 a bad request, one clear line; 3 done, but some images could not be read;
130 interrupted, and resumable.
"""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.table import Table

import exporter
from exporter.config import WRITERS, RunConfig, build_config, build_writer_config
from exporter.console import (
    ERR,
    OUT,
    Bar,
    counted,
    duration,
    explained,
    marked,
    say_outcome,
    say_written,
    size,
)
from exporter.errors import ExporterError

DONE, BAD_REQUEST, SOME_SKIPPED, INTERRUPTED = 0, 2, 3, 130

_F = TypeVar("_F", bound=Callable[..., Any])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code; ``sys.argv`` where no arguments are given."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    _print_anything()
    try:
        with _terminated_like_interrupted():
            code = group.main(args=given, prog_name="exporter", standalone_mode=False)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return BAD_REQUEST
    except ExporterError as error:
        ERR.print(f"[bold red]error:[/] {marked(str(error))}")
        return BAD_REQUEST
    except (KeyboardInterrupt, click.Abort):
        ERR.print("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (``| head``); keep Python from complaining about it.
        with contextlib.suppress(OSError):
            sys.stdout.close()
        return DONE
    return code if isinstance(code, int) else DONE


def _print_anything() -> None:
    """Let a terminal that cannot show a character show ``?``, rather than end the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


@contextlib.contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread: the caller owns the signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(exporter.__version__, prog_name="exporter")
def group() -> None:
    """See what a vision model sees, over a whole image set, in one pass.

    Kernels, activations and class-activation maps go to an open run folder, and from there to
    TensorBoard, W&B and a static HTML report.
    """


def _writer_flags(command: _F) -> _F:
    for flag in reversed(
        (
            click.option(
                "--writer",
                "writers",
                multiple=True,
                type=click.Choice(WRITERS),
                help="A sink to write; repeatable.  [default: all three]",
            ),
            click.option(
                "--keep",
                metavar="N|all",
                help="Images that TensorBoard and W&B show, and whose strongest channels the "
                "report shows, chosen by stated rules.  [default: 64]",
            ),
            click.option(
                "--report-url", metavar="U", help="Where the HTML report will be published."
            ),
            click.option(
                "--tensorboard-url", metavar="U", help="Where TensorBoard will be served."
            ),
            click.option(
                "--wandb",
                type=click.Choice(("offline", "online", "off")),
                help="How W&B is written.  [default: offline]",
            ),
            click.option("--wandb-project", metavar="P", help="Project of the W&B run."),
            click.option("--wandb-entity", metavar="E", help="Entity of the W&B run."),
            click.option(
                "--step", type=int, metavar="N", help="Step of the TensorBoard summaries (epoch)."
            ),
            click.option(
                "--single-file/--no-single-file",
                default=None,
                help="Write the report as one file too, html/report.html.",
            ),
            click.option(
                "--max-size",
                metavar="SIZE",
                help="Most that file may take; images are chosen to fit.  [default: 20MB]",
            ),
        )
    ):
        command = flag(command)
    return command


@group.command("run")
@click.option(
    "--model",
    metavar="SPEC",
    help="torchvision:resnet50, timm:NAME, module:factory, file.py:factory.",
)
@click.option(
    "--images",
    metavar="WHERE",
    help="A folder, class folders, a glob, a CSV/JSONL/Parquet list, module:factory.",
)
@click.option("--out", metavar="RUN", type=click.Path(path_type=Path), help="The run folder.")
@click.option(
    "--map",
    "maps",
    multiple=True,
    metavar="M",
    help="A map method ('exporter maps' lists them).  [default: gradcam layercam eigencam]",
)
@click.option(
    "--layer",
    "layers",
    multiple=True,
    metavar="L",
    help="A layer to explain: name, glob, @Type or auto; repeatable.  [default: auto]",
)
@click.option(
    "--fuse",
    type=click.Choice(("mean", "max", "product")),
    help="Also put each method's maps of the layers together into one, the layer 'fused'.",
)
@click.option(
    "--quality",
    is_flag=True,
    default=None,
    help="Also measure how faithful the deepest layer's maps are: deletion, insertion, ROAD; about "
    "42 forwards an image and method.",
)
@click.option(
    "--target",
    metavar="T",
    help="predicted, label, top-K, a class index or name, A-B, A+B, prob:T, value, box:N, mask, "
    "similar:IMAGE, module:function; docs/models.md lists all.  [default: predicted]",
)
@click.option(
    "--weights", metavar="W", help="Name of the weights, DEFAULT or none.  [default: DEFAULT]"
)
@click.option(
    "--checkpoint",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A .pt (read weights_only) or .safetensors file.",
)
@click.option(
    "--output",
    metavar="PATH",
    help="Which tensor of the model's output is explained, such as logits or 0.",
)
@click.option(
    "--reshape",
    metavar="FUNCTION",
    help="module:function from a layer's output to (N, C, H, W), where its shape does not tell.",
)
@click.option("--batch-size", type=int, metavar="N", help="Images a forward.  [default: 16]")
@click.option("--shard-size", type=int, metavar="N", help="Images a shard.  [default: 256]")
@click.option("--workers", type=int, metavar="N", help="Decoding threads; 0 chooses.  [default: 0]")
@click.option("--device", metavar="D", help="auto, cpu, cuda, cuda:1, mps.  [default: auto]")
@click.option(
    "--seed",
    type=int,
    metavar="N",
    help="Seeds random weights and every random choice.  [default: 0]",
)
@click.option("--limit", type=int, metavar="N", help="Only the first N images.")
@click.option(
    "--classes",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Class names, one a line or a JSON list.",
)
@click.option("--top-k", type=int, metavar="N", help="Predictions kept an image.  [default: 5]")
@click.option(
    "--activation",
    "activations",
    multiple=True,
    metavar="L",
    help="A layer whose strongest channels are kept; repeatable.  [default: the explained ones]",
)
@click.option(
    "--kernel",
    "kernels",
    multiple=True,
    metavar="L",
    help="A layer or parameter whose kernels are drawn.  [default: the first convolution]",
)
@click.option(
    "--maximise",
    multiple=True,
    metavar="LAYER:CHANNELS",
    help="Also make pictures that excite channels: layer4:0,3,10-14, layer4:strongest=8, "
    "output:CLASSES; a layer, auto or output; then :prior=fourier|total-variation|none, steps, "
    "size, jitter, zoom, seed; repeatable. docs/maps.md says more.",
)
@_writer_flags
@click.option(
    "--config",
    "file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A TOML file of settings; flags win over it.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Say what would run, and an estimate of time and disk; write nothing.",
)
@click.option("--resume", is_flag=True, help="Go on with a run that was interrupted.")
@click.option("--overwrite", is_flag=True, help="Replace the run that is there.")
def run_command(
    file: Path | None, dry_run: bool, resume: bool, overwrite: bool, **flags: Any
) -> int:
    """Run a model over an image set and write the run folder and its sinks."""
    if resume and overwrite:
        raise click.UsageError("--resume and --overwrite contradict each other; give one of them")
    config = build_config(file, _given(flags))
    if dry_run:
        return _dry_run(config, resume=resume, overwrite=overwrite)
    try:
        return _run(config, resume=resume, overwrite=overwrite)
    except KeyboardInterrupt:
        ERR.print(
            "interrupted; what is done is kept: the same command with --resume goes on from it"
        )
        return INTERRUPTED


@group.command("demo")
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


@group.command("layers")
@click.argument("spec")
@click.option(
    "--weights",
    default="none",
    show_default=True,
    metavar="W",
    help="Name of the weights; the table needs none.",
)
@click.option(
    "--checkpoint",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A .pt or .safetensors file.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def layers_command(spec: str, weights: str, checkpoint: Path | None, as_json: bool) -> int:
    """List every layer of a model: name, type, output shape, parameters; and count them."""
    from exporter.run import describe_layers

    described = describe_layers(spec, weights=weights, checkpoint=checkpoint)
    if as_json:
        OUT.out(json.dumps(described, indent=1), highlight=False)
        return DONE
    table = Table("layer", "type", "output shape", "parameters", box=None, pad_edge=False)
    table.columns[3].justify = "right"
    explained = set(described["explained"])
    for layer in described["layers"]:
        shape = (
            "×".join(map(str, layer["output"]))
            if layer["output"]
            else ("—" if layer["fired"] else "never called")
        )
        mark = " [green]◀ explained[/]" if layer["name"] in explained else ""
        table.add_row(
            "  " * layer["depth"] + marked(layer["name"]) + mark,
            marked(layer["type"]),
            shape,
            f"{layer['parameters']:,}",
        )
    OUT.print(table)
    OUT.print()
    for name, count in described["counts"].items():
        OUT.print(f"{marked(str(name))}: {marked(str(count))}")
    OUT.print(
        marked(
            f"explained by default: {', '.join(described['explained']) or 'none'} "
            f"({described['reason']})"
        )
    )
    return DONE


@group.command("maps")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def maps_command(as_json: bool) -> int:
    """List every map method: what it shows, its cost, formula and paper."""
    from exporter.maps import METHODS

    records = [method.record for method in METHODS.values()]
    if as_json:
        fields = (
            "name",
            "title",
            "shows",
            "formula",
            "paper",
            "url",
            "cost",
            "caveats",
            "relu",
            "pixel",
            "settings",
        )
        OUT.out(
            json.dumps(
                [
                    {f: getattr(record, f) for f in fields} | {"settings": dict(record.settings)}
                    for record in records
                ],
                indent=1,
                ensure_ascii=False,
            ),
            highlight=False,
        )
        return DONE
    for record in records:
        OUT.print(f"[bold]{marked(record.name)}[/]  {marked(record.title)}")
        for text in (
            record.shows,
            record.formula,
            f"cost: {record.cost}",
            *(
                ["settings: " + ", ".join(map("=".join, record.settings.items()))]
                * bool(record.settings)
            ),
            f"{record.paper} {record.url}",
        ):
            OUT.print("    " + marked(text))
        OUT.print()
    return DONE


@group.command("render")
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@_writer_flags
def render_command(run_folder: Path, **flags: Any) -> int:
    """Write the sinks again from a run folder; no model, no torch."""
    from exporter.sinks import remembered, write_sinks
    from exporter.store import open_run

    opened = open_run(run_folder)
    config = build_writer_config({**remembered(run_folder), **_given(flags)})
    if not opened.complete:
        ERR.print(
            f"the run is not complete: {len(opened.shards)} of {len(opened.plan.shards)} shards "
            "are there"
        )
    with Bar() as bar:
        written, failed = write_sinks(opened, config, bar)
    say_written(run_folder, written, failed)
    return BAD_REQUEST if failed else DONE


@group.command("check")
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
def check_command(run_folder: Path) -> int:
    """Check that every shard, image and link of a run is there and whole."""
    from exporter.store import check, open_run
    from exporter.writers.wandb.writer import verify_offline

    problems = list(check(run_folder))
    if (run_folder / "wandb").is_dir():
        problems.extend(verify_offline(run_folder / "wandb"))
    for problem in problems:
        OUT.print("[red]✗[/] " + marked(problem))
    if problems:
        return BAD_REQUEST
    opened = open_run(run_folder)
    OUT.print(
        f"[green]✓[/] {marked(str(run_folder))} is whole: {len(opened.plan.images)} images in "
        f"{counted(len(opened.plan.shards), 'shard')}, "
        f"{explained(opened.plan)}"
    )
    return DONE


def _given(flags: dict[str, Any]) -> dict[str, Any]:
    """Drop what was not given, so that a TOML file and the defaults count."""
    given = {name: value for name, value in flags.items() if value not in (None, ())}
    if "keep" in given and given["keep"] != "all":
        with contextlib.suppress(ValueError):
            given["keep"] = int(given["keep"])
    return given


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
        f"images   {len(plan.images)} of {marked(plan.image_set)}"
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
