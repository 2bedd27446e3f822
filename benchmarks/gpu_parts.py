"""Parts of ``benchmarks.gpu``: agreement with the CPU, and what each step allows by itself."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import cv2
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

import exporter
from benchmarks.fixtures import photographs_at, prepared
from exporter.config import build_config
from exporter.contents import shard_store
from exporter.engines import Recipe
from exporter.errors import ExporterError
from exporter.explain import launch, load, rows
from exporter.images import decode
from exporter.maps import METHODS
from exporter.planning import bind
from exporter.store import create_run
from exporter.watch import Watch

LAYERS = {
    "resnet50": ("layer1", "layer2", "layer3", "layer4"),
    "mobilenet_v3_large": ("features.1", "features.3", "features.6", "features.16"),
    "convnext_tiny": ("features.1", "features.3", "features.5", "features.7"),
    "vit_b_16": tuple(f"encoder.layers.encoder_layer_{block}" for block in (3, 6, 8, 10)),
}
MAPS = ("gradcam", "gradcam++", "xgradcam", "layercam", "hirescam")
FORMATS = ("float32", "full float32", "tf32", "bf16", "fp16")
"""``float32`` is as torch sets it: TF32 in convolutions alone."""
THREADS = (1, 2, 4, 8, 16)


def agreement(device: torch.device) -> dict[str, Any]:
    """Return each method's largest difference from the CPU, as a share of the map's range.

    A convolutional network and a transformer are tried; a method that fits neither is an error.
    SmoothGrad draws its noise on the device, so its maps differ by design.
    """
    torch.manual_seed(0)
    subjects: tuple[tuple[nn.Module, tuple[str, ...]], ...] = (
        (prepared(torchvision.models.resnet18(weights=None)), ("layer3", "layer4")),
        (
            prepared(torchvision.models.VisionTransformer(224, 16, 4, 4, 64, 128, num_classes=10)),
            ("encoder.layers.encoder_layer_1",),
        ),
    )
    photographs = photographs_at(224, 224)[:2].double()
    differences: dict[str, Any] = {}
    for name in METHODS:
        worst = []
        for model, layers in subjects:
            wanted: dict[str, Any] = {"maps": [name], "layers": layers, "targets": [3, 3]}
            try:
                here = exporter.compute_maps(model.cpu().double(), photographs, **wanted)
            except ExporterError:
                continue  # attention has no maps in a convolutional network, cam none in a ViT
            there = exporter.compute_maps(model.to(device), photographs.to(device), **wanted)
            worst += [_difference(maps, there[key].cpu()) for key, maps in here.items()]
        differences[name] = max(worst)
    return differences


def _difference(expected: Tensor, given: Tensor) -> float:
    return float((expected - given).abs().max() / (expected.max() - expected.min()))


def host(files: Sequence[bytes]) -> dict[str, float]:
    """Return images per second of the host's work by itself, by the number of threads."""
    cv2.setNumThreads(0)
    arrays = [decode(file) for file in files[:512]]
    rates = {}
    for threads in THREADS:
        rates[f"decode, {threads} threads"] = rate_of(decode, threads, files)
        rates[f"resize, {threads} threads"] = rate_of(_resize, threads, arrays)
        rates[f"encode, {threads} threads"] = rate_of(_encode, threads, arrays)
    return rates


def stage_rates(
    name: str, images: Path, out: Path, device: torch.device, batch: int
) -> dict[str, float]:
    """Return images per second of what the host does in one process, by itself, on every core.

    ``feed`` reads and preprocesses, ``rows and write`` makes rows and JPEGs, measures the maps and
    writes the shard.
    """
    config = build_config(
        model=f"torchvision:{name}", images=str(images), out=out, weights="none", maps=MAPS,
        layers=LAYERS[name], device=str(device), batch_size=batch, shard_size=batch,
    )  # fmt: skip
    with bind(Recipe(config)) as job:
        shards = list(range(len(job.plan.shards)))
        batches = [next(iter(job.cut(shard))) for shard in shards]
        loaded: dict[int, Any] = {}

        def feed(shard: int) -> None:
            loaded[shard] = load(job, batches[shard].entries)

        cores = os.cpu_count() or 1
        rates = {"feed": batch * rate_of(feed, cores, shards, warm=0)}
        explainer = job.explainer(job.module)
        pending = [launch(job, explainer, loaded[shard]) for shard in shards]
        with create_run(out, job.plan) as folder:
            store = shard_store(job, folder, Watch())

            def write(shard: int) -> None:
                store(shard, [rows(job, pending[shard])])

            rates["rows and write"] = batch * rate_of(write, cores, shards, warm=0)
    return rates


def _resize(image: Any) -> Tensor:
    planes = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    return functional.interpolate(planes, (256, 256), mode="bilinear", antialias=True)


def _encode(image: Any) -> Any:
    return cv2.imencode(".jpg", image[:224, :224], [cv2.IMWRITE_JPEG_QUALITY, 85])


def rate_of(work: Callable[[Any], Any], threads: int, items: Sequence[Any], warm: int = 4) -> float:
    """Return how many items per second threads work on, after some each that do not count."""
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        list(pool.map(work, items[: warm * threads]))
        start = time.perf_counter()
        list(pool.map(work, items))
        return len(items) / (time.perf_counter() - start)


def model_rates(name: str, device: torch.device, batch: int) -> dict[str, float]:
    """Return images per second of a model, by number format."""
    module = torchvision.models.get_model(name, weights=None).eval().to(device)
    module.requires_grad_(False)
    images = torch.randn(batch, 3, 224, 224, device=device)
    if not name.startswith("vit"):
        module = module.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    leaves: list[Tensor] = []

    def begin_graph(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        leaves[:] = [output.detach().requires_grad_()]
        return leaves[0].clone()

    rates = {}
    handle = module.get_submodule(LAYERS[name][0]).register_forward_hook(begin_graph)
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    try:
        for form in FORMATS if device.type == "cuda" else ("float32",):
            matmul.allow_tf32 = form == "tf32"
            cudnn.allow_tf32 = form in ("float32", "tf32")

            def forward(form: str = form) -> Tensor:
                with _autocast(form, device):
                    output: Tensor = module(images)
                return output

            def backward(forward: Callable[[], Tensor] = forward) -> None:
                torch.autograd.grad(forward().float().amax(1).sum(), leaves[0])

            with torch.no_grad():
                rates[f"forward, {form}"] = device_rate(forward, batch, device)
            rates[f"forward and backward, {form}"] = device_rate(backward, batch, device)
    finally:
        handle.remove()
        matmul.allow_tf32, cudnn.allow_tf32 = before
    return rates


def _autocast(form: str, device: torch.device) -> AbstractContextManager[Any]:
    types = {"bf16": torch.bfloat16, "fp16": torch.float16}
    return torch.autocast(device.type, types[form]) if form in types else nullcontext()


def device_rate(step: Callable[[], Any], batch: int, device: torch.device, steps: int = 4) -> float:
    """Return images per second of a step that takes a batch, after one or two that do not count."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    for _ in range(min(2, steps)):
        step()
    wait()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    wait()
    return steps * batch / (time.perf_counter() - start)
