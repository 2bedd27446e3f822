"""What a CUDA card gives: agreement with the CPU, what each part of the way allows, and the export.

Seven parts:

- ``agreement``: every method in float64 on the card against the CPU; the largest difference as a
  share of the map's range;
- ``host``: images per second that decoding, resizing and JPEG encoding allow, by threads;
- ``model``: images per second of a forward, and of a forward and a backward to the shallowest
  layer, in float32, TF32, bfloat16 and float16 (autocast);
- ``stage``: images per second of reading and preprocessing, and of making rows and writing shards,
  each alone on every core;
- ``export``: images per second of the whole job and of its computing alone, five methods at every
  layer and one method at one layer, with the card's busy share and peak memory; of two models also
  in the 16-bit formats that the device has, with the change of maps against float32, and on a card
  compiled and with the batch size that fits;
- ``in memory``: images per second of the same maps, and of Grad-CAM alone, by ``compute_maps``,
  pytorch-grad-cam, torch-cam and captum;
- ``many``: images per second of ResNet-50's export by one process and by several.

The least of what the parts allow is the limit. A table comes last, and JSON goes to the folder
``--out`` after each part. On a CPU, sizes are small and two models are left out: a dry run.

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
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchvision

import exporter
from benchmarks.gpu_parts import (
    LAYERS,
    MAPS,
    agreement,
    device_rate,
    host,
    model_rates,
    stage_rates,
)
from benchmarks.libraries import calls
from benchmarks.photographs import make_photographs
from exporter.capture import TYPES
from exporter.models import has_format

_IN_16_BITS = ("resnet50", "vit_b_16")


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
    """Return images per second by library, inputs on the device and nothing written.

    Five methods at every layer, then Grad-CAM at the deepest layer alone.
    """
    model = torchvision.models.get_model(name, weights=None).eval().to(device)
    images = torch.randn(batch, 3, 224, 224, device=device)
    rates: dict[str, float] = {}
    few = 1 if device.type == "cpu" else 4
    for layers, methods, steps in ((LAYERS[name], MAPS, 1), (LAYERS[name][-1:], MAPS[:1], few)):
        for library, call in calls(model, images, layers, methods).items():
            what = f"{len(methods)} × {len(layers)} in memory, {library}"
            try:
                rates[what] = device_rate(call, batch, device, steps)
            except Exception as error:
                rates |= failed(what, error)
    return rates


def failed(what: str, error: Exception) -> dict[str, float]:
    """Return what stands for a part that failed, so that the others' figures are not lost."""
    return {f"{what} failed: {type(error).__name__}: {str(error)[:160]}": float("nan")}


def measure(device: torch.device, images: int, batch: int, out: Path) -> dict[str, Any]:
    """Run every part and return the figures, with the card and the versions.

    Args:
        device: where the models run.
        images: photographs of each run.
        batch: images per forward.
        out: the JSON file, written after each part.
    """
    on_card = device.type == "cuda"
    figures: dict[str, Any] = {
        "card": torch.cuda.get_device_name(device) if on_card else "none (CPU)",
        "versions": {"torch": torch.__version__, "torchvision": torchvision.__version__},
        "cores": os.cpu_count(),
        "images": images,
        "batch": batch,
    }
    models = tuple(LAYERS) if on_card else ("resnet50", "mobilenet_v3_large")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_photographs(folder / "images", images)
        files = [file.read_bytes() for file in sorted((folder / "images").rglob("*.jpg"))]
        parts: list[tuple[str, Callable[[], dict[str, Any]]]] = [
            ("agreement", lambda: agreement(device)),
            ("host", lambda: host(files)),
            *((model, partial(_of_model, model, folder, device, batch)) for model in models),
            ("many", lambda: many_processes(folder, device, batch, 8 * images)),
        ]
        for part, work in parts:
            start = time.perf_counter()
            try:
                figures[part] = work()
            except Exception as error:
                figures[part] = failed(part, error)
            out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
            spent = time.perf_counter() - start
            print(f"{part}: measured in {spent:.0f} s", file=sys.stderr, flush=True)
    return figures


def _of_model(model: str, folder: Path, device: torch.device, batch: int) -> dict[str, float]:
    """Return what each step allows for a model, and its exports, in images per second."""
    images = folder / "images"
    runs: list[tuple[str, dict[str, Any]]] = [
        ("5 × 4", {}),
        ("1 × 1", {"few": True}),
    ]
    if model in _IN_16_BITS:
        runs += [(f"5 × 4, {f}", {"precision": f}) for f in TYPES if has_format(f, device)]
    if device.type == "cuda" and model == "resnet50":
        runs.append(("5 × 4, compiled", {"compile": True}))
        runs.append(("5 × 4, batches that fit", {"batch_size": "auto"}))
    parts: list[tuple[str, Callable[[], dict[str, float]]]] = [
        ("model", lambda: model_rates(model, device, batch)),
        ("stages", lambda: stage_rates(model, images, folder / f"{model}-alone", device, batch)),
        *(
            (what, partial(export_rates, model, images, folder / f"{model}-{number}", device, what,
                **{"batch_size": batch, "processes": 1, **settings}))
            for number, (what, settings) in enumerate(runs)
        ),
        ("libraries", lambda: peer_rates(model, device, min(batch, 64))),
    ]  # fmt: skip
    rates: dict[str, float] = {}
    for part, work in parts:
        try:
            rates |= work()
        except Exception as error:
            rates |= failed(part, error)
    rates |= limit(rates)
    return {part: round(rate, 1) for part, rate in rates.items()}


def limit(rates: dict[str, float]) -> dict[str, float]:
    """Return the least of what each part allows, and what share of it five methods reach."""
    parts = ("feed", "rows and write", "forward and backward, float32")
    if not all(part in rates for part in (*parts, "export 5 × 4, computing")):
        return {}
    least = min(rates[part] for part in parts)
    return {"limit": least, "share of it (%)": 100 * rates["export 5 × 4, computing"] / least}


def many_processes(folder: Path, device: torch.device, batch: int, images: int) -> dict[str, float]:
    """Return images per second of ResNet-50's export by one process and by several, and how many.

    What a process costs to start is in it; so this takes more images than the other parts.
    """
    make_photographs(folder / "many", images)
    rates: dict[str, float] = {}
    for count in (1, "auto") if device.type == "cuda" else (1, 2):
        rates |= export_rates(
            "resnet50",
            folder / "many",
            folder / f"many-{count}",
            device,
            f"{images} images, processes: {count}",
            batch_size=batch,
            processes=count,
        )
    return rates


def table(figures: dict[str, Any]) -> str:
    """Lay the figures out for people: a row per part, a column per model."""
    models = [model for model in LAYERS if model in figures]
    differences = {n: d for n, d in figures["agreement"].items() if n != "smoothgrad"}
    worst = max(differences, key=differences.__getitem__)
    lines = [
        f"{figures['card']}, {figures['cores']} cores, torch {figures['versions']['torch']}, "
        f"{figures['images']} images, batches of {figures['batch']}; images per second",
        f"largest difference from the CPU in float64: {differences[worst]:.1e} ({worst})",
        *(
            f"{part:60}{rate:12,.0f}"
            for kind in ("host", "many")
            for part, rate in figures[kind].items()
        ),
        f"{'':60}" + "".join(f"{model:>20}" for model in models),
    ]
    parts = dict.fromkeys(part for model in models for part in figures[model])
    for part in parts:
        cells = (figures[model].get(part) for model in models)
        lines.append(
            f"{part:60}" + "".join(" " * 20 if c is None else f"{c:20,.1f}" for c in cells)
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write JSON and print the table."""
    on_card = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", metavar="FOLDER", type=Path, default=Path("gpu-out"))
    parser.add_argument("--device", default="cuda" if on_card else "cpu")
    parser.add_argument("--images", type=int, help="photographs per run  [1024 on a card, else 16]")
    parser.add_argument("--batch", type=int, help="images per forward  [128 on a card, else 4]")
    given = parser.parse_args(arguments)
    device = torch.device(given.device)
    large = device.type == "cuda"
    images = given.images or (1024 if large else 16)
    given.out.mkdir(parents=True, exist_ok=True)
    batch = given.batch or (128 if large else 4)
    print(table(measure(device, images, batch, given.out / "gpu.json")))


if __name__ == "__main__":
    main()
