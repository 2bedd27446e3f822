"""How a run grows with the processes that share it, and with the images it has.

    python -m benchmarks.scale [--json] [--only processes|images|large]

*Processes*: two that were started together, each with one thread, against one with one thread, in
turn: images per second from the first shard to the last, so that starting and planning are not
counted. The ratio is that of the best of each, within one call.

*Images*: what ``run``, ``check`` and ``render`` need at most of memory, file handles and threads
for ten times as many images and shards (1,000 of them), and how much longer they take (Linux).

*Large*: the same commands once, over 100,000 tiny images, and the report opened in a browser; it
takes about half an hour and is measured only where it is named.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from exporter.store import open_run

_SHARD = 32
_LARGE = ("--model", "torchvision:resnet18", "--weights", "none", "--shard-size", str(_SHARD))
_ASKED = ("--batch-size", "8", "--writer", "html", "--workers", "0")


def small() -> nn.Module:
    """Return a model that costs little beside reading and writing."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, 4), nn.ReLU(), nn.Conv2d(8, 16, 3, 4), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))


def _photographs(folder: Path, count: int, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0)
    folder.mkdir()
    for index in range(count):
        coarse = noise.integers(0, 255, (12, 16, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / f"{index:06d}.jpg"), cv2.resize(coarse, size))


def _started(command: list[str]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, *command], env=environment, stdout=subprocess.DEVNULL)


def _rate(images: Path, out: Path, processes: int) -> float:
    """Return images per second between the first shard that is stored and the last."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [*(launcher if processes > 1 else []), "-m", "exporter", "run", *_LARGE, *_ASKED]
    if _started([*command, "--images", str(images), "--out", str(out)]).wait():
        raise SystemExit(f"{out} was not finished")
    run = open_run(out)
    times = sorted((out / f"shards/{n:05d}.parquet").stat().st_mtime for n in run.shards)
    # Those that were stored first began together; what they took is not seen.
    counted = (len(times) - processes) * _SHARD
    return counted / (times[-1] - times[processes - 1])


def measure_processes(count: int, repeats: int, processes: int = 2) -> dict[str, object]:
    """Measure one process and several in turn; return rates and the ratio of the best."""
    rates: dict[int, list[float]] = {1: [], processes: []}
    with tempfile.TemporaryDirectory() as place:
        images = Path(place) / "images"
        _photographs(images, count, (320, 240))
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


def _needs(command: list[str]) -> dict[str, float]:
    """Return what a command needs at most, and its seconds, by the clock and of the processor."""
    begun = time.perf_counter()
    process = _started(["-m", "exporter", *command])
    most = {"MB": 0.0, "file handles": 0.0, "threads": 0.0}
    here = Path("/proc") / str(process.pid)
    ended = 0
    while not ended:
        with suppress(OSError, KeyError):  # it has just ended
            lines = (here / "status").read_text().splitlines()
            status = dict(line.split(":", 1) for line in lines)
            now = {
                "MB": int(status["VmHWM"].split()[0]) / 1000,
                "file handles": len(list((here / "fd").iterdir())),
                "threads": int(status["Threads"]),
            }
            most = {name: max(value, most[name]) for name, value in now.items()}
        time.sleep(0.05)
        ended, code, used = os.wait4(process.pid, os.WNOHANG)
    process.returncode = os.waitstatus_to_exitcode(code)
    if process.returncode:
        raise SystemExit(f"exporter {' '.join(command)} ended with {process.returncode}")
    seconds = {"seconds": time.perf_counter() - begun}
    needed = {**most, **seconds, "processor seconds": used.ru_utime + used.ru_stime}
    print(command[0], json.dumps(needed), file=sys.stderr)  # it may be long until all is measured
    return needed


def _commands(place: Path, count: int, side: int, shard: int) -> dict[str, dict[str, float]]:
    """Return what run, check and render need for so many images of so many pixels."""
    images, out = place / str(count), place / f"{count}-run"
    _photographs(images, count, (side, side))
    small = ["--model", "benchmarks.scale:small", "--shard-size", str(shard), *_ASKED]
    run = _needs(["run", *small, "--images", str(images), "--out", str(out)])
    totals = open_run(out).totals
    assert totals is not None, "the command ended with 0"
    return {
        "run": {**run, "computing": totals.seconds},
        "check": _needs(["check", str(out)]),
        "render": _needs(["render", str(out), "--writer", "html"]),
    }


def measure_images(count: int) -> dict[str, object]:
    """Measure a run, and one of ten times as many images and shards."""
    with tempfile.TemporaryDirectory() as place:
        needs = {n: _commands(Path(place), n, 96, 10) for n in (count, 10 * count)}
    few, many = needs.values()
    return {
        "needs at most": {str(number): measured for number, measured in needs.items()},
        "ratios": {
            command: {name: many[command][name] / few[command][name] for name in few[command]}
            for command in few
        },
    }


def measure_large(count: int) -> dict[str, object]:
    """Measure a run of many tiny images, and how long its report takes to open in a browser."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium")
    if program is None:
        raise SystemExit("chromium is not installed; the report is opened in it")
    with tempfile.TemporaryDirectory() as place:
        needs = _commands(Path(place), count, 24, 100)
        opened = {}
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=program, args=["--no-sandbox", "--disable-gpu"]
            )
            for name in ("index.html", "images.html"):
                page = browser.new_page()
                begun = time.perf_counter()
                page.goto((Path(place) / f"{count}-run/html/{name}").as_uri())
                opened[name] = time.perf_counter() - begun
                if not page.locator("h1").first.inner_text():
                    raise SystemExit(f"{name} shows nothing")
            browser.close()
    return {"images": count, "needs at most": needs, "seconds to open": opened}


def main() -> None:
    """Print what was measured, as JSON or in words."""
    parser = argparse.ArgumentParser(description="Measure how a run grows.")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", choices=["processes", "images", "large"])
    parser.add_argument("--images", type=int, help="of the smaller run")
    parser.add_argument("--repeats", type=int, default=2)
    asked = parser.parse_args()
    measured: dict[str, dict[str, object]] = {}
    if asked.only in (None, "processes"):
        measured["processes"] = measure_processes(asked.images or 448, asked.repeats)
    if asked.only in (None, "images"):
        measured["images"] = measure_images(asked.images or 1000)
    if asked.only == "large":
        measured["large"] = measure_large(asked.images or 100_000)
    if asked.json:
        print(json.dumps(measured, indent=1))
        return
    for what, numbers in measured.items():
        print(f"{what}: {numbers.get('ratio', numbers.get('ratios', numbers))}")


if __name__ == "__main__":
    main()
