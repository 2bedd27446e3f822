"""The dear methods here and in captum or pytorch-grad-cam: time, memory and agreement.

Every case runs in a process of its own, on one thread, ResNet-18 with fixed random weights and a
batch of photographs; the lesser of two times counts, the peak is the process's resident memory
above what it held with model and images loaded. ``bare`` is the time, as a multiple of it, that the
forwards (and backwards) of the definition take alone; a method that runs only the rest of the model
behind a layer stays below 1. The largest difference is relative to the map's range; SmoothGrad
draws other noise here and there, so its difference says nothing, and pytorch-grad-cam scales its
maps to the image and to [0, 1], so theirs is not compared. ``together`` asks for the five pixel
methods at once, of captum one after the other.

``scorecam`` explains ResNet-50's layer4 for 16 images of 224 pixels, the strongest 8 channels of
each; how much it holds at once does not depend on how many channels there are.

    python -m benchmarks.attributions --json        # or python -m benchmarks.peers --methods
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Sequence
from math import inf, isfinite
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.fixtures import photographs_at, prepared, without_inplace
from exporter.explain import compute_maps

METHODS = {
    "saliency": "saliency",
    "integratedgradients": "integratedgradients:steps=50",
    "smoothgrad": "smoothgrad:samples=16,noise=0.15",
    "guidedbackprop": "guidedbackprop",
    "occlusion": "occlusion:window=56,stride=28",
}
CAMS = {
    "scorecam": ("scorecam", "ScoreCAM"),
    "ablationcam": ("ablationcam", "AblationCAM"),
    "fullgrad": ("fullgrad", "FullGrad"),
}
"""Ours, at layer4 or of the whole model, and the class of pytorch-grad-cam."""
BARE = {
    "saliency": (0, 1), "integratedgradients": (0, 50), "smoothgrad": (0, 16),
    "guidedbackprop": (0, 1), "occlusion": (10, 0), "scorecam": (513, 0), "ablationcam": (513, 0),
    "fullgrad": (0, 1),
}  # fmt: skip
"""Forwards alone, and with a backward to the image, that the definition takes of a batch."""
IMAGES = 4
CLASS = 1
SIDE = 112
REPEATS = 2
LIMIT = 4.0
"""Gibibytes that Score-CAM may hold (16 images, ResNet-50, layer4)."""

Peer = Callable[[nn.Module, Tensor], Tensor]


def ours(methods: Sequence[str]) -> Callable[[nn.Module, Tensor], list[Tensor]]:
    """Return a function that explains a batch with methods of this program."""

    def explain(module: nn.Module, images: Tensor) -> list[Tensor]:
        targets = [CLASS] * len(images)
        maps = compute_maps(module, images, maps=methods, layers=["layer4"], targets=targets)
        return list(maps.values())

    return explain


def cams() -> dict[str, Peer]:
    """Return pytorch-grad-cam's methods of the same names."""
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    def called(name: str) -> Peer:
        def explain(module: nn.Module, images: Tensor) -> Tensor:
            targets = [ClassifierOutputTarget(CLASS)] * len(images)
            with getattr(pytorch_grad_cam, name)(module, [module.get_submodule("layer4")]) as cam:
                return torch.from_numpy(cam(images, targets))

        return explain

    return {name: called(theirs) for name, (_, theirs) in CAMS.items()}


def captums() -> dict[str, Peer]:
    """Return captum's methods of the same names, with the same settings."""
    from captum import attr

    def noisy(module: nn.Module, images: Tensor) -> Tensor:
        spread = float((images.amax() - images.amin()) * 0.15)
        tunnel = attr.NoiseTunnel(attr.Saliency(module))
        explained: Tensor = tunnel.attribute(
            images, nt_type="smoothgrad", nt_samples=16, stdevs=spread, target=CLASS, abs=False
        )
        return explained

    def slid(module: nn.Module, images: Tensor) -> Tensor:
        explained: Tensor = attr.Occlusion(module).attribute(
            images, (3, 56, 56), strides=(3, 28, 28), target=CLASS
        )
        return explained

    return {
        "saliency": lambda m, x: attr.Saliency(m).attribute(x, target=CLASS, abs=False),
        "integratedgradients": lambda m, x: attr.IntegratedGradients(m).attribute(
            x, target=CLASS, n_steps=50
        ),
        "smoothgrad": noisy,
        "guidedbackprop": lambda m, x: attr.GuidedBackprop(m).attribute(x, target=CLASS),
        "occlusion": slid,
    }


def subject() -> tuple[nn.Module, Tensor]:
    """Return ResNet-18 without ReLU in place, as captum needs it, and a batch of photographs."""
    from torchvision import models

    torch.manual_seed(0)
    module = without_inplace(prepared(models.resnet18(weights=None)))
    return module, photographs_at(SIDE, SIDE)[:IMAGES]


def _peak() -> float:
    """Return the most memory that this process has held, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _measure(whose: str, names: Sequence[str]) -> dict[str, Any]:
    torch.set_num_threads(1)
    module, images = subject()
    peers = captums() | cams() if whose == "peer" else {}
    mine = ours([METHODS[name] if name in METHODS else CAMS[name][0] for name in names])
    held, times, maps = _peak(), [], [torch.empty(0)]
    for _ in range(REPEATS):
        start = time.perf_counter()
        if whose == "peer":
            maps = [peers[name](module, images).detach() for name in names]
        else:
            maps = mine(module, images)
        times.append(time.perf_counter() - start)
    return {"seconds": min(times), "gib": _peak() - held, "maps": [one.numpy() for one in maps]}


def _bare(name: str) -> dict[str, Any]:
    """Return the seconds of the forwards and backwards that a definition takes of a batch."""
    torch.set_num_threads(1)
    module, images = subject()
    forwards, both = BARE[name]
    given = images.clone().requires_grad_()

    def step(backward: bool) -> None:
        with torch.set_grad_enabled(backward):
            scores = module(given if backward else images)[:, CLASS]
            if backward:
                torch.autograd.grad(scores.sum(), given)

    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        for number in range(forwards + both):
            step(backward=number >= forwards)
        seconds.append(time.perf_counter() - start)
    return {"seconds": min(seconds)}


def _ascent(steps: int) -> dict[str, Any]:
    """Compare maximised channels with the steps alone: a forward and a backward each."""
    from exporter.config import PreprocessingConfig
    from exporter.maximise import make_pictures
    from exporter.maximise.requests import Wanted, parse_request
    from exporter.models import adopt

    torch.set_num_threads(1)
    module, images = subject()
    record = adopt(
        module, name="resnet18", preprocessing=PreprocessingConfig(size=SIDE), classes=None
    ).record
    settings = parse_request(f"layer3:0:steps={steps}", 0).settings
    group = Wanted("layer3", tuple(range(IMAGES)), 0, settings)
    given, seen = images.clone().requires_grad_(), []
    hook = module.get_submodule("layer3").register_forward_hook(
        lambda _module, _inputs, output: seen.append(output)
    )
    start = time.perf_counter()
    for _ in range(steps):
        seen.clear()
        module(given)
        torch.autograd.grad(seen[0][:, 0].mean(), given)
    bare = time.perf_counter() - start
    hook.remove()
    start = time.perf_counter()
    make_pictures(module, record, group, together=IMAGES)
    seconds = time.perf_counter() - start
    return {
        "seconds": round(seconds, 2),
        "bare_seconds": round(bare, 2),
        "bare": round(seconds / bare, 2),
    }


def _scorecam(channels: int) -> dict[str, Any]:
    from torchvision import models

    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = prepared(models.resnet50(weights=None))
    images = photographs_at(224, 224).repeat(4, 1, 1, 1)
    held, start = _peak(), time.perf_counter()
    compute_maps(
        module,
        images,
        maps=[f"scorecam:channels={channels}"],
        layers=["layer4"],
        targets=[CLASS] * 16,
    )
    return {
        "channels": channels,
        "gib": round(_peak() - held, 2),
        "process_gib": round(_peak(), 2),
        "limit_gib": LIMIT,
        "seconds": round(time.perf_counter() - start, 1),
    }


def _apart(task: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Run a task in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(task, arguments)


def compare(names: Sequence[str]) -> dict[str, Any]:
    """Measure some methods together, here and in the other library."""
    here, there = _apart(_measure, "ours", names), _apart(_measure, "peer", names)
    figures = {
        "seconds": round(here["seconds"], 2),
        "peer_seconds": round(there["seconds"], 2),
        "ratio": round(there["seconds"] / here["seconds"], 2),
        "gib": round(here["gib"], 2),
        "peer_gib": round(there["gib"], 2),
    }
    if names[1:]:
        return figures
    (name,) = names
    figures["bare"] = round(here["seconds"] / _apart(_bare, name)["seconds"], 2)
    if name in METHODS:
        (mine,), (other,) = here["maps"], there["maps"]
        # A method that does not tell channels apart gives one; captum repeats it.
        gap = abs(mine - other).max() / (other.max() - other.min())
        figures["apart"] = float(gap) if isfinite(gap) else inf
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit status: 1 where Score-CAM holds too much."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.attributions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    parser.add_argument("--channels", type=int, default=8, help="of Score-CAM's")
    given = parser.parse_args(arguments)
    found: dict[str, Any] = {}
    for name in (*METHODS, *CAMS):
        found[name] = compare([name])
        print(name, found[name], file=sys.stderr, flush=True)
    found["together"] = compare(list(METHODS))
    found["maximise"] = _apart(_ascent, 32)
    found["scorecam's memory"] = held = _apart(_scorecam, given.channels)
    print(json.dumps(found, indent=1 if given.json else None))
    return int(held["process_gib"] >= LIMIT)


if __name__ == "__main__":
    sys.exit(main())
