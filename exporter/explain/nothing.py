"""Maps that are zero everywhere, and why: none goes out without a word."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from exporter.explain.batches import BatchMaps
from exporter.maps import Method
from exporter.targets import Scored


def zero_maps(explained: BatchMaps, methods: Sequence[Method], first: int = 0) -> list[str]:
    """Say which images' maps are zero everywhere, a sentence for each reason; waits for the device.

    Args:
        explained: a batch.
        methods: those asked for.
        first: number of its first image.
    """
    maps = {
        (method, layer): torch.stack(each, 1)
        for layer, here in explained.maps.items()
        for method, each in here.items()
    } | {(method, ""): values for method, values in explained.pixels.items()}
    if not maps or next(iter(maps.values())).is_meta:
        return []
    names = [method.name for method in methods]
    empty = torch.stack([(values == 0).flatten(2).all(2) for values in maps.values()]).cpu()
    if not bool(empty.any()):
        return []
    said: dict[str, dict[str, set[int]]] = {}
    unfound, why = _unfound(explained.scored)
    for (method, layer), here in zip(maps, empty, strict=True):
        for image, target in here.nonzero().tolist():
            reason = why if unfound[image, target] else _OTHERWISE
            where = f"{method} at {layer}" if layer else method
            if method in names:
                said.setdefault(reason, {}).setdefault(where, set()).add(first + image)
    return [_sentence(where, reason) for reason, where in said.items()]


_OTHERWISE = "what is explained does not depend on them, or all of their activations are zero"


def _unfound(scored: Scored) -> tuple[Tensor, str]:
    """Say which targets an image has not, bool (N, T), and in words what it has not."""
    targets, region = scored.targets, scored.reading.region
    if region is not None:
        empty = ~region(targets.clamp(min=0)).flatten(2).any(2)
        why = "no position is predicted as what is explained (the target 'plane' averages over all)"
        return empty.expand(targets.shape).cpu(), why
    boxes = scored.reading.present is not None
    return ((targets < 0) & boxes).cpu(), "the model finds no such box there"


def _sentence(where: dict[str, set[int]], reason: str) -> str:
    images = sorted(set().union(*where.values()))
    several = ", ".join(map(str, images[:10])) + ", …" * (len(images) > 10)
    which = f"image {several}" if len(images) == 1 else f"images {several}"
    return f"{', '.join(where)}: maps of {which} are zero everywhere: {reason}"
