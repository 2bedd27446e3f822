"""Segmentation and detection models of `benchmarks.coverage`: how they are built and looked at.

Every model is built with random weights (nothing is fetched), its layers and its target are left
to the exporter, and Grad-CAM, LayerCAM and HiResCAM of one picture are made; each has to be finite
and not constant at every layer taken. Then the moving patch of `benchmarks.following` is explained
for one class: of a segmentation its mean logit over the plane, of a detector its mean score over
all candidates before suppression, because random weights let no box survive, and because the best
candidate of an almost flat picture may lie anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.following import Scores, check
from exporter.explain import compute_maps
from exporter.targets import Scorer, locate_output, parse_target, watching
from exporter.targets.detection import is_detections

MAPS = ("gradcam", "layercam", "hirescam")
SIDE = 224
"""Of the pictures, in pixels, and of what a detector makes of them."""


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


def build(name: str) -> tuple[nn.Module, int]:
    """Build a torchvision model with random weights, and say the side of its pictures."""
    import torchvision

    options: dict[str, Any] = {"weights": None, "weights_backbone": None}
    if name in detection_models() and not name.startswith("ssd"):
        options |= {"min_size": SIDE, "max_size": SIDE}
    model: nn.Module = torchvision.models.get_model(name, **options).eval()
    # Two pictures: a pooled plane of one place has no spread of its own.
    calibrate(model, torch.cat((picture(SIDE), picture(SIDE).flip(3))))
    return model, SIDE


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


def look(module: nn.Module, side: int) -> dict[str, Any]:
    """Explain one picture with everything left to the exporter, and then the moving patch.

    Args:
        module: from `build`.
        side: of its pictures.

    Returns:
        As `benchmarks.coverage.covered`, and ``target``: what was explained of the picture.
    """
    image = picture(side)
    maps = compute_maps(module, image, maps=MAPS)
    with torch.no_grad(), watching(module):
        output = module(image)
        scored = Scorer(parse_target("predicted", ()))(output, torch.full((1,), -1))
    unfit = [
        f"{method} at {layer} is {'constant' if one.isfinite().all() else 'not finite'}"
        for (method, layer), one in maps.items()
        if not one.isfinite().all() or bool(one.min() == one.max())
    ]
    if is_detections(output):
        with _candidates(module) as scores:
            found = check(module, size=(side, side), scores=scores)
    else:
        found = check(module, size=(side, side), scores=_mean_logits)
    entry = found.entry() | {"target": f"{scored.reading.named}:{int(scored.targets[0, 0])}"}
    return entry | {"why": "; ".join(unfit) or entry["why"]}


def _mean_logits(output: Any) -> Tensor:
    return locate_output(output, None)[0].mean((2, 3))


@contextmanager
def _candidates(module: nn.Module) -> Iterator[Scores]:
    """Within the block, read what a detector's head gives, whatever becomes of it."""
    regions: Any = getattr(module, "roi_heads", None)
    head: Any = getattr(module, "head", None) if regions is None else regions.box_predictor
    given: list[Any] = []
    counts: list[list[int]] = []
    handles = [head.register_forward_hook(lambda _module, _inputs, output: given.append(output))]
    if regions is not None:
        handles.append(
            regions.register_forward_pre_hook(
                lambda _module, inputs: counts.append([len(boxes) for boxes in inputs[1]])
            )
        )

    def scores(_output: Any) -> Tensor:
        raw = given.pop()
        if regions is None:
            logits: Tensor = raw["cls_logits"]
            return logits.sigmoid().mean(1)
        return torch.stack([one.sigmoid().mean(0) for one in raw[0].split(counts.pop())])

    try:
        yield scores
    finally:
        for handle in handles:
            handle.remove()
