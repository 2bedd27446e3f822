"""The export beside what people do without it, on the same photographs, maps and threads.

Milliseconds per image, all in one process and one run:

- ``floor``: decode (by the fastest of our decoder, OpenCV and torchvision), one forward and one
  backward to the shallowest layer, nothing written;
- ``ours``: the whole export with 20 maps per image (5 methods at 4 layers): ``default`` keeps 64
  images for TensorBoard and W&B, ``all`` writes every image to every writer;
- ``usual``: pytorch-grad-cam, one call per method and layer, `SummaryWriter.add_image`, a table of
  `wandb.Image`, PNG files and one HTML page;
- ``single``: Grad-CAM at the deepest layer alone, inputs in memory, nothing written: ours,
  pytorch-grad-cam, torch-cam and captum in batches of 16; ``one``: the same for one image.

    python -m benchmarks.peers --json
    python -m benchmarks.peers --methods    # the dear methods instead: benchmarks.attributions
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import cv2
import torch
import torchvision
from torch import nn

from benchmarks import attributions, export, libraries
from benchmarks.photographs import make_photographs
from exporter.images import decode

IMAGES = {"mobilenet_v3_small": 960, "resnet18": 384, "resnet50": 192, "vit_b_16": 96}
USUAL = 8
"""Photographs that the usual stack is shown: it takes seconds for each."""
GOALS = {
    "mobilenet_v3_small": {"default": 1.0, "all": 1.3, "usual": 100.0},
    "resnet50": {"default": 1.05, "all": 1.1, "usual": 40.0},
}


def decoders(images: Path) -> dict[str, float]:
    """Return milliseconds per photograph of each decoder."""
    files = [path.read_bytes() for path in sorted(images.iterdir())[:64]]
    buffers = [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files]
    return {
        "ours": _each(lambda n: decode(files[n]), len(files)),
        "opencv": _each(
            lambda n: cv2.imdecode(buffers[n].numpy(), cv2.IMREAD_COLOR_RGB), len(files)
        ),
        "torchvision": _each(lambda n: torchvision.io.decode_jpeg(buffers[n]), len(files)),
    }


def _each(work: Callable[[int], object], count: int) -> float:
    """Return milliseconds per call, the lesser of two rounds."""
    rounds = []
    for _ in range(2):
        start = time.perf_counter()
        for n in range(count):
            work(n)
        rounds.append(1000 * (time.perf_counter() - start) / count)
    return min(rounds)


def usual_ms(name: str, images: Path, out: Path) -> float:
    """Return milliseconds per image of the usual stack, all 20 maps in every place."""
    import wandb
    from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, XGradCAM
    from pytorch_grad_cam.utils.image import show_cam_on_image
    from torch.utils.tensorboard import SummaryWriter

    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None).eval()
    preprocess = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    reshape = libraries.as_planes if name.startswith("vit") else None
    methods = (GradCAM, GradCAMPlusPlus, XGradCAM, LayerCAM, HiResCAM)
    paths = sorted(images.iterdir())[:USUAL]
    (out / "png").mkdir(parents=True)
    os.environ["WANDB_SILENT"] = "true"
    start = time.perf_counter()
    run = wandb.init(project="peers", mode="offline", dir=out)
    writer = SummaryWriter(out / "tensorboard")
    columns = [f"{method.__name__} {layer}" for method in methods for layer in export.LAYERS[name]]
    table = wandb.Table(columns=["image", *columns])
    page = ["<!doctype html><title>Maps</title>"]
    for step, path in enumerate(paths):
        picture = torchvision.io.decode_jpeg(torchvision.io.read_file(str(path)))
        batch = preprocess(picture)[None]
        view = torchvision.transforms.functional.center_crop(
            torchvision.transforms.functional.resize(picture, 256), [224, 224]
        )
        shown = view.permute(1, 2, 0).numpy() / 255
        page.append(f"<h2>{escape(path.name)}</h2>")
        overlays = []
        for method in methods:
            for layer in export.LAYERS[name]:
                with method(model, [model.get_submodule(layer)], reshape_transform=reshape) as cam:
                    overlay = show_cam_on_image(shown, cam(batch, None)[0], use_rgb=True)
                column = f"{method.__name__} {layer}"
                writer.add_image(f"{path.name}/{column}", overlay, step, dataformats="HWC")
                file = f"png/{path.stem}-{column}.png"
                cv2.imwrite(str(out / file), overlay[:, :, ::-1])
                page.append(f'<img src="{escape(file)}" alt="{column}">')
                overlays.append(overlay)
        table.add_data(path.name, *(wandb.Image(overlay) for overlay in overlays))
    run.log({"maps": table})
    run.finish()
    writer.close()
    (out / "index.html").write_text("\n".join(page))
    return 1000 * (time.perf_counter() - start) / len(paths)


def single_ms(name: str, batch: int) -> dict[str, float]:
    """Return milliseconds per image of Grad-CAM alone at the deepest layer, by library."""
    torch.manual_seed(0)
    model: nn.Module = torchvision.models.get_model(name, weights=None).eval()
    images = torch.randn(batch, 3, 224, 224)
    computed_by = libraries.calls(model, images, export.LAYERS[name][-1:], ["gradcam"])
    return {library: _fastest(call) / batch for library, call in computed_by.items()}


def _fastest(call: Callable[[], object], times: int = 7) -> float:
    call()
    spent = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        spent.append(time.perf_counter() - start)
    return 1000 * min(spent)


def measure(name: str, images: Path, work: Path) -> dict[str, Any]:
    """Measure one model, and return its entry of what is printed."""
    by_decoder = decoders(images)
    faster = by_decoder["ours"] - min(by_decoder.values())
    before = export.floor_ms(name, images, channels_last=not name.startswith("vit"))
    default = export.export_once(name, images, work / "default", 64)["export_ms"]
    every = export.export_once(name, images, work / "all", "all")["export_ms"]
    after = export.floor_ms(name, images, channels_last=not name.startswith("vit"))
    floor = (before + after) / 2 - faster
    usual = usual_ms(name, images, work / f"usual-{name}")
    single, alone = single_ms(name, 16), single_ms(name, 1)
    ratios = {"default": default / floor, "all": every / floor, "usual": usual / default}
    goals = GOALS.get(name, {})
    missed = [
        what
        for what, goal in goals.items()
        if (ratios[what] < goal if what == "usual" else ratios[what] > goal)
    ]
    for what, figures in (("single", single), ("one", alone)):
        missed += [f"{what}: {peer}" for peer, ms in figures.items() if ms < figures["ours"]]
    return {
        "model": name,
        "decode_ms": by_decoder,
        "floor_before_after_ms": [before, after],
        "floor_ms": floor,
        "ours_ms": {"default": default, "all": every},
        "usual_ms": usual,
        "ratios": ratios,
        "single_ms": single,
        "one_ms": alone,
        "missed": missed,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every model and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    parser.add_argument(
        "--model", action="append", choices=sorted(export.LAYERS), help="only this model"
    )
    parser.add_argument("--images", type=int, help="photographs per model (default: enough)")
    parser.add_argument("--methods", action="store_true", help="method by method instead")
    given = parser.parse_args(arguments)
    if given.methods:
        sys.exit(attributions.main(["--json"] if given.json else []))
    entries = []
    with tempfile.TemporaryDirectory(prefix="exporter-bench-") as folder:
        for name in given.model or IMAGES:
            images = Path(folder) / name
            make_photographs(images, given.images or IMAGES[name])
            entries.append(export.rounded(measure(name, images, Path(folder))))
            print(name, "measured", file=sys.stderr, flush=True)
    print(json.dumps({"models": entries}, indent=1 if given.json else None))


if __name__ == "__main__":
    main()
