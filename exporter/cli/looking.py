"""Commands that look at models, methods and runs; none of them computes a map."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from threading import Event
from typing import Any

import click
from rich.table import Table

from exporter.cli.comparing import render_comparison
from exporter.cli.completion import complete_model
from exporter.cli.flags import (
    BAD_REQUEST,
    DONE,
    RUN_OR_COMPARISON,
    file_option,
    given,
    several,
    writer_flags,
)
from exporter.config import build_writer_config
from exporter.console import ERR, OUT, Bar, marked, say_written
from exporter.errors import counted
from exporter.stores import Place, on_disk


@click.command("layers")
@click.argument("spec", shell_complete=complete_model)
@click.option(
    "--weights",
    default="none",
    show_default=True,
    metavar="W",
    help="Weights to load; the table needs none.",
)
@file_option("--checkpoint", help="A .pt or .safetensors file, or wandb:ENTITY/PROJECT/NAME:ALIAS.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def layers_command(spec: str, weights: str, checkpoint: Path | None, as_json: bool) -> int:
    """List a model's layers with type, output shape and parameters, and count them."""
    from exporter.describe import describe_layers

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
    for line in _counted(described["counts"]):
        OUT.print(marked(line))
    OUT.print(
        marked(
            f"explained by default: {', '.join(described['explained']) or 'none'} "
            f"({described['reason']})"
        )
    )
    return DONE


def _counted(counts: dict[str, Any]) -> Iterator[str]:
    """Say what `count_layers` counted, in words."""
    types = ", ".join(f"{number} {name}" for name, number in counts["types"].items())
    yield f"{counted(counts['modules'], 'module')}: {types}"
    downsample = counts["downsample"]
    besides = f" (and {downsample} in shortcuts)" if downsample else ""
    convolutions = counted(counts["convolutions"], "convolution")
    yield f"{convolutions}{besides}, {counted(counts['linear'], 'linear layer')}"
    if counts["blocks"]:
        yield f"{counted(counts['blocks'], 'block')} of type {counts['block_type']}"
    yield counted(counts["parameters"], "parameter")
    if counts["never_fired"]:
        yield f"never called in a forward pass: {counted(counts['never_fired'], 'module')}"


@click.command("maps")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def maps_command(as_json: bool) -> int:
    """List every map method: what it shows, its cost, formula and paper."""
    from exporter.maps import all_methods, borrowed_methods

    records = [method.record for method in all_methods().values()]
    libraries = borrowed_methods()
    if as_json:
        methods = [each for each in libraries.values() if not isinstance(each, str)]
        records += [method.record for of_library in methods for method in of_library]
        entries = [asdict(record) for record in records]
        OUT.out(json.dumps(entries, indent=1, ensure_ascii=False), highlight=False)
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
            *[f"{record.paper} {record.url}".strip()] * bool(record.paper or record.url),
        ):
            OUT.print("    " + marked(text))
        OUT.print()
    for library, there in libraries.items():
        OUT.print(f"[bold]{library}:NAME[/]  maps of {library}")
        names = there if isinstance(there, str) else ", ".join(of.name for of in there)
        OUT.print("    " + marked(names))
        OUT.print()
    return DONE


@click.command("render")
@RUN_OR_COMPARISON
@writer_flags
def render_command(source: Place, **flags: Any) -> int:
    """Run the writers again from a run folder, without the model and without torch.

    A comparison takes only --writer, --single-file and --max-size; its runs have to be where they
    were compared.
    """
    from exporter.store import open_run, refuse_damaged, reopen_run
    from exporter.store.layout import is_comparison
    from exporter.writers.writing import remembered, write_all

    if is_comparison(source):
        return render_comparison(Path(source), given(flags))
    with Bar() as bar, reopen_run(source, shared=False, watch=bar):
        opened = open_run(source)
        refuse_damaged(opened, bar)
        # All writers run unless some are named, whichever the run had.
        told = remembered(opened.files, bar)
        told.pop("writers", None)
        config = build_writer_config(given(flags), told)
        if not opened.complete:
            bar.say(
                f"the run is not complete: {len(opened.shards)} of {len(opened.plan.shards)} "
                "shards are done"
            )
        written, failed = write_all(opened, config, bar)
    say_written(opened, written, failed)
    return BAD_REQUEST if failed else DONE


@click.command("tensorboard")
@several("folders", "RUN…")
@click.option(
    "--host", default="localhost", show_default=True, metavar="H", help="Host to listen on."
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    metavar="N",
    help="Port to listen on.  [default: 6006 or the next free one]",
)
def tensorboard_command(folders: tuple[Path, ...], host: str, port: int | None) -> int:
    """Serve runs, or shared logs, with TensorBoard until Ctrl-C.

    RUN is a run folder, a log of --tensorboard-dir, or a folder that contains some; several are
    shown side by side. All steps are shown; TensorBoard alone would keep ten.
    """
    from exporter.writers.tensorboard.serving import serve

    folders = tuple(on_disk(folder, "TensorBoard is served from the disk") for folder in folders)
    with ExitStack() as serving:
        with Bar() as bar:
            bar.begin("starting TensorBoard")
            for what, address in serving.enter_context(serve(folders, host=host, port=port)):
                bar.say(f"{what:<34}{address}")
        ERR.print("serving; Ctrl-C ends it")  # after the bar, which would say it again and again
        with suppress(KeyboardInterrupt):
            Event().wait()
    return DONE


@click.command("sync")
@several("run_folders", "RUN|CMP…")
@click.option("--wandb-project", metavar="P", help="Project to send to.  [default: as in the log]")
@click.option("--wandb-entity", metavar="E", help="Entity to send to.  [default: as in the log]")
def sync_command(
    run_folders: tuple[Path, ...], wandb_project: str | None, wandb_entity: str | None
) -> int:
    """Send offline W&B runs, checking before and after that nothing is lost.

    For a comparison, W&B records which runs it was made from; they have to be there already.

    The key and the server are those of 'wandb login', or WANDB_API_KEY and WANDB_BASE_URL. A run
    that somebody else wrote, or you on another machine, needs --wandb-project and --wandb-entity.
    """
    from exporter.store import open_run, reopen_run
    from exporter.store.layout import is_comparison
    from exporter.writers.wandb.sync import sync_run

    place = {"project": wandb_project, "entity": wandb_entity}
    with Bar() as bar:
        for folder in run_folders:
            bar.begin(f"sending {folder}")
            if is_comparison(folder):
                from exporter.comparison import open_comparison
                from exporter.comparison.wandb import sync_comparison

                address = sync_comparison(open_comparison(folder), bar, **place)
            else:
                with reopen_run(folder, shared=False, watch=bar):
                    address = sync_run(open_run(folder), bar, **place)
            OUT.print(f"[green]✓[/] {marked(str(folder))} is at {marked(address)}")
    return DONE
