"""What a CUDA card gives: agreement with the CPU, what each part of the way allows, and the export.

Five parts, all in one process:

- ``agreement``: every method in float64 on the card against the CPU; the largest difference as a
  share of the map's range;
- ``host``: images per second that decoding, resizing and JPEG encoding allow, by threads;
- ``model``: images per second of a forward, and of a forward and a backward to the shallowest
  layer, in float32, TF32, bfloat16 and float16 (autocast);
- ``export``: images per second of the whole job and of its computing alone, five methods at every
  layer and one method at one layer, with the card's busy share and peak memory; then five methods
  in the 16-bit formats that the device has, with the change of maps against float32, and on a card
  also compiled and with the batch size that fits;
- ``peers``: images per second of Grad-CAM by pytorch-grad-cam, torch-cam and captum, and ours.

A table comes last, and JSON goes to the folder ``--out``. On a CPU, sizes are small: a dry run.

    python -m benchmarks.gpu --out gpu-out
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
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
from exporter.capture import TYPES
from exporter.errors import ExporterError
from exporter.images import decode
from exporter.maps import METHODS
from exporter.models import has_format

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


def export_rates(
    name: str,
    images: Path,
    out: Path,
    device: torch.device,
    what: str,
    *,
    few: bool = False,
    **settings: Any,
) -> dict[str, float]:
    """Return images per second of a whole run and of its computing, and how the card was used.

    Args:
        name: torchvision model name.
        images: folder of photographs.
        out: the run folder.
        device: where the model runs.
        what: how the figures are called.
        few: one method at the deepest layer, instead of five at every layer.
        **settings: of the run.
    """
    on_card = device.type == "cuda"
    if on_card:
        torch.cuda.reset_peak_memory_stats(device)
    shares: list[float] = []
    start = time.perf_counter()
    with _sampled(device, shares):
        run = exporter.export(
            f"torchvision:{name}",
            images,
            out=out,
            weights="none",
            maps=MAPS[:1] if few else MAPS,
            layers=LAYERS[name][-1:] if few else LAYERS[name],
            writers=("html", "tensorboard"),
            device=str(device),
            **settings,
        )
    wall = time.perf_counter() - start
    count = len(run.plan.images)
    assert run.totals is not None
    rates = {
        f"export {what}": count / wall,
        f"export {what}, computing": count / run.totals.seconds,
    }
    if run.plan.precision is not None:
        rates[f"export {what}, change of maps (%)"] = 100 * run.plan.precision.median
    if shares:
        rates[f"export {what}, card busy (%)"] = sum(shares) / len(shares)
    if on_card:
        rates[f"export {what}, peak memory (GiB)"] = torch.cuda.max_memory_allocated(device) / 2**30
    return rates


@contextmanager
def _sampled(device: torch.device, shares: list[float]) -> Iterator[None]:
    """Collect the card's utilisation in percent, ten times per second, where NVML is there."""
    stop = threading.Event()

    def sample() -> None:
        with suppress(Exception):  # NVML is not installed, or not allowed
            while not stop.wait(0.1):
                shares.append(float(torch.cuda.utilization(device)))

    thread = threading.Thread(target=sample, daemon=True)
    if device.type == "cuda":
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if thread.is_alive():
            thread.join()


def peer_rates(name: str, device: torch.device, batch: int) -> dict[str, float]:
    """Return images per second of Grad-CAM at the deepest layer, by library.

    Libraries that are not installed are left out.
    """
    model = torchvision.models.get_model(name, weights=None).eval().to(device)
    layer = LAYERS[name][-1]
    images = torch.randn(batch, 3, 224, 224, device=device)
    classes = [3] * batch
    rates = {}

    def ours() -> object:
        return exporter.compute_maps(
            model, images, maps=["gradcam"], layers=[layer], targets=classes
        )

    rates["ours"] = _device_rate(ours, batch, device)
    with suppress(ImportError):
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        targets = [ClassifierOutputTarget(index) for index in classes]
        with GradCAM(model=model, target_layers=[model.get_submodule(layer)]) as peer:
            rates["pytorch-grad-cam"] = _device_rate(
                lambda: peer(input_tensor=images, targets=targets), batch, device
            )
    with suppress(ImportError):
        from torchcam.methods import GradCAM as TorchCam

        extractor = TorchCam(model, layer)
        rates["torch-cam"] = _device_rate(lambda: extractor(classes, model(images)), batch, device)
        extractor.remove_hooks()
    with suppress(ImportError):
        from captum.attr import LayerGradCam

        captum = LayerGradCam(model, model.get_submodule(layer))
        rates["captum"] = _device_rate(
            lambda: captum.attribute(images, target=classes), batch, device
        )
    return {f"Grad-CAM, {library}": rate for library, rate in rates.items()}


def measure(device: torch.device, images: int, batch: int) -> dict[str, Any]:
    """Run every part and return the figures, with the card and the versions."""
    on_card = device.type == "cuda"
    figures: dict[str, Any] = {
        "card": torch.cuda.get_device_name(device) if on_card else "none (CPU)",
        "versions": {"torch": torch.__version__, "torchvision": torchvision.__version__},
        "cores": os.cpu_count(),
        "images": images,
        "batch": batch,
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_photographs(folder / "images", images)
        files = [file.read_bytes() for file in sorted((folder / "images").rglob("*.jpg"))]
        figures["agreement"] = agreement(device)
        figures["host"] = host(files)
        for model in LAYERS:
            rates: dict[str, float] = {}
            runs: list[tuple[str, dict[str, Any]]] = [
                ("5 × 4", {}),
                ("1 × 1", {"few": True}),
                *((f"5 × 4, {f}", {"precision": f}) for f in TYPES if has_format(f, device)),
            ]
            if on_card:
                runs.append(("5 × 4, compiled", {"compile": True}))
                runs.append(("5 × 4, batches that fit", {"batch_size": "auto"}))
            for part in (
                partial(model_rates, model, device, batch),
                *(
                    partial(
                        export_rates,
                        model,
                        folder / "images",
                        folder / f"{model}-{number}",
                        device,
                        what,
                        **{"batch_size": batch, **settings},
                    )
                    for number, (what, settings) in enumerate(runs)
                ),
                partial(peer_rates, model, device, min(batch, 64)),
            ):
                try:
                    rates |= part()
                except Exception as error:
                    # One part that fails leaves the others' figures.
                    rates[f"failed: {type(error).__name__}: {str(error)[:200]}"] = float("nan")
            figures[model] = {part: round(rate, 1) for part, rate in rates.items()}
            print(model, "measured", file=sys.stderr, flush=True)
    return figures


def table(figures: dict[str, Any]) -> str:
    """Lay the figures out for people: a row per part, a column per model."""
    worst = max(figures["agreement"], key=lambda name: _agreed(figures["agreement"], name))
    lines = [
        f"{figures['card']}, {figures['cores']} cores, torch {figures['versions']['torch']}, "
        f"{figures['images']} images, batches of {figures['batch']}; images per second",
        f"largest difference from the CPU in float64: {figures['agreement'][worst]:.1e} ({worst})",
        *(f"{part:50}{rate:12,.0f}" for part, rate in figures["host"].items()),
        f"{'':50}" + "".join(f"{model:>20}" for model in LAYERS),
    ]
    parts = dict.fromkeys(part for model in LAYERS for part in figures[model])
    for part in parts:
        cells = (figures[model].get(part) for model in LAYERS)
        lines.append(f"{part:50}" + "".join("" * 20 if c is None else f"{c:20,.1f}" for c in cells))
    return "\n".join(lines)


def _agreed(differences: dict[str, float], name: str) -> float:
    return 0.0 if name == "smoothgrad" else differences[name]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write JSON and print the table."""
    on_card = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", metavar="FOLDER", type=Path, default=Path("gpu-out"))
    parser.add_argument("--device", default="cuda" if on_card else "cpu")
    parser.add_argument("--images", type=int, help="photographs per run  [2048 on a card, else 16]")
    parser.add_argument("--batch", type=int, help="images per forward  [128 on a card, else 4]")
    given = parser.parse_args(arguments)
    device = torch.device(given.device)
    large = device.type == "cuda"
    images = given.images or (2048 if large else 16)
    figures = measure(device, images, given.batch or (128 if large else 4))
    given.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(figures, indent=1) + "\n"
    (given.out / "gpu.json").write_text(text, encoding="utf-8")
    print(table(figures))


if __name__ == "__main__":
    main()
