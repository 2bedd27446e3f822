"""How a run grows with the processes that share it.

    python -m benchmarks.scale [--json] [--images N]

Processes that were started together, each with one thread, against one with one thread, in turn:
images per second from the first shard to the last, so that starting and planning are not counted.
The ratio is that of the best of each, within one call.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from exporter.store import open_run

_SHARD = 32
_ASKED = (
    *("--model", "torchvision:resnet18", "--weights", "none", "--batch-size", "8"),
    *("--shard-size", str(_SHARD), "--writer", "html", "--workers", "0"),
)


def _photographs(folder: Path, count: int) -> None:
    noise = np.random.default_rng(0)
    folder.mkdir()
    for index in range(count):
        coarse = noise.integers(0, 255, (12, 16, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / f"{index:05d}.jpg"), cv2.resize(coarse, (320, 240)))


def _rate(images: Path, out: Path, processes: int) -> float:
    """Return images per second between the first shard that is stored and the last."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), "-m", "exporter", "run"]
    subprocess.run(
        [*command, "--images", str(images), "--out", str(out), *_ASKED],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
    )
    run = open_run(out)
    times = sorted((out / f"shards/{n:05d}.parquet").stat().st_mtime for n in run.shards)
    # Those that were stored first began together; what they took is not seen.
    counted = (len(times) - processes) * _SHARD
    return counted / (times[-1] - times[processes - 1])


def measure(count: int, repeats: int, processes: int = 2) -> dict[str, object]:
    """Measure one process and several in turn; return rates and the ratio of the best."""
    rates: dict[int, list[float]] = {1: [], processes: []}
    with tempfile.TemporaryDirectory() as place:
        images = Path(place) / "images"
        _photographs(images, count)
        for repeat in range(repeats):
            for number, measured in rates.items():
                measured.append(_rate(images, Path(place) / f"{number}-{repeat}", number))
    best = {number: max(measured) for number, measured in rates.items()}
    return {
        "images": count,
        "images per second": {str(number): measured for number, measured in rates.items()},
        "processes": processes,
        "ratio": best[processes] / best[1],
    }


def main() -> None:
    """Print what was measured, as JSON or in words."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--images", type=int, default=640)
    parser.add_argument("--repeats", type=int, default=2)
    asked = parser.parse_args()
    measured = measure(asked.images, asked.repeats)
    if asked.json:
        print(json.dumps(measured, indent=1))
    else:
        print(f"{measured['processes']} processes are {measured['ratio']:.2f} times as fast as one")


if __name__ == "__main__":
    main()
