"""What a CUDA card gives: agreement with the CPU, what each part of the way allows, and the export.

Four parts, all in one process:

- ``agreement``: every method in float64 on the card against the CPU; the largest difference as a
  share of the map's range;
- ``host``: images per second that decoding, resizing and JPEG encoding allow, by threads;
- ``model``: images per second of a forward, and of a forward and a backward to the shallowest
  layer, in float32, TF32, bfloat16 and float16 (autocast);
- ``export``: images per second of the whole job, its computing alone, and the limit that the
  other figures set: the slowest of feeding, computing and encoding.

    python -m benchmarks.gpu --json gpu.json
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
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
from benchmarks.photographs import make_photographs
from exporter.errors import ExporterError
from exporter.images import decode
from exporter.maps import METHODS

LAYERS = {
    "resnet50": ("layer1", "layer2", "layer3", "layer4"),
    "mobilenet_v3_large": ("features.1", "features.3", "features.6", "features.16"),
    "vit_b_16": tuple(f"encoder.layers.encoder_layer_{block}" for block in (3, 6, 10)),
}
MAPS = ("gradcam", "gradcam++", "xgradcam", "layercam", "hirescam")
FORMATS = ("float32", "tf32", "bf16", "fp16")
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
        rates[f"decode, {threads} threads"] = _rate_of(decode, threads, files)
        rates[f"resize, {threads} threads"] = _rate_of(_resize, threads, arrays)
        rates[f"encode, {threads} threads"] = _rate_of(_encode, threads, arrays)
    return rates


def _resize(image: Any) -> Tensor:
    planes = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    return functional.interpolate(planes, (256, 256), mode="bilinear", antialias=True)


def _encode(image: Any) -> Any:
    return cv2.imencode(".jpg", image[:224, :224], [cv2.IMWRITE_JPEG_QUALITY, 85])


def _rate_of(work: Callable[[Any], Any], threads: int, items: Sequence[Any]) -> float:
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        list(pool.map(work, items[: 4 * threads]))
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
            matmul.allow_tf32 = cudnn.allow_tf32 = form == "tf32"

            def forward(form: str = form) -> Tensor:
                with _autocast(form, device):
                    output: Tensor = module(images)
                return output

            def backward(forward: Callable[[], Tensor] = forward) -> None:
                torch.autograd.grad(forward().float().amax(1).sum(), leaves[0])

            with torch.no_grad():
                rates[f"forward, {form}"] = _device_rate(forward, batch, device)
            rates[f"forward and backward, {form}"] = _device_rate(backward, batch, device)
    finally:
        handle.remove()
        matmul.allow_tf32, cudnn.allow_tf32 = before
    return rates


def _autocast(form: str, device: torch.device) -> AbstractContextManager[Any]:
    types = {"bf16": torch.bfloat16, "fp16": torch.float16}
    return torch.autocast(device.type, types[form]) if form in types else nullcontext()


def _device_rate(
    step: Callable[[], Any], batch: int, device: torch.device, steps: int = 4
) -> float:
    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    step()
    step()
    wait()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    wait()
    return steps * batch / (time.perf_counter() - start)


def export_rates(name: str, images: Path, out: Path, device: str, batch: int) -> dict[str, float]:
    """Return images per second of a whole run, and of its computing alone."""
    start = time.perf_counter()
    run = exporter.export(
        f"torchvision:{name}",
        images,
        out=out,
        weights="none",
        maps=MAPS,
        layers=LAYERS[name],
        batch_size=batch,
        writers=("html", "tensorboard"),
        device=device,
    )
    wall = time.perf_counter() - start
    count = len(run.plan.images)
    assert run.totals is not None
    return {"whole": count / wall, "computing": count / run.totals.seconds}


def measure(device: str, images: int, batch: int) -> dict[str, Any]:
    """Run every part and return the figures, with the card and the versions."""
    chosen = torch.device(device)
    figures: dict[str, Any] = {
        "card": torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else "none (CPU)",
        "versions": {"torch": torch.__version__, "torchvision": torchvision.__version__},
        "cores": os.cpu_count(),
        "images": images,
        "batch": batch,
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_photographs(folder / "images", images)
        files = [file.read_bytes() for file in sorted((folder / "images").rglob("*.jpg"))]
        figures["agreement"] = agreement(chosen)
        print("agreement", max(figures["agreement"].values()), file=sys.stderr)
        figures["host"] = host(files)
        for model in LAYERS:
            rates = model_rates(model, chosen, batch)
            rates |= export_rates(model, folder / "images", folder / model, device, batch)
            figures[model] = {part: round(rate, 1) for part, rate in rates.items()}
            print(model, figures[model], file=sys.stderr)
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print or write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--images", type=int, default=2048 if torch.cuda.is_available() else 32)
    parser.add_argument("--batch", type=int, default=128 if torch.cuda.is_available() else 8)
    given = parser.parse_args(arguments)
    text = json.dumps(measure(given.device, given.images, given.batch), indent=1)
    if given.json:
        given.json.write_text(text + "\n", encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
