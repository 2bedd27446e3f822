"""What an export costs the host, around a model that costs nothing.

The model is four pointwise convolutions on planes of 56 to 7 pixels; five gradient methods are
computed at all four, so each photograph has 20 maps, as in ``benchmarks.export``. One thread does
everything. Printed, in milliseconds of CPU time per image:

- ``minimum``: the same photographs only decoded, resized and encoded, in a bare loop;
- ``export``: the whole run, by stage, of each further image; ``once_s`` is what a run costs once;
- ``rooms``: which part of the package was running, as a share of the samples, and which share held
  the interpreter's lock (GIL) meanwhile.

CPU time is the process's own clock. Where it went, and whether the lock was held, is sampled by
py-spy in two further runs of the same export; on a busy machine a thread holds the lock while it
waits for a core, so those figures want a quiet one.

    python -m benchmarks.host --json
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import torch
from torch import Tensor, nn

from benchmarks.export import METHODS, Stages, rounded
from benchmarks.photographs import make_photographs
from exporter.config import build_config
from exporter.engines import Recipe
from exporter.images import decode, open_images, prepare
from exporter.models import resolve
from exporter.render import encode_jpeg
from exporter.run import run

GOALS = {"ratio": 1.3, "gil_ms": 0.35}
_LAYERS = ("stages.0", "stages.1", "stages.2", "stages.3")
_SPEC = f"{Path(__file__).resolve()}:free"
_ROOM = re.compile(r"exporter/([a-z]+(?:/(?:html|tensorboard|wandb))?)[a-z_/]*\.py")


class Free(nn.Module):
    """A classifier of 1,000 classes whose forward and backward cost a tenth of a millisecond."""

    def __init__(self) -> None:
        super().__init__()
        channels = (3, 8, 8, 8, 8)
        self.stages = nn.Sequential(
            *(
                nn.Conv2d(channels[n], channels[n + 1], 1, stride=4 if n == 0 else 2)
                for n in range(4)
            )
        )
        self.head = nn.Linear(8, 1000)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, 1000) of images (N, 3, 224, 224)."""
        return self.head(self.stages(images).mean((2, 3)))  # type: ignore[no-any-return]


def free() -> nn.Module:
    """Build the model; the same weights each time."""
    torch.manual_seed(0)
    return Free()


class CpuStages(Stages):
    """A watch that notes how much CPU time all threads spent in each stage."""

    clock = staticmethod(time.process_time)


def minimum_ms(images: Path) -> dict[str, float]:
    """Return CPU milliseconds per image for decoding, resizing and encoding in a bare loop."""
    torch.set_num_threads(1)
    preprocessing = resolve(_SPEC).record.preprocessing
    image_set = open_images(images)
    image_set.load(image_set.entries[0], preprocessing)  # imports what it needs
    spent: dict[str, float] = dict.fromkeys(("decode", "resize", "encode"), 0.0)
    for entry in image_set.entries:
        content = (images / entry.path).read_bytes()
        start = time.process_time()
        pixels = decode(content)
        decoded = time.process_time()
        view, _ = prepare(pixels, preprocessing)
        resized = time.process_time()
        encode_jpeg(view)
        encoded = time.process_time()
        spent["decode"] += decoded - start
        spent["resize"] += resized - decoded
        spent["encode"] += encoded - resized
    count = len(image_set.entries)
    return {part: 1000 * seconds / count for part, seconds in spent.items()}


def export_once(images: Path, out: Path) -> dict[str, float]:
    """Run the export once on one thread, and return CPU seconds per stage."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    config = build_config(
        model=_SPEC,
        images=str(images),
        out=out,
        maps=METHODS,
        layers=_LAYERS,
        batch_size=16,
        workers=0,
    )
    stages = CpuStages()
    outcome = run(Recipe(config), watch=stages)
    stages.begin("")
    if outcome.failed:
        raise SystemExit(f"a writer failed: {outcome.failed}")
    return stages.seconds


def sampled(images: Path, work: Path, *, gil: bool) -> Counter[str]:
    """Run the export under py-spy, and count its samples by room.

    Args:
        images: folder of the images.
        work: where the run may be written.
        gil: count only samples that held the interpreter's lock, else those that ran.
    """
    raw = work / f"samples-{gil}.txt"
    options = ["--format", "raw", "--nolineno", "--nonblocking", "--output", str(raw)]
    command = [str(Path(sys.executable).with_name("py-spy")), "record", *options]
    subprocess.run(
        [*command, *(["--gil"] if gil else []), "--", *_once(images, work / f"run-{gil}")],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    samples: Counter[str] = Counter()
    for line in raw.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        rooms = _ROOM.findall(stack)
        samples[rooms[-1] if rooms else "imports and others"] += int(count)
    return samples


def _once(images: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "benchmarks.host", "--once", str(images), str(out)]


def measure(count: int) -> dict[str, Any]:
    """Measure everything on ``count`` photographs, and return what is printed."""
    with tempfile.TemporaryDirectory(prefix="exporter-bench-") as folder:
        work = Path(folder)
        few, images = work / "few", work / "images"
        make_photographs(few, count // 4)
        make_photographs(images, count)
        minimum = minimum_ms(images)
        fixed, whole = (
            json.loads(subprocess.run(_once(*each), check=True, capture_output=True).stdout)
            for each in ((few, work / "run-few"), (images, work / "run"))
        )
        running, held = (sampled(images, work, gil=gil) for gil in (False, True))
    # What a run costs once (imports, planning) is in both, and goes out of the difference.
    further = count - count // 4
    stages = {stage: 1000 * (whole[stage] - fixed[stage]) / further for stage in whole}
    export, floor = sum(stages.values()), sum(minimum.values())
    for samples in (running, held):
        del samples["imports and others"]
    rooms = {
        room: {"share": samples / running.total(), "held": held[room] / running.total()}
        for room, samples in running.most_common(12)
    }
    figures: dict[str, Any] = {
        "images": count,
        "minimum_ms": {**minimum, "all": floor},
        "export_ms": {**stages, "all": export},
        "once_s": sum(whole.values()) - export * count / 1000,
        "ratio": export / floor,
        "gil_ms": export * held.total() / running.total(),
        "images_per_second_per_core": 1000 / export,
        "rooms": rooms,
    }
    figures["missed"] = [name for name, most in GOALS.items() if figures[name] > most]
    return {name: rounded(value) for name, value in figures.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.host", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    parser.add_argument("--images", type=int, default=1024, help="how many photographs")
    parser.add_argument("--once", nargs=2, type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.once:
        print(json.dumps(export_once(*given.once)))
        return
    figures = measure(given.images)
    print(json.dumps(figures, indent=1) if given.json else figures)


if __name__ == "__main__":
    main()
