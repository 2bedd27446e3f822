"""Which segmentation and detection models are explained with no configuration at all.

    python -m benchmarks.coverage_outputs --json

Every model is built with random weights (nothing is fetched), its layers and its target are left
to the exporter, and Grad-CAM, LayerCAM and HiResCAM of one small picture are made. A model counts
where each method has a map that is finite and not constant at every layer taken. Of a detector, the
best candidate before suppression is explained, because random weights let no box survive.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from exporter.explain import compute_maps
from exporter.models import Scorer, parse_target, watching

MAPS = ("gradcam", "layercam", "hirescam")
SEGMENTATION_SIDE = 64
DETECTION_SIDE = 96


def segmentation_models() -> tuple[str, ...]:
    """Return the names of torchvision's segmentation models."""
    return _listed("segmentation")


def detection_models() -> tuple[str, ...]:
    """Return the names of torchvision's detection models."""
    return _listed("detection")


def _listed(family: str) -> tuple[str, ...]:
    import torchvision

    module = getattr(torchvision.models, family)
    return tuple(torchvision.models.list_models(module=module))


def build(name: str) -> nn.Module:
    """Build a torchvision model with seeded random weights, its detector at a small size."""
    import torchvision

    torch.manual_seed(0)
    options: dict[str, Any] = {"weights": None, "weights_backbone": None}
    if name in detection_models() and not name.startswith("ssd"):
        options |= {"min_size": DETECTION_SIDE, "max_size": DETECTION_SIDE}
    model: nn.Module = torchvision.models.get_model(name, **options).eval()
    # Two pictures: a pooled plane of one place has no spread of its own.
    calibrate(model, torch.cat((picture(side_of(name)), picture(side_of(name)).flip(3))))
    return model


def side_of(name: str) -> int:
    """Return the side of the picture a model is tried on, in pixels."""
    return DETECTION_SIDE if name in detection_models() else SEGMENTATION_SIDE


def picture(side: int) -> Tensor:
    """Return a seeded picture in [0, 1], smooth blobs with texture, (1, 3, side, side)."""
    noise = torch.Generator().manual_seed(1)
    coarse = torch.rand(1, 3, 5, 5, generator=noise)
    smooth = nn.functional.interpolate(coarse, (side, side), mode="bicubic")
    return (smooth + 0.15 * torch.rand(1, 3, side, side, generator=noise)).clamp(0, 1)


def calibrate(model: nn.Module, images: Tensor) -> None:
    """Give random weights outputs that depend on the picture.

    Every BatchNorm takes the statistics of a few pictures, and a last layer that starts near zero
    (detectors' heads do) is drawn anew.
    """
    norms = [one for one in model.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.training, norm.momentum = True, None
        norm.reset_running_stats()
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and float(module.weight.detach().std()) < 0.011:
            nn.init.kaiming_normal_(module.weight)
    with torch.no_grad():
        model(images)
    for norm in norms:
        norm.training = False
    for name, module in model.named_modules():
        if name.endswith("cls_score") and isinstance(module, nn.Linear):
            _tame(model, module, images)


def _tame(model: nn.Module, head: nn.Linear, images: Tensor) -> None:
    """Centre a detector's random logits over its proposals, and scale the largest to 1.

    Otherwise the surest box may be one without any features, which nothing explains, and two
    classes may be so far apart that a probability is exactly 1.
    """
    seen: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(images)
        handle.remove()
        usual = seen[0].mean(0)
        head.bias.zero_()
        head.weight -= torch.outer(head.weight @ usual, usual) / usual.square().sum()
        head.weight /= head(seen[0]).abs().max()


def explain(name: str, model: nn.Module) -> dict[str, Any]:
    """Explain one picture with everything left to the exporter.

    Returns:
        ``ok``, ``why`` (of a failure), ``layers`` (a map's shape a layer), ``kind`` of the target,
        and ``seconds``.
    """
    start = time.perf_counter()
    image = picture(side_of(name))
    found: dict[str, Any] = {"ok": False, "why": "", "layers": {}, "kind": ""}
    try:
        maps = compute_maps(model, image, maps=MAPS)
        with torch.no_grad(), watching(model):
            scored = Scorer(parse_target("predicted", ()))(model(image), torch.full((1,), -1))
        found["kind"] = f"{scored.reading.named}:{int(scored.targets[0, 0])}"
        found["layers"] = {layer: list(one.shape[1:]) for (_, layer), one in maps.items()}
        wrong = [
            f"{method} at {layer} is {'constant' if one.isfinite().all() else 'not finite'}"
            for (method, layer), one in maps.items()
            if not one.isfinite().all() or bool(one.min() == one.max())
        ]
        found["ok"], found["why"] = not wrong, "; ".join(wrong)
    except Exception as error:  # a failure is what is looked for
        found["why"] = f"{type(error).__name__}: {error}"
    found["seconds"] = round(time.perf_counter() - start, 1)
    return found


def cover(
    names: Iterable[str], tell: Callable[[str, dict[str, Any]], None] | None = None
) -> dict[str, Any]:
    """Try models one at a time.

    Args:
        names: torchvision names.
        tell: told of each model as it is done.

    Returns:
        ``ok``, ``of``, ``failed`` (why, by name) and ``models`` (see `explain`).
    """
    models: dict[str, dict[str, Any]] = {}
    for name in names:
        models[name] = explain(name, build(name))
        gc.collect()
        if tell is not None:
            tell(name, models[name])
    failed = {name: one["why"] for name, one in models.items() if not one["ok"]}
    return {
        "ok": len(models) - len(failed),
        "of": len(models),
        "failed": failed,
        "models": models,
    }


GROUPS: dict[str, Callable[[], tuple[str, ...]]] = {
    "torchvision_segmentation": segmentation_models,
    "torchvision_detection": detection_models,
}
"""Group of the coverage, and the names in it."""


def main(arguments: list[str] | None = None) -> int:
    """Try both groups; exit 1 where a model is not explained."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    parser.add_argument("--only", default="", help="only models whose name holds this")
    options = parser.parse_args(arguments)

    def tell(name: str, one: dict[str, Any]) -> None:
        verdict = "ok" if one["ok"] else "FAILED"
        layers = ", ".join(f"{layer} {'×'.join(map(str, s))}" for layer, s in one["layers"].items())
        print(
            f"{verdict} {name} ({one['seconds']} s) {one['kind']}: {layers} {one['why']}",
            file=sys.stderr if options.json else sys.stdout,
            flush=True,
        )

    made = {
        group: cover([name for name in names() if options.only in name], tell)
        for group, names in GROUPS.items()
    }
    if options.json:
        print(json.dumps(made, indent=1))
    return int(any(group["failed"] for group in made.values()))


if __name__ == "__main__":
    sys.exit(main())
