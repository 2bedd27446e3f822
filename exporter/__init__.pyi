# The public interface with every setting as an argument, for editors and type checkers.
# Written by tests/test_api.py.

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import nn

from exporter.comparison import Comparison as Comparison
from exporter.comparison import compare as compare
from exporter.comparison import open_comparison as open_comparison
from exporter.explain import compute_maps as compute_maps
from exporter.maps import method as method
from exporter.run import finish as finish
from exporter.run import work as work
from exporter.store import Run as Run
from exporter.store import open_run as open_run
from exporter.watch import Watch

__all__ = [
    "Comparison",
    "Run",
    "__version__",
    "compare",
    "compute_maps",
    "export",
    "finish",
    "method",
    "open_comparison",
    "open_run",
    "plan",
    "work",
]

__version__: str

def export(
    model: str | nn.Module,
    images: object,
    *,
    out: str | Path,
    config: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    watch: Watch | None = None,
    maps: Sequence[str] = ("gradcam", "layercam", "eigencam"),
    layers: Sequence[str] = ("auto",),
    fuse: Literal["mean", "max", "product"] | None = None,
    faithfulness: bool = False,
    target: str = "predicted",
    weights: str = "DEFAULT",
    checkpoint: str | Path | None = None,
    output: str | None = None,
    reading: Literal["auto", "logits", "probability", "value"] = "auto",
    reshape: str | None = None,
    batch_size: int | Literal["auto"] = 16,
    shard_size: int = 256,
    workers: int = 0,
    processes: int | Literal["auto"] = "auto",
    precision: Literal["float32", "bf16", "fp16"] = "float32",
    compile: bool = False,
    device: str = "auto",
    seed: int = 0,
    engine: str = "local",
    limit: int | None = None,
    classes: str | Path | None = None,
    top_k: int = 5,
    activations: Sequence[str] = ("auto",),
    activation_channels: int = 8,
    kernels: Sequence[str] = ("auto",),
    maximise: Sequence[str] = (),
    preprocessing: Mapping[str, Any] = {},
    report: Mapping[str, Any] = {},
    title: str | None = None,
    single_file: bool = False,
    live: bool = True,
    max_size: int = 20000000,
    wandb: Literal["offline", "online", "off"] = "offline",
    wandb_project: str = "exporter",
    wandb_entity: str | None = None,
    step: int | None = None,
    tensorboard_dir: str | Path | None = None,
    report_url: str | None = None,
    tensorboard_url: str | None = None,
    writers: Sequence[str] = ("tensorboard", "wandb", "html"),
    keep: int | Literal["all"] = 64,
    writer_options: Mapping[str, Mapping[str, Any]] = {},
) -> Run: ...
def plan(
    model: str,
    images: str | Path,
    *,
    out: str | Path,
    config: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    watch: Watch | None = None,
    maps: Sequence[str] = ("gradcam", "layercam", "eigencam"),
    layers: Sequence[str] = ("auto",),
    fuse: Literal["mean", "max", "product"] | None = None,
    faithfulness: bool = False,
    target: str = "predicted",
    weights: str = "DEFAULT",
    checkpoint: str | Path | None = None,
    output: str | None = None,
    reading: Literal["auto", "logits", "probability", "value"] = "auto",
    reshape: str | None = None,
    batch_size: int | Literal["auto"] = 16,
    shard_size: int = 256,
    workers: int = 0,
    processes: int | Literal["auto"] = "auto",
    precision: Literal["float32", "bf16", "fp16"] = "float32",
    compile: bool = False,
    device: str = "auto",
    seed: int = 0,
    engine: str = "local",
    limit: int | None = None,
    classes: str | Path | None = None,
    top_k: int = 5,
    activations: Sequence[str] = ("auto",),
    activation_channels: int = 8,
    kernels: Sequence[str] = ("auto",),
    maximise: Sequence[str] = (),
    preprocessing: Mapping[str, Any] = {},
    report: Mapping[str, Any] = {},
    title: str | None = None,
    single_file: bool = False,
    live: bool = True,
    max_size: int = 20000000,
    wandb: Literal["offline", "online", "off"] = "offline",
    wandb_project: str = "exporter",
    wandb_entity: str | None = None,
    step: int | None = None,
    tensorboard_dir: str | Path | None = None,
    report_url: str | None = None,
    tensorboard_url: str | None = None,
    writers: Sequence[str] = ("tensorboard", "wandb", "html"),
    keep: int | Literal["all"] = 64,
    writer_options: Mapping[str, Mapping[str, Any]] = {},
) -> Run: ...
