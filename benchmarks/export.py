"""The whole export against its floor, in one process and one run.

The floor is what nobody can avoid: decode, preprocess, one forward, one backward to the shallowest
layer asked for, in the faster of the two memory formats, and nothing written. The export computes
20 maps per image (5 gradient methods at 4 layers), and writes the run folder and its logs:

- ``default``: 64 images go to TensorBoard and W&B, all to the store and the HTML report;
- ``all``: every image and all of its maps reach all three writers.

Times are wall-clock milliseconds per image, everything between the first and the last line of the
job included (planning, building the model, the import of W&B, checksums). Compare ratios, not
times: machines are noisy, so the floor is measured before and after the exports and averaged.

    python -m benchmarks.export --json
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.photographs import make_photographs
from exporter.config import RunConfig, build_config
from exporter.engines import Recipe
from exporter.explain import inputs
from exporter.images import open_images
from exporter.models import resolve
from exporter.run import run
from exporter.watch import Watch

METHODS = ("gradcam", "gradcam++", "xgradcam", "layercam", "hirescam")
LAYERS: dict[str, tuple[str, ...]] = {
    "mobilenet_v3_small": ("features.1", "features.3", "features.8", "features.12"),
    "resnet18": ("layer1", "layer2", "layer3", "layer4"),
    "resnet50": ("layer1", "layer2", "layer3", "layer4"),
    "vit_b_16": tuple(f"encoder.layers.encoder_layer_{block}" for block in (3, 6, 9, 10)),
}
# Enough work that what a run costs once (imports, building the model) is a small part of it.
IMAGES = {"mobilenet_v3_small": 1920, "resnet50": 384}
BATCH = 16


class Stages(Watch):
    """A watch that notes how long each stage took."""

    clock = staticmethod(time.perf_counter)

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._stage = ""
        self._since = self.clock()

    def begin(self, stage: str, total: int | None = None) -> None:  # noqa: ARG002
        """Close the stage before and open the next."""
        now = self.clock()
        if self._stage:
            self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + now - self._since
        self._stage, self._since = stage, now

    def say(self, line: str) -> None:
        """Pass a line on to standard error."""
        print(line, file=sys.stderr)


def floor_ms(name: str, images: Path, *, channels_last: bool, limit: int | None = None) -> float:
    """Return milliseconds per image for reading, one forward and one backward, nothing written.

    Args:
        name: torchvision model name.
        images: folder of the images.
        channels_last: memory format of model and inputs.
        limit: the first so many images.
    """
    resolved = resolve(f"torchvision:{name}", weights="none")
    module = resolved.module.eval().requires_grad_(False)
    if channels_last:
        module = module.to(memory_format=torch.channels_last)
    image_set = open_images(images, limit=limit)
    captured: list[torch.Tensor] = []
    handle = module.get_submodule(LAYERS[name][0]).register_forward_hook(_leaf(captured))
    preprocessing = resolved.record.preprocessing
    cpu = torch.device("cpu")

    def batch(first: int) -> None:
        prepared = [
            image_set.load(entry, preprocessing)
            for entry in image_set.entries[first : first + BATCH]
        ]
        logits = module(inputs(prepared, preprocessing, cpu, channels_last))
        torch.autograd.grad(logits.amax(1).sum(), captured.pop())

    batch(0)
    start = time.perf_counter()
    for first in range(0, len(image_set.entries), BATCH):
        batch(first)
    seconds = time.perf_counter() - start
    handle.remove()
    return 1000 * seconds / len(image_set.entries)


def _leaf(captured: list[torch.Tensor]) -> Any:
    def hook(module: nn.Module, arguments: object, output: torch.Tensor) -> torch.Tensor:  # noqa: ARG001
        leaf = output.detach().requires_grad_()
        captured.append(leaf)
        return leaf.clone()

    return hook


def export_once(name: str, images: Path, out: Path, keep: int | str) -> dict[str, Any]:
    """Run the whole export once.

    Args:
        name: torchvision model name.
        images: folder of the images.
        out: the run folder; removed afterwards.
        keep: images that TensorBoard and W&B show.

    Returns:
        ``export_ms``, ``images`` and ``bytes`` per writer, ``stages_ms``.
    """
    config: RunConfig = build_config(
        model=f"torchvision:{name}",
        images=str(images),
        out=out,
        weights="none",
        maps=METHODS,
        layers=LAYERS[name],
        batch_size=BATCH,
        keep=keep,
    )
    stages = Stages()
    start = time.perf_counter()
    outcome = run(Recipe(config), watch=stages)
    seconds = time.perf_counter() - start
    stages.begin("")
    if outcome.failed:
        raise SystemExit(f"a writer failed: {outcome.failed}")
    count = len(outcome.run.plan.images)
    sizes = {
        "store": _bytes(out / "shards"),
        **{folder.writer: _bytes(out / folder.writer) for folder in outcome.written},
    }
    shown = {"store": count, **{folder.writer: folder.shown for folder in outcome.written}}
    shutil.rmtree(out)
    return {
        "export_ms": 1000 * seconds / count,
        "images": shown,
        "bytes": sizes,
        "stages_ms": {stage: 1000 * taken / count for stage, taken in stages.seconds.items()},
    }


def measure(name: str, images: Path, work: Path) -> dict[str, Any]:
    """Measure one model: floor, both exports, floor again.

    Args:
        name: torchvision model name.
        images: folder of the images.
        work: where runs may be written.

    Returns:
        The model's entry of the printed JSON.
    """
    probe = 4 * BATCH
    formats = {
        "channels last": floor_ms(name, images, channels_last=True, limit=probe),
        "contiguous": floor_ms(name, images, channels_last=False, limit=probe),
    }
    faster = min(formats, key=formats.__getitem__)
    before = floor_ms(name, images, channels_last=faster == "channels last")
    default = export_once(name, images, work / "default", 64)
    every = export_once(name, images, work / "all", "all")
    after = floor_ms(name, images, channels_last=faster == "channels last")
    floor = (before + after) / 2
    entry: dict[str, Any] = rounded(
        {
            "model": name,
            "floor_ms": floor,
            "floor_before_after_ms": [before, after],
            "floor_format": faster,
            "export_ms": default["export_ms"],
            "ratio": default["export_ms"] / floor,
            "all": {
                "export_ms": every["export_ms"],
                "ratio": every["export_ms"] / floor,
                "images": every["images"],
                "bytes": every["bytes"],
                "stages_ms": every["stages_ms"],
            },
            "images": default["images"],
            "bytes": default["bytes"],
            "stages_ms": default["stages_ms"],
        }
    )
    return entry


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def rounded(value: Any) -> Any:
    """Round every number in nested dictionaries and lists to three digits."""
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every model and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.export", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    parser.add_argument("--model", action="append", choices=sorted(LAYERS), help="only this model")
    parser.add_argument("--images", type=int, help="images of each model (default: enough)")
    given = parser.parse_args(arguments)
    results = []
    with tempfile.TemporaryDirectory(prefix="exporter-bench-") as folder:
        for name in given.model or IMAGES:
            images = Path(folder) / name
            make_photographs(images, given.images or IMAGES.get(name, 192))
            results.append(measure(name, images, Path(folder)))
    if given.json:
        print(json.dumps({"models": results}, indent=1))
        return
    for result in results:
        print(
            f"{result['model']}: floor {result['floor_ms']} ms, "
            f"default {result['export_ms']} ms ({result['ratio']} ×), "
            f"all {result['all']['export_ms']} ms ({result['all']['ratio']} ×)"
        )


if __name__ == "__main__":
    main()
