"""Flags that several commands share."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from exporter.errors import ConfigError

_F = TypeVar("_F", bound=Callable[..., Any])


def run_flags(command: _F) -> _F:
    """Add the flags that settle what a run does."""
    return _add(command, *_RUN, *_WRITERS, _CONFIG)


def writer_flags(command: _F) -> _F:
    """Add the flags that only the writers read."""
    return _add(command, *_WRITERS)


def begin_flags(command: _F) -> _F:
    """Add the flags that say what becomes of a run that is already in the folder."""
    return _add(command, *_BEGIN)


def part(context: click.Context, option: click.Parameter, value: str) -> tuple[int, int]:  # noqa: ARG001
    """Read a worker's part of the shards: ``0/4`` is the first of four.

    Raises:
        click.BadParameter: if it is none.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", value)
    if match is None or int(match[1]) >= int(match[2]):
        raise click.BadParameter(f"{value!r} is not a part; write i/n with i from 0 to n - 1")
    return int(match[1]), int(match[2])


def _add(command: _F, *flags: Callable[[_F], _F]) -> _F:
    for flag in reversed(flags):
        command = flag(command)
    return command


def given(flags: dict[str, Any]) -> dict[str, Any]:
    """Drop what was not given, so that a TOML file and the defaults count."""
    values = {name: value for name, value in flags.items() if value not in (None, ())}
    if values.get("keep", "all") != "all":
        with contextlib.suppress(ValueError):
            values["keep"] = int(values["keep"])
    if "writer_options" in values:
        values["writer_options"] = _tables(values["writer_options"])
    return values


def _tables(options: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return ``NAME.KEY=VALUE`` texts as a table of options per writer."""
    tables: dict[str, dict[str, str]] = {}
    for text in options:
        place, sign, value = text.partition("=")
        name, dot, key = place.partition(".")
        if not (sign and dot and key):
            raise ConfigError(f"the writer option {text!r} is not NAME.KEY=VALUE")
        tables.setdefault(name, {})[key.replace("-", "_")] = value
    return tables


_RUN = (
    click.option(
        "--model",
        metavar="SPEC",
        help="torchvision:resnet50, timm:NAME, module:factory, file.py:factory.",
    ),
    click.option(
        "--images",
        metavar="WHERE",
        help="A folder, class folders, a glob, a CSV/JSONL/Parquet list, module:factory, "
        "file.py:factory, or what an installed image source takes.",
    ),
    click.option("--out", metavar="RUN", type=click.Path(path_type=Path), help="The run folder."),
    click.option(
        "--map",
        "maps",
        multiple=True,
        metavar="M",
        help="A map method ('exporter maps' lists them), or path/file.py:function for one of your "
        "own; repeatable.  [default: gradcam layercam eigencam]",
    ),
    click.option(
        "--layer",
        "layers",
        multiple=True,
        metavar="L",
        help="A layer to explain: name, glob, @Type or auto; repeatable.  [default: auto]",
    ),
    click.option(
        "--fuse",
        type=click.Choice(("mean", "max", "product")),
        help="Also combine each method's maps of all layers into one, shown as the layer 'fused'.",
    ),
    click.option(
        "--faithfulness",
        is_flag=True,
        default=None,
        help="Also measure how faithful the deepest layer's maps are: deletion, insertion, ROAD; "
        "about 42 forward passes per image and method.",
    ),
    # The former spelling of --faithfulness.
    click.option("--quality", is_flag=True, default=None, hidden=True),
    click.option(
        "--target",
        metavar="T",
        help="predicted, label, top-K, a class index or name, A-B, A+B, prob:T, value, box:N, "
        "mask, similar:IMAGE, module:function; docs/models.md lists all.  [default: predicted]",
    ),
    click.option(
        "--weights", metavar="W", help="Name of the weights, DEFAULT or none.  [default: DEFAULT]"
    ),
    click.option(
        "--checkpoint",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="A .pt (read weights_only) or .safetensors file.",
    ),
    click.option(
        "--output",
        metavar="PATH",
        help="The tensor of the model's output to explain, such as logits or 0.",
    ),
    click.option(
        "--reshape",
        metavar="FUNCTION",
        help="module:function that lays a layer's output out as (N, C, H, W), where its shape "
        "does not say how.",
    ),
    click.option(
        "--batch-size", type=int, metavar="N", help="Images per forward pass.  [default: 16]"
    ),
    click.option("--shard-size", type=int, metavar="N", help="Images per shard.  [default: 256]"),
    click.option(
        "--workers",
        type=int,
        metavar="N",
        help="Decoding threads; 0 lets the exporter choose.  [default: 0]",
    ),
    click.option("--device", metavar="D", help="auto, cpu, cuda, cuda:1, mps.  [default: auto]"),
    click.option(
        "--seed",
        type=int,
        metavar="N",
        help="Seed of random weights and of every random choice.  [default: 0]",
    ),
    click.option(
        "--engine",
        metavar="NAME",
        help="What computes the shards: local, or an installed plug-in.  [default: local]",
    ),
    click.option("--limit", type=int, metavar="N", help="Only the first N images."),
    click.option(
        "--classes",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="Class names: one per line, or a JSON list.",
    ),
    click.option(
        "--top-k", type=int, metavar="N", help="Predictions kept per image.  [default: 5]"
    ),
    click.option(
        "--activation",
        "activations",
        multiple=True,
        metavar="L",
        help="A layer whose strongest channels are kept; repeatable.  [default: the explained "
        "layers]",
    ),
    click.option(
        "--kernel",
        "kernels",
        multiple=True,
        metavar="L",
        help="A layer or parameter whose kernels are drawn; repeatable.  [default: the first "
        "convolution]",
    ),
    click.option(
        "--maximise",
        multiple=True,
        metavar="LAYER:CHANNELS",
        help="Also make pictures that excite channels, such as layer4:0,3,10-14, "
        "layer4:strongest=8 or output:CLASSES, with settings such as :prior=none:steps=256; "
        "repeatable. docs/maps.md lists the settings.",
    ),
)

_WRITERS = (
    click.option(
        "--writer",
        "writers",
        multiple=True,
        metavar="NAME",
        help="A writer to run: tensorboard, wandb, html or an installed one; repeatable.  "
        "[default: these three]",
    ),
    click.option(
        "--keep",
        metavar="N|all",
        help="Images that TensorBoard and W&B show, and whose strongest channels the report shows, "
        "chosen by stated rules.  [default: 64]",
    ),
    click.option("--report-url", metavar="U", help="Where the HTML report will be published."),
    click.option("--tensorboard-url", metavar="U", help="Where TensorBoard will be served."),
    click.option(
        "--wandb",
        type=click.Choice(("offline", "online", "off")),
        help="How W&B is written.  [default: offline]",
    ),
    click.option("--wandb-project", metavar="P", help="Project of the W&B run."),
    click.option("--wandb-entity", metavar="E", help="Entity of the W&B run."),
    click.option(
        "--step",
        type=int,
        metavar="N",
        help="Step of the TensorBoard summaries, such as the epoch.",
    ),
    click.option(
        "--single-file/--no-single-file",
        default=None,
        help="Write the report as one file too, html/report.html.",
    ),
    click.option(
        "--max-size",
        metavar="SIZE",
        help="Largest size of that file; images are chosen to fit.  [default: 20MB]",
    ),
    click.option(
        "--writer-option",
        "writer_options",
        multiple=True,
        metavar="NAME.KEY=VALUE",
        help="An option of an installed writer; repeatable.",
    ),
)

_CONFIG = click.option(
    "--config",
    "file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A TOML file of settings; flags win over it.",
)

_BEGIN = (
    click.option("--resume", is_flag=True, help="Go on with a run that was interrupted."),
    click.option("--overwrite", is_flag=True, help="Replace the run that is there."),
)
